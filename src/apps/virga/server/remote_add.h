#pragma once

#include "apps/virga/command.h"

namespace virga::cli {

Command remote_add_command();

}  // namespace virga::cli
