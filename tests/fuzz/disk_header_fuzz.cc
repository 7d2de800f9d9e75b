// Disk headers: whatever passes the inspector is within its bounds.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "drivers/image/confined/worker/disk_header.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view head(reinterpret_cast<const char*>(data), size);
  for (virga::Bytes file_size : {virga::Bytes(size), virga::Bytes(4) << 20, ~virga::Bytes(0)}) {
    auto r = virga::image::inspect_qcow2(head, file_size);
    if (r && (r->virtual_size == 0 || r->virtual_size > virga::image::max_virtual_disk)) std::abort();
  }
  return 0;
}
