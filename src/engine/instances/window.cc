#include "engine/instances/window.h"

#include "base/json.h"
#include "base/units.h"

namespace virga::engine {
namespace {

Result<std::uint16_t> dimension(const json::object& args, std::string_view name) {
  const auto* v = args.if_contains(name);
  if (v == nullptr) return fail(ErrorKind::invalid, "missing size");
  if (v->is_int64()) {
    if (v->get_int64() < 1 || v->get_int64() > 10'000) return fail(ErrorKind::invalid, "size out of range");
    return static_cast<std::uint16_t>(v->get_int64());
  }
  if (!v->is_string()) return fail(ErrorKind::invalid, "size is not a number");
  VIRGA_TRY(auto n, parse_integer(std::string_view(v->get_string()), 1, 10'000));
  return static_cast<std::uint16_t>(n);
}

}  // namespace

std::optional<WindowSize> parse_window_resize(std::string_view message) {
  auto object = parse_json_object(message);
  if (!object) return std::nullopt;
  const Fields fields(*object);
  auto command = fields.string("command");
  auto args = fields.object("args");
  if (!command || *command != "window-resize" || !args) return std::nullopt;
  auto width = dimension(*args, "width"), height = dimension(*args, "height");
  if (!width || !height) return std::nullopt;
  return WindowSize{*width, *height};
}

}  // namespace virga::engine
