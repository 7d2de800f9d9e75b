// The state of instances as the API shows it: of one, just asked for, and of all in a list, as it was last sampled.
#pragma once

#include <string>

#include "api/context.h"
#include "base/json.h"
#include "engine/instances/service.h"
#include "model/instance.h"

namespace virga::api {

json::object instance_state_json(const engine::InstanceState& state);
/// Appends the state that is known without asking anybody: the last sample, with the addresses that virga gave out. Its age in
/// seconds is "virga_state_age": null where the guest runs and was not sampled yet. Text, as it is made for each of ten thousand.
void append_known_state(std::string& out, Context& context, const Instance& instance);

}  // namespace virga::api
