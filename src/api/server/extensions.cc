#include "api/server/extensions.h"

#include <string_view>

namespace virga::api {
namespace {

// In the order of the reference. A name enters this list with the change that makes the last part of it work.
constexpr std::string_view names[] = {
    "container_last_used_at",
    "etag",
    "patch",
    "image_compression_algorithm",
    "directory_manipulation",
    "network",
    "profile_usedby",
    "certificate_update",
    "container_exec_signal_handling",
    "container_image_properties",
    "storage",
    "file_delete",
    "file_append",
    "image_create_aliases",
    "entity_description",
    "image_force_refresh",
    "file_symlinks",
    "container_edit_metadata",
    "resources",
    "console",
    "file_get_symlink",
    "network_leases",
    "operation_description",
    "event_lifecycle",
    "network_state",
    "container_full",
    "projects",
    "network_leases_location",
    "event_location",
    "container_exec_user_group_cwd",
    "instances",
    "image_types",
    "console_vga_type",
    "warnings",
    "virtual-machines",
    "api_filtering",
    "firewall_driver",
    "projects_limits",
    "projects_restrictions",
    "api_os",
    "images_push_relay",
    "usedby_consistency",
    "projects_limits_disk",
    "projects_limits_instances",
    "certificate_project",
    "images_default_architecture",
    "project_usage",
    "server_supported_storage_drivers",
    "event_lifecycle_requestor_address",
    "metrics",
    "image_source_project",
    "instance_project_move",
    "instance_all_projects",
    "instance_get_full",
    "event_project",
    "metrics_cpu_seconds",
    "certificate_token",
    "projects_restricted_intercept",
    "metrics_authentication",
    "images_target_project",
    "images_all_projects",
    "instance_file_head",
    "instances_nic_host_name",
    "image_copy_profile",
    "metrics_memory_oom_total",
    "metrics_cpu_effective_total",
    "projects_networks_restricted_access",
    "remote_token_expiry",
    "auth_user",
    "operations_get_query_all_projects",
    "metadata_configuration",
    "event_lifecycle_name_and_project",
    "operation_wait",
    "certificate_description",
    "instance_create_start",
    "image_template_permissions",
    "auth_tls_jwt",
    "profiles_all_projects",
    "instance_state_started_at",
    "networks_all_projects",
    "projects_limits_disk_pool",
    "instances_state_os_info",
    "instance_console_screenshot",
    "image_import_alias",
    "virga_operation_log",
    "console_force",
    "virga_console_vnc",
    "virga_screenshot",
    "virga_state_age",
};

}  // namespace

const json::array& api_extensions() {
  static const json::array list = [] {
    json::array out;
    for (auto name : names) out.emplace_back(name);
    return out;
  }();
  return list;
}

}  // namespace virga::api
