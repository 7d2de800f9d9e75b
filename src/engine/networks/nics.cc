// Addresses of NICs, and plugging them.
#include <fmt/format.h>

#include "base/random.h"
#include "engine/networks/impl.h"

namespace virga::engine {

Result<NicAddresses> Networks::reserve(const NicRequest& request) {
  auto e = impl_->entry(request.network);
  if (!e)
    return fail(Error(ErrorKind::not_found, fmt::format("network '{}' does not exist", request.network)).with_field("network"));
  if (e->removing) return fail(ErrorKind::busy, fmt::format("network '{}' is being removed", request.network));
  VIRGA_TRY(auto s, settings(*e->network));
  const bool had = impl_->book.find(request.uuid, request.device) != nullptr;
  VIRGA_TRY(auto addresses, impl_->book.reserve(request, s));
  if (!had) impl_->poke(request.network);
  return addresses;
}

void Networks::put(Transaction& transaction, const NicAddresses& a) {
  transaction.expect(Impl::mac_key(a), 0).put(Impl::mac_key(a), json::serialize(encode(a)));
  for (const auto* address : {&a.ipv4, &a.ipv6}) {
    if (address->empty()) continue;
    const auto key = Impl::ip_key(a, *address);
    transaction.expect(key, 0).put(key, json::serialize(json::object{{"mac", a.mac}}));
  }
}

void Networks::erase(Transaction& transaction, const std::string& uuid, const std::optional<std::string>& device) const {
  for (const auto& a : impl_->book.of(uuid, device)) {
    transaction.erase(Impl::mac_key(a));
    for (const auto* address : {&a.ipv4, &a.ipv6})
      if (!address->empty()) transaction.erase(Impl::ip_key(a, *address));
  }
}

void Networks::forget(const std::string& uuid, const std::optional<std::string>& device) {
  for (const auto& a : impl_->book.of(uuid, device)) {
    impl_->book.erase(a.uuid, a.device);
    impl_->poke(a.network);
  }
}

void Networks::put_renamed(Transaction& transaction, const std::string& uuid, const std::string& project,
                           const std::string& instance) const {
  for (auto a : impl_->book.of(uuid)) {
    // Those that the same transaction gives back stay gone.
    if (std::find(transaction.deletes.begin(), transaction.deletes.end(), Impl::mac_key(a)) != transaction.deletes.end()) continue;
    a.project = project;
    a.instance = instance;
    transaction.put(Impl::mac_key(a), json::serialize(encode(a)));
  }
}

void Networks::renamed(const std::string& uuid, const std::string& project, const std::string& instance) {
  impl_->book.rename(uuid, project, instance);
  for (const auto& a : impl_->book.of(uuid)) impl_->poke(a.network);
}

std::vector<NicAddresses> Networks::addresses_of(const std::string& uuid) const {
  return impl_->book.of(uuid);
}

std::string Networks::host_interface(const std::string& uuid, const std::string& device) {
  return "vg" + sha256_hex(uuid + "/" + device).substr(0, 12);
}

namespace {

template <class Target>
Task<Result<>> plug_into(network::Driver& driver, network::NicSpec nic, Target target) {
  if constexpr (std::is_same_v<Target, network::TapTarget>) {
    co_return co_await driver.plug_tap(std::move(nic), target);
  } else {
    co_return co_await driver.plug_namespace(std::move(nic), std::move(target));
  }
}

}  // namespace

template <class Target>
Task<Result<>> Networks::plug_target(std::string uuid, std::string device, Target target, std::uint32_t mtu) {
  auto& impl = *impl_;
  const auto* found = impl.book.find(uuid, device);
  if (found == nullptr) co_return fail(ErrorKind::not_found, fmt::format("NIC '{}' has no addresses", device));
  const NicAddresses a = *found;
  auto e = impl.entry(a.network);
  if (!e) co_return fail(ErrorKind::not_found, fmt::format("network '{}' does not exist", a.network));
  VIRGA_CO_CHECK(co_await impl.sync(e));
  VIRGA_CO_TRY(auto s, settings(*e->network));
  network::NicSpec nic{.guest_id = a.uuid,
                       .host_name = host_interface(a.uuid, a.device),
                       .mac = a.mac,
                       .ipv4 = a.ipv4,
                       .ipv6 = a.ipv6,
                       .mtu = mtu == 0 ? s.mtu : mtu,
                       .bridge = a.network};
  auto done = co_await plug_into(impl.parts.driver, nic, target);
  if (!done && done.error().kind() == ErrorKind::not_found) {
    // Somebody took the bridge away: make it again, once.
    ++e->changed;
    VIRGA_CO_CHECK(co_await impl.sync(e));
    done = co_await plug_into(impl.parts.driver, std::move(nic), std::move(target));
  }
  if (!done) co_return fail(std::move(done).error().wrap(fmt::format("plug NIC '{}' into network '{}'", device, a.network)));
  co_return done;
}

Task<Result<>> Networks::plug(std::string uuid, std::string device, network::TapTarget target, std::uint32_t mtu) {
  co_return co_await plug_target(std::move(uuid), std::move(device), target, mtu);
}

Task<Result<>> Networks::plug(std::string uuid, std::string device, network::NamespaceTarget target, std::uint32_t mtu) {
  co_return co_await plug_target(std::move(uuid), std::move(device), std::move(target), mtu);
}

Task<Result<>> Networks::unplug(std::string uuid, std::string device) {
  co_return co_await impl_->parts.driver.unplug(host_interface(uuid, device));
}

}  // namespace virga::engine
