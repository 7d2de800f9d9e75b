#include "apps/virga/instances/instances.h"

#include "apps/virga/commands.h"

namespace virga::cli {

std::vector<Command> instance_commands() {
  std::vector<Command> out;
  for (auto make : {create_command,
                    launch_command,
                    list_command,
                    top_command,
                    info_command,
                    exec_command,
                    shell_command,
                    console_command,
                    screenshot_command,
                    start_command,
                    stop_command,
                    restart_command,
                    pause_command,
                    resume_command,
                    publish_command,
                    copy_command,
                    export_command,
                    import_command,
                    move_instance_command,
                    rename_instance_command,
                    delete_instances_command})
    out.push_back(make());
  return out;
}

const Resource& instance_resource() {
  static const Resource resource{
      .noun = "instance",
      .word = "instance",
      .group = "config",
      .base = "/1.0/instances",
      .editable = {"architecture", "config", "devices", "ephemeral", "profiles", "restore", "stateful", "description"},
      .shown = {"architecture", "config", "devices", "ephemeral", "profiles", "stateful", "description"}};
  return resource;
}

Url instance_url(App& app, const std::string& name) {
  return instance_resource().url(app, name);
}

}  // namespace virga::cli
