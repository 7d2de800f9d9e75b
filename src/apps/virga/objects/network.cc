// network.
#include <fmt/format.h>

#include "apps/virga/commands.h"
#include "apps/virga/instances/instances.h"
#include "apps/virga/listing.h"
#include "apps/virga/resource.h"
#include "apps/virga/text.h"
#include "apps/virga/values.h"

namespace virga::cli {
namespace {

const Resource& network_resource() {
  static const Resource resource{
      .noun = "network",
      .word = "network",
      .group = "network",
      .base = "/1.0/networks",
      .editable = {"config", "description"},
      .shown = {"config", "description", "name", "type", "used_by", "managed", "status", "locations", "project"}};
  return resource;
}

Result<> list(App& app, const Args& args) {
  VIRGA_TRY(auto* api, app.api());
  auto url = args.has("all-projects") ? Url("/1.0/networks").query("all-projects", "true") : app.url("/1.0/networks");
  VIRGA_TRY(auto networks, api->array(std::move(url).query("recursion", "1")));
  using Object = const json::object&;
  const std::vector<Column> columns = {
      {'e', "PROJECT", field("project")},
      {'n', "NAME", field("name")},
      {'t', "TYPE", field("type")},
      {'m', "MANAGED", [](Object o) { return yes_no(boolean_of(o, "managed")); }},
      {'4', "IPV4", [](Object o) { return text_of(object_of(o, "config"), "ipv4.address"); }},
      {'6', "IPV6", [](Object o) { return text_of(object_of(o, "config"), "ipv6.address"); }},
      {'d', "DESCRIPTION", field("description")},
      {'u', "USED BY", [](Object o) { return fmt::format("{}", array_of(o, "used_by").size()); }},
      {'s', "STATE", [](Object o) { return upper(text_of(o, "status")); }},
  };
  return print_listing(app, args, columns, networks);
}

Result<> create(App& app, const Args& args) {
  VIRGA_TRY(auto name, local_name(args[0]));
  VIRGA_TRY(auto settings, parse_key_values({args.words.begin() + 1, args.words.end()}));
  VIRGA_TRY(auto document, piped_document());
  VIRGA_TRY(auto* api, app.api());
  auto body = editable_part(network_resource(), document);
  VIRGA_CHECK(apply_settings(body, settings, false));
  body["name"] = name;
  body["type"] = args.text("type");
  if (auto text = args.text("description"); !text.empty()) body["description"] = text;
  VIRGA_CHECK(api->send("POST", app.url("/1.0/networks"), std::move(body)));
  app.note(fmt::format("Network {} created", name));
  return {};
}

std::string bridge_part(const json::object& state) {
  const auto& bridge = object_of(state, "bridge");
  if (bridge.empty()) return {};
  return fmt::format(
      "\nBridge:\n  ID: {}\n  STP: {}\n  Forward delay: {}\n  Default VLAN ID: {}\n  VLAN filtering: {}\n  Upper devices: {}\n",
      text_of(bridge, "id"), boolean_of(bridge, "stp"), integer_of(bridge, "forward_delay"), integer_of(bridge, "vlan_default"),
      boolean_of(bridge, "vlan_filtering"), fmt::join(strings_of(bridge, "upper_devices"), ", "));
}

Result<> info(App& app, const Args& args) {
  VIRGA_TRY(auto name, local_name(args[0]));
  VIRGA_TRY(auto* api, app.api());
  VIRGA_TRY(auto state, api->object(Url(network_resource().url(app, name)).segment("state")));
  std::string out = fmt::format("Name: {}\n", name);
  if (auto text = text_of(state, "hwaddr"); !text.empty()) out += fmt::format("MAC address: {}\n", text);
  out += fmt::format("MTU: {}\nState: {}\nType: {}\n", integer_of(state, "mtu"), text_of(state, "state"), text_of(state, "type"));
  if (const auto& addresses = array_of(state, "addresses"); !addresses.empty()) {
    out += "\nIP addresses:\n";
    for (const auto& address : objects_of(addresses))
      out += fmt::format("  {}\t{}/{} ({})\n", text_of(address, "family"), text_of(address, "address"), text_of(address, "netmask"),
                         text_of(address, "scope"));
  }
  const auto& counters = object_of(state, "counters");
  if (!counters.empty())
    out += fmt::format("\nNetwork usage:\n  Bytes received: {}\n  Bytes sent: {}\n  Packets received: {}\n  Packets sent: {}\n",
                       decimal_size(integer_of(counters, "bytes_received")), decimal_size(integer_of(counters, "bytes_sent")),
                       integer_of(counters, "packets_received"), integer_of(counters, "packets_sent"));
  app.print(out + bridge_part(state));
  return {};
}

Result<> list_leases(App& app, const Args& args) {
  VIRGA_TRY(auto name, local_name(args[0]));
  VIRGA_TRY(auto* api, app.api());
  VIRGA_TRY(auto leases, api->array(Url(network_resource().url(app, name)).segment("leases")));
  const std::vector<Column> columns = {
      {'h', "HOSTNAME", field("hostname")},
      {'m', "MAC ADDRESS", field("hwaddr")},
      {'i', "IP ADDRESS", field("address")},
      {'t', "TYPE", [](const json::object& o) { return upper(text_of(o, "type")); }},
  };
  return print_listing(app, args, columns, leases);
}

Result<> attach(App& app, const Args& args) {
  VIRGA_TRY(auto network, local_name(args[0]));
  const std::string device = args.size() > 2 ? args[2] : network;
  return update(app, instance_resource(), args[1], [&](json::object& object) -> Result<> {
    auto& devices = map_in(object, "devices");
    if (devices.contains(device)) return fail(ErrorKind::exists, fmt::format("Device already exists: {}", device));
    json::object nic{{"type", "nic"}, {"network", network}};
    if (args.size() > 3)
      nic["name"] = args[3];
    else if (args.size() > 2)
      nic["name"] = args[2];
    devices[device] = std::move(nic);
    return {};
  });
}

Result<> detach(App& app, const Args& args) {
  VIRGA_TRY(auto network, local_name(args[0]));
  return update(app, instance_resource(), args[1], [&](json::object& object) -> Result<> {
    auto& devices = map_in(object, "devices");
    std::vector<std::string> found;
    for (const auto& [name, device] : devices)
      if (device.is_object() && text_of(device.get_object(), "type") == "nic" &&
          text_of(device.get_object(), "network") == network && (args.size() < 3 || name == args[2]))
        found.emplace_back(name);
    if (found.empty()) return fail(ErrorKind::not_found, "No device found for this network");
    if (found.size() > 1) return fail(ErrorKind::invalid, "More than one device matches, specify the device name");
    devices.erase(found[0]);
    return {};
  });
}

}  // namespace

Command network_command() {
  const Resource& r = network_resource();
  Command group{.use = "network", .summary = "Manage and attach instances to networks"};
  group.children = {
      {.use = "list [<remote>:]",
       .summary = "List available networks",
       .aliases = {"ls"},
       .description = "Column shorthand chars:\n  4 - IPv4 address\n  6 - IPv6 address\n  d - Description\n  e - Project name\n  m "
                      "- Managed status\n  n - Network Interface Name\n"
                      "  s - State\n  t - Interface type\n  u - Used by (count)",
       .flags = {{"all-projects", 0, Flag::boolean, "List networks in all projects"}, columns_flag("ntm46dus"), format_flag()},
       .most = 1,
       .run = list},
      {.use = "create [<remote>:]<network> [key=value...]",
       .summary = "Create new networks",
       .examples = "virga network create br1\n    Create a bridge with addresses of its own choice\n\n"
                   "virga network create br1 ipv4.address=10.10.0.1/24 ipv4.nat=true ipv6.address=none\n    Create a bridge with "
                   "the addresses of your choice\n\n"
                   "virga network create br1 < config.yaml\n    Create a network using the content of config.yaml",
       .flags = {{"description", 0, Flag::text, "Network description"}, {"type", 't', Flag::text, "Network type", "bridge"}},
       .least = 1,
       .most = any_number,
       .run = create},
      {.use = "info [<remote>:]<network>", .summary = "Get runtime information on networks", .least = 1, .most = 1, .run = info},
      {.use = "list-leases [<remote>:]<network>",
       .summary = "List DHCP leases",
       .description = "Column shorthand chars:\n  h - Hostname\n  m - MAC Address\n  i - IP Address\n  t - Type",
       .flags = {columns_flag("hmit"), format_flag()},
       .least = 1,
       .most = 1,
       .run = list_leases},
      {.use = "attach [<remote>:]<network> <instance> [<device name>] [<interface name>]",
       .summary = "Attach network interfaces to instances",
       .least = 2,
       .most = 4,
       .run = attach},
      {.use = "detach [<remote>:]<network> <instance> [<device name>]",
       .summary = "Detach network interfaces from instances",
       .least = 2,
       .most = 3,
       .run = detach},
      show_command(r),
      get_command(r),
      set_command(r),
      unset_command(r),
      edit_command(r),
      delete_command(r),
      rename_command(r),
  };
  return group;
}

}  // namespace virga::cli
