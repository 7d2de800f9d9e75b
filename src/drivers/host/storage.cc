#include <algorithm>
#include <filesystem>
#include <map>

#include "drivers/host/resources.h"

namespace virga::host {
namespace {

/// Names in /dev/disk/<by> by the device they lead to.
std::map<std::string, std::string> links(const Host& host, const std::string& by) {
  std::map<std::string, std::string> out;
  const auto directory = host.roots.dev + "/disk/" + by;
  for (const auto& name : names(directory))
    if (const auto target = link_name(directory + "/" + name); !target.empty()) out.try_emplace(target, name);
  return out;
}

/// "nvme", "virtio", "scsi", "sata", "usb", "mmc": how it is attached.
std::string kind(const std::string& name, const std::string& real) {
  if (name.starts_with("nvme")) return "nvme";
  if (name.starts_with("mmcblk")) return "mmc";
  if (real.find("/virtio") != std::string::npos) return "virtio";
  if (real.find("/usb") != std::string::npos) return "usb";
  if (real.find("/ata") != std::string::npos) return "sata";
  auto subsystem = link_name(real + "/device/subsystem");
  return subsystem;
}

json::array partitions(const std::string& at) {
  json::array out;
  for (const auto& name : names(at)) {
    const auto part = number(at + "/" + name + "/partition");
    if (!part) continue;
    out.push_back({{"id", name},
                   {"device", device_number(at + "/" + name)},
                   {"partition", *part},
                   {"read_only", number_or(at + "/" + name + "/ro", 0) != 0},
                   {"size", number_or(at + "/" + name + "/size", 0) * 512}});
  }
  return out;
}

std::string first_of(const std::string& device, std::initializer_list<const char*> files) {
  for (const char* file : files)
    if (auto value = text(device + "/" + file); !value.empty()) return value;
  return {};
}

void put(json::object& out, std::string_view key, std::string value) {
  if (!value.empty()) out[key] = std::move(value);
}

}  // namespace

json::object storage(const Host& host) {
  const auto ids = links(host, "by-id"), paths = links(host, "by-path");
  json::array disks;
  const auto directory = host.roots.sys + "/class/block";
  for (const auto& name : names(directory)) {
    const auto at = directory + "/" + name;
    // Partitions, and what is made of other devices, have none of their own.
    if (is_there(at + "/partition") || !is_there(at + "/device")) continue;
    const auto real = real_path(at), device = at + "/device";
    json::object d{{"id", name},
                   {"device", device_number(at)},
                   {"type", kind(name, real)},
                   {"read_only", number_or(at + "/ro", 0) != 0},
                   {"removable", number_or(at + "/removable", 0) != 0},
                   {"size", number_or(at + "/size", 0) * 512},
                   {"block_size", number_or(at + "/queue/logical_block_size", 0)},
                   {"rpm", number_or(at + "/queue/rotational", 0)},
                   {"numa_node", numa_node(real_path(device))},
                   {"device_id", ""},
                   {"partitions", partitions(at)}};
    if (auto found = ids.find(name); found != ids.end()) d["device_id"] = found->second;
    if (auto found = paths.find(name); found != paths.end()) d["device_path"] = found->second;
    put(d, "model", text(device + "/model"));
    put(d, "serial", first_of(device, {"serial", "../serial"}));
    put(d, "firmware_version", first_of(device, {"firmware_rev", "rev", "fwrev"}));
    put(d, "wwn", first_of(at, {"wwid", "device/wwid"}));
    put(d, "pci_address", pci_address(real));
    put(d, "usb_address", usb_address(real));
    disks.push_back(std::move(d));
  }
  return listed("disks", std::move(disks));
}

}  // namespace virga::host
