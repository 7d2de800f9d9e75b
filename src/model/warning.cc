#include "model/warning.h"

namespace virga {
namespace {

struct TypeRule {
  WarningType type;
  std::string_view name;
  std::string_view severity;
};

constexpr TypeRule types[] = {
    {WarningType::cgroup_blkio, "Couldn't find the CGroup blkio", "low"},
    {WarningType::cgroup_cpu, "Couldn't find the CGroup CPU controller", "low"},
    {WarningType::cgroup_cpuset, "Couldn't find the CGroup CPUset controller", "low"},
    {WarningType::cgroup_freezer, "Couldn't find the CGroup freezer controller", "low"},
    {WarningType::cgroup_memory, "Couldn't find the CGroup memory controller", "low"},
    {WarningType::cgroup_pids, "Couldn't find the CGroup pids controller", "low"},
    {WarningType::network_unavailable, "Network unavailable", "high"},
    {WarningType::instance_autostart_failure, "Failed to autostart instance", "low"},
    {WarningType::instance_type_not_operational, "Instance type not operational", "low"},
    {WarningType::storage_pool_unavailable, "Storage pool unavailable", "high"},
    {WarningType::runtime_weakness, "Container runtime has known weaknesses", "moderate"},
    {WarningType::vm_limitation, "Virtual machines are limited on this host", "low"},
    {WarningType::network_service_restarted, "Network service ended and was restarted", "moderate"},
    {WarningType::scheduled_snapshot_failure, "Failed to take a scheduled snapshot", "moderate"},
    {WarningType::firewall_repaired, "Firewall rules were removed and put back", "high"},
};

const TypeRule* find(std::int64_t code) {
  for (const auto& rule : types)
    if (static_cast<std::int64_t>(rule.type) == code) return &rule;
  return nullptr;
}

}  // namespace

std::string_view to_string(WarningType type) noexcept {
  const auto* rule = find(static_cast<std::int64_t>(type));
  return rule != nullptr ? rule->name : "Undefined warning";
}

std::string_view severity_of(WarningType type) noexcept {
  const auto* rule = find(static_cast<std::int64_t>(type));
  return rule != nullptr ? rule->severity : "low";
}

std::string_view to_string(WarningStatus status) noexcept {
  switch (status) {
    case WarningStatus::fresh:
      return "new";
    case WarningStatus::acknowledged:
      return "acknowledged";
    case WarningStatus::resolved:
      return "resolved";
  }
  return "new";
}

json::object encode(const Warning& w) {
  return {{"uuid", w.uuid},
          {"type", static_cast<std::int64_t>(w.type)},
          {"status", to_string(w.status)},
          {"project", w.project},
          {"entity_url", w.entity_url},
          {"message", w.message},
          {"count", w.count},
          {"first_seen_at", format_time(w.first_seen_at)},
          {"last_seen_at", format_time(w.last_seen_at)},
          {"updated_at", format_time(w.updated_at)}};
}

Result<Warning> decode_warning(const json::object& document) {
  const Fields f(document);
  Warning w;
  VIRGA_TRY(w.uuid, f.string("uuid"));
  VIRGA_TRY(const auto code, f.integer("type"));
  if (find(code) == nullptr) return invalid("type", "unknown type of warning");
  w.type = static_cast<WarningType>(code);
  VIRGA_TRY(const auto status, f.string("status"));
  if (status == "acknowledged") w.status = WarningStatus::acknowledged;
  if (status == "resolved") w.status = WarningStatus::resolved;
  VIRGA_TRY(w.project, f.string("project"));
  VIRGA_TRY(w.entity_url, f.string("entity_url"));
  VIRGA_TRY(w.message, f.string("message"));
  VIRGA_TRY(w.count, f.integer("count"));
  for (auto [name, time] :
       {std::pair{"first_seen_at", &w.first_seen_at}, {"last_seen_at", &w.last_seen_at}, {"updated_at", &w.updated_at}}) {
    VIRGA_TRY(const auto text, f.string(name));
    VIRGA_TRY(*time, parse_time(text));
  }
  return w;
}

}  // namespace virga
