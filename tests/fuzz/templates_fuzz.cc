// Templates of images: whatever they are, rendering ends soon and within its bounds (S17).
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "engine/templates/render.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace virga::engine::templates;
  static const Context context = [] {
    Context c;
    c.variables["instance"] = Map{{"name", "c1"}, {"ephemeral", false}};
    c.variables["devices"] = Map{{"root", Map{{"type", "disk"}, {"path", "/"}}}, {"eth0", Map{{"type", "nic"}}}};
    c.functions["config_get"] = [](const List& a) -> Value { return a.size() > 1 ? a[1] : Value("x"); };
    return c;
  }();
  const Caps caps{.steps = 20'000, .output = 1u << 16, .source = 1u << 16, .depth = 40};
  auto out = render({reinterpret_cast<const char*>(data), size}, context, caps);
  if (out && out->size() > caps.output) std::abort();
  return 0;
}
