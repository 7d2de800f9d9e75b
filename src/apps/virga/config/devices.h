// The device verbs, which are the same for instances and profiles.
#pragma once

#include "apps/virga/command.h"

namespace virga::cli {

Command instance_device_command();
Command profile_device_command();

}  // namespace virga::cli
