#include "apps/virga/progress.h"

#include <fmt/format.h>

#include <cstdio>

#include "apps/virga/text.h"
#include "apps/virga/values.h"

namespace virga::cli {

void Progress::show(std::string_view text) {
  if (!enabled_) return;
  auto line = escaped_line(text);
  if (!prefix_.empty()) line = line.empty() ? prefix_ : fmt::format("{}: {}", prefix_, line);
  if (line == shown_) return;
  fmt::print(stderr, "\r{}\x1b[K", line);
  std::fflush(stderr);
  shown_ = std::move(line);
}

void Progress::show(const json::object& operation) {
  show(progress_text(operation));
}

void Progress::clear() {
  if (shown_.empty()) return;
  fmt::print(stderr, "\r\x1b[K");
  std::fflush(stderr);
  shown_.clear();
}

std::string progress_text(const json::object& operation) {
  for (const auto& [key, value] : object_of(operation, "metadata"))
    if (std::string_view(key).ends_with("progress") && value.is_string()) return std::string(value.get_string());
  return {};
}

}  // namespace virga::cli
