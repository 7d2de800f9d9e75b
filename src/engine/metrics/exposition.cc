#include "engine/metrics/exposition.h"

#include <fmt/format.h>

#include <iterator>

namespace virga::engine {
namespace {

/// What a label's value may not hold as it is. Control characters have no escape: they become '?'.
void append_escaped(std::string& out, std::string_view value) {
  for (const char c : value) {
    if (c == '\\' || c == '"') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else {
      out += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
    }
  }
}

}  // namespace

void Exposition::family(std::string_view name, MetricType type, std::string_view help) {
  name_ = name;
  type_ = type;
  help_ = help;
  announced_ = false;
}

void Exposition::begin(Labels labels) {
  if (!announced_) {
    announced_ = true;
    // A counter's family is named without the suffix of its samples.
    std::string_view family = name_;
    if (type_ == MetricType::counter && family.ends_with("_total")) family.remove_suffix(6);
    fmt::format_to(std::back_inserter(text_), "# TYPE {} {}\n# HELP {} {}\n", family,
                   type_ == MetricType::counter ? "counter" : "gauge", family, help_);
  }
  text_ += name_;
  bool first = true;
  for (const auto& [name, value] : labels) {
    if (value.empty()) continue;
    text_ += first ? '{' : ',';
    first = false;
    text_ += name;
    text_ += "=\"";
    append_escaped(text_, value);
    text_ += '"';
  }
  if (!first) text_ += '}';
  text_ += ' ';
}

void Exposition::add(Labels labels, std::uint64_t value) {
  begin(labels);
  fmt::format_to(std::back_inserter(text_), "{}\n", value);
}

void Exposition::add(Labels labels, double value) {
  begin(labels);
  fmt::format_to(std::back_inserter(text_), "{}\n", value);
}

std::string Exposition::take() {
  text_ += "# EOF\n";
  return std::move(text_);
}

}  // namespace virga::engine
