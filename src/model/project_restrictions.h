// What a project with restricted=true forbids its instances and profiles. An allow-list: a configuration key or device type that
// nobody has declared harmless needs the permission that says so. Pure; asked once, where the merged object is committed.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"
#include "model/config.h"
#include "model/project.h"

namespace virga {

bool is_restricted(const Project& project);
/// The value of a restricted.* key, or its default where it is unset.
std::string restriction(const Project& project, std::string_view key);

/// Expanded configuration and devices of an instance, or those of a profile (type absent: what all kinds that have the key may
/// have). A project that is not restricted allows all. Errors: denied, with the field; names project and restriction.
Result<> check_restrictions(const Project& project, std::optional<InstanceType> type, const Config& config, const Devices& devices);
/// Whether instances of the project may use a network (a storage pool): restricted.networks.access and its kin.
bool may_use_network(const Project& project, std::string_view network);
bool may_use_pool(const Project& project, std::string_view pool);

}  // namespace virga
