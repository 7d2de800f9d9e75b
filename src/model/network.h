// A network: a virtual switch with its addresses, DHCP, DNS and NAT. Services hand out immutable snapshots
// (std::shared_ptr<const Network>). Also the table of its configuration keys: a key that is not there is refused with the nearest
// that is.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/json.h"
#include "model/address.h"
#include "model/config.h"

namespace virga {

enum class NetworkStatus { created, errored };
std::string_view to_string(NetworkStatus status) noexcept;  ///< "Created", "Errored" as the API says it

struct Network {
  // Stored.
  std::string name;  ///< of the bridge interface too
  std::string type = "bridge";
  std::string description;
  Config config;              ///< "auto" is replaced by what was chosen
  std::int64_t revision = 0;  ///< of the document; not part of its text

  // Derived.
  NetworkStatus status = NetworkStatus::created;
  std::string error;  ///< why it is errored
};

json::object encode(const Network& network);
Result<Network> decode_network(const json::object& document);

struct NetworkKeyRule {
  std::string_view key;  ///< ends with '*': any key that begins so
  std::string_view type;
  std::string_view default_value;
  std::string_view description;
  Result<> (*check)(std::string_view value);
};
std::span<const NetworkKeyRule> network_keys();

/// Labels of letters, digits and dashes, with dots between them. Errors: invalid.
Result<> check_dns_domain(std::string_view value);

/// Name, type, keys and values. "auto" passes as an address. Errors: invalid, unsupported (type); field "config.<key>", "name",
/// "type".
Result<> check(const Network& network);

/// The configuration in types, defaults filled in. "auto" must have been replaced.
struct NetworkSettings {
  std::optional<Cidr> ipv4;  ///< the bridge's own address
  bool ipv4_nat = false;
  bool ipv4_dhcp = true;
  std::optional<Cidr> ipv6;
  bool ipv6_nat = false;
  bool ipv6_dhcp = true;
  std::string dns_domain = "virga";
  std::uint32_t mtu = 1500;
};
Result<NetworkSettings> settings(const Network& network);

}  // namespace virga
