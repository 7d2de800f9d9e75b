// The admin verbs.
#pragma once

#include "apps/virga/command.h"

namespace virga::cli {

Command admin_init_command();
Command admin_doctor_command();
Command admin_shutdown_command();

}  // namespace virga::cli
