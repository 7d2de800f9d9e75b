// Profiles as a resource; their devices are changed by the same verbs as those of instances.
#pragma once

#include "apps/virga/resource.h"

namespace virga::cli {

const Resource& profile_resource();

}  // namespace virga::cli
