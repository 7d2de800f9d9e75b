// The instance verbs, and what several of them share.
#pragma once

#include <string>

#include "apps/virga/app.h"
#include "apps/virga/command.h"
#include "apps/virga/resource.h"

namespace virga::cli {

Command create_command();
Command launch_command();
Command list_command();
Command top_command();
Command info_command();
Command exec_command();
Command shell_command();
Command console_command();
Command screenshot_command();
Command start_command();
Command stop_command();
Command restart_command();
Command pause_command();
Command resume_command();
Command publish_command();
Command copy_command();
Command export_command();
Command import_command();
Command move_instance_command();
Command rename_instance_command();
Command delete_instances_command();

/// Instances as `config` and `edit` change them.
const Resource& instance_resource();
Url instance_url(App& app, const std::string& name);

/// Changes the state of one instance and waits: action is start, stop, restart, freeze or unfreeze.
Result<> change_state(App& app, const std::string& name, const std::string& action, std::int64_t timeout, bool force,
                      bool stateful = false);
/// Adds to an error of a start where to look.
Error with_log_hint(Error error, const std::string& name);

}  // namespace virga::cli
