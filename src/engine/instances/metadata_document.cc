#include "engine/instances/metadata_document.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace virga::engine {
namespace {

constexpr std::size_t max_text = 4096;

Result<> check_text(const std::string& field, const std::string& text, std::size_t most = max_text) {
  if (text.size() > most) return invalid(field, fmt::format("'{}' is longer than {} bytes", field, most));
  const bool control =
      std::any_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
  if (control) return invalid(field, fmt::format("'{}' holds control characters", field));
  return {};
}

Result<> check_properties(const std::string& field, const std::map<std::string, std::string>& map) {
  if (map.size() > 256) return invalid(field, fmt::format("'{}' has more than 256 entries", field));
  for (const auto& [key, value] : map) {
    VIRGA_CHECK(check_text(field, key, 255));
    VIRGA_CHECK(check_text(field, value));
  }
  return {};
}

Result<std::optional<std::uint32_t>> number(const std::string& field, const std::string& text, int base, std::uint32_t most) {
  if (text.empty()) return std::nullopt;
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc() || end != text.data() + text.size() || value > most)
    return invalid(field, fmt::format("'{}' is not a number that a file can have", field));
  return static_cast<std::uint32_t>(value);
}

Result<image::Template> read_template_entry(const std::string& path, const json::object& object) {
  const auto where = fmt::format("templates.{}", path.substr(0, 100));
  VIRGA_CHECK(check_text("templates", path));
  if (path.empty() || path.front() != '/') return invalid("templates", "a template's path must be absolute");
  const Fields f(object, where);
  VIRGA_CHECK(f.only({"when", "create_only", "template", "properties", "uid", "gid", "mode"}));
  image::Template t;
  VIRGA_TRY(t.when, f.strings("when"));
  VIRGA_TRY(t.create_only, f.boolean("create_only"));
  VIRGA_TRY(t.template_file, f.string("template"));
  VIRGA_TRY(t.properties, f.string_map("properties"));
  VIRGA_TRY(t.uid, f.string("uid"));
  VIRGA_TRY(t.gid, f.string("gid"));
  VIRGA_TRY(t.mode, f.string("mode"));
  for (const auto& when : t.when)
    if (when != "create" && when != "copy" && when != "start" && when != "rename")
      return invalid(
          where + ".when",
          fmt::format("'{}' is not a time at which templates are applied: create, copy, start or rename", when.substr(0, 40)));
  if (!check_template_name(t.template_file)) return invalid(where + ".template", "a template's file must be a plain name");
  VIRGA_CHECK(check_properties(where + ".properties", t.properties));
  if (auto ok = permissions_of(t); !ok) return fail(std::move(ok).error().wrap(where));
  return t;
}

}  // namespace

json::object metadata_json(const image::Metadata& m) {
  json::object templates;
  for (const auto& [path, t] : m.templates)
    templates[path] = json::object{{"when", virga::to_json(t.when)},
                                   {"create_only", t.create_only},
                                   {"template", t.template_file},
                                   {"properties", virga::to_json(t.properties)},
                                   {"uid", t.uid},
                                   {"gid", t.gid},
                                   {"mode", t.mode}};
  return {{"architecture", m.architecture},
          {"creation_date", m.creation_date},
          {"expiry_date", m.expiry_date},
          {"properties", virga::to_json(m.properties)},
          {"templates", std::move(templates)}};
}

Result<image::Metadata> read_metadata(const json::object& object) {
  const Fields f(object);
  VIRGA_CHECK(f.only({"architecture", "creation_date", "expiry_date", "properties", "templates"}));
  image::Metadata m;
  VIRGA_TRY(m.architecture, f.string("architecture"));
  VIRGA_CHECK(check_text("architecture", m.architecture, 64));
  VIRGA_TRY(m.creation_date, f.integer("creation_date"));
  VIRGA_TRY(m.expiry_date, f.integer("expiry_date"));
  VIRGA_TRY(m.properties, f.string_map("properties"));
  VIRGA_CHECK(check_properties("properties", m.properties));
  VIRGA_TRY(const auto templates, f.object("templates"));
  if (templates.size() > max_templates) return invalid("templates", fmt::format("more than {} templates", max_templates));
  for (const auto& [path, value] : templates) {
    if (!value.is_object()) return invalid("templates", "each template must be an object");
    VIRGA_TRY(m.templates[std::string(path)], read_template_entry(std::string(path), value.get_object()));
  }
  return m;
}

Result<> check_template_name(const std::string& name) {
  if (name.empty() || name == "." || name == ".." || name.size() > 255 || name.find('/') != std::string::npos)
    return invalid("path", "a template's name must be a plain file name");
  return check_text("path", name, 255);
}

Result<> check_template_files(const std::map<std::string, std::string>& files) {
  if (files.size() > max_templates) return invalid("path", fmt::format("an instance has at most {} templates", max_templates));
  std::size_t sum = 0;
  for (const auto& [name, text] : files) {
    if (text.size() > max_template_size) return invalid("path", "a template is at most 1 MiB");
    sum += text.size();
  }
  if (sum > max_templates_size) return invalid("path", "the templates of an instance are together at most 4 MiB");
  return {};
}

Result<TemplatePermissions> permissions_of(const image::Template& t) {
  TemplatePermissions out;
  VIRGA_TRY(out.uid, number("uid", t.uid, 10, 0xfffffffe));
  VIRGA_TRY(out.gid, number("gid", t.gid, 10, 0xfffffffe));
  VIRGA_TRY(out.mode, number("mode", t.mode, 8, 07777));
  return out;
}

std::string metadata_key(const std::string& uuid) {
  return "/instance-metadata/" + uuid;
}

json::object encode(const InstanceMetadata& metadata) {
  return {{"metadata", metadata_json(metadata.image)}, {"files", virga::to_json(metadata.files)}};
}

Result<InstanceMetadata> decode_metadata(const json::object& document) {
  const Fields f(document);
  InstanceMetadata out;
  VIRGA_TRY(const auto metadata, f.object("metadata"));
  VIRGA_TRY(out.image, read_metadata(metadata));
  VIRGA_TRY(out.files, f.string_map("files"));
  return out;
}

}  // namespace virga::engine
