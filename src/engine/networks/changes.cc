// Making, changing and removing networks. Creation and removal are journalled; an update is one document and an apply, which the
// next start would do as well.
#include <fmt/format.h>

#include "base/log.h"
#include "base/random.h"
#include "engine/events/events.h"
#include "engine/networks/impl.h"
#include "engine/url.h"

namespace virga::engine {
namespace {

bool wants_auto(const Config& config, const char* key) {
  auto it = config.find(key);
  return it != config.end() && it->second == "auto";
}

std::string random_subnet(bool v6) {
  const auto h = random_hex(6);
  const auto byte = [&](std::size_t i) { return std::stoi(h.substr(i * 2, 2), nullptr, 16); };
  if (v6) return fmt::format("fd42:{}:{}:{}::1/64", h.substr(0, 4), h.substr(4, 4), h.substr(8, 4));
  return fmt::format("10.{}.{}.1/24", byte(0), byte(1));
}

}  // namespace

Task<Result<>> Networks::Impl::settle_addresses(Network& network) {
  struct Taken {
    Cidr subnet;
    std::string by;
  };
  std::vector<Taken> taken;
  for (const auto& [name, e] : networks) {
    if (name == network.name) continue;
    VIRGA_CO_TRY(auto s, settings(*e->network));
    for (const auto& own : {s.ipv4, s.ipv6})
      if (own) taken.push_back({*own, fmt::format("network '{}'", name)});
  }
  // What this network itself has now is no obstacle.
  std::vector<Cidr> own;
  if (auto e = entry(network.name)) {
    VIRGA_CO_TRY(auto s, settings(*e->network));
    for (const auto& cidr : {s.ipv4, s.ipv6})
      if (cidr) own.push_back(*cidr);
  }
  VIRGA_CO_TRY(auto host, co_await parts.driver.host_subnets());
  for (const auto& text : host) {
    auto cidr = parse_cidr(text);
    if (cidr && std::find(own.begin(), own.end(), *cidr) == own.end()) taken.push_back({*cidr, "an interface of this host"});
  }
  const auto obstacle = [&](const Cidr& cidr) {
    return std::find_if(taken.begin(), taken.end(), [&](const Taken& t) { return t.subnet.overlaps(cidr); });
  };
  for (const bool v6 : {false, true}) {
    const auto key = std::string(v6 ? "ipv6.address" : "ipv4.address");
    auto& value = network.config[key];
    if (value.empty() || value == "none") {
      value = "none";
      continue;
    }
    if (value == "auto") {
      for (int attempt = 0; value == "auto" && attempt < 5000; ++attempt) {
        auto text = random_subnet(v6);
        if (obstacle(*parse_cidr(text)) == taken.end()) value = std::move(text);
      }
      if (value == "auto") co_return fail(ErrorKind::unavailable, fmt::format("no subnet is free for '{}'", key));
      network.config.try_emplace(v6 ? "ipv6.nat" : "ipv4.nat", "true");
      continue;
    }
    VIRGA_CO_TRY(auto cidr, parse_cidr(value));
    if (auto at = obstacle(cidr); at != taken.end())
      co_return fail(Error(ErrorKind::conflict,
                           fmt::format("subnet {} overlaps {} of {}", cidr.subnet().text(), at->subnet.subnet().text(), at->by))
                         .with_field("config." + key));
    value = cidr.text();
  }
  co_return Result<>{};
}

Result<> Networks::Impl::check_allocations(const Network& before, const Network& after) const {
  VIRGA_TRY(auto old_settings, settings(before));
  VIRGA_TRY(auto new_settings, settings(after));
  for (const auto& a : book.on(before.name)) {
    for (const auto* text : {&a.ipv4, &a.ipv6}) {
      if (text->empty()) continue;
      const bool v6 = text == &a.ipv6;
      const auto& now = v6 ? old_settings.ipv6 : old_settings.ipv4;
      const auto& then = v6 ? new_settings.ipv6 : new_settings.ipv4;
      VIRGA_TRY(auto address, parse_ip(*text));
      const auto field = std::string("config.") + (v6 ? "ipv6.address" : "ipv4.address");
      if (now && (!then || then->subnet() != now->subnet()))
        return fail(Error(ErrorKind::busy, fmt::format("the subnet cannot change: '{}' has the address {}", a.instance, *text))
                        .with_field(field));
      if (then && then->address == address)
        return fail(Error(ErrorKind::exists, fmt::format("{} is the address of '{}'", *text, a.instance)).with_field(field));
    }
  }
  return {};
}

Procedure Networks::Impl::create_procedure(const Network& network) {
  Procedure p;
  p.kind = "network-create";
  p.id = random_uuid();
  p.arguments = encode(network);
  p.on_recovery = OnRecovery::undo;
  p.intent.expect(key(network.name), 0);
  auto make = [this, network]() -> Task<Result<>> { co_return co_await apply(network); };
  auto undo = [this, network]() -> Task<Result<>> { co_return co_await take_away(network); };
  p.steps.push_back({.name = "apply", .run = std::move(make), .undo = std::move(undo)});
  p.outcome = [network]() -> Result<Transaction> {
    Transaction t;
    t.expect(key(network.name), 0).put(key(network.name), json::serialize(encode(network)));
    return t;
  };
  return p;
}

Procedure Networks::Impl::remove_procedure(const Network& network) {
  Procedure p;
  p.kind = "network-delete";
  p.id = random_uuid();
  p.arguments = encode(network);
  p.on_recovery = OnRecovery::finish;
  auto away = [this, network]() -> Task<Result<>> { co_return co_await take_away(network); };
  p.steps.push_back({.name = "remove", .run = std::move(away), .undo = {}});
  p.outcome = [network]() -> Result<Transaction> {
    Transaction t;
    t.erase(key(network.name));
    return t;
  };
  p.recovered = [this, name = network.name] { networks.erase(name); };
  return p;
}

void Networks::Impl::register_kinds() {
  parts.journal.register_kind("network-create", [this](std::string id, json::object arguments) -> Task<Result<Procedure>> {
    VIRGA_CO_TRY(auto network, decode_network(arguments));
    auto p = create_procedure(network);
    p.id = std::move(id);
    co_return p;
  });
  parts.journal.register_kind("network-delete", [this](std::string id, json::object arguments) -> Task<Result<Procedure>> {
    VIRGA_CO_TRY(auto network, decode_network(arguments));
    if (auto e = entry(network.name)) e->removing = true;
    auto p = remove_procedure(network);
    p.id = std::move(id);
    co_return p;
  });
}

Task<Result<Networks::Ptr>> Networks::create(Caller caller, CreateNetwork request) {
  auto& impl = *impl_;
  Network network;
  network.name = std::move(request.name);
  network.type = request.type.empty() ? "bridge" : std::move(request.type);
  network.description = std::move(request.description);
  network.config = std::move(request.config);
  std::erase_if(network.config, [](const auto& entry) { return entry.second.empty(); });
  VIRGA_CO_CHECK(check(network));
  network.config.try_emplace("ipv4.address", "auto");
  network.config.try_emplace("ipv6.address", impl.parts.driver.has_ipv6() ? "auto" : "none");
  VIRGA_CO_TRY(auto turn, co_await impl.changes.lock());
  if (find(network.name)) co_return fail(ErrorKind::exists, fmt::format("network '{}' exists already", network.name));
  VIRGA_CO_TRY(const bool there, co_await impl.parts.driver.interface_exists(network.name));
  if (there)
    co_return fail(Error(ErrorKind::exists, fmt::format("this host has an interface '{}' already", network.name))
                       .with_field("name")
                       .with_hint("choose another name for the network"));
  VIRGA_CO_CHECK(co_await impl.settle_addresses(network));
  std::shared_ptr<void> held;
  if (impl.room) {
    VIRGA_CO_TRY(held, impl.room());
  }
  auto done = co_await impl.parts.journal.execute(impl.create_procedure(network));
  if (!done) co_return fail(std::move(done).error().wrap(fmt::format("create network '{}'", network.name)));
  VIRGA_CO_TRY(auto document, co_await impl.parts.store.get(Impl::key(network.name)));
  network.revision = document ? document->revision : 0;
  const auto name = network.name;
  impl.put(std::move(network));
  auto e = impl.entry(name);
  e->applied = e->changed;
  impl.parts.events.lifecycle("network-created", "default", network_url("", name), caller);
  co_return e->network;
}

Task<Result<>> Networks::update(Caller caller, std::string name, UpdateNetwork request, std::optional<std::int64_t> expected) {
  auto& impl = *impl_;
  VIRGA_CO_TRY(auto turn, co_await impl.changes.lock());
  auto e = impl.entry(name);
  if (!e) co_return fail(ErrorKind::not_found, fmt::format("network '{}' does not exist", name));
  const Network before = *e->network;
  if (expected && *expected != before.revision)
    co_return fail(ErrorKind::conflict, fmt::format("network '{}' has changed meanwhile", name));
  Network after = before;
  if (request.description) {
    after.description = std::move(*request.description);
  } else if (request.replace) {
    after.description.clear();
  }
  if (request.replace) after.config.clear();
  if (request.config)
    for (auto& [key, value] : *request.config) after.config[key] = std::move(value);
  std::erase_if(after.config, [](const auto& entry) { return entry.second.empty(); });
  VIRGA_CO_CHECK(check(after));
  for (const char* key : {"ipv4.address", "ipv6.address"})  // a network that is asked for "auto" again keeps what it has
    if (wants_auto(after.config, key) && before.config.contains(key) && before.config.at(key) != "none")
      after.config[key] = before.config.at(key);
  VIRGA_CO_CHECK(co_await impl.settle_addresses(after));
  VIRGA_CO_CHECK(impl.check_allocations(before, after));

  const auto commit = [&impl](Network& network) -> Task<Result<>> {
    Transaction t;
    t.expect(Impl::key(network.name), network.revision).put(Impl::key(network.name), json::serialize(encode(network)));
    VIRGA_CO_TRY(network.revision, co_await impl.parts.store.commit(std::move(t)));
    impl.put(network);
    ++impl.entry(network.name)->changed;
    co_return Result<>{};
  };
  VIRGA_CO_CHECK(co_await commit(after));
  co_await shield();  // committed: it is carried through, or taken back
  auto applied = co_await impl.sync(e);
  if (!applied) {
    Network back = before;
    back.revision = after.revision;
    if (auto undone = co_await commit(back); !undone)
      log::error("take back the update of network '{}': {}", name, undone.error().text());
    (void)co_await impl.sync(e);
    co_return applied;
  }
  impl.parts.events.lifecycle("network-updated", "default", network_url("", name), caller);
  co_return Result<>{};
}

Task<Result<>> Networks::remove(Caller caller, std::string name) {
  auto& impl = *impl_;
  VIRGA_CO_TRY(auto turn, co_await impl.changes.lock());
  auto e = impl.entry(name);
  if (!e) co_return fail(ErrorKind::not_found, fmt::format("network '{}' does not exist", name));
  if (auto users = used_by(name); !users.empty())
    co_return fail(ErrorKind::busy, fmt::format("network '{}' is in use by {}", name, describe_url(users.front())));
  if (impl.book.any_on(name))
    co_return fail(ErrorKind::busy,
                   fmt::format("network '{}' is in use by instance '{}'", name, impl.book.on(name).front().instance));
  e->removing = true;
  Result<> done;
  {
    // An apply that is under way ends first, and none begins behind it.
    auto quiet = co_await e->turn.lock();
    done =
        quiet ? co_await impl.parts.journal.execute(impl.remove_procedure(*e->network)) : Result<>(fail(std::move(quiet).error()));
  }
  if (!done) {
    e->removing = false;
    impl.poke(name);  // what was taken away already comes back
    co_return fail(std::move(done).error().wrap(fmt::format("delete network '{}'", name)));
  }
  impl.networks.erase(name);
  impl.parts.events.lifecycle("network-deleted", "default", network_url("", name), caller);
  co_return Result<>{};
}

}  // namespace virga::engine
