// Instances as the API shows them.
#pragma once

#include <string>

#include "base/json.h"
#include "model/instance.h"
#include "model/snapshot.h"

namespace virga::api {

json::object instance_json(const Instance& instance);
std::string instance_etag(const Instance& instance);
/// A field of an instance by the name it has in the JSON, without rendering all of it. Errors: invalid, for an unknown one.
Result<json::value> instance_field(const Instance& instance, std::string_view field);

json::object snapshot_json(const InstanceSnapshot& snapshot);

}  // namespace virga::api
