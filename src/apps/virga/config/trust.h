// config trust: client certificates that may use the API, and tokens that let a client add its own.
#pragma once

#include "apps/virga/command.h"

namespace virga::cli {

Command trust_command();

}  // namespace virga::cli
