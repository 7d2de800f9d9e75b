#include "engine/operations/log.h"

#include "base/log.h"

namespace virga::engine {
namespace {

constexpr std::string_view prefix = "/operations/";
constexpr std::size_t most_waiting = 5'000;  ///< a store that does not write must not fill the memory

std::string key(const std::string& id) {
  return std::string(prefix) + id;
}

}  // namespace

Task<Result<std::vector<json::object>>> OperationLog::load() {
  auto documents = co_await store_.list(std::string(prefix));
  if (!documents) co_return fail(std::move(documents).error());
  std::vector<json::object> out;
  for (const auto& document : *documents) {
    auto object = parse_json_object(document.value);
    if (object) {
      out.push_back(std::move(*object));
    } else {
      log::error("the log of operations: '{}' cannot be read: {}", document.key, object.error().text());
      forget(document.key.substr(prefix.size()));
    }
  }
  co_return out;
}

void OperationLog::record(const std::string& id, const json::object& document) {
  change(id, json::serialize(document));
}

void OperationLog::forget(const std::string& id) {
  change(id, std::nullopt);
}

void OperationLog::change(const std::string& id, std::optional<std::string> text) {
  if (waiting_.size() >= most_waiting && !waiting_.contains(id)) return;
  waiting_[id] = std::move(text);
  if (std::exchange(writing_, true)) return;
  tasks_.spawn("write the log of operations", write());
}

Task<> OperationLog::write() {
  co_await shield();
  while (!waiting_.empty()) {
    Transaction t;
    for (auto& [id, text] : std::exchange(waiting_, {})) {
      if (text) {
        t.put(key(id), std::move(*text));
      } else {
        t.erase(key(id));
      }
    }
    auto written = co_await store_.commit(std::move(t));
    if (!written) log::error("the log of operations cannot be written: {}", written.error().text());
  }
  writing_ = false;
}

Task<> OperationLog::stop() {
  co_await tasks_.join();
}

}  // namespace virga::engine
