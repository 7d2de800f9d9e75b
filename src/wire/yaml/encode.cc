#include <fmt/format.h>
#include <yaml.h>

#include <string>

#include "wire/yaml/scalar.h"
#include "wire/yaml/yaml.h"

namespace virga::yaml {
namespace {

int append(void* out, unsigned char* data, std::size_t size) {
  static_cast<std::string*>(out)->append(reinterpret_cast<const char*>(data), size);
  return 1;
}

class Writer {
 public:
  explicit Writer(std::string& out) {
    yaml_emitter_initialize(&emitter_);
    yaml_emitter_set_output(&emitter_, append, &out);
    yaml_emitter_set_unicode(&emitter_, 1);
    yaml_event_t e;
    yaml_stream_start_event_initialize(&e, YAML_UTF8_ENCODING);
    yaml_emitter_emit(&emitter_, &e);
    yaml_document_start_event_initialize(&e, nullptr, nullptr, nullptr, 1);
    yaml_emitter_emit(&emitter_, &e);
  }
  Writer(const Writer&) = delete;
  ~Writer() {
    yaml_event_t e;
    yaml_document_end_event_initialize(&e, 1);
    yaml_emitter_emit(&emitter_, &e);
    yaml_stream_end_event_initialize(&e);
    yaml_emitter_emit(&emitter_, &e);
    yaml_emitter_delete(&emitter_);
  }

  void value(const json::value& v) {
    switch (v.kind()) {
      case json::kind::null:
        return scalar("null", YAML_PLAIN_SCALAR_STYLE);
      case json::kind::bool_:
        return scalar(v.get_bool() ? "true" : "false", YAML_PLAIN_SCALAR_STYLE);
      case json::kind::int64:
        return scalar(fmt::format("{}", v.get_int64()), YAML_PLAIN_SCALAR_STYLE);
      case json::kind::uint64:
        return scalar(fmt::format("{}", v.get_uint64()), YAML_PLAIN_SCALAR_STYLE);
      case json::kind::double_:
        return scalar(fmt::format("{}", v.get_double()), YAML_PLAIN_SCALAR_STYLE);
      case json::kind::string:
        return string(v.get_string());
      case json::kind::array:
        return list(v.get_array());
      case json::kind::object:
        return map(v.get_object());
    }
  }

 private:
  void scalar(std::string_view text, yaml_scalar_style_t style) {
    yaml_event_t e;
    const auto* data = reinterpret_cast<const yaml_char_t*>(text.data() != nullptr ? text.data() : "");
    if (yaml_scalar_event_initialize(&e, nullptr, nullptr, data, static_cast<int>(text.size()), 1, 1, style) != 1)
      yaml_scalar_event_initialize(&e, nullptr, nullptr, reinterpret_cast<const yaml_char_t*>("\xef\xbf\xbd"), 3, 1, 1,
                                   YAML_PLAIN_SCALAR_STYLE);  // not UTF-8: JSON text never is
    yaml_emitter_emit(&emitter_, &e);
  }

  void string(std::string_view text) {
    if (text.find('\n') != std::string_view::npos) return scalar(text, YAML_LITERAL_SCALAR_STYLE);
    const bool plain = meaning_of(text) == Meaning::text && !looks_like_base60(text);
    scalar(text, plain ? YAML_PLAIN_SCALAR_STYLE : YAML_DOUBLE_QUOTED_SCALAR_STYLE);
  }

  void list(const json::array& items) {
    yaml_event_t e;
    yaml_sequence_start_event_initialize(&e, nullptr, nullptr, 1, YAML_BLOCK_SEQUENCE_STYLE);
    yaml_emitter_emit(&emitter_, &e);
    for (const auto& item : items) value(item);
    yaml_sequence_end_event_initialize(&e);
    yaml_emitter_emit(&emitter_, &e);
  }

  void map(const json::object& object) {
    yaml_event_t e;
    yaml_mapping_start_event_initialize(&e, nullptr, nullptr, 1, YAML_BLOCK_MAPPING_STYLE);
    yaml_emitter_emit(&emitter_, &e);
    for (const auto& [key, item] : object) {
      string(key);
      value(item);
    }
    yaml_mapping_end_event_initialize(&e);
    yaml_emitter_emit(&emitter_, &e);
  }

  yaml_emitter_t emitter_{};
};

}  // namespace

std::string encode(const json::value& value) {
  std::string out;
  {
    Writer writer(out);
    writer.value(value);
  }
  // Text that ends in blank lines makes the emitter mark the document's end; the tools we look like do not.
  if (out.ends_with("\n...\n")) out.resize(out.size() - 4);
  return out;
}

}  // namespace virga::yaml
