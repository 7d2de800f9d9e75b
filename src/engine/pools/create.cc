// Making and removing pools: journalled, one at a time.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "base/log.h"
#include "base/random.h"
#include "engine/events/events.h"
#include "engine/pools/impl.h"
#include "engine/url.h"

namespace virga::engine {
namespace {

bool inside(const std::string& path, const std::string& directory) {
  return path == directory || path.starts_with(directory + "/");
}

std::string names_of(const std::map<std::string, Pools::MakeDriver>& drivers) {
  std::string out;
  for (const auto& [name, make] : drivers) out += (out.empty() ? "" : ", ") + name;
  return out;
}

}  // namespace

Task<Result<std::string>> Pools::Impl::settle_source(const Pool& pool) const {
  const auto given = pool.source();
  if (given.empty()) co_return default_source(pool.name);
  std::error_code failed;
  // Two paths that are the same by way of a symlink would be two pools in one directory. On a thread of its own, as the path may
  // lead to a server that does not answer.
  BlockingPool thread("pool source", 1);
  auto real = co_await thread.run([&] { return std::filesystem::weakly_canonical(given, failed).string(); });
  if (failed) co_return invalid("config.source", fmt::format("source '{}': {}", given, failed.message()));
  while (real.size() > 1 && real.ends_with('/')) real.pop_back();
  // A device's name that is mistyped, or not there today, must not become a directory among the devices.
  for (const char* kernels : {"/dev", "/proc", "/sys"})
    if (inside(real, kernels))
      co_return invalid("config.source", fmt::format("source '{}' lies below {}, which is no place for data", given, kernels));
  for (const auto& [name, entry] : pools) {
    const auto other = entry.pool->source();
    if (inside(real, other) || inside(other, real))
      co_return fail(Error(ErrorKind::exists, fmt::format("source '{}' overlaps storage pool '{}' in '{}'", given, name, other))
                         .with_field("config.source"));
  }
  if (real != default_source(pool.name) && (inside(real, parts.state_dir) || inside(parts.state_dir, real)))
    co_return invalid("config.source", fmt::format("source '{}' is a directory of virga's own", given));
  co_return real;
}

Procedure Pools::Impl::create_procedure(const Pool& pool, storage::Driver* driver) {
  Procedure p;
  p.kind = "pool-create";
  p.id = random_uuid();
  p.arguments = encode(pool);
  p.on_recovery = OnRecovery::undo;
  p.intent.expect(key(pool.name), 0);
  auto make = [driver]() -> Task<Result<>> {
    VIRGA_CO_CHECK(co_await driver->open());
    VIRGA_CO_TRY(auto volumes, co_await driver->list());
    if (!volumes.empty())
      co_return fail(Error(ErrorKind::exists,
                           fmt::format("the directory holds volumes of another pool: {}", storage::to_string(volumes.front().id)))
                         .with_field("config.source"));
    co_return Result<>{};
  };
  auto take_away = [driver]() -> Task<Result<>> {
    if (driver == nullptr) co_return Result<>{};
    auto gone = co_await driver->destroy();
    if (!gone && gone.error().kind() == ErrorKind::busy) co_return Result<>{};  // somebody else's volumes were there before
    co_return gone;
  };
  p.steps.push_back({.name = "layout", .run = std::move(make), .undo = std::move(take_away)});
  p.outcome = [pool]() -> Result<Transaction> {
    Transaction t;
    t.expect(key(pool.name), 0).put(key(pool.name), json::serialize(encode(pool)));
    return t;
  };
  return p;
}

Procedure Pools::Impl::remove_procedure(const std::string& name, storage::Driver* driver) {
  Procedure p;
  p.kind = "pool-delete";
  p.id = random_uuid();
  p.arguments = {{"name", name}};
  p.on_recovery = OnRecovery::finish;
  auto images = [driver]() -> Task<Result<>> {
    auto volumes = co_await driver->list();
    if (!volumes && volumes.error().kind() == ErrorKind::not_found) co_return Result<>{};
    if (!volumes) co_return fail(std::move(volumes).error());
    for (const auto& volume : *volumes)
      if (volume.id.kind == storage::VolumeKind::image) VIRGA_CO_CHECK(co_await driver->remove(volume.id));
    co_return Result<>{};
  };
  auto layout = [driver]() -> Task<Result<>> { co_return co_await driver->destroy(); };
  p.steps.push_back({.name = "images", .run = std::move(images), .undo = {}});
  p.steps.push_back({.name = "layout", .run = std::move(layout), .undo = {}});
  p.outcome = [name]() -> Result<Transaction> {
    Transaction t;
    t.erase(key(name));
    return t;
  };
  p.recovered = [this, name] { pools.erase(name); };
  return p;
}

void Pools::Impl::register_kinds() {
  // Builders live as long as the journal, which is stopped before this service.
  parts.journal.register_kind("pool-create", [this](std::string id, json::object arguments) -> Task<Result<Procedure>> {
    VIRGA_CO_TRY(auto pool, decode_pool(arguments));
    auto p = create_procedure(pool, make_driver(pool.driver, pool.source()));
    p.id = std::move(id);
    co_return p;
  });
  parts.journal.register_kind("pool-delete", [this](std::string id, json::object arguments) -> Task<Result<Procedure>> {
    VIRGA_CO_TRY(auto name, Fields(arguments).string("name"));
    auto it = pools.find(name);
    if (it == pools.end() || it->second.driver == nullptr)
      co_return fail(ErrorKind::not_found, fmt::format("storage pool '{}' or its driver is gone", name));
    it->second.removing = true;
    auto p = remove_procedure(name, it->second.driver);
    p.id = std::move(id);
    co_return p;
  });
}

Task<Result<Pools::Ptr>> Pools::create(Caller caller, CreatePool request) {
  auto& impl = *impl_;
  Pool pool;
  pool.name = std::move(request.name);
  pool.driver = std::move(request.driver);
  pool.description = std::move(request.description);
  pool.config = std::move(request.config);
  std::erase_if(pool.config, [](const auto& entry) { return entry.second.empty(); });
  VIRGA_CO_CHECK(check(pool));
  if (pool.driver.empty())
    co_return invalid("driver", fmt::format("field 'driver' must be given; there is: {}", names_of(impl.parts.drivers)));
  if (!impl.parts.drivers.contains(pool.driver))
    co_return fail(Error(ErrorKind::unsupported, fmt::format("there is no storage driver '{}'", pool.driver.substr(0, 64)))
                       .with_field("driver")
                       .with_hint(fmt::format("there is: {}", names_of(impl.parts.drivers))));
  VIRGA_CO_TRY(auto turn, co_await impl.changes.lock());
  if (find(pool.name)) co_return fail(ErrorKind::exists, fmt::format("storage pool '{}' exists already", pool.name));
  VIRGA_CO_TRY(pool.config["source"], co_await impl.settle_source(pool));

  auto* driver = impl.make_driver(pool.driver, pool.source());
  auto done = co_await impl.parts.journal.execute(impl.create_procedure(pool, driver));
  if (!done) {
    std::erase_if(impl.made, [driver](const auto& one) { return one.get() == driver; });
    co_return fail(std::move(done).error().wrap(fmt::format("create storage pool '{}'", pool.name)));
  }
  VIRGA_CO_TRY(auto document, co_await impl.parts.store.get(Impl::key(pool.name)));
  pool.revision = document ? document->revision : 0;
  const auto name = pool.name;
  impl.put(std::move(pool));
  impl.pools[name].driver = driver;
  impl.parts.events.lifecycle("storage-pool-created", "", pool_url(name), caller);
  co_return find(name);
}

Task<Result<>> Pools::remove(Caller caller, std::string name) {
  auto& impl = *impl_;
  VIRGA_CO_TRY(auto turn, co_await impl.changes.lock());
  VIRGA_CO_TRY(auto* open, driver(name));
  if (auto users = used_by(name); !users.empty())
    co_return fail(ErrorKind::busy, fmt::format("storage pool '{}' is in use by {}", name, describe_url(users.front())));
  impl.pools[name].removing = true;
  auto give_up = [&](Error error) {
    impl.pools[name].removing = false;
    return fail(std::move(error).wrap(fmt::format("delete storage pool '{}'", name)));
  };
  auto volumes = co_await open->list();
  if (!volumes) co_return give_up(std::move(volumes).error());
  for (const auto& volume : *volumes)
    if (volume.id.kind != storage::VolumeKind::image)
      co_return give_up(Error(ErrorKind::busy, fmt::format("it holds {}", storage::to_string(volume.id))));
  auto done = co_await impl.parts.journal.execute(impl.remove_procedure(name, open));
  if (!done) co_return give_up(std::move(done).error());
  impl.pools.erase(name);
  impl.parts.events.lifecycle("storage-pool-deleted", "", pool_url(name), caller);
  co_return Result<>{};
}

}  // namespace virga::engine
