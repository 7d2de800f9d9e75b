#include "model/config.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <vector>

#include "base/units.h"
#include "model/expiry.h"
#include "model/name.h"
#include "model/schedule.h"

namespace virga {
namespace {

Result<> any_line(std::string_view value) {
  if (value.size() > 65536) return fail(ErrorKind::invalid, "the value is longer than 64 KiB");
  for (char c : value)
    if (c == '\0') return fail(ErrorKind::invalid, "the value holds a NUL");
  return {};
}
Result<> boolean(std::string_view value) {
  auto r = parse_bool(value);
  return r ? Result<>{} : fail(std::move(r).error());
}
Result<> only_false(std::string_view value) {
  auto r = parse_bool(value);
  if (!r) return fail(std::move(r).error());
  if (*r) return fail(ErrorKind::unsupported, "privileged containers are not supported: each container has its own range of ids");
  return {};
}
Result<> cpu_count(std::string_view value) {
  if (value.find_first_of(",-") != std::string_view::npos)
    return fail(ErrorKind::unsupported, "pinning to a set of processors is not supported yet: give a number of processors");
  auto r = parse_integer(value, 1, 1024);
  return r ? Result<>{} : fail(std::move(r).error());
}
Result<> memory_size(std::string_view value) {
  if (!value.empty() && value.back() == '%')
    return fail(ErrorKind::unsupported, "a share of the host's memory is not supported yet: give a size such as 512MiB");
  auto r = parse_bytes(value);
  if (!r) return fail(std::move(r).error());
  if (*r < (4u << 20)) return fail(ErrorKind::invalid, "a guest needs at least 4MiB");
  return {};
}
Result<> process_count(std::string_view value) {
  auto r = parse_integer(value, 1, 4'194'304);
  return r ? Result<>{} : fail(std::move(r).error());
}
Result<> environment_value(std::string_view value) {
  return any_line(value);
}

Result<> expiry(std::string_view value) {
  auto r = parse_expiry(value, WallTime(std::chrono::hours(24 * 365 * 50)));
  return r ? Result<>{} : fail(std::move(r).error());
}
Result<> schedule(std::string_view value) {
  auto r = Schedule::parse(value);
  return r ? Result<>{} : fail(std::move(r).error());
}
Result<> snapshot_pattern(std::string_view value) {
  if (value.size() > 1000) return fail(ErrorKind::invalid, "the pattern is longer than 1000 bytes");
  for (char c : value)
    if (static_cast<unsigned char>(c) < 0x20 || c == '/')
      return fail(ErrorKind::invalid, "a snapshot's name holds no '/' and no control character");
  return {};
}

constexpr std::array<KeyRule, 17> rules{{
    {"boot.autostart", true, true, "bool", "",
     "whether to start the guest when the daemon starts; unset: its last state is restored", boolean, true},
    {"environment.*", true, true, "string", "", "an environment variable for init and for exec", environment_value, true},
    {"image.*", true, true, "string", "", "properties of the image the guest was made from", any_line, true},
    {"limits.cpu", true, true, "integer", "1 (VM), all (container)", "how many processors the guest may use", cpu_count, false},
    {"limits.memory", true, true, "string", "1GiB (VM), all (container)", "how much memory the guest may use", memory_size, false},
    {"limits.processes", true, false, "integer", "15 % of the host's pid_max or threads-max, whichever is less",
     "how many processes, threads included, may run in the container", process_count, false},
    {"security.nesting", true, false, "bool", "false", "whether containers may run inside the container", boolean, false},
    {"security.privileged", true, false, "bool", "false", "only false: a container always has its own range of ids", only_false,
     false},
    {"security.secureboot", false, true, "bool", "true",
     "whether firmware boot verifies signatures; not used by images that carry their kernel", boolean, false},
    {"snapshots.expiry", true, true, "string", "", "how long new snapshots are kept: '1M 2H 3d 4w 5m 6y'; unset: for ever", expiry,
     true},
    {"snapshots.expiry.manual", true, true, "string", "same as snapshots.expiry",
     "how long new snapshots are kept that no schedule has asked for", expiry, true},
    {"snapshots.pattern", true, true, "string", "snap%d",
     "the name of snapshots that are given none; %d is a number, and a template may use creation_date", snapshot_pattern, true},
    {"snapshots.schedule", true, true, "string", "",
     "when snapshots are taken: five fields as cron has them, or words such as '@daily, @startup'", schedule, true},
    {"snapshots.schedule.stopped", true, true, "bool", "false", "whether the schedule holds while the guest is stopped, too",
     boolean, true},
    {"user.*", true, true, "string", "", "free for the user; can be searched", any_line, true},
    {"volatile.*", true, true, "string", "", "kept by the daemon", any_line, true},
    {"cluster.evacuate", true, true, "string", "auto", "only auto: the host is not part of a cluster",
     [](std::string_view v) -> Result<> {
       return v == "auto" ? Result<>{} : fail(ErrorKind::unsupported, "clusters are not supported yet");
     },
     true},
}};

struct DeviceRule {
  std::string_view option;
  bool required;
  Result<> (*check)(std::string_view value);
};

Result<> root_path(std::string_view v) {
  return v == "/" ? Result<>{} : fail(ErrorKind::unsupported, "only the root disk (path /) is supported yet");
}
Result<> object(std::string_view v) {
  return check_object_name("object", v);
}
Result<> disk_size(std::string_view v) {
  auto r = parse_bytes(v);
  return r ? Result<>{} : fail(std::move(r).error());
}
Result<> guest_interface(std::string_view v) {
  return check_interface_name("name", v);
}
Result<> bridged(std::string_view v) {
  return v == "bridged" ? Result<>{}
                        : fail(ErrorKind::unsupported, "only NICs on a managed bridge are supported yet: use network=NAME");
}
Result<> hardware_address(std::string_view v) {
  bool ok = v.size() == 17;
  for (std::size_t i = 0; ok && i < v.size(); ++i)
    ok = i % 3 == 2 ? v[i] == ':' : std::isxdigit(static_cast<unsigned char>(v[i])) != 0;
  if (!ok) return fail(ErrorKind::invalid, "write a MAC address as 00:16:3e:12:34:56");
  const char second = v[1];
  if ((second >= '0' && second <= '9' ? second - '0' : (second | 32) - 'a' + 10) & 1)
    return fail(ErrorKind::invalid, "a multicast MAC address cannot be a NIC's own");
  return {};
}
Result<> address_text(std::string_view v) {
  const bool ok = !v.empty() && v.size() <= 45 && v.find_first_not_of("0123456789abcdefABCDEF:.") == std::string_view::npos;
  return ok ? Result<>{} : fail(ErrorKind::invalid, "write a single IP address without a prefix length");
}
Result<> mtu(std::string_view v) {
  auto r = parse_integer(v, 576, 65535);
  return r ? Result<>{} : fail(std::move(r).error());
}

constexpr std::array<DeviceRule, 3> disk_rules{{{"path", true, root_path}, {"pool", true, object}, {"size", false, disk_size}}};
constexpr std::array<DeviceRule, 7> nic_rules{{{"network", true, object},
                                               {"nictype", false, bridged},
                                               {"name", false, guest_interface},
                                               {"hwaddr", false, hardware_address},
                                               {"ipv4.address", false, address_text},
                                               {"ipv6.address", false, address_text},
                                               {"mtu", false, mtu}}};

/// Types that Incus has: asking for one is no mistake, there is only nobody yet who makes it.
constexpr std::array later_types{"gpu", "infiniband", "pci", "proxy", "tpm", "unix-block", "unix-char", "unix-hotplug", "usb"};

tl::unexpected<Error> no_such_type(const std::string& name, const std::string& type) {
  const bool later = std::find(later_types.begin(), later_types.end(), type) != later_types.end();
  return fail(
      Error(later ? ErrorKind::unsupported : ErrorKind::invalid,
            later ? fmt::format("device '{}' has type '{}', which is not supported yet: there are disk, nic and none", name, type)
                  : fmt::format("device '{}' has the unknown type '{}': there are disk, nic and none", name, type.substr(0, 40)))
          .with_field(fmt::format("devices.{}.type", name)));
}

Result<> at(std::string field, Result<> result) {
  if (result) return {};
  const auto what = fmt::format("invalid value for '{}'", field);
  return fail(std::move(result).error().with_field(std::move(field)).wrap(what));
}

Result<> check_device(const std::string& name, const Config& device, std::span<const DeviceRule> device_rules) {
  for (const auto& [option, value] : device) {
    if (option == "type") continue;
    auto rule = std::find_if(device_rules.begin(), device_rules.end(), [&](const auto& r) { return r.option == option; });
    const auto field = fmt::format("devices.{}.{}", name, option);
    if (rule == device_rules.end()) {
      const auto message =
          fmt::format("option '{}' of device '{}' (type {}) is unknown or not supported yet", option, name, device.at("type"));
      return invalid(field, message);
    }
    if (!value.empty()) VIRGA_CHECK(at(field, rule->check(value)));
  }
  for (const auto& rule : device_rules) {
    if (!rule.required) continue;
    auto it = device.find(std::string(rule.option));
    if (it == device.end() || it->second.empty()) {
      return invalid(fmt::format("devices.{}.{}", name, rule.option),
                     fmt::format("device '{}' (type {}) needs the option '{}'", name, device.at("type"), rule.option));
    }
  }
  return {};
}

/// Of one object, however many requests it was put together by: it is held in memory and written whole with each change.
constexpr std::size_t max_config = 1u << 20;
constexpr std::size_t max_devices = 64;
constexpr std::size_t max_nics = 16;  // each takes an address of a network that others share

std::size_t size_of(const Config& config) {
  std::size_t sum = 0;
  for (const auto& [key, value] : config) sum += key.size() + value.size();
  return sum;
}

}  // namespace

std::string_view to_string(InstanceType type) noexcept {
  return type == InstanceType::container ? "container" : "virtual-machine";
}

Result<InstanceType> parse_instance_type(std::string_view text) {
  if (text.empty() || text == "container") return InstanceType::container;
  if (text == "virtual-machine") return InstanceType::virtual_machine;
  return invalid("type", "the instance type is either container or virtual-machine");
}

std::span<const KeyRule> instance_keys() {
  return rules;
}

const KeyRule* find_instance_key(std::string_view key) {
  for (const auto& r : rules) {
    if (r.key.ends_with('*') ? key.starts_with(r.key.substr(0, r.key.size() - 1)) && key.size() >= r.key.size() : r.key == key)
      return &r;
  }
  return nullptr;
}

Result<> check_config(const Config& config, std::optional<InstanceType> type, bool internal) {
  if (size_of(config) > max_config)
    return invalid("config", fmt::format("the configuration is longer than {} bytes together", max_config));
  for (const auto& [key, value] : config) {
    const auto field = "config." + key.substr(0, 100);
    const auto* rule = find_instance_key(key);
    for (char c : key)
      if (static_cast<unsigned char>(c) <= 0x20 || c == 0x7f || c == '=' || c == '"')
        return invalid("config", "a configuration key holds a blank, a quote, '=' or a control character");
    if (rule == nullptr) {
      static constexpr std::initializer_list<std::string_view> names{"boot.autostart",   "limits.cpu",        "limits.memory",
                                                                     "limits.processes", "security.nesting",  "security.secureboot",
                                                                     "snapshots.expiry", "snapshots.pattern", "snapshots.schedule"};
      auto error =
          Error(ErrorKind::invalid, fmt::format("configuration key '{}' is unknown or not supported yet", key.substr(0, 100)))
              .with_field(field);
      if (auto near = nearest(key, names); !near.empty())
        error = std::move(error).with_hint(fmt::format("did you mean '{}'?", near));
      return fail(std::move(error));
    }
    const bool ours = rule->key == "volatile.*" || (rule->key == "image.*" && !type);
    if (ours && !internal) return invalid(field, fmt::format("configuration key '{}' is kept by the daemon", key));
    if (type && !(*type == InstanceType::container ? rule->containers : rule->vms))
      return invalid(field, fmt::format("configuration key '{}' does not exist for a {}", key, to_string(*type)));
    if (!value.empty()) VIRGA_CHECK(at(field, rule->check(value)));
    if (rule->key == "environment.*") {
      auto name = std::string_view(key).substr(12);
      if (name.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_") != std::string_view::npos ||
          (name[0] >= '0' && name[0] <= '9'))
        return invalid(field, fmt::format("configuration key '{}' does not name an environment variable", key.substr(0, 100)));
    }
  }
  return {};
}

Result<> check_devices(const Devices& devices, std::optional<InstanceType>) {
  if (devices.size() > max_devices) return invalid("devices", fmt::format("there are more than {} devices", max_devices));
  std::size_t size = 0, nics = 0;
  for (const auto& [name, device] : devices) {
    size += name.size() + size_of(device);
    const auto type = device.find("type");
    nics += type != device.end() && type->second == "nic" ? 1 : 0;
  }
  if (size > max_config) return invalid("devices", fmt::format("the devices are longer than {} bytes together", max_config));
  if (nics > max_nics) return invalid("devices", fmt::format("there are more than {} NICs", max_nics));
  for (const auto& [name, device] : devices) {
    VIRGA_CHECK(check_device_name(name));
    auto type = device.find("type");
    if (type == device.end()) return invalid(fmt::format("devices.{}.type", name), fmt::format("device '{}' has no type", name));
    for (const auto& [option, value] : device)
      for (char c : value)
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
          return invalid(fmt::format("devices.{}.{}", name, option),
                         fmt::format("option '{}' of device '{}' holds a control character", option, name));
    if (type->second == "disk") {
      VIRGA_CHECK(check_device(name, device, disk_rules));
    } else if (type->second == "nic") {
      VIRGA_CHECK(check_device(name, device, nic_rules));
    } else if (type->second == "none") {
      if (device.size() > 1)
        return invalid(fmt::format("devices.{}", name), fmt::format("device '{}' of type none takes no options", name));
    } else {
      return no_such_type(name, type->second);
    }
  }
  return {};
}

}  // namespace virga
