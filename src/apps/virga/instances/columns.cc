#include "apps/virga/instances/columns.h"

#include <fmt/format.h>

#include <algorithm>

#include "apps/virga/text.h"
#include "apps/virga/values.h"

namespace virga::cli {
namespace {

constexpr std::string_view state_letters = "46DgmMNpuUS";

bool is_active(const json::object& instance) {
  auto status = text_of(instance, "status");
  return status != "Stopped" && status != "Error" && status != "Aborting" && !status.empty();
}

std::string joined(const std::vector<std::string>& parts) {
  return fmt::format("{}", fmt::join(parts, "\n"));
}

std::string addresses(const json::object& instance, std::string_view family) {
  if (!is_active(instance)) return {};
  std::vector<std::string> out;
  for (const auto& [name, network] : object_of(object_of(instance, "state"), "network")) {
    if (!network.is_object() || text_of(network.get_object(), "type") == "loopback") continue;
    for (const auto& address : objects_of(array_of(network.get_object(), "addresses"))) {
      auto scope = text_of(address, "scope");
      if (scope == "link" || scope == "local" || text_of(address, "family") != family) continue;
      out.push_back(fmt::format("{} ({})", text_of(address, "address"), std::string_view(name)));
    }
  }
  std::sort(out.rbegin(), out.rend());
  return joined(out);
}

std::string root_pool(const json::object& instance) {
  for (const auto& [name, device] : object_of(instance, "expanded_devices"))
    if (device.is_object() && text_of(device.get_object(), "type") == "disk" && text_of(device.get_object(), "path") == "/")
      return text_of(device.get_object(), "pool");
  return {};
}

std::string disk_usage(const json::object& instance) {
  auto usage = integer_of(object_of(object_of(object_of(instance, "state"), "disk"), "root"), "usage");
  return usage > 0 ? binary_size(usage) : std::string();
}

std::int64_t memory_used(const json::object& instance) {
  return is_active(instance) ? integer_of(object_of(object_of(instance, "state"), "memory"), "usage") : 0;
}

std::string memory_usage(const json::object& instance) {
  auto usage = memory_used(instance);
  return usage > 0 ? binary_size(usage) : std::string();
}

std::string memory_percent(const json::object& instance) {
  auto limit = parse_bytes(text_of(object_of(instance, "expanded_config"), "limits.memory"));
  auto usage = memory_used(instance);
  if (!limit || *limit == 0 || usage <= 0) return {};
  return fmt::format("{:.1f}%", static_cast<double>(usage) / static_cast<double>(*limit) * 100.0);
}

std::string cpu_usage(const json::object& instance) {
  if (!is_active(instance)) return {};
  return fmt::format("{}s", integer_of(object_of(object_of(instance, "state"), "cpu"), "usage") / 1'000'000'000);
}

std::string number_if_active(const json::object& instance, std::string_view name) {
  return is_active(instance) ? fmt::format("{}", integer_of(object_of(instance, "state"), name)) : std::string();
}

std::string type_text(const json::object& instance) {
  auto type = upper(text_of(instance, "type"));
  return boolean_of(instance, "ephemeral") ? type + " (EPHEMERAL)" : type;
}

std::string base_image(const json::object& instance) {
  return text_of(object_of(instance, "config"), "volatile.base_image");
}

/// How old what is shown of a running guest is: lists show the last sample.
std::string state_age(const json::object& instance) {
  const auto* age = object_of(instance, "state").if_contains("virga_state_age");
  if (!is_active(instance) || age == nullptr || !age->is_number()) return {};
  return fmt::format("{:.1f}s", age->to_number<double>());
}

const std::vector<Column>& letter_columns() {
  using Object = const json::object&;
  static const std::vector<Column> columns = {
      {'4', "IPV4", [](Object o) { return addresses(o, "inet"); }},
      {'6', "IPV6", [](Object o) { return addresses(o, "inet6"); }},
      {'a', "ARCHITECTURE", field("architecture")},
      {'b', "STORAGE POOL", root_pool},
      {'c', "CREATED AT", [](Object o) { return local_time(text_of(o, "created_at"), ""); }},
      {'d', "DESCRIPTION", field("description")},
      {'D', "DISK USAGE", disk_usage},
      {'e', "PROJECT", field("project")},
      {'f', "BASE IMAGE", [](Object o) { return base_image(o).substr(0, 12); }},
      {'F', "BASE IMAGE", base_image},
      {'g', "STATE AGE", state_age},
      {'l', "LAST USED AT", [](Object o) { return local_time(text_of(o, "last_used_at"), ""); }},
      {'m', "MEMORY USAGE", memory_usage},
      {'M', "MEMORY USAGE%", memory_percent},
      {'n', "NAME", field("name")},
      {'N', "PROCESSES", [](Object o) { return number_if_active(o, "processes"); }},
      {'p', "PID", [](Object o) { return number_if_active(o, "pid"); }},
      {'P', "PROFILES", [](Object o) { return joined(strings_of(o, "profiles")); }},
      {'s', "STATE", [](Object o) { return upper(text_of(o, "status")); }},
      {'S', "SNAPSHOTS", [](Object o) { return fmt::format("{}", array_of(o, "snapshots").size()); }},
      {'t', "TYPE", type_text},
      {'u', "CPU USAGE", cpu_usage},
      {'U', "STARTED AT", [](Object o) { return local_time(text_of(object_of(o, "state"), "started_at"), ""); }},
  };
  return columns;
}

/// "[config:|devices:]key[:name][:maxWidth]".
Result<Column> key_column(const std::string& entry) {
  auto parts = split(entry, ':');
  bool devices = false;
  if (parts[0] == "config" || parts[0] == "devices") {
    devices = parts[0] == "devices";
    parts.erase(parts.begin());
  }
  if (parts.empty() || parts.size() > 3 || parts[0].empty())
    return fail(ErrorKind::invalid, fmt::format("Invalid config key column format (too many fields): '{}'", entry));
  const std::string key = parts[0];
  std::string header = parts.size() > 1 && !parts[1].empty() ? parts[1] : key;
  std::int64_t width = -1;
  if (parts.size() > 2) {
    auto number = parse_integer(parts[2], -1, 10'000);
    if (!number)
      return fail(ErrorKind::invalid, fmt::format("Invalid max width (must be an integer) '{}' in '{}'", parts[2], entry));
    width = *number == 0 ? static_cast<std::int64_t>(header.size()) : *number;
  }
  auto dot = key.find('.');
  if (devices && dot == std::string::npos)
    return fail(ErrorKind::invalid, fmt::format("Invalid device key '{}': write it as device.key", key));
  auto cell = [=](const json::object& instance) {
    auto text = devices ? text_of(object_of(object_of(instance, "expanded_devices"), key.substr(0, dot)), key.substr(dot + 1))
                        : text_of(object_of(instance, "expanded_config"), key);
    return width >= 0 && text.size() > static_cast<std::size_t>(width) ? text.substr(0, static_cast<std::size_t>(width)) : text;
  };
  return Column{'\0', upper(header), cell};
}

}  // namespace

Result<std::vector<Column>> instance_columns(std::string_view spec) {
  std::vector<Column> out;
  for (const auto& entry : split(spec, ',')) {
    if (entry.empty())
      return fail(ErrorKind::invalid, fmt::format("Empty column entry (redundant, leading or trailing command) in '{}'", spec));
    if (entry.find('.') != std::string::npos || entry.find(':') != std::string::npos) {
      VIRGA_TRY(auto column, key_column(entry));
      out.push_back(std::move(column));
      continue;
    }
    VIRGA_TRY(auto letters, pick_columns(letter_columns(), entry));
    for (const auto* column : letters) out.push_back(*column);
  }
  return out;
}

bool needs_state(std::string_view spec) {
  for (const auto& entry : split(spec, ','))
    if (entry.find('.') == std::string::npos && entry.find(':') == std::string::npos &&
        entry.find_first_of(state_letters) != std::string::npos)
      return true;
  return false;
}

}  // namespace virga::cli
