#include <fmt/format.h>
#include <yaml.h>

#include <string>
#include <utility>
#include <vector>

#include "wire/yaml/scalar.h"
#include "wire/yaml/yaml.h"

namespace virga::yaml {
namespace {

constexpr std::string_view text_tag = "tag:yaml.org,2002:str";
constexpr std::string_view map_tag = "tag:yaml.org,2002:map";
constexpr std::string_view list_tag = "tag:yaml.org,2002:seq";

struct Event {
  yaml_event_t event{};
  ~Event() { yaml_event_delete(&event); }
};

struct Parser {
  yaml_parser_t parser{};
  bool ready = yaml_parser_initialize(&parser) == 1;
  ~Parser() { yaml_parser_delete(&parser); }
};

std::string_view text_of(const yaml_char_t* s) noexcept {
  return s == nullptr ? std::string_view() : std::string_view(reinterpret_cast<const char*>(s));
}

/// Builds the value from events on a stack of its own, so that depth costs no C++ stack.
class Builder {
 public:
  explicit Builder(const DecodeOptions& options) : options_(options) {}

  Result<> on(const yaml_event_t& e) {
    line_ = e.start_mark.line + 1;
    switch (e.type) {
      case YAML_DOCUMENT_START_EVENT:
        if (++documents_ > 1) return wrong("more than one document");
        if (e.data.document_start.tag_directives.start != e.data.document_start.tag_directives.end)
          return wrong("tags are not accepted");
        return {};
      case YAML_ALIAS_EVENT:
        return wrong("aliases are not accepted");
      case YAML_SCALAR_EVENT:
        return scalar(e);
      case YAML_SEQUENCE_START_EVENT:
        return begin(json::array(), e.data.sequence_start.anchor, e.data.sequence_start.tag, list_tag);
      case YAML_MAPPING_START_EVENT:
        return begin(json::object(), e.data.mapping_start.anchor, e.data.mapping_start.tag, map_tag);
      case YAML_SEQUENCE_END_EVENT:
      case YAML_MAPPING_END_EVENT: {
        auto done = std::move(open_.back().value);
        open_.pop_back();
        return place(std::move(done));
      }
      default:
        return {};
    }
  }

  json::value release() { return std::move(root_); }

 private:
  struct Level {
    json::value value;
    std::string key;
    bool has_key = false;
  };

  tl::unexpected<Error> wrong(std::string_view what) const {
    return fail(ErrorKind::invalid, fmt::format("malformed YAML in line {}: {}", line_, what));
  }

  Result<> count() {
    if (++nodes_ > options_.max_nodes) return wrong(fmt::format("more than {} values", options_.max_nodes));
    return {};
  }

  Result<> begin(json::value empty, const yaml_char_t* anchor, const yaml_char_t* tag, std::string_view own_tag) {
    VIRGA_CHECK(count());
    if (anchor != nullptr) return wrong("anchors are not accepted");
    if (tag != nullptr && text_of(tag) != own_tag) return wrong("tags are not accepted");
    if (open_.size() >= options_.max_depth) return wrong(fmt::format("nested deeper than {}", options_.max_depth));
    if (!open_.empty() && open_.back().value.is_object() && !open_.back().has_key)
      return wrong("a key must be a plain word or a string");
    open_.push_back({std::move(empty), {}, false});
    return {};
  }

  Result<> scalar(const yaml_event_t& e) {
    VIRGA_CHECK(count());
    const auto& s = e.data.scalar;
    if (s.anchor != nullptr) return wrong("anchors are not accepted");
    const auto tag = text_of(s.tag);
    if (!tag.empty() && tag != "!" && tag != text_tag) return wrong("tags are not accepted");
    std::string_view text(reinterpret_cast<const char*>(s.value), s.length);
    const bool plain = s.style == YAML_PLAIN_SCALAR_STYLE && tag.empty();
    if (!open_.empty() && open_.back().value.is_object() && !open_.back().has_key) {
      auto& level = open_.back();
      if (plain && text == "<<") return wrong("merge keys are not accepted");
      if (level.value.get_object().contains(text)) return wrong(fmt::format("key '{}' appears twice", text.substr(0, 80)));
      level.key = text;
      level.has_key = true;
      return {};
    }
    if (!plain || options_.strings_only) return place(json::value(json::string(text)));
    auto value = typed(text);
    if (!value) return wrong(value.error().message());
    return place(std::move(*value));
  }

  Result<> place(json::value value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return {};
    }
    auto& level = open_.back();
    if (level.value.is_array()) {
      level.value.get_array().push_back(std::move(value));
      return {};
    }
    level.value.get_object().emplace(level.key, std::move(value));
    level.has_key = false;
    return {};
  }

  const DecodeOptions& options_;
  std::vector<Level> open_;
  json::value root_;
  std::size_t nodes_ = 0;
  std::size_t line_ = 0;
  int documents_ = 0;
};

}  // namespace

Result<json::value> decode(std::string_view text, const DecodeOptions& options) {
  if (text.size() > options.max_size)
    return fail(ErrorKind::invalid, fmt::format("YAML text is larger than {} bytes", options.max_size));
  Parser owner;
  if (!owner.ready) return fail(ErrorKind::unavailable, "no memory for a YAML parser");
  yaml_parser_set_encoding(&owner.parser, YAML_UTF8_ENCODING);
  yaml_parser_set_input_string(&owner.parser, reinterpret_cast<const unsigned char*>(text.data()), text.size());
  Builder builder(options);
  for (;;) {
    Event e;
    if (yaml_parser_parse(&owner.parser, &e.event) != 1) {
      const char* problem = owner.parser.problem != nullptr ? owner.parser.problem : "unreadable";
      return fail(ErrorKind::invalid, fmt::format("malformed YAML in line {}: {}", owner.parser.problem_mark.line + 1, problem));
    }
    if (e.event.type == YAML_STREAM_END_EVENT) return builder.release();
    VIRGA_CHECK(builder.on(e.event));
  }
}

Result<json::object> decode_object(std::string_view text, const DecodeOptions& options) {
  VIRGA_TRY(auto value, decode(text, options));
  if (value.is_null() || (value.is_string() && value.get_string().empty())) return json::object{};
  if (!value.is_object()) return fail(ErrorKind::invalid, "a YAML map is expected");
  return std::move(value.get_object());
}

}  // namespace virga::yaml
