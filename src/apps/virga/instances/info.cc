// info: one instance, or the server.
#include <fmt/format.h>

#include <algorithm>

#include "apps/virga/instances/instances.h"
#include "apps/virga/table.h"
#include "apps/virga/text.h"
#include "apps/virga/values.h"

namespace virga::cli {
namespace {

std::string head(const json::object& instance) {
  std::string out = fmt::format("Name: {}\nDescription: {}\nStatus: {}\nType: {}\nArchitecture: {}\n", text_of(instance, "name"),
                                text_of(instance, "description"), upper(text_of(instance, "status")),
                                text_of(instance, "type") + (boolean_of(instance, "ephemeral") ? " (ephemeral)" : ""),
                                text_of(instance, "architecture"));
  if (auto location = text_of(instance, "location"); !location.empty() && location != "none")
    out += fmt::format("Location: {}\n", location);
  const auto& state = object_of(instance, "state");
  if (auto pid = integer_of(state, "pid"); pid > 0) out += fmt::format("PID: {}\n", pid);
  if (auto time = local_time(text_of(instance, "created_at"), ""); !time.empty()) out += fmt::format("Created: {}\n", time);
  if (auto time = local_time(text_of(instance, "last_used_at"), ""); !time.empty()) out += fmt::format("Last Used: {}\n", time);
  if (auto time = local_time(text_of(state, "started_at"), ""); !time.empty()) out += fmt::format("Started: {}\n", time);
  return out;
}

std::string system_part(const json::object& state) {
  const auto& os = object_of(state, "os_info");
  if (os.empty()) return {};
  return fmt::format("\nOperating System:\n  OS: {}\n  OS Version: {}\n  Kernel Version: {}\n  Hostname: {}\n  FQDN: {}\n",
                     text_of(os, "os"), text_of(os, "os_version"), text_of(os, "kernel_version"), text_of(os, "hostname"),
                     text_of(os, "fqdn"));
}

std::string disk_part(const json::object& state) {
  std::string out;
  for (const auto& [name, disk] : object_of(state, "disk"))
    if (disk.is_object() && integer_of(disk.get_object(), "usage") > 0)
      out += fmt::format("    {}: {}\n", std::string_view(name), binary_size(integer_of(disk.get_object(), "usage")));
  return out.empty() ? out : "  Disk usage:\n" + out;
}

std::string cpu_part(const json::object& state) {
  const auto* cpu = state.if_contains("cpu");
  if (cpu == nullptr || !cpu->is_object()) return {};
  return fmt::format("  CPU usage:\n    CPU usage (in seconds): {}\n", integer_of(cpu->get_object(), "usage") / 1'000'000'000);
}

std::string memory_part(const json::object& state) {
  const auto& memory = object_of(state, "memory");
  std::string out;
  auto line = [&](std::string_view label, std::string_view name) {
    if (auto value = integer_of(memory, name); value > 0) out += fmt::format("    {}: {}\n", label, binary_size(value));
  };
  line("Memory (current)", "usage");
  line("Memory (peak)", "usage_peak");
  line("Swap (current)", "swap_usage");
  line("Swap (peak)", "swap_usage_peak");
  return out.empty() ? out : "  Memory usage:\n" + out;
}

std::string network_part(const json::object& state) {
  std::vector<std::string> parts;
  for (const auto& [name, value] : object_of(state, "network")) {
    if (!value.is_object()) continue;
    const auto& network = value.get_object();
    std::string out = fmt::format("    {}:\n      Type: {}\n      State: {}\n", std::string_view(name), text_of(network, "type"),
                                  upper(text_of(network, "state")));
    if (auto text = text_of(network, "host_name"); !text.empty()) out += fmt::format("      Host interface: {}\n", text);
    if (auto text = text_of(network, "hwaddr"); !text.empty()) out += fmt::format("      MAC address: {}\n", text);
    if (auto mtu = integer_of(network, "mtu"); mtu > 0) out += fmt::format("      MTU: {}\n", mtu);
    const auto& counters = object_of(network, "counters");
    out += fmt::format(
        "      Bytes received: {}\n      Bytes sent: {}\n      Packets received: {}\n      Packets sent: {}\n      IP addresses:\n",
        decimal_size(integer_of(counters, "bytes_received")), decimal_size(integer_of(counters, "bytes_sent")),
        integer_of(counters, "packets_received"), integer_of(counters, "packets_sent"));
    for (const auto& address : objects_of(array_of(network, "addresses"))) {
      auto family = text_of(address, "family");
      out += fmt::format("        {:<7}{}/{} ({})\n", (family == "inet" ? "inet:" : family + ":"), text_of(address, "address"),
                         text_of(address, "netmask"), text_of(address, "scope"));
    }
    parts.push_back(std::move(out));
  }
  std::sort(parts.begin(), parts.end());
  return parts.empty() ? std::string() : fmt::format("  Network usage:\n{}", fmt::join(parts, ""));
}

std::string resources_part(const json::object& instance) {
  const auto& state = object_of(instance, "state");
  auto status = text_of(instance, "status");
  if (status != "Running" && status != "Frozen" && status != "Ready") {
    auto disk = disk_part(state);
    return disk.empty() ? disk : "\nResources:\n" + disk;
  }
  std::string out = fmt::format("\nResources:\n  Processes: {}\n", integer_of(state, "processes"));
  return out + disk_part(state) + cpu_part(state) + memory_part(state) + network_part(state);
}

/// The console log of a guest: what it writes is shown with its control characters escaped, line ends apart.
Result<std::string> recent_log(App& app, Api& api, const std::string& name, const std::string& type) {
  const auto base = instance_url(app, name);
  auto url = type == "container" ? Url(base).segment("logs").segment("lxc.log") : Url(base).segment("logs").segment("qemu.log");
  auto collect = [&](const Url& target) -> Result<std::string> {
    std::string text;
    VIRGA_CHECK(api.await(api.client().download(target.text(), [&](std::string_view bytes) -> Result<> {
      text += bytes;
      if (text.size() > (4u << 20)) text.erase(0, text.size() - (2u << 20));
      return {};
    })));
    return text;
  };
  auto text = collect(url);
  // What the machine or the runtime has to say is often nothing; then the console tells more.
  const bool none =
      text ? text->empty() : text.error().kind() == ErrorKind::not_found || text.error().kind() == ErrorKind::unsupported;
  if (none) {
    if (auto console = collect(Url(base).segment("console")); console || !text) text = std::move(console);
  }
  if (!text && text.error().kind() == ErrorKind::not_found) return std::string();
  return text;
}

std::string lines_as_shown(std::string text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i)
    if (text[i] != '\r' || i + 1 >= text.size() || text[i + 1] != '\n') out += text[i];
  return out;
}

Result<> snapshots_part(App& app, const json::array& snapshots) {
  if (snapshots.empty()) return {};
  std::vector<Row> rows;
  for (const auto& s : objects_of(snapshots))
    rows.push_back({text_of(s, "name"), local_time(text_of(s, "created_at"), ""), local_time(text_of(s, "expires_at"), ""),
                    boolean_of(s, "stateful") ? "YES" : "NO"});
  app.print("\nSnapshots:\n");
  app.print(render_table(fitted({}), {"NAME", "TAKEN AT", "EXPIRES AT", "STATEFUL"}, rows));
  return {};
}

Result<> instance_info(App& app, const Args& args, const std::string& name) {
  VIRGA_TRY(auto* api, app.api());
  VIRGA_TRY(auto instance, api->object(instance_url(app, name).query("recursion", "1")));
  if (!instance.contains("state") || !instance["state"].is_object()) {
    VIRGA_TRY(auto state, api->object(Url(instance_url(app, name)).segment("state")));
    instance["state"] = std::move(state);
  }
  app.print(head(instance));
  app.print(system_part(object_of(instance, "state")));
  app.print(resources_part(instance));
  VIRGA_CHECK(snapshots_part(app, array_of(instance, "snapshots")));
  if (args.has("show-log")) {
    VIRGA_TRY(auto log, recent_log(app, *api, name, text_of(instance, "type")));
    app.print(fmt::format("\nLog:\n\n{}\n", lines_as_shown(std::move(log))));
  }
  return {};
}

Result<> info(App& app, const Args& args) {
  VIRGA_TRY(auto name, optional_local_name(args, 0));
  if (!name.empty()) return instance_info(app, args, name);
  VIRGA_TRY(auto* api, app.api());
  VIRGA_TRY(auto server, api->object(Url(args.has("resources") ? "/1.0/resources" : "/1.0")));
  app.print(as_yaml(server));
  return {};
}

}  // namespace

Command info_command() {
  return {.use = "info [<remote>:][<instance>]",
          .summary = "Show instance or server information",
          .examples =
              "virga info <instance> --show-log\n    For instance information.\n\nvirga info [--resources]\n    For server "
              "information.",
          .flags = {{"resources", 0, Flag::boolean, "Show the resources available to the server"},
                    {"show-log", 0, Flag::boolean, "Show the instance's recent log entries"}},
          .most = 1,
          .run = info};
}

}  // namespace virga::cli
