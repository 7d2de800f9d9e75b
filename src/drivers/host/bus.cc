// PCI, USB and serial devices.

#include "drivers/host/resources.h"
#include "io/file.h"

namespace virga::host {
namespace {

/// Vital product data: a list of small and large resources. Keywords of two letters, and the product's name.
json::object vital_product_data(const std::string& path) {
  json::object out;
  const auto data = io::read_file(path, 32u << 10).value_or("");
  auto byte = [&](std::size_t at) { return at < data.size() ? static_cast<unsigned char>(data[at]) : 0U; };
  auto clean = [](std::string_view value) {
    std::string text;
    for (const char c : value)
      if (static_cast<unsigned char>(c) >= 0x20 && static_cast<unsigned char>(c) < 0x7f) text += c;
    while (text.ends_with(' ')) text.pop_back();
    return text;
  };
  json::object entries;
  for (std::size_t at = 0; at + 3 <= data.size();) {
    const auto tag = byte(at);
    if ((tag & 0x80) == 0) break;  // the end tag, or nothing we know
    const std::size_t length = byte(at + 1) | (byte(at + 2) << 8);
    const auto begin = at + 3;
    if (begin + length > data.size()) break;
    if (tag == 0x82) out["product_name"] = clean(std::string_view(data).substr(begin, length));
    for (std::size_t i = begin; (tag == 0x90 || tag == 0x91) && i + 3 <= begin + length;) {
      const auto size = byte(i + 2);
      const auto key = clean(std::string_view(data).substr(i, 2));
      if (i + 3 + size > begin + length) break;
      if (key.size() == 2 && key != "RV" && key != "RW") entries[key] = clean(std::string_view(data).substr(i + 3, size));
      i += 3 + size;
    }
    at = begin + length;
  }
  if (!entries.empty()) out["entries"] = std::move(entries);
  return out;
}

std::string usb_class(std::int64_t id) {
  switch (id) {
    case 0x01:
      return "Audio";
    case 0x02:
      return "Communications";
    case 0x03:
      return "Human Interface Device";
    case 0x05:
      return "Physical";
    case 0x06:
      return "Image";
    case 0x07:
      return "Printer";
    case 0x08:
      return "Mass Storage";
    case 0x09:
      return "Hub";
    case 0x0a:
      return "CDC Data";
    case 0x0b:
      return "Smart Card";
    case 0x0e:
      return "Video";
    case 0xe0:
      return "Wireless";
    case 0xff:
      return "Vendor Specific Class";
    default:
      return "";
  }
}

std::int64_t hex_number(const std::string& path) {
  return static_cast<std::int64_t>(std::strtoull(text(path).c_str(), nullptr, 16));
}

json::array interfaces(const Host& host, const std::string& device) {
  json::array out;
  for (const auto& name : names(device)) {
    const auto at = device + "/" + name;
    if (!is_there(at + "/bInterfaceNumber")) continue;
    const auto id = hex_number(at + "/bInterfaceClass");
    json::object one{{"class", usb_class(id)},
                     {"class_id", id},
                     {"number", hex_number(at + "/bInterfaceNumber")},
                     {"subclass", ""},
                     {"subclass_id", hex_number(at + "/bInterfaceSubClass")}};
    add_driver(one, host, at);
    out.push_back(std::move(one));
  }
  return out;
}

}  // namespace

json::object pci(const Host& host) {
  json::array devices;
  const auto directory = host.roots.sys + "/bus/pci/devices";
  for (const auto& name : names(directory)) {
    const auto at = directory + "/" + name;
    const auto vendor = hex_id(at + "/vendor"), product = hex_id(at + "/device");
    const auto known = names_of(host, "pci.ids", vendor, product);
    const auto group = link_name(at + "/iommu_group");
    json::object d{{"pci_address", name},
                   {"vendor_id", vendor},
                   {"vendor", known.vendor},
                   {"product_id", product},
                   {"product", known.product},
                   {"numa_node", numa_node(at)},
                   {"iommu_group", group.empty() ? 0 : std::strtoll(group.c_str(), nullptr, 10)},
                   {"vpd", vital_product_data(at + "/vpd")}};
    add_driver(d, host, at);
    devices.push_back(std::move(d));
  }
  return listed("devices", std::move(devices));
}

json::object usb(const Host& host) {
  json::array devices;
  const auto directory = host.roots.sys + "/bus/usb/devices";
  for (const auto& name : names(directory)) {
    const auto at = directory + "/" + name;
    // Interfaces are listed below their device; a hub is of no use to a guest.
    if (!is_there(at + "/devnum") || hex_number(at + "/bDeviceClass") == 0x09) continue;
    const auto vendor = text(at + "/idVendor"), product = text(at + "/idProduct");
    const auto known = names_of(host, "usb.ids", vendor, product);
    auto said = [&](const char* file, const std::string& otherwise) {
      auto value = text(at + "/" + file);
      return value.empty() ? otherwise : value;
    };
    devices.push_back({{"bus_address", number_or(at + "/busnum", 0)},
                       {"device_address", number_or(at + "/devnum", 0)},
                       {"vendor_id", vendor},
                       {"vendor", said("manufacturer", known.vendor)},
                       {"product_id", product},
                       {"product", said("product", known.product)},
                       {"serial", text(at + "/serial")},
                       {"speed", std::strtod(text(at + "/speed").c_str(), nullptr)},
                       {"interfaces", interfaces(host, at)}});
  }
  return listed("devices", std::move(devices));
}

/// Those of adapters; ports on the board cannot be told from ones that are not there.
json::object serial(const Host& host) {
  json::array devices;
  const auto directory = host.roots.sys + "/class/tty";
  for (const auto& name : names(directory)) {
    const auto at = directory + "/" + name;
    const auto real = real_path(at + "/device");
    if (usb_address(real).empty()) continue;
    std::string usb_device = real;
    while (!usb_device.empty() && !is_there(usb_device + "/idVendor"))
      usb_device.erase(std::max<std::size_t>(usb_device.rfind('/'), 0));
    json::object d{{"id", name},
                   {"device", device_number(at)},
                   {"vendor_id", text(usb_device + "/idVendor")},
                   {"vendor", text(usb_device + "/manufacturer")},
                   {"product_id", text(usb_device + "/idProduct")},
                   {"product", text(usb_device + "/product")},
                   {"driver", link_name(at + "/device/driver")}};
    for (const auto& [key, by] : {std::pair{"device_id", "by-id"}, {"device_path", "by-path"}}) {
      const auto links = host.roots.dev + "/serial/" + by;
      for (const auto& link : names(links))
        if (link_name(links + "/" + link) == name) d[key] = "/dev/serial/" + std::string(by) + "/" + link;
    }
    devices.push_back(std::move(d));
  }
  return listed("devices", std::move(devices));
}

}  // namespace virga::host
