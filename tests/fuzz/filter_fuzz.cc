// Filters that clients write: any text gives a filter or an error, and matching takes time in proportion to the text.
#include <cstdint>
#include <string_view>

#include "api/filter.h"
#include "base/json.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const virga::json::object object{
      {"name", "web1"},
      {"status", "Running"},
      {"ephemeral", false},
      {"status_code", 103},
      {"profiles", virga::json::array{"default"}},
      {"config", virga::json::object{{"limits.cpu", "2"}, {"user.long", std::string(500, 'a')}}}};
  auto filter = virga::api::Filter::parse({reinterpret_cast<const char*>(data), size});
  if (filter) (void)filter->matches(object).has_value();
  if (auto regex = virga::api::Regex::parse({reinterpret_cast<const char*>(data), size}))
    (void)regex->search(std::string(500, 'a'));
  return 0;
}
