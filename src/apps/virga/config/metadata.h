// `config metadata` and `config template`.
#pragma once

#include "apps/virga/command.h"

namespace virga::cli {

Command instance_metadata_command();
Command instance_template_command();

}  // namespace virga::cli
