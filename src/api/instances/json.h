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
/// Appends the state that is known without asking anybody, for lists: as instance_state_json, with the addresses that virga gave
/// out. Text, as it is made anew for each of ten thousand.
void append_known_state(std::string& out, const Instance& instance, const engine::Networks& networks);
/// A field of an instance by the name it has in the JSON, without rendering all of it. Errors: invalid, for an unknown one.
Result<json::value> instance_field(const Instance& instance, std::string_view field);

}  // namespace virga::api
