// What this host has: processors, memory, disks, network cards, PCI, USB and graphics devices, firmware, load. The JSON that
// /1.0/resources shows, read from /sys and /proc. Blocking: for a pool.
//
//   cpu.cc memory.cc storage.cc network.cc gpu.cc bus.cc (PCI, USB, serial) system.cc (firmware, load)
#pragma once

#include <map>
#include <string>

#include "base/json.h"
#include "drivers/host/sysfs.h"

namespace virga::host {

struct Host {
  Roots roots;
  std::string architecture;    ///< "x86_64"
  std::string kernel_version;  ///< what drivers without a version of their own have
};

json::object resources(const Host& host);

json::object cpu(const Host& host);
json::object memory(const Host& host);
json::object storage(const Host& host);
json::object network(const Host& host);
json::object gpu(const Host& host);
json::object pci(const Host& host);
json::object usb(const Host& host);
json::object serial(const Host& host);
json::object machine(const Host& host);
json::object load(const Host& host);

/// {"driver": ..., "driver_version": ...} of a device directory.
void add_driver(json::object& out, const Host& host, const std::string& device);
/// Names for vendor and product ids, from the lists that distributions ship ("pci.ids", "usb.ids"); empty where there is no list.
struct Names {
  std::string vendor, product;
};
Names names_of(const Host& host, const char* list, const std::string& vendor_id, const std::string& product_id);
/// The cards as a list, virtual functions within the physical card that they are part of. `cards`: by where the device really is.
json::array with_virtual_functions(std::map<std::string, json::object> cards);
/// {"<list>": [...], "total": n}
json::object listed(const char* list, json::array items);
/// "8:1" of a device file in /sys, as "major:minor".
std::string device_number(const std::string& directory);

}  // namespace virga::host
