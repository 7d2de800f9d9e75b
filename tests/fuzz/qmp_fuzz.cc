// QEMU's monitor: whatever passes is a greeting, an event with a name, or a reply.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "wire/qmp/message.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  auto message = virga::qmp::parse_message({reinterpret_cast<const char*>(data), size});
  if (!message) return 0;
  if (auto* event = std::get_if<virga::qmp::EventMessage>(&*message); event != nullptr && event->name.empty()) std::abort();
  return 0;
}
