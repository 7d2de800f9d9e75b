// The command groups; each folder beside this file holds one.
#pragma once

#include <vector>

#include "apps/virga/command.h"

namespace virga::cli {

std::vector<Command> instance_commands();  // launch, create, list, info, exec, start, ...
Command config_command();
Command file_command();
Command snapshot_command();
Command profile_command();
Command image_command();
Command storage_command();
Command network_command();
Command project_command();
Command operation_command();
Command monitor_command();
Command query_command();
Command admin_command();
Command remote_command();
Command version_command();
Command alias_command();
Command completion_command();
Command complete_command();
Command manpage_command();
Command warning_command();

}  // namespace virga::cli
