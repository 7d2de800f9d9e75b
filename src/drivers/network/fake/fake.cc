#include "drivers/network/fake/fake.h"

#include <fmt/format.h>

#include <algorithm>

namespace virga::network {
namespace {

bool same(const NicSpec& a, const NicSpec& b) {
  return a.guest_id == b.guest_id && a.mac == b.mac && a.ipv4 == b.ipv4 && a.ipv6 == b.ipv6 && a.bridge == b.bridge;
}

}  // namespace

std::optional<Error> FakeDriver::failure(const std::string& call) {
  auto it = failures_.find(call);
  if (it == failures_.end()) return {};
  Error error = std::move(it->second);
  failures_.erase(it);
  return error;
}

Task<Result<>> FakeDriver::apply(BridgeSpec spec) {
  ++applies;
  if (auto error = failure("apply")) co_return fail(std::move(*error));
  if (std::find(other_interfaces.begin(), other_interfaces.end(), spec.bridge) != other_interfaces.end())
    co_return fail(ErrorKind::exists, fmt::format("interface '{}' exists and is not ours", spec.bridge));
  if (auto there = bridges.find(spec.bridge); there != bridges.end() && there->second.id != spec.id)
    co_return fail(ErrorKind::exists, fmt::format("interface '{}' belongs to network '{}'", spec.bridge, there->second.id));
  const auto name = spec.bridge;
  bridges.insert_or_assign(name, std::move(spec));
  co_return Result<>{};
}

Task<Result<>> FakeDriver::remove(BridgeSpec spec) {
  if (auto error = failure("remove")) co_return fail(std::move(*error));
  auto there = bridges.find(spec.bridge);
  if (there != bridges.end() && there->second.id == spec.id) bridges.erase(there);
  co_return Result<>{};
}

Result<> FakeDriver::plug(NicSpec nic, std::variant<TapTarget, NamespaceTarget> target) {
  if (auto error = failure("plug")) return fail(std::move(*error));
  if (!bridges.contains(nic.bridge)) return fail(ErrorKind::not_found, fmt::format("bridge '{}' does not exist", nic.bridge));
  auto there = nics.find(nic.host_name);
  if (there != nics.end() && there->second.spec.guest_id != nic.guest_id)
    return fail(ErrorKind::exists, fmt::format("interface '{}' belongs to another guest", nic.host_name));
  if (there != nics.end() && same(there->second.spec, nic)) return {};
  const auto name = nic.host_name;
  nics.insert_or_assign(name, Nic{std::move(nic), std::move(target)});
  return {};
}

Task<Result<>> FakeDriver::plug_tap(NicSpec nic, TapTarget target) {
  co_return plug(std::move(nic), target);
}

Task<Result<>> FakeDriver::plug_namespace(NicSpec nic, NamespaceTarget target) {
  co_return plug(std::move(nic), std::move(target));
}

Task<Result<>> FakeDriver::unplug(std::string host_name) {
  if (auto error = failure("unplug")) co_return fail(std::move(*error));
  nics.erase(host_name);
  co_return Result<>{};
}

Task<Result<BridgeState>> FakeDriver::observe(std::string bridge) {
  auto it = bridges.find(bridge);
  if (it == bridges.end()) co_return fail(ErrorKind::not_found, fmt::format("bridge '{}' does not exist", bridge));
  BridgeState out;
  out.up = true;
  out.mac = "0a:00:00:00:00:01";
  out.mtu = it->second.mtu;
  for (const auto* cidr : {&it->second.ipv4_cidr, &it->second.ipv6_cidr}) {
    const auto slash = cidr->find('/');
    if (slash == std::string::npos) continue;
    out.addresses.push_back(
        {cidr->find(':') == std::string::npos ? "inet" : "inet6", cidr->substr(0, slash), cidr->substr(slash + 1), "global"});
  }
  for (const auto& [name, nic] : nics)
    if (nic.spec.bridge == bridge) out.ports.push_back(name);
  co_return out;
}

Task<Result<std::vector<std::string>>> FakeDriver::host_subnets() {
  auto out = subnets;
  for (const auto& [name, spec] : bridges)
    for (const auto* cidr : {&spec.ipv4_cidr, &spec.ipv6_cidr})
      if (!cidr->empty()) out.push_back(*cidr);
  co_return out;
}

Task<Result<bool>> FakeDriver::interface_exists(std::string name) {
  co_return bridges.contains(name) || nics.contains(name) ||
      std::find(other_interfaces.begin(), other_interfaces.end(), name) != other_interfaces.end();
}

Task<Result<std::vector<std::string>>> FakeDriver::list_nics() {
  std::vector<std::string> out;
  out.reserve(nics.size());
  for (const auto& [name, nic] : nics) out.push_back(name);
  co_return out;
}

Task<> FakeDriver::shut_down() {
  co_return;
}

}  // namespace virga::network
