// What the networks service keeps inside; private to this folder.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/journal/journal.h"
#include "engine/networks/addresses.h"
#include "engine/networks/service.h"

namespace virga::engine {

struct Networks::Impl {
  struct Entry {
    explicit Entry(Executor executor) : turn(std::move(executor)) {}
    Ptr network;
    bool removing = false;
    AsyncMutex turn;            ///< one apply of this network at a time
    std::uint64_t changed = 1;  ///< counts what the driver must be told
    std::uint64_t applied = 0;  ///< `changed` as of the last apply that worked
    bool poked = false;         ///< a task that applies is on its way
  };
  using EntryPtr = std::shared_ptr<Entry>;

  Impl(Parts p, Executor e) : parts(std::move(p)), executor(e), changes(e), tasks(e) {}

  static std::string key(const std::string& name) { return "/networks/" + name; }
  static std::string mac_key(const NicAddresses& a) { return "/network-addresses/" + a.network + "/mac/" + a.mac; }
  static std::string ip_key(const NicAddresses& a, const std::string& address) {
    return "/network-addresses/" + a.network + "/ip/" + address;
  }
  std::string directory(const std::string& name) const { return parts.state_dir + "/networks/" + name; }

  EntryPtr entry(const std::string& name) const;
  /// Takes over what the store holds; keeps the status.
  void put(Network network);
  void set_status(const std::string& name, NetworkStatus status, std::string error);

  /// What the driver is to make, addresses of all NICs included.
  Result<network::BridgeSpec> spec(const Network& network) const;
  Task<Result<>> apply(Network network);
  Task<Result<>> take_away(Network network);
  /// Returns when the driver knows everything that was changed before the call.
  Task<Result<>> sync(EntryPtr entry);
  /// The same in the background.
  void poke(const std::string& name);
  Task<> sync_in_background(EntryPtr entry);
  Task<> retry_failed();

  /// Replaces "auto", fills in what follows from it, and refuses subnets that are in use.
  Task<Result<>> settle_addresses(Network& network);
  Result<> check_allocations(const Network& before, const Network& after) const;
  Procedure create_procedure(const Network& network);
  Procedure remove_procedure(const Network& network);
  void register_kinds();

  Parts parts;
  Room room;
  Executor executor;
  std::map<std::string, EntryPtr> networks;
  AddressBook book;
  std::vector<std::function<std::vector<std::string>(const std::string&)>> users;
  std::function<void(const std::string&, const std::string&)> on_status;
  AsyncMutex changes;  ///< one create, update or remove at a time: their subnets must not overlap
  TaskGroup tasks;
  bool started = false;
};

}  // namespace virga::engine
