#include "base/text.h"

#include "base/json.h"

namespace virga {

std::string printable_text(std::string_view text, std::size_t most) {
  auto out = valid_utf8(text.substr(0, most));
  for (std::size_t i = 0; i < out.size(); ++i) {
    const auto c = static_cast<unsigned char>(out[i]);
    if (c < 0x20 || c == 0x7f) out[i] = '?';
    // U+0080 to U+009F: some terminals act on them.
    if (c == 0xc2 && static_cast<unsigned char>(out[i + 1]) < 0xa0) out[i] = out[i + 1] = '?';
  }
  return out;
}

}  // namespace virga
