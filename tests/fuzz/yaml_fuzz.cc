// YAML of image metadata and of what people edit: any bytes give a value or an error, and a value survives being written and read.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "drivers/image/confined/worker/metadata.h"
#include "wire/yaml/yaml.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  (void)virga::image::decode_metadata(text).has_value();
  auto value = virga::yaml::decode(text, {.strings_only = true});
  if (!value || value->is_null()) return 0;  // an empty text
  auto again = virga::yaml::decode(virga::yaml::encode(*value), {.max_size = 64u << 20, .strings_only = true});
  if (!again || *again != *value) std::abort();
  return 0;
}
