#include "drivers/host/resources.h"

#include "io/file.h"

namespace virga::host {

json::object resources(const Host& host) {
  return {{"cpu", cpu(host)},         {"memory", memory(host)}, {"gpu", gpu(host)}, {"network", network(host)},
          {"storage", storage(host)}, {"usb", usb(host)},       {"pci", pci(host)}, {"serial", serial(host)},
          {"system", machine(host)},  {"load", load(host)}};
}

void add_driver(json::object& out, const Host& host, const std::string& device) {
  const auto driver = link_name(device + "/driver");
  out["driver"] = driver;
  if (driver.empty()) {
    out["driver_version"] = "";
    return;
  }
  const auto module = link_name(device + "/driver/module");
  auto version = text(host.roots.sys + "/module/" + (module.empty() ? driver : module) + "/version");
  out["driver_version"] = version.empty() ? host.kernel_version : version;
}

Names names_of(const Host& host, const char* list, const std::string& vendor_id, const std::string& product_id) {
  Names out;
  if (vendor_id.size() != 4) return out;
  std::string all;
  for (const char* directory : {"/misc/", "/hwdata/"})
    if (all.empty()) all = io::read_file(host.roots.share + directory + list).value_or("");
  // "8086  Intel Corporation" begins a vendor, "<tab>1533  I210" is a product of his; a comment or another table ends the search.
  auto at = all.starts_with(vendor_id + "  ") ? 0 : all.find("\n" + vendor_id + "  ");
  if (at == std::string::npos) return out;
  at = all.find(vendor_id, at);
  auto line_at = [&](std::size_t from) { return std::string_view(all).substr(from, all.find('\n', from) - from); };
  out.vendor = std::string(line_at(at).substr(6));
  for (at = all.find('\n', at); at != std::string::npos && at + 1 < all.size(); at = all.find('\n', at + 1)) {
    const auto line = line_at(at + 1);
    if (line.starts_with('#') || line.empty()) continue;
    if (!line.starts_with('\t')) break;
    if (line.substr(1).starts_with(product_id + "  ")) {
      out.product = std::string(line.substr(7));
      break;
    }
  }
  return out;
}

json::array with_virtual_functions(std::map<std::string, json::object> cards) {
  json::array out;
  for (auto& [real, card] : cards) {
    const auto parent = cards.find(real_path(real + "/physfn"));
    if (parent == cards.end() || !parent->second.contains("sriov")) continue;
    auto& functions = parent->second["sriov"].get_object()["vfs"];
    if (!functions.is_array()) functions = json::array();
    functions.get_array().push_back(std::move(card));
    card.clear();
  }
  for (auto& [real, card] : cards)
    if (!card.empty()) out.push_back(std::move(card));
  return out;
}

json::object listed(const char* list, json::array items) {
  const auto total = items.size();
  return {{list, std::move(items)}, {"total", total}};
}

std::string device_number(const std::string& directory) {
  return text(directory + "/dev");
}

}  // namespace virga::host
