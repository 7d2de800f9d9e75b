// Networks: the virtual switches, and the address of every NIC on them. The API changes networks here; engine/instances takes
// addresses for its guests' NICs and plugs them. Event loop only. Reads come from memory.
//
// Addresses live in documents of their own, so that an instance and its addresses are committed together:
//
//   auto a = networks.reserve(request);           // taken in memory at once: a hundred creates at the same time do not meet
//   Networks::put(procedure.intent, *a);          // documents, each expected to be absent
//   ... commit; where it fails: networks.forget(uuid)
//   networks.erase(transaction, uuid); ... commit; networks.forget(uuid)
//
//   /networks/<name>                              the network
//   /network-addresses/<network>/mac/<mac>        a NIC: its owner and addresses
//   /network-addresses/<network>/ip/<address>     whose address that is; keeps it unique
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/task.h"
#include "drivers/network/driver.h"
#include "engine/caller.h"
#include "model/network.h"
#include "store/store.h"

namespace virga::engine {

class Journal;
class Operations;
class Events;

struct CreateNetwork {
  std::string name;
  std::string type = "bridge";
  std::string description;
  Config config;  ///< addresses that are not given are "auto"
};

struct UpdateNetwork {
  std::optional<std::string> description;
  std::optional<Config> config;  ///< PATCH: an empty value takes the key away
  bool replace = true;           ///< PUT
};

/// Whose NIC it is.
struct NicRequest {
  std::string network;
  std::string project = "default";
  std::string instance;  ///< name; becomes the guest's name in DNS
  std::string uuid;      ///< of the instance
  std::string device;    ///< "eth0"
  std::string mac;       ///< fixed by the user, or kept from before; empty: one is made up
  std::string ipv4;      ///< the same
  std::string ipv6;
};

struct NicAddresses {
  std::string network, project, instance, uuid, device;
  std::string mac;
  std::string ipv4;  ///< empty: the network has no IPv4
  std::string ipv6;
};

class Networks {
 public:
  using Ptr = std::shared_ptr<const Network>;
  struct Parts {
    Store& store;
    Journal& journal;
    Operations& operations;
    Events& events;
    network::Driver& driver;
    std::string state_dir;  ///< the daemon's; each network gets STATE_DIR/networks/<name>
  };
  Networks(Parts parts, Executor executor);
  ~Networks();
  Networks(const Networks&) = delete;
  Networks& operator=(const Networks&) = delete;

  // --- reads ---
  Ptr find(const std::string& name) const;  ///< null where there is none
  std::vector<Ptr> list() const;            ///< in order of name
  /// Errors: not_found, unavailable.
  Task<Result<network::BridgeState>> state(std::string name);
  struct Lease {
    std::string host_name, mac, address, type, project;
  };
  /// What is given out, IPv4 and IPv6, the bridge's own address ("gateway") first. Errors: not_found.
  Result<std::vector<Lease>> leases(const std::string& name) const;
  /// URLs of instances and profiles that use it.
  std::vector<std::string> used_by(const std::string& name) const;
  /// The first is called when a network stops to work, with the reason, and with an empty one when it works again. With the second,
  /// who may use networks tells it: a function from a network's name to URLs. Called for every listing: must be quick.
  void on_status(std::function<void(const std::string& network, const std::string& error)> call);
  void add_users(std::function<std::vector<std::string>(const std::string& network)> users);

  /// May refuse one more network (limits.networks). Asked before it is made; what it returns lives until then.
  using Room = std::function<Result<std::shared_ptr<void>>()>;
  void set_room(Room room);

  // --- changes ---
  /// Errors: invalid, exists (the name, or an interface of that name that is not ours), conflict (its subnet is in use),
  /// unavailable.
  Task<Result<Ptr>> create(Caller caller, CreateNetwork request);
  /// Takes effect at once. `expected`: the revision the caller saw (If-Match). Errors: not_found, conflict, invalid, busy.
  Task<Result<>> update(Caller caller, std::string name, UpdateNetwork request, std::optional<std::int64_t> expected = {});
  /// Errors: not_found, busy (it has users).
  Task<Result<>> remove(Caller caller, std::string name);

  // --- addresses of NICs ---
  /// Takes addresses in memory; what the user did not fix is made up. A second call for the same uuid and device returns what it
  /// has. Errors: not_found (network), invalid, exists (a fixed address is taken), unavailable (the subnet is full).
  Result<NicAddresses> reserve(const NicRequest& request);
  static void put(Transaction& transaction, const NicAddresses& addresses);
  /// Deletes the documents of an instance's NIC, or of all its NICs. `forget` is called once that is committed.
  void erase(Transaction& transaction, const std::string& uuid, const std::optional<std::string>& device = {}) const;
  void forget(const std::string& uuid, const std::optional<std::string>& device = {});
  /// Renames the owner in DNS: documents first, then, committed, memory.
  void put_renamed(Transaction& transaction, const std::string& uuid, const std::string& project,
                   const std::string& instance) const;
  void renamed(const std::string& uuid, const std::string& project, const std::string& instance);
  std::vector<NicAddresses> addresses_of(const std::string& uuid) const;

  // --- NICs ---
  /// The host's interface name for a NIC: always the same for the same NIC, so that nothing needs to be remembered.
  static std::string host_interface(const std::string& uuid, const std::string& device);
  /// Plugs a NIC whose addresses are reserved; returns once DHCP and DNS know it. Idempotent. `mtu` 0: the network's.
  /// Errors: not_found, unavailable.
  Task<Result<>> plug(std::string uuid, std::string device, network::TapTarget target, std::uint32_t mtu = 0);
  Task<Result<>> plug(std::string uuid, std::string device, network::NamespaceTarget target, std::uint32_t mtu = 0);
  /// Absent is success.
  Task<Result<>> unplug(std::string uuid, std::string device);

  // --- life ---
  /// Reads the documents and registers how journal rows are taken up again. Order: load(), journal.recover(), start().
  Task<Result<>> load();
  /// Applies all networks. One that fails is shown as errored, is tried again now and then, and stops nothing else.
  Task<> start();
  /// Bridges, DHCP and NICs stay.
  Task<> shut_down();

 private:
  template <class Target>
  Task<Result<>> plug_target(std::string uuid, std::string device, Target target, std::uint32_t mtu);
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace virga::engine
