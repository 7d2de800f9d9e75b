#include "apps/virgad/warnings.h"

#include <fmt/format.h>

#include "engine/instances/service.h"
#include "engine/networks/service.h"
#include "engine/pools/service.h"
#include "engine/url.h"
#include "engine/warnings/service.h"
#include "io/cgroup.h"

namespace virga::virgad {
namespace {

struct Controller {
  const char* name;
  WarningType type;
  const char* consequence;
};
constexpr Controller controllers[] = {
    {"cpu", WarningType::cgroup_cpu, "limits.cpu cannot be enforced"},
    {"cpuset", WarningType::cgroup_cpuset, "guests cannot be pinned to processors"},
    {"freezer", WarningType::cgroup_freezer, "containers cannot be frozen"},
    {"memory", WarningType::cgroup_memory, "limits.memory cannot be enforced"},
    {"pids", WarningType::cgroup_pids, "limits.processes cannot be enforced"},
};

/// A driver that cannot run guests at all has no version; other words of it are limitations, told as `type`.
void report_driver(engine::Warnings& warnings, const compute::DriverInfo& info, WarningType type) {
  const auto all = fmt::format("{}", fmt::join(info.warnings, "; "));
  const bool usable = !info.version.empty();
  warnings.report(type, {}, usable ? all : "");
  const auto name = info.kind == compute::Kind::container ? "containers" : "virtual machines";
  if (!usable) warnings.raise(WarningType::instance_type_not_operational, {}, fmt::format("{}: {}", name, all));
}

}  // namespace

void connect_warnings(engine::Warnings& warnings, engine::Pools& pools, engine::Networks& networks, engine::Instances& instances,
                      network::Driver& network) {
  pools.on_status([&warnings](const std::string& pool, const std::string& error) {
    warnings.report(WarningType::storage_pool_unavailable, {"", engine::pool_url(pool)}, error);
  });
  networks.on_status([&warnings](const std::string& name, const std::string& error) {
    warnings.report(WarningType::network_unavailable, {"default", engine::network_url("default", name)}, error);
  });
  instances.on_autostart([&warnings](const Instance& i, const std::string& error) {
    warnings.report(WarningType::instance_autostart_failure, {i.project, engine::instance_url(i.project, i.name)}, error);
  });
  instances.on_scheduled_snapshot([&warnings](const Instance& i, const std::string& error) {
    warnings.report(WarningType::scheduled_snapshot_failure, {i.project, engine::instance_url(i.project, i.name)}, error);
  });
  network.on_repair([&warnings](network::Driver::Repair repair) {
    if (repair.bridge.empty()) return warnings.raise(WarningType::firewall_repaired, {}, std::move(repair.what));
    warnings.raise(WarningType::network_service_restarted, {"default", engine::network_url("default", repair.bridge)},
                   std::move(repair.what));
  });
}

void report_host(engine::Warnings& warnings, const compute::DriverInfo& containers, const compute::DriverInfo& vms) {
  const bool operational = !containers.version.empty() && !vms.version.empty();
  if (operational) warnings.resolve(WarningType::instance_type_not_operational, {});
  report_driver(warnings, containers, WarningType::runtime_weakness);
  report_driver(warnings, vms, WarningType::vm_limitation);
  const auto layout = io::CgroupLayout::probe();
  for (const auto& c : controllers) warnings.report(c.type, {}, layout.has(c.name) ? "" : c.consequence);
}

}  // namespace virga::virgad
