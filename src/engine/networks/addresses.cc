#include "engine/networks/addresses.h"

#include <fmt/format.h>

#include "base/random.h"

namespace virga::engine {
namespace {

tl::unexpected<Error> taken_error(std::string field, const std::string& what) {
  auto message = fmt::format("{}: {} is in use by another NIC", field, what);
  return fail(Error(ErrorKind::exists, std::move(message)).with_field(std::move(field)));
}

}  // namespace

json::object encode(const NicAddresses& a) {
  return {{"project", a.project}, {"instance", a.instance}, {"uuid", a.uuid}, {"device", a.device},
          {"mac", a.mac},         {"ipv4", a.ipv4},         {"ipv6", a.ipv6}};
}

Result<NicAddresses> decode_nic_addresses(const json::object& document) {
  Fields f(document);
  NicAddresses out;
  VIRGA_TRY(out.project, f.string("project", "default"));
  VIRGA_TRY(out.instance, f.string("instance"));
  VIRGA_TRY(out.uuid, f.string("uuid"));
  VIRGA_TRY(out.device, f.string("device"));
  VIRGA_TRY(out.mac, f.string("mac"));
  VIRGA_TRY(out.ipv4, f.string("ipv4"));
  VIRGA_TRY(out.ipv6, f.string("ipv6"));
  return out;
}

bool AddressBook::taken(const std::string& network, const std::string& address) const {
  auto it = addresses_.find(network);
  return it != addresses_.end() && it->second.contains(address);
}

Result<std::string> AddressBook::choose_mac(const NicRequest& request) const {
  if (!request.mac.empty()) {
    auto mac = parse_mac(request.mac);
    if (!mac) return fail(std::move(mac).error().with_field("hwaddr"));
    if (macs_.contains(mac->text())) return taken_error("hwaddr", fmt::format("MAC address {}", mac->text()));
    return mac->text();
  }
  for (int attempt = 0; attempt < 1000; ++attempt) {
    const auto tail = random_hex(3);
    auto text = fmt::format("00:16:3e:{}:{}:{}", tail.substr(0, 2), tail.substr(2, 2), tail.substr(4, 2));
    if (!macs_.contains(text)) return text;
  }
  return fail(ErrorKind::unavailable, "no MAC address is free");
}

Result<std::string> AddressBook::choose_ipv4(const NicRequest& request, const NetworkSettings& network, const Mac& mac) const {
  if (!network.ipv4) {
    if (request.ipv4.empty()) return std::string();
    return invalid("ipv4.address", fmt::format("network '{}' has no IPv4", request.network));
  }
  const auto& own = *network.ipv4;
  if (!request.ipv4.empty()) {
    auto address = parse_ip(request.ipv4);
    if (!address) return fail(std::move(address).error().with_field("ipv4.address"));
    if (address->v6 || !own.contains(*address) || *address == own.subnet().address || *address == own.host(own.size() - 1))
      return invalid("ipv4.address", fmt::format("{} is no guest's address in network '{}' ({})", address->text(), request.network,
                                                 own.subnet().text()));
    if (*address == own.address) return taken_error("ipv4.address", fmt::format("address {} (the bridge's own)", address->text()));
    if (taken(request.network, address->text())) return taken_error("ipv4.address", fmt::format("address {}", address->text()));
    return address->text();
  }
  // Begins at a place that depends on the MAC: one that is deleted and made again gets its old address back, another one does not
  // soon get it, and caches of ARP and DNS have time to forget.
  const auto hosts = own.size() - 2;
  const auto first = std::stoull(sha256_hex(mac.text()).substr(0, 15), nullptr, 16) % hosts;
  for (std::uint64_t n = 0; n < hosts; ++n) {
    const auto address = own.host(1 + (first + n) % hosts);
    if (address == own.address) continue;
    auto text = address.text();
    if (!taken(request.network, text)) return text;
  }
  return fail(ErrorKind::unavailable,
              fmt::format("all IPv4 addresses of network '{}' ({}) are in use", request.network, own.subnet().text()));
}

Result<std::string> AddressBook::choose_ipv6(const NicRequest& request, const NetworkSettings& network, const Mac& mac) const {
  if (!network.ipv6) {
    if (request.ipv6.empty()) return std::string();
    return invalid("ipv6.address", fmt::format("network '{}' has no IPv6", request.network));
  }
  const auto& own = *network.ipv6;
  auto address = eui64(own, mac);
  if (!request.ipv6.empty()) {
    auto fixed = parse_ip(request.ipv6);
    if (!fixed) return fail(std::move(fixed).error().with_field("ipv6.address"));
    if (!fixed->v6 || !own.contains(*fixed) || *fixed == own.subnet().address)
      return invalid("ipv6.address", fmt::format("{} is no guest's address in network '{}' ({})", fixed->text(), request.network,
                                                 own.subnet().text()));
    address = *fixed;
  }
  if (address == own.address || taken(request.network, address.text()))
    return taken_error("ipv6.address", fmt::format("address {}", address.text()));
  return address.text();
}

Result<NicAddresses> AddressBook::reserve(const NicRequest& request, const NetworkSettings& network) {
  if (request.uuid.empty() || request.device.empty()) return fail(ErrorKind::internal, "a NIC without owner");
  if (const auto* has = find(request.uuid, request.device)) {
    const auto same = [](const std::string& wanted, const std::string& now) { return wanted.empty() || wanted == now; };
    if (has->network == request.network && same(request.mac, has->mac) && same(request.ipv4, has->ipv4) &&
        same(request.ipv6, has->ipv6))
      return *has;
    return fail(ErrorKind::exists, fmt::format("NIC '{}' of '{}' has other addresses already", request.device, request.instance));
  }
  NicAddresses out;
  out.network = request.network;
  out.project = request.project;
  out.instance = request.instance;
  out.uuid = request.uuid;
  out.device = request.device;
  VIRGA_TRY(out.mac, choose_mac(request));
  VIRGA_TRY(const auto mac, parse_mac(out.mac));
  VIRGA_TRY(out.ipv4, choose_ipv4(request, network, mac));
  VIRGA_TRY(out.ipv6, choose_ipv6(request, network, mac));
  VIRGA_CHECK(insert(out));
  return out;
}

Result<> AddressBook::insert(NicAddresses a) {
  if (nics_.contains({a.uuid, a.device}))
    return fail(ErrorKind::exists, fmt::format("NIC '{}' of '{}' has addresses already", a.device, a.uuid));
  if (macs_.contains(a.mac)) return taken_error("hwaddr", fmt::format("MAC address {}", a.mac));
  macs_.insert(a.mac);
  for (const auto* address : {&a.ipv4, &a.ipv6})
    if (!address->empty()) addresses_[a.network].insert(*address);
  Key key{a.uuid, a.device};
  nics_.emplace(std::move(key), std::move(a));
  return {};
}

const NicAddresses* AddressBook::find(const std::string& uuid, const std::string& device) const {
  auto it = nics_.find({uuid, device});
  return it == nics_.end() ? nullptr : &it->second;
}

std::vector<NicAddresses> AddressBook::of(const std::string& uuid, const std::optional<std::string>& device) const {
  std::vector<NicAddresses> out;
  for (auto it = nics_.lower_bound({uuid, ""}); it != nics_.end() && it->first.first == uuid; ++it)
    if (!device || it->first.second == *device) out.push_back(it->second);
  return out;
}

std::vector<NicAddresses> AddressBook::on(const std::string& network) const {
  std::vector<NicAddresses> out;
  for (const auto& [key, a] : nics_)
    if (a.network == network) out.push_back(a);
  return out;
}

bool AddressBook::any_on(const std::string& network) const {
  for (const auto& [key, a] : nics_)
    if (a.network == network) return true;
  return false;
}

void AddressBook::erase(const std::string& uuid, const std::string& device) {
  auto it = nics_.find({uuid, device});
  if (it == nics_.end()) return;
  const auto& a = it->second;
  macs_.erase(a.mac);
  auto& given = addresses_[a.network];
  given.erase(a.ipv4);
  given.erase(a.ipv6);
  if (given.empty()) addresses_.erase(a.network);
  nics_.erase(it);
}

void AddressBook::rename(const std::string& uuid, const std::string& project, const std::string& instance) {
  for (auto it = nics_.lower_bound({uuid, ""}); it != nics_.end() && it->first.first == uuid; ++it) {
    it->second.project = project;
    it->second.instance = instance;
  }
}

}  // namespace virga::engine
