// The NICs of an instance: their addresses, which the networks service keeps, and their plugs.
#include <fmt/format.h>

#include "engine/instances/impl.h"
#include "engine/networks/service.h"

namespace virga::engine {

Result<> Instances::Impl::reserve_addresses(Instance& instance) {
  for (const auto& nic : nics_of(instance)) {
    NicRequest request;
    request.network = nic.network;
    request.project = instance.project;
    request.instance = instance.name;
    request.uuid = instance.uuid;
    request.device = nic.device;
    request.mac = nic.mac;
    request.ipv4 = nic.ipv4;
    request.ipv6 = nic.ipv6;
    auto taken = parts.networks.reserve(request);
    if (!taken) {
      const auto field = std::string(taken.error().field());
      auto error = std::move(taken).error().wrap(fmt::format("NIC '{}'", nic.device));
      return fail(field.empty() ? std::move(error).with_field("devices." + nic.device) : std::move(error));
    }
    // A fixed address stays in the device; one that was made up is kept here, so that it survives a copy of the configuration.
    if (instance.expanded_devices.at(nic.device).count("hwaddr") == 0)
      instance.config["volatile." + nic.device + ".hwaddr"] = taken->mac;
  }
  for (const auto& [key, value] : instance.config)
    if (key.starts_with("volatile.")) instance.expanded_config[key] = value;
  return {};
}

void Instances::Impl::put_addresses(const Instance& instance, Transaction& t) const {
  for (const auto& addresses : parts.networks.addresses_of(instance.uuid)) Networks::put(t, addresses);
}

Task<Result<Instances::Ptr>> Instances::Impl::ensure_addresses(Ptr instance) {
  // A profile may have got or lost a NIC while the instance was stopped.
  const auto have = parts.networks.addresses_of(instance->uuid);
  const auto want = nics_of(*instance);
  auto matches = [&](const NicDevice& nic) {
    return std::any_of(have.begin(), have.end(), [&](const auto& a) {
      return a.device == nic.device && a.network == nic.network && (nic.mac.empty() || a.mac == nic.mac) &&
             (nic.ipv4.empty() || a.ipv4 == nic.ipv4) && (nic.ipv6.empty() || a.ipv6 == nic.ipv6);
    });
  };
  if (have.size() == want.size() && std::all_of(want.begin(), want.end(), matches)) co_return instance;

  Instance changed = *instance;
  for (const auto& old : have) {
    const bool kept =
        std::any_of(want.begin(), want.end(), [&](const auto& nic) { return nic.device == old.device && matches(nic); });
    if (kept) continue;
    Transaction gone;
    parts.networks.erase(gone, instance->uuid, old.device);
    auto erased = co_await parts.store.commit(std::move(gone));
    if (!erased) co_return fail(std::move(erased).error());
    parts.networks.forget(instance->uuid, old.device);
  }
  auto forget_new = [&] {
    for (const auto& nic : want)
      if (!matches(nic)) parts.networks.forget(changed.uuid, nic.device);
  };
  if (auto reserved = reserve_addresses(changed); !reserved) {
    forget_new();
    co_return fail(std::move(reserved).error());
  }
  Transaction t;
  for (const auto& nic : want) {
    if (matches(nic)) continue;
    for (const auto& a : parts.networks.addresses_of(changed.uuid))
      if (a.device == nic.device) Networks::put(t, a);
  }
  t.put(document_key(changed.project, changed.name), json::serialize(encode(changed)));
  auto committed = co_await parts.store.commit(std::move(t));
  if (!committed) {
    forget_new();
    co_return fail(std::move(committed).error());
  }
  co_return put(std::move(changed));
}

Result<std::uint32_t> Instances::Impl::nic_mtu(const NicDevice& nic) const {
  if (nic.mtu != 0) return nic.mtu;
  auto network = parts.networks.find(nic.network);
  if (!network) return fail(ErrorKind::not_found, fmt::format("network '{}' not found", nic.network));
  VIRGA_TRY(auto s, settings(*network));
  return s.mtu;
}

Task<Result<>> Instances::Impl::plug_taps(Ptr instance) {
  if (instance->type != InstanceType::virtual_machine) co_return Result<>{};
  for (const auto& nic : nics_of(*instance)) {
    auto plugged = co_await parts.networks.plug(instance->uuid, nic.device, network::TapTarget{instance->id_base}, nic.mtu);
    if (!plugged) co_return fail(std::move(plugged).error().wrap(fmt::format("plug NIC '{}'", nic.device)));
  }
  co_return Result<>{};
}

Task<Result<>> Instances::Impl::plug_veths(Ptr instance) {
  if (instance->type != InstanceType::container) co_return Result<>{};
  const auto status = parts.containers.status(instance->uuid);
  // Not by a pid that may have become another's: only the init that waits for its start has the namespace we mean.
  if (status.state != compute::State::created && status.state != compute::State::running)
    co_return fail(ErrorKind::unavailable, "the container's init has ended before its start");
  const auto pid = status.pid;
  for (const auto& nic : nics_of(*instance)) {
    network::NamespaceTarget target{pid, nic.guest_name};
    auto plugged = co_await parts.networks.plug(instance->uuid, nic.device, std::move(target), nic.mtu);
    if (!plugged) co_return fail(std::move(plugged).error().wrap(fmt::format("plug NIC '{}'", nic.device)));
  }
  co_return Result<>{};
}

Task<Result<>> Instances::Impl::unplug_nics(Ptr instance) {
  // By what was reserved and by what is configured: the two differ after a device was changed.
  std::set<std::string> devices;
  for (const auto& nic : nics_of(*instance)) devices.insert(nic.device);
  for (const auto& a : parts.networks.addresses_of(instance->uuid)) devices.insert(a.device);
  for (const auto& device : devices) VIRGA_CO_CHECK(co_await parts.networks.unplug(instance->uuid, device));
  co_return Result<>{};
}

}  // namespace virga::engine
