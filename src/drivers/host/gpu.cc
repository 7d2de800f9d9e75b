#include <map>

#include "drivers/host/resources.h"
#include "io/file.h"

namespace virga::host {
namespace {

/// "Model: \t\t GeForce" in /proc/driver/nvidia.
std::string value_of(const std::string& all, std::string_view key) {
  auto at = all.find(key);
  if (at == std::string::npos) return {};
  at = all.find_first_not_of(" \t:", at + key.size());
  return at == std::string::npos ? std::string() : all.substr(at, all.find('\n', at) - at);
}

/// What NVIDIA's driver tells by itself; the rest would need its own tools.
void add_nvidia(json::object& out, const Host& host, const std::string& address) {
  const auto all = io::read_file(host.roots.proc + "/driver/nvidia/gpus/" + address + "/information").value_or("");
  if (all.empty()) return;
  const auto version = io::read_file(host.roots.proc + "/driver/nvidia/version").value_or("");
  json::object nvidia{{"model", value_of(all, "Model")}, {"uuid", value_of(all, "GPU UUID")}};
  if (const auto at = version.find("Kernel Module  "); at != std::string::npos)
    nvidia["nvrm_version"] = version.substr(at + 15, version.find(' ', at + 15) - at - 15);
  if (const auto minor = value_of(all, "Device Minor"); !minor.empty()) {
    nvidia["card_name"] = "nvidia" + minor;
    nvidia["card_device"] = "195:" + minor;
  }
  out["nvidia"] = std::move(nvidia);
}

/// Kinds of mediated devices that the card can be split into.
void add_mdev(json::object& out, const std::string& device) {
  json::object kinds;
  const auto directory = device + "/mdev_supported_types";
  for (const auto& name : names(directory)) {
    const auto at = directory + "/" + name;
    json::array devices;
    for (const auto& uuid : names(at + "/devices")) devices.emplace_back(uuid);
    kinds[name] = json::object{{"api", text(at + "/device_api")},
                               {"available", number_or(at + "/available_instances", 0)},
                               {"name", text(at + "/name")},
                               {"description", text(at + "/description")},
                               {"devices", std::move(devices)}};
  }
  if (!kinds.empty()) out["mdev"] = std::move(kinds);
}

json::object card(const Host& host, const std::string& device) {
  const auto real = real_path(device);
  const auto address = pci_address(real);
  const auto vendor = hex_id(device + "/vendor"), product = hex_id(device + "/device");
  const auto known = names_of(host, "pci.ids", vendor, product);
  json::object out{{"numa_node", numa_node(real)}, {"vendor_id", vendor}, {"product_id", product}};
  add_driver(out, host, device);
  if (!known.vendor.empty()) out["vendor"] = known.vendor;
  if (!known.product.empty()) out["product"] = known.product;
  if (!address.empty()) out["pci_address"] = address;
  if (auto usb = usb_address(real); !usb.empty()) out["usb_address"] = usb;
  if (const auto most = number(device + "/sriov_totalvfs"); most)
    out["sriov"] = json::object{{"current_vfs", number_or(device + "/sriov_numvfs", 0)}, {"maximum_vfs", *most}, {"vfs", nullptr}};
  add_mdev(out, device);
  add_nvidia(out, host, address);
  return out;
}

}  // namespace

json::object gpu(const Host& host) {
  std::map<std::string, json::object> cards;  // by where the device really is
  const auto drm = host.roots.sys + "/class/drm";
  for (const auto& name : names(drm)) {
    const auto at = drm + "/" + name;
    const bool is_card = name.starts_with("card") && name.find('-') == std::string::npos;
    if (!is_there(at + "/device") || (!is_card && !name.starts_with("renderD") && !name.starts_with("controlD"))) continue;
    const auto real = real_path(at + "/device");
    auto [found, fresh] = cards.try_emplace(real);
    if (fresh) found->second = card(host, at + "/device");
    auto& one = found->second;
    if (!one.contains("drm")) one["drm"] = json::object{{"id", 0}};
    auto& numbers = one["drm"].get_object();
    const std::string part = is_card ? "card" : name.starts_with("renderD") ? "render" : "control";
    if (is_card) numbers["id"] = std::strtoull(name.c_str() + 4, nullptr, 10);
    numbers[part + "_name"] = name;
    numbers[part + "_device"] = device_number(at);
  }
  // Displays without a driver for them.
  const auto devices = host.roots.sys + "/bus/pci/devices";
  for (const auto& name : names(devices)) {
    const auto at = devices + "/" + name;
    if (!hex_id(at + "/class").starts_with("03")) continue;
    if (const auto real = real_path(at); !cards.contains(real)) cards[real] = card(host, at);
  }
  return listed("cards", with_virtual_functions(std::move(cards)));
}

}  // namespace virga::host
