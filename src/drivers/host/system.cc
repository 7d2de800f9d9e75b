// What the machine says of itself, and how busy it is.
#include <sys/sysinfo.h>

#include <array>

#include "drivers/host/resources.h"
#include "io/file.h"

namespace virga::host {
namespace {

/// The types of the SMBIOS specification, from 1.
constexpr std::array chassis_types = {"Other",
                                      "Unknown",
                                      "Desktop",
                                      "Low Profile Desktop",
                                      "Pizza Box",
                                      "Mini Tower",
                                      "Tower",
                                      "Portable",
                                      "Laptop",
                                      "Notebook",
                                      "Hand Held",
                                      "Docking Station",
                                      "All in One",
                                      "Sub Notebook",
                                      "Space-saving",
                                      "Lunch Box",
                                      "Main Server Chassis",
                                      "Expansion Chassis",
                                      "SubChassis",
                                      "Bus Expansion Chassis",
                                      "Peripheral Chassis",
                                      "RAID Chassis",
                                      "Rack Mount Chassis",
                                      "Sealed-case PC",
                                      "Multi-system chassis",
                                      "Compact PCI",
                                      "Advanced TCA",
                                      "Blade",
                                      "Blade Enclosure",
                                      "Tablet",
                                      "Convertible",
                                      "Detachable",
                                      "IoT Gateway",
                                      "Embedded PC",
                                      "Mini PC",
                                      "Stick PC"};

std::string chassis_type(const std::string& dmi) {
  const auto n = number_or(dmi + "/chassis_type", 0);
  return n >= 1 && n <= chassis_types.size() ? chassis_types[n - 1] : "";
}

std::string type_of(const Host& host) {
  const auto init = io::read_file(host.roots.proc + "/1/environ").value_or("");
  if (is_there(host.roots.run + "/systemd/container") || is_there(host.roots.run + "/.containerenv") ||
      is_there(host.roots.top + "/.dockerenv") || init.starts_with("container=") ||
      init.find(std::string("\0container=", 11)) != std::string::npos)
    return "container";
  const auto cpu = io::read_file(host.roots.proc + "/cpuinfo").value_or("");
  return cpu.find(" hypervisor") != std::string::npos ? "virtual-machine" : "physical";
}

}  // namespace

json::object machine(const Host& host) {
  const auto dmi = host.roots.sys + "/class/dmi/id";
  auto at = [&](const char* file) { return text(dmi + "/" + file); };
  json::object out{{"uuid", at("product_uuid")},
                   {"vendor", at("sys_vendor")},
                   {"product", at("product_name")},
                   {"family", at("product_family")},
                   {"version", at("product_version")},
                   {"sku", at("product_sku")},
                   {"serial", at("product_serial")},
                   {"type", type_of(host)},
                   {"firmware", nullptr},
                   {"chassis", nullptr},
                   {"motherboard", nullptr}};
  if (!is_there(dmi)) return out;
  out["firmware"] = json::object{{"vendor", at("bios_vendor")}, {"date", at("bios_date")}, {"version", at("bios_version")}};
  out["chassis"] = json::object{{"vendor", at("chassis_vendor")},
                                {"type", chassis_type(dmi)},
                                {"serial", at("chassis_serial")},
                                {"version", at("chassis_version")}};
  out["motherboard"] = json::object{{"vendor", at("board_vendor")},
                                    {"product", at("board_name")},
                                    {"serial", at("board_serial")},
                                    {"version", at("board_version")}};
  return out;
}

json::object load(const Host& host) {
  const auto line = text(host.roots.proc + "/loadavg");
  char* at = nullptr;
  const double one = std::strtod(line.c_str(), &at);
  const double five = std::strtod(at, &at);
  const double fifteen = std::strtod(at, &at);
  struct ::sysinfo info{};
  const auto processes = ::sysinfo(&info) == 0 ? info.procs : 0;
  // The API calls the kernel's third average that of ten minutes; it is of fifteen.
  return {{"Average1Min", one}, {"Average5Min", five}, {"Average10Min", fifteen}, {"Processes", processes}};
}

}  // namespace virga::host
