#include "engine/networks/service.h"

#include <fmt/format.h>

#include <filesystem>

#include "base/log.h"
#include "engine/networks/impl.h"
#include "engine/url.h"

namespace virga::engine {
namespace {

constexpr Milliseconds retry_interval{30'000};

/// The guest's name below the network's domain: "web", or "web.lab" in project lab.
std::string dns_name(const NicAddresses& a) {
  if (a.project == "default" || a.project.empty()) return a.instance;
  std::string label;
  for (char c : a.project.substr(0, 60))
    label += (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ? c : '-';
  return fmt::format("{}.p{}", a.instance, label).substr(0, 190);
}

tl::unexpected<Error> no_such_network(const std::string& name) {
  return fail(ErrorKind::not_found, fmt::format("network '{}' does not exist", name));
}

}  // namespace

Networks::Impl::EntryPtr Networks::Impl::entry(const std::string& name) const {
  auto it = networks.find(name);
  return it == networks.end() ? nullptr : it->second;
}

void Networks::Impl::put(Network network) {
  auto& e = networks[network.name];
  if (!e) e = std::make_shared<Entry>(executor);
  if (e->network) {
    network.status = e->network->status;
    network.error = e->network->error;
  }
  e->network = std::make_shared<const Network>(std::move(network));
}

void Networks::Impl::set_status(const std::string& name, NetworkStatus status, std::string error) {
  auto e = entry(name);
  if (e && on_status && (error.empty() || e->network->error != error)) on_status(name, error);
  if (!e || (e->network->status == status && e->network->error == error)) return;
  Network changed = *e->network;
  changed.status = status;
  changed.error = std::move(error);
  e->network = std::make_shared<const Network>(std::move(changed));
}

Result<network::BridgeSpec> Networks::Impl::spec(const Network& network) const {
  VIRGA_TRY(auto s, settings(network));
  network::BridgeSpec out;
  out.id = network.name;
  out.bridge = network.name;
  if (s.ipv4) out.ipv4_cidr = s.ipv4->text();
  if (s.ipv6) out.ipv6_cidr = s.ipv6->text();
  out.ipv4_nat = s.ipv4_nat;
  out.ipv4_dhcp = s.ipv4_dhcp;
  out.ipv6_nat = s.ipv6_nat;
  out.ipv6_dhcp = s.ipv6_dhcp;
  out.dns_domain = s.dns_domain;
  out.mtu = s.mtu;
  out.state_dir = directory(network.name);
  for (const auto& a : book.on(network.name))
    out.leases.push_back({.mac = a.mac, .ipv4 = a.ipv4, .ipv6 = a.ipv6, .host_name = dns_name(a)});
  return out;
}

Task<Result<>> Networks::Impl::apply(Network network) {
  VIRGA_CO_TRY(auto wanted, spec(network));
  // DHCP and DNS run under a user of their own, who must pass through.
  namespace fs = std::filesystem;
  std::error_code failed;
  for (const auto& path : {parts.state_dir + "/networks", directory(network.name)}) {
    fs::create_directory(path, failed);
    if (!failed) fs::permissions(path, fs::perms::owner_all | fs::perms::group_exec | fs::perms::others_exec, failed);
    if (failed) co_return fail(ErrorKind::unavailable, fmt::format("make directory '{}': {}", path, failed.message()));
  }
  co_return co_await parts.driver.apply(std::move(wanted));
}

Task<Result<>> Networks::Impl::take_away(Network network) {
  VIRGA_CO_TRY(auto wanted, spec(network));
  VIRGA_CO_CHECK(co_await parts.driver.remove(std::move(wanted)));
  std::error_code failed;
  std::filesystem::remove_all(directory(network.name), failed);
  if (failed)
    co_return fail(ErrorKind::unavailable, fmt::format("remove directory '{}': {}", directory(network.name), failed.message()));
  co_return Result<>{};
}

Task<Result<>> Networks::Impl::sync(EntryPtr e) {
  const auto wanted = e->changed;
  if (e->applied >= wanted && e->network->status == NetworkStatus::created) co_return Result<>{};
  VIRGA_CO_TRY(auto turn, co_await e->turn.lock());
  // Whoever had the turn before told the driver of everything there was at that time: mostly of this change, too.
  if (e->applied >= wanted && e->network->status == NetworkStatus::created) co_return Result<>{};
  if (e->removing) co_return fail(ErrorKind::busy, fmt::format("network '{}' is being removed", e->network->name));
  const auto now = e->changed;
  auto done = co_await apply(*e->network);
  if (done) {
    e->applied = now;
    set_status(e->network->name, NetworkStatus::created, {});
    co_return done;
  }
  const auto text = done.error().text();
  if (e->network->error != text) log::error("network '{}' does not work: {}", e->network->name, text);
  set_status(e->network->name, NetworkStatus::errored, text);
  co_return fail(std::move(done).error().wrap(fmt::format("network '{}'", e->network->name)));
}

Task<> Networks::Impl::sync_in_background(EntryPtr e) {
  e->poked = false;
  (void)co_await sync(e);  // what fails is logged, shown as the status and tried again
}

void Networks::Impl::poke(const std::string& name) {
  auto e = entry(name);
  if (!e) return;
  ++e->changed;
  if (!started || e->poked || e->removing) return;
  e->poked = true;
  tasks.spawn("apply network", sync_in_background(std::move(e)));
}

Task<> Networks::Impl::retry_failed() {
  while (!co_await is_cancelled() && co_await sleep_for(retry_interval)) {
    auto copy = networks;
    for (auto& [name, e] : copy) {
      if (e->network->status != NetworkStatus::errored || e->removing) continue;
      if (co_await sync(e)) log::info("network '{}' works again", name);
    }
  }
}

Networks::Networks(Parts parts, Executor executor) : impl_(std::make_unique<Impl>(std::move(parts), std::move(executor))) {}

void Networks::set_room(Room room) {
  impl_->room = std::move(room);
}
Networks::~Networks() = default;

Networks::Ptr Networks::find(const std::string& name) const {
  auto e = impl_->entry(name);
  return e ? e->network : nullptr;
}

std::vector<Networks::Ptr> Networks::list() const {
  std::vector<Ptr> out;
  for (const auto& [name, e] : impl_->networks) out.push_back(e->network);
  return out;
}

Task<Result<network::BridgeState>> Networks::state(std::string name) {
  if (!find(name)) co_return no_such_network(name);
  co_return co_await impl_->parts.driver.observe(std::move(name));
}

Result<std::vector<Networks::Lease>> Networks::leases(const std::string& name) const {
  auto network = find(name);
  if (!network) return no_such_network(name);
  VIRGA_TRY(auto s, settings(*network));
  std::vector<Lease> out;
  for (const auto& own : {s.ipv4, s.ipv6})
    if (own)
      out.push_back({.host_name = name + ".gw", .mac = "", .address = own->address.text(), .type = "gateway", .project = ""});
  for (const auto& a : impl_->book.on(name))
    for (const auto* address : {&a.ipv4, &a.ipv6})
      if (!address->empty())
        out.push_back({.host_name = a.instance, .mac = a.mac, .address = *address, .type = "static", .project = a.project});
  return out;
}

std::vector<std::string> Networks::used_by(const std::string& name) const {
  std::vector<std::string> out;
  for (const auto& users : impl_->users) {
    auto urls = users(name);
    out.insert(out.end(), std::make_move_iterator(urls.begin()), std::make_move_iterator(urls.end()));
  }
  return out;
}

void Networks::on_status(std::function<void(const std::string&, const std::string&)> call) {
  impl_->on_status = std::move(call);
}

void Networks::add_users(std::function<std::vector<std::string>(const std::string& network)> users) {
  impl_->users.push_back(std::move(users));
}

Task<Result<>> Networks::load() {
  auto& impl = *impl_;
  VIRGA_CO_TRY(auto documents, co_await impl.parts.store.list("/networks/"));
  for (const auto& d : documents) {
    auto object = parse_json_object(d.value);
    auto network = object ? decode_network(*object) : Result<Network>(fail(std::move(object).error()));
    if (!network) co_return fail(std::move(network).error().wrap(fmt::format("document '{}'", d.key)));
    network->revision = d.revision;
    impl.put(std::move(*network));
  }
  constexpr std::string_view prefix = "/network-addresses/";
  VIRGA_CO_TRY(auto addresses, co_await impl.parts.store.list(std::string(prefix)));
  for (const auto& d : addresses) {
    const auto slash = d.key.find('/', prefix.size());
    if (slash == std::string::npos || !std::string_view(d.key).substr(slash).starts_with("/mac/")) continue;
    auto object = parse_json_object(d.value);
    auto nic = object ? decode_nic_addresses(*object) : Result<NicAddresses>(fail(std::move(object).error()));
    if (!nic) co_return fail(std::move(nic).error().wrap(fmt::format("document '{}'", d.key)));
    nic->network = d.key.substr(prefix.size(), slash - prefix.size());
    if (auto taken = impl.book.insert(std::move(*nic)); !taken)
      co_return fail(std::move(taken).error().wrap(fmt::format("document '{}'", d.key)));
  }
  impl.register_kinds();
  co_return Result<>{};
}

Task<> Networks::start() {
  auto& impl = *impl_;
  auto copy = impl.networks;
  for (auto& [name, e] : copy) (void)co_await impl.sync(e);
  impl.started = true;
  for (auto& [name, e] : copy)
    if (e->changed > e->applied && e->network->status == NetworkStatus::created) impl.poke(name);
  impl.tasks.spawn("retry networks", impl.retry_failed());
}

Task<> Networks::shut_down() {
  impl_->started = false;
  impl_->tasks.cancel();
  co_await impl_->tasks.join();
  co_await impl_->parts.driver.shut_down();
}

}  // namespace virga::engine
