// One request on its way through a handler: who asks, in which project, with what.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/auth.h"
#include "api/filter.h"
#include "api/idle.h"
#include "api/instances/cache.h"
#include "api/services.h"
#include "api/text_cache.h"
#include "base/error.h"
#include "base/json.h"
#include "base/task.h"
#include "wire/http/message.h"

namespace virga::engine {
struct Sample;
}

namespace virga::api {

/// What requests share besides the services.
struct Shared {
  explicit Shared(Executor executor);
  InstanceCache instance_cache;
  /// GET /1.0 as it was last answered, and for whom: clients ask for it before anything else.
  struct ServerText {
    std::string asked;  ///< what the text depends on, apart from the configuration
    std::shared_ptr<const void> config;
    std::string text, etag;
  } server_text;
  TextCache<engine::Sample> sample_cache;
  /// Long lists tell of themselves here; a minute after the last one its texts go.
  WhenIdle long_lists;
  std::chrono::steady_clock::time_point started = std::chrono::steady_clock::now();
  /// Writes uploads: disks may be slow.
  BlockingPool& files() {
    if (!files_) files_ = std::make_unique<BlockingPool>("api-files", 2);
    return *files_;
  }

 private:
  std::unique_ptr<BlockingPool> files_;
};

struct Context {
  http::Request& request;
  Services& services;
  Shared& shared;
  Identity identity;
  std::vector<std::string> params;  ///< what stood for {name} and its kin, in order
  std::string body;                 ///< empty for routes that stream it
  std::string project = "default";  ///< exists, and the caller may use it
  bool all_projects = false;
  int recursion = 0;

  const engine::Caller& caller() const noexcept { return identity.caller; }
  const std::string& param(std::size_t i) const { return params.at(i); }
  std::string_view query(std::string_view key) const noexcept { return request.query.get(key); }
  /// The project whose objects a list shows; absent: all that the caller may see.
  std::optional<std::string> scope() const { return all_projects ? std::nullopt : std::optional(project); }
  /// The body as an object; an empty body is an empty object. Errors: invalid.
  Result<json::object> json() const { return body.empty() ? json::object{} : parse_json_object(body); }
};

using RouteHandler = Task<Result<http::Response>> (*)(Context&);

/// A list as the API gives it: URLs, or whole objects with recursion, those that match `filter`. `objects` are pointers.
template <class Objects, class Url, class Render>
Result<json::value> list_objects(Context& context, const Objects& objects, Url url, Render render) {
  VIRGA_TRY(auto filter, Filter::parse(context.query("filter")));
  json::array out;
  for (const auto& object : objects) {
    if (filter.empty() && context.recursion == 0) {
      out.emplace_back(url(*object));
      continue;
    }
    json::object rendered = render(*object);
    VIRGA_TRY(const bool matches, filter.matches(rendered));
    if (!matches) continue;
    if (context.recursion == 0) {
      out.emplace_back(url(*object));
    } else {
      out.emplace_back(std::move(rendered));
    }
  }
  return json::value(std::move(out));
}

}  // namespace virga::api
