#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <map>

#include "drivers/host/resources.h"
#include "io/fd.h"

namespace virga::host {
namespace {

struct Mode {
  std::uint32_t bit;
  const char* name;
};
constexpr std::array modes = {
    Mode{SUPPORTED_10baseT_Half, "10baseT/Half"},        Mode{SUPPORTED_10baseT_Full, "10baseT/Full"},
    Mode{SUPPORTED_100baseT_Half, "100baseT/Half"},      Mode{SUPPORTED_100baseT_Full, "100baseT/Full"},
    Mode{SUPPORTED_1000baseT_Half, "1000baseT/Half"},    Mode{SUPPORTED_1000baseT_Full, "1000baseT/Full"},
    Mode{SUPPORTED_1000baseKX_Full, "1000baseKX/Full"},  Mode{SUPPORTED_2500baseX_Full, "2500baseX/Full"},
    Mode{SUPPORTED_10000baseT_Full, "10000baseT/Full"},  Mode{SUPPORTED_10000baseKX4_Full, "10000baseKX4/Full"},
    Mode{SUPPORTED_10000baseKR_Full, "10000baseKR/Full"}};
constexpr std::array ports = {
    Mode{SUPPORTED_TP, "twisted pair"}, Mode{SUPPORTED_AUI, "AUI"}, Mode{SUPPORTED_MII, "media-independent"},
    Mode{SUPPORTED_FIBRE, "fibre"},     Mode{SUPPORTED_BNC, "BNC"}, Mode{SUPPORTED_Backplane, "backplane"}};

const char* port_type(std::uint8_t port) {
  switch (port) {
    case PORT_TP:
      return "twisted pair";
    case PORT_AUI:
      return "AUI";
    case PORT_MII:
      return "media-independent";
    case PORT_FIBRE:
      return "fibre";
    case PORT_BNC:
      return "BNC";
    case PORT_DA:
      return "direct attach";
    case PORT_NONE:
      return "none";
    default:
      return "other";
  }
}

/// One question to the driver of an interface; false: it does not answer it.
template <class Command>
bool ask(const std::string& interface, std::uint32_t what, Command& command) {
  const io::UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  if (!socket || interface.size() >= sizeof request.ifr_name) return false;
  std::memcpy(request.ifr_name, interface.data(), interface.size());
  command.cmd = what;
  request.ifr_data = reinterpret_cast<char*>(&command);
  return ::ioctl(socket.get(), SIOCETHTOOL, &request) == 0;
}

json::array set_in(std::uint32_t bits, std::span<const Mode> names) {
  json::array out;
  for (const auto& m : names)
    if ((bits & m.bit) != 0) out.emplace_back(m.name);
  return out;
}

json::object port(const std::string& at, const std::string& name) {
  json::object out{{"id", name},
                   {"address", text(at + "/address")},
                   {"port", number_or(at + "/dev_port", 0)},
                   {"protocol", number_or(at + "/type", 1) == 32 ? "infiniband" : "ethernet"},
                   {"link_detected", number_or(at + "/carrier", 0) == 1}};
  if (const auto speed = number(at + "/speed"); speed && *speed > 0) out["link_speed"] = *speed;
  if (const auto duplex = text(at + "/duplex"); duplex == "full" || duplex == "half") out["link_duplex"] = duplex;
  ethtool_cmd settings{};
  if (!ask(name, ETHTOOL_GSET, settings)) return out;
  out["auto_negotiation"] = settings.autoneg == AUTONEG_ENABLE;
  out["port_type"] = port_type(settings.port);
  out["transceiver_type"] = settings.transceiver == XCVR_EXTERNAL ? "external" : "internal";
  if (auto list = set_in(settings.supported, modes); !list.empty()) out["supported_modes"] = std::move(list);
  if (auto list = set_in(settings.supported, ports); !list.empty()) out["supported_ports"] = std::move(list);
  return out;
}

/// A card's own facts, from its device directory.
json::object card(const Host& host, const std::string& device) {
  const auto real = real_path(device);
  const auto on_pci = pci_address(real);
  json::object out{{"numa_node", numa_node(real)}};
  add_driver(out, host, device);
  const bool usb = !usb_address(real).empty();
  std::string vendor = hex_id(device + "/vendor"), product = hex_id(device + "/device");
  if (usb) {
    std::string at = real;
    while (!at.empty() && !is_there(at + "/idVendor")) at.erase(at.rfind('/'));
    vendor = text(at + "/idVendor");
    product = text(at + "/idProduct");
    out["usb_address"] = usb_address(real);
  }
  if (!on_pci.empty()) out["pci_address"] = on_pci;
  const auto known = names_of(host, usb ? "usb.ids" : "pci.ids", vendor, product);
  out["vendor_id"] = vendor;
  out["product_id"] = product;
  if (!known.vendor.empty()) out["vendor"] = known.vendor;
  if (!known.product.empty()) out["product"] = known.product;
  if (const auto most = number(device + "/sriov_totalvfs"); most)
    out["sriov"] = json::object{{"current_vfs", number_or(device + "/sriov_numvfs", 0)}, {"maximum_vfs", *most}, {"vfs", nullptr}};
  return out;
}

}  // namespace

json::object network(const Host& host) {
  struct Card {
    std::string device;
    json::array ports;
    std::string firmware;
  };
  std::map<std::string, Card> cards;  // by where its device really is
  const auto directory = host.roots.sys + "/class/net";
  for (const auto& name : names(directory)) {
    const auto at = directory + "/" + name;
    if (!is_there(at + "/device")) continue;  // made by software
    auto& c = cards[real_path(at + "/device")];
    c.device = at + "/device";
    c.ports.push_back(port(at, name));
    ethtool_drvinfo info{};
    if (c.firmware.empty() && ask(name, ETHTOOL_GDRVINFO, info))
      c.firmware.assign(info.fw_version, ::strnlen(info.fw_version, sizeof info.fw_version));
  }
  std::map<std::string, json::object> done;
  for (auto& [real, c] : cards) {
    auto& one = done[real] = card(host, c.device);
    one["ports"] = std::move(c.ports);
    if (!c.firmware.empty() && c.firmware != "N/A") one["firmware_version"] = c.firmware;
  }
  // Cards whose driver makes no interface: bound to vfio, or to nothing.
  const auto devices = host.roots.sys + "/bus/pci/devices";
  for (const auto& name : names(devices)) {
    const auto at = devices + "/" + name, real = real_path(at);
    const bool seen = std::any_of(cards.begin(), cards.end(), [&](const auto& c) { return c.first.starts_with(real); });
    if (!seen && hex_id(at + "/class").starts_with("02")) done[real] = card(host, at);
  }
  return listed("cards", with_virtual_functions(std::move(done)));
}

}  // namespace virga::host
