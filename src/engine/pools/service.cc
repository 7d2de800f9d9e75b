#include "engine/pools/service.h"

#include <fmt/format.h>

#include <filesystem>

#include "base/log.h"
#include "engine/events/events.h"
#include "engine/pools/impl.h"
#include "engine/url.h"

namespace virga::engine {
namespace {

constexpr Milliseconds retry_interval{30'000};

tl::unexpected<Error> no_such_pool(const std::string& name) {
  return fail(ErrorKind::not_found, fmt::format("storage pool '{}' does not exist", name));
}

}  // namespace

storage::Driver* Pools::Impl::make_driver(const std::string& driver, const std::string& source) {
  auto it = parts.drivers.find(driver);
  if (it == parts.drivers.end()) return nullptr;
  made.push_back(it->second(source));
  return made.back().get();
}

void Pools::Impl::put(Pool pool) {
  auto& entry = pools[pool.name];
  if (entry.pool) {
    pool.status = entry.pool->status;
    pool.error = entry.pool->error;
  }
  entry.pool = std::make_shared<const Pool>(std::move(pool));
}

void Pools::Impl::set_status(const std::string& name, PoolStatus status, std::string error) {
  auto it = pools.find(name);
  if (it == pools.end()) return;
  Pool changed = *it->second.pool;
  changed.status = status;
  if (on_status && (error.empty() || changed.error != error)) on_status(name, error);
  changed.error = std::move(error);
  it->second.pool = std::make_shared<const Pool>(std::move(changed));
}

Task<> Pools::Impl::open(std::string name) {
  auto it = pools.find(name);
  if (it == pools.end()) co_return;
  auto* driver = it->second.driver;
  Result<> opened = fail(ErrorKind::unsupported, fmt::format("there is no storage driver '{}'", it->second.pool->driver));
  if (driver != nullptr) opened = co_await driver->open();
  if (opened) {
    set_status(name, PoolStatus::created, {});
    co_return;
  }
  it = pools.find(name);
  const auto text = opened.error().text();
  if (it != pools.end() && it->second.pool->error != text) log::error("storage pool '{}' is unavailable: {}", name, text);
  set_status(name, PoolStatus::unavailable, text);
}

Task<> Pools::Impl::retry_failed() {
  while (co_await sleep_for(retry_interval)) {
    std::vector<std::string> failed;
    for (const auto& [name, entry] : pools)
      if (entry.pool->status == PoolStatus::unavailable && entry.driver != nullptr && !entry.removing) failed.push_back(name);
    for (const auto& name : failed) {
      co_await open(name);
      auto it = pools.find(name);
      if (it != pools.end() && it->second.pool->status == PoolStatus::created)
        log::info("storage pool '{}' is available again", name);
    }
  }
}

Pools::Pools(Parts parts, Executor executor) : impl_(std::make_unique<Impl>(std::move(parts), std::move(executor))) {}
Pools::~Pools() = default;

Pools::Ptr Pools::find(const std::string& name) const {
  auto it = impl_->pools.find(name);
  return it == impl_->pools.end() ? nullptr : it->second.pool;
}

std::vector<Pools::Ptr> Pools::list() const {
  std::vector<Ptr> out;
  for (const auto& [name, entry] : impl_->pools) out.push_back(entry.pool);
  return out;
}

std::vector<storage::DriverInfo> Pools::drivers() const {
  std::vector<storage::DriverInfo> out;
  for (const auto& [name, make] : impl_->parts.drivers) out.push_back(make("/nonexistent")->info());
  return out;
}

Task<Result<storage::Usage>> Pools::resources(std::string name) {
  VIRGA_CO_TRY(auto* open, driver(name));
  co_return co_await open->pool_usage();
}

std::vector<std::string> Pools::used_by(const std::string& name) const {
  std::vector<std::string> out;
  for (const auto& users : impl_->users) {
    auto urls = users(name);
    out.insert(out.end(), std::make_move_iterator(urls.begin()), std::make_move_iterator(urls.end()));
  }
  return out;
}

void Pools::on_status(std::function<void(const std::string&, const std::string&)> call) {
  impl_->on_status = std::move(call);
}

void Pools::add_users(std::function<std::vector<std::string>(const std::string& pool)> users) {
  impl_->users.push_back(std::move(users));
}

Result<storage::Driver*> Pools::driver(const std::string& name) const {
  auto it = impl_->pools.find(name);
  if (it == impl_->pools.end()) return no_such_pool(name);
  const auto& entry = it->second;
  if (entry.removing) return fail(ErrorKind::busy, fmt::format("storage pool '{}' is being removed", name));
  if (entry.pool->status != PoolStatus::created)
    return fail(ErrorKind::unavailable, fmt::format("storage pool '{}' is unavailable: {}", name, entry.pool->error));
  return entry.driver;
}

std::vector<storage::Driver*> Pools::open_drivers() const {
  std::vector<storage::Driver*> out;
  for (const auto& [name, entry] : impl_->pools)
    if (entry.pool->status == PoolStatus::created) out.push_back(entry.driver);
  return out;
}

Task<Result<>> Pools::update(Caller caller, std::string name, UpdatePool request, std::optional<std::int64_t> expected) {
  const auto before = find(name);
  if (!before) co_return no_such_pool(name);
  if (expected && *expected != before->revision)
    co_return fail(ErrorKind::conflict, fmt::format("storage pool '{}' has changed meanwhile", name));
  Pool after = *before;
  if (request.description) after.description = *request.description;
  if (request.description.has_value() == false && request.replace) after.description.clear();
  if (request.config || request.replace) {
    const auto given = request.config.value_or(Config{});
    if (request.replace) {
      after.config = given;
      after.config.try_emplace("source", before->source());
    } else {
      for (const auto& [key, value] : given) after.config.insert_or_assign(key, value);
    }
    std::erase_if(after.config, [](const auto& entry) { return entry.second.empty(); });
  }
  VIRGA_CO_CHECK(check(after));
  VIRGA_CO_CHECK(check_pool_change(before->config, after.config));
  Transaction transaction;
  transaction.expect(Impl::key(name), before->revision).put(Impl::key(name), json::serialize(encode(after)));
  VIRGA_CO_TRY(after.revision, co_await impl_->parts.store.commit(std::move(transaction)));
  impl_->put(std::move(after));
  impl_->parts.events.lifecycle("storage-pool-updated", "", pool_url(name), caller);
  co_return Result<>{};
}

Task<Result<>> Pools::load() {
  std::error_code failed;
  const std::filesystem::path parent = impl_->parts.state_dir + "/storage-pools";
  // Containers' init reaches its root as the container's own user: others may pass here, and not list.
  if (!std::filesystem::create_directory(parent, failed) && failed)
    co_return fail_errno(failed.value(), fmt::format("make directory '{}'", parent.string()));
  std::filesystem::permissions(parent, std::filesystem::perms(0711), failed);
  VIRGA_CO_TRY(auto documents, co_await impl_->parts.store.list(Impl::key("")));
  for (const auto& document : documents) {
    auto object = parse_json_object(document.value);
    auto pool = object ? decode_pool(*object) : Result<Pool>(fail(std::move(object).error()));
    if (!pool) co_return fail(std::move(pool).error().wrap(fmt::format("document '{}'", document.key)));
    pool->revision = document.revision;
    pool->status = PoolStatus::unavailable;
    pool->error = "it is not open yet";
    const auto name = pool->name;
    auto* driver = impl_->make_driver(pool->driver, pool->source());
    impl_->put(std::move(*pool));
    impl_->pools[name].driver = driver;
  }
  impl_->register_kinds();
  co_return Result<>{};
}

Task<> Pools::start() {
  std::vector<std::string> names;
  for (const auto& [name, entry] : impl_->pools) names.push_back(name);
  TaskGroup opening(co_await current_executor());
  for (auto& name : names) opening.spawn("open storage pool " + name, impl_->open(name));
  co_await opening.join();
  impl_->retries.spawn("storage pools that failed", impl_->retry_failed());
}

Task<> Pools::shut_down() {
  impl_->retries.cancel();
  co_await impl_->retries.join();
}

}  // namespace virga::engine
