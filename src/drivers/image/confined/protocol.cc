#include "drivers/image/confined/protocol.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "base/json.h"

namespace virga::image {
namespace {

constexpr std::size_t max_entries = 1000;
constexpr std::size_t max_key = 255;
constexpr std::size_t max_value = 64u << 10;
constexpr std::size_t max_path = 4096;

bool has_control(std::string_view s) {
  return std::any_of(s.begin(), s.end(), [](char c) { return (c >= 0 && c < 0x20 && c != '\t' && c != '\n') || c == 0x7f; });
}

Result<> check_text(std::string_view field, std::string_view text, std::size_t limit) {
  if (text.size() > limit)
    return invalid(std::string(field), fmt::format("metadata.yaml: '{}' is longer than {} bytes", field, limit));
  if (has_control(text)) return invalid(std::string(field), fmt::format("metadata.yaml: '{}' holds control characters", field));
  return {};
}

Result<> check_map(std::string_view field, const std::map<std::string, std::string>& map) {
  if (map.size() > max_entries)
    return invalid(std::string(field), fmt::format("metadata.yaml: '{}' has more than {} entries", field, max_entries));
  for (const auto& [key, value] : map) {
    if (key.empty()) return invalid(std::string(field), fmt::format("metadata.yaml: '{}' has an empty key", field));
    VIRGA_CHECK(check_text(field, key, max_key));
    VIRGA_CHECK(check_text(field, value, max_value));
  }
  return {};
}

json::object to_json_value(const Metadata& m) {
  json::object templates;
  for (const auto& [path, t] : m.templates)
    templates.emplace(path, json::object{{"when", to_json(t.when)},
                                         {"create_only", t.create_only},
                                         {"template", t.template_file},
                                         {"properties", to_json(t.properties)},
                                         {"uid", t.uid},
                                         {"gid", t.gid},
                                         {"mode", t.mode}});
  return {{"architecture", m.architecture},
          {"creation_date", m.creation_date},
          {"expiry_date", m.expiry_date},
          {"properties", to_json(m.properties)},
          {"templates", std::move(templates)}};
}

Result<Metadata> from_json_value(const json::object& object) {
  Metadata m;
  Fields f(object, "metadata");
  VIRGA_TRY(m.architecture, f.string("architecture"));
  VIRGA_TRY(m.creation_date, f.integer("creation_date"));
  VIRGA_TRY(m.expiry_date, f.integer("expiry_date"));
  VIRGA_TRY(m.properties, f.string_map("properties"));
  VIRGA_TRY(auto templates, f.object("templates"));
  for (const auto& [path, value] : templates) {
    if (!value.is_object()) return fail(ErrorKind::invalid, "a template is not an object");
    Fields t(value.get_object(), "templates");
    Template one;
    VIRGA_TRY(one.when, t.strings("when"));
    VIRGA_TRY(one.create_only, t.boolean("create_only"));
    VIRGA_TRY(one.template_file, t.string("template"));
    VIRGA_TRY(one.properties, t.string_map("properties"));
    VIRGA_TRY(one.uid, t.string("uid"));
    VIRGA_TRY(one.gid, t.string("gid"));
    VIRGA_TRY(one.mode, t.string("mode"));
    m.templates.emplace(path, std::move(one));
  }
  VIRGA_CHECK(check(m));
  return m;
}

Result<Answer> decode_fields(std::string_view text) {
  VIRGA_TRY(auto object, parse_json_object(text));
  Fields f(object);
  if (f.has("error")) {
    VIRGA_TRY(auto error, f.object("error"));
    Fields e(error, "error");
    VIRGA_TRY(auto kind, e.string("kind"));
    VIRGA_TRY(auto message, e.string("message"));
    if (message.size() > 2000) message.resize(2000);
    for (char& c : message)
      if ((c >= 0 && c < 0x20) || c == 0x7f) c = '?';
    const auto k = kind == "unavailable" ? ErrorKind::unavailable : kind == "internal" ? ErrorKind::internal : ErrorKind::invalid;
    return fail(k, std::move(message));
  }
  Answer answer;
  VIRGA_TRY(auto type, f.string("type"));
  if (type != "container" && type != "virtual-machine") return fail(ErrorKind::internal, "the image reader names an unknown type");
  answer.inspection.type = type == "container" ? Type::container : Type::virtual_machine;
  VIRGA_TRY(answer.convert_disk, f.boolean("convert_disk"));
  VIRGA_TRY(auto metadata, f.object("metadata"));
  VIRGA_TRY(answer.inspection.metadata, from_json_value(metadata));
  if (f.has("backup")) {
    VIRGA_TRY(const auto backup, f.object("backup"));
    const Fields b(backup, "backup");
    auto& content = answer.backup.emplace();
    VIRGA_TRY(content.documents.index, b.object("index"));
    VIRGA_TRY(content.documents.instance, b.object("instance"));
    VIRGA_TRY(content.templates, b.string_map("templates"));
  }
  return answer;
}

}  // namespace

std::string encode_answer(const Answer& answer) {
  json::object out{{"type", answer.inspection.type == Type::container ? "container" : "virtual-machine"},
                   {"convert_disk", answer.convert_disk},
                   {"metadata", to_json_value(answer.inspection.metadata)}};
  if (answer.backup)
    out["backup"] = json::object{{"index", answer.backup->documents.index},
                                 {"instance", answer.backup->documents.instance},
                                 {"templates", to_json(answer.backup->templates)}};
  return json::serialize(out);
}

std::string encode_error(const Error& error) {
  return json::serialize(json::object{{"error", json::object{{"kind", to_string(error.kind())}, {"message", error.chain()}}}});
}

Result<Answer> decode_answer(std::string_view text) {
  if (text.size() > max_answer) return fail(ErrorKind::internal, "the image reader's answer is too long");
  return decode_fields(text);
}

Result<> check(const Metadata& m) {
  if (m.architecture.empty()) return invalid("architecture", "metadata.yaml: 'architecture' is missing");
  VIRGA_CHECK(check_text("architecture", m.architecture, 64));
  // 9999-12-31, the last day that RFC 3339 can say.
  constexpr std::int64_t last = 253'402'300'799;
  if (m.creation_date <= 0 || m.creation_date > last)
    return invalid("creation_date", "metadata.yaml: 'creation_date' is missing or not a time");
  if (m.expiry_date < 0 || m.expiry_date > last) return invalid("expiry_date", "metadata.yaml: 'expiry_date' is not a time");
  VIRGA_CHECK(check_map("properties", m.properties));
  if (m.templates.size() > max_entries)
    return invalid("templates", fmt::format("metadata.yaml: more than {} templates", max_entries));
  for (const auto& [path, t] : m.templates) {
    if (path.empty()) return invalid("templates", "metadata.yaml: a template has no path");
    VIRGA_CHECK(check_text("templates", path, max_path));
    if (t.template_file.empty() || t.template_file == "." || t.template_file == ".." || t.template_file.size() > max_key ||
        t.template_file.find('/') != std::string::npos || has_control(t.template_file))
      return invalid("templates", "metadata.yaml: a template's file must be a plain name below templates/");
    if (t.when.size() > 16) return invalid("templates", "metadata.yaml: a template's 'when' is too long");
    for (const auto& w : t.when) VIRGA_CHECK(check_text("templates", w, 64));
    for (const auto* number : {&t.uid, &t.gid, &t.mode}) VIRGA_CHECK(check_text("templates", *number, 16));
    VIRGA_CHECK(check_map("templates", t.properties));
  }
  return {};
}

RootFormat root_format(std::string_view b) noexcept {
  if (b.starts_with("hsqs")) return RootFormat::squashfs;
  if (b.starts_with("QFI\xfb")) return RootFormat::qcow2;
  return RootFormat::tarball;
}

std::string_view to_string(RootFormat format) noexcept {
  switch (format) {
    case RootFormat::none:
      return "none";
    case RootFormat::tarball:
      return "tarball";
    case RootFormat::squashfs:
      return "squashfs";
    case RootFormat::qcow2:
      return "qcow2";
  }
  return "none";
}

Result<RootFormat> parse_root_format(std::string_view text) {
  for (auto f : {RootFormat::none, RootFormat::tarball, RootFormat::squashfs, RootFormat::qcow2})
    if (text == to_string(f)) return f;
  return fail(ErrorKind::invalid, "unknown format of a root");
}

}  // namespace virga::image
