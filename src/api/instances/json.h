// Instances and their state as the API shows them.
#pragma once

#include <string>

#include "base/json.h"
#include "engine/instances/service.h"
#include "engine/networks/service.h"
#include "model/instance.h"

namespace virga::api {

json::object instance_json(const Instance& instance);
std::string instance_etag(const Instance& instance);
json::object instance_state_json(const engine::InstanceState& state);
/// The state that is known without asking anybody: for lists. Addresses are those that virga gave out.
json::object known_state_json(const Instance& instance, const std::vector<engine::NicAddresses>& addresses);
/// A field of an instance by the name it has in the JSON, without rendering all of it. Errors: invalid, for an unknown one.
Result<json::value> instance_field(const Instance& instance, std::string_view field);

}  // namespace virga::api
