// Which NIC has which addresses: the index in memory behind Networks' reserve() and forget(). Pure: no store, no driver, so that
// what is taken is taken at once. Private to this folder.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "engine/networks/service.h"

namespace virga::engine {

json::object encode(const NicAddresses& addresses);
Result<NicAddresses> decode_nic_addresses(const json::object& document);

class AddressBook {
 public:
  using Key = std::pair<std::string, std::string>;  ///< uuid of the instance, device
  /// Errors: invalid, exists, unavailable; as Networks::reserve.
  Result<NicAddresses> reserve(const NicRequest& request, const NetworkSettings& network);
  /// What the store holds. Errors: exists.
  Result<> insert(NicAddresses addresses);
  const NicAddresses* find(const std::string& uuid, const std::string& device) const;
  std::vector<NicAddresses> of(const std::string& uuid, const std::optional<std::string>& device = {}) const;
  /// All on a network, in order of instance and device.
  std::vector<NicAddresses> on(const std::string& network) const;
  bool any_on(const std::string& network) const;
  void erase(const std::string& uuid, const std::string& device);
  void rename(const std::string& uuid, const std::string& project, const std::string& instance);

 private:
  bool taken(const std::string& network, const std::string& address) const;
  Result<std::string> choose_mac(const NicRequest& request) const;
  Result<std::string> choose_ipv4(const NicRequest& request, const NetworkSettings& network, const Mac& mac) const;
  Result<std::string> choose_ipv6(const NicRequest& request, const NetworkSettings& network, const Mac& mac) const;

  std::map<Key, NicAddresses> nics_;
  std::set<std::string> macs_;
  std::map<std::string, std::set<std::string>> addresses_;  ///< network -> what is given out there
};

}  // namespace virga::engine
