#include "drivers/image/confined/worker/metadata.h"

#include <fmt/format.h>

#include "base/json.h"
#include "base/units.h"
#include "drivers/image/confined/protocol.h"
#include "wire/yaml/yaml.h"

namespace virga::image {
namespace {

Result<std::int64_t> date(const Fields& fields, std::string_view name) {
  VIRGA_TRY(auto text, fields.string(name));
  if (text.empty()) return 0;
  auto value = parse_integer(text, 0, 253'402'300'799);
  if (!value) return invalid(std::string(name), fmt::format("'{}' must be seconds since 1970", name));
  return *value;
}

Result<Metadata> decode(std::string_view yaml) {
  Metadata m;
  VIRGA_TRY(auto document, yaml::decode_object(yaml, {.max_nodes = 20'000, .strings_only = true}));
  // A key without a value is an absent one, whatever type it should have had.
  auto drop_empty = [](json::object& object) {
    for (auto* p = object.begin(); p != object.end();)
      if (p->value().is_string() && p->value().get_string().empty())
        p = object.erase(p);
      else
        ++p;
  };
  drop_empty(document);
  Fields f(document);
  VIRGA_TRY(m.architecture, f.string("architecture"));
  VIRGA_TRY(m.creation_date, date(f, "creation_date"));
  VIRGA_TRY(m.expiry_date, date(f, "expiry_date"));
  VIRGA_TRY(m.properties, f.string_map("properties"));
  VIRGA_TRY(auto templates, f.object("templates"));
  for (auto& [path, value] : templates) {
    if (!value.is_object()) return invalid("templates", "each template must be a map");
    drop_empty(value.get_object());
    Fields t(value.get_object(), "templates");
    Template one;
    VIRGA_TRY(one.when, t.strings("when"));
    VIRGA_TRY(auto create_only, t.string("create_only", "false"));
    VIRGA_TRY(one.create_only, parse_bool(create_only));
    VIRGA_TRY(one.template_file, t.string("template"));
    VIRGA_TRY(one.properties, t.string_map("properties"));
    VIRGA_TRY(one.uid, t.string("uid"));
    VIRGA_TRY(one.gid, t.string("gid"));
    VIRGA_TRY(one.mode, t.string("mode"));
    m.templates.emplace(path, std::move(one));
  }
  return m;
}

}  // namespace

Result<Metadata> decode_metadata(std::string_view yaml) {
  auto m = decode(yaml);
  if (!m) return fail(std::move(m).error().wrap("metadata.yaml"));
  VIRGA_CHECK(check(*m));
  return m;
}

}  // namespace virga::image
