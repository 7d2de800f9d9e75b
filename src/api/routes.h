// Every noun adds its routes; one folder each.
#pragma once

namespace virga::api {

class Router;

void add_server_routes(Router& router);
void add_certificate_routes(Router& router);
void add_operation_routes(Router& router);
void add_event_routes(Router& router);
void add_instance_routes(Router& router);
void add_snapshot_routes(Router& router);
void add_instance_log_routes(Router& router);
void add_console_routes(Router& router);
void add_file_routes(Router& router);
void add_instance_metadata_routes(Router& router);
void add_backup_routes(Router& router);
void add_image_routes(Router& router);
void add_image_alias_routes(Router& router);
void add_profile_routes(Router& router);
void add_pool_routes(Router& router);
void add_network_routes(Router& router);
void add_project_routes(Router& router);
void add_internal_routes(Router& router);
void add_metadata_routes(Router& router);
void add_metrics_routes(Router& router);
void add_warning_routes(Router& router);
/// What Incus serves and virga refuses for now.
void add_missing_routes(Router& router);

}  // namespace virga::api
