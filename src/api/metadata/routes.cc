// /1.0/metadata/configuration: the keys that exist, from the same tables that check them.
#include "api/routes.h"

#include "api/respond.h"
#include "api/router.h"
#include "engine/server/keys.h"
#include "model/config.h"
#include "model/network.h"
#include "model/pool.h"

namespace virga::api {
namespace {

/// {"keys": [{"limits.cpu": {...}}]}, as the reference has it.
template <class Rules>
json::object group(const Rules& rules, auto&& extra) {
  json::array keys;
  for (const auto& rule : rules) {
    json::object about{{"type", rule.type}, {"defaultdesc", rule.default_value}, {"shortdesc", rule.description}, {"longdesc", ""}};
    extra(about, rule);
    keys.push_back(json::object{{rule.key, std::move(about)}});
  }
  return {{"keys", std::move(keys)}};
}

json::object all_keys() {
  auto nothing = [](json::object&, const auto&) {};
  auto instance = [](json::object& about, const KeyRule& rule) {
    about["liveupdate"] = rule.live ? "yes" : "no";
    about["condition"] = rule.containers && rule.vms ? "" : rule.containers ? "container" : "virtual machine";
  };
  return {{"configs", json::object{{"instance", json::object{{"all", group(instance_keys(), instance)}}},
                                   {"network-bridge", json::object{{"common", group(network_keys(), nothing)}}},
                                   {"server", json::object{{"core", group(engine::server_keys(), nothing)}}},
                                   {"storage-dir", json::object{{"common", group(pool_keys(), nothing)}}}}}};
}

Task<Result<http::Response>> configuration(Context&) {
  static const std::string text = json::serialize(all_keys());
  co_return sync_text(text);
}

}  // namespace

void add_metadata_routes(Router& router) {
  router.add(http::Method::get, "/1.0/metadata/configuration", {configuration});
}

}  // namespace virga::api
