#include "model/image.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "model/name.h"

namespace virga {
namespace {

Result<WallTime> time(const Fields& fields, std::string_view name) {
  VIRGA_TRY(auto text, fields.string(name));
  if (text.empty()) return WallTime{};
  return parse_time(text);
}

bool has_control(std::string_view text) {
  return std::any_of(text.begin(), text.end(), [](char c) { return (c >= 0 && c < 0x20 && c != '\t' && c != '\n') || c == 0x7f; });
}

}  // namespace

json::object encode(const Image& i) {
  json::object out = {{"project", i.project},
                      {"fingerprint", i.fingerprint},
                      {"type", to_string(i.type)},
                      {"architecture", i.architecture},
                      {"filename", i.filename},
                      {"size", static_cast<std::int64_t>(i.size)},
                      {"split", i.split},
                      {"public", i.is_public},
                      {"auto_update", i.auto_update},
                      {"cached", i.cached},
                      {"properties", to_json(i.properties)},
                      {"profiles", to_json(i.profiles)},
                      {"created_at", format_time(i.created_at)},
                      {"expires_at", format_time(i.expires_at)},
                      {"uploaded_at", format_time(i.uploaded_at)},
                      {"last_used_at", format_time(i.last_used_at)}};
  if (const auto& from = i.update_source)
    out["update_source"] =
        json::object{{"server", from->server},           {"protocol", from->protocol},     {"alias", from->alias},
                     {"certificate", from->certificate}, {"image_type", from->image_type}, {"reach", to_string(from->reach)}};
  return out;
}

Result<Image> decode_image(const json::object& document) {
  Fields f(document);
  Image i;
  VIRGA_TRY(i.project, f.string("project"));
  VIRGA_TRY(i.fingerprint, f.string("fingerprint"));
  VIRGA_CHECK(check_fingerprint(i.fingerprint));
  VIRGA_TRY(auto type, f.string("type"));
  VIRGA_TRY(i.type, parse_instance_type(type));
  VIRGA_TRY(i.architecture, f.string("architecture"));
  VIRGA_TRY(i.filename, f.string("filename"));
  VIRGA_TRY(auto size, f.integer("size"));
  i.size = static_cast<Bytes>(size);
  VIRGA_TRY(i.split, f.boolean("split"));
  VIRGA_TRY(i.is_public, f.boolean("public"));
  VIRGA_TRY(i.auto_update, f.boolean("auto_update"));
  VIRGA_TRY(i.cached, f.boolean("cached"));
  if (f.has("update_source")) {
    VIRGA_TRY(auto object, f.object("update_source"));
    const Fields s(object, "update_source");
    UpdateSource from;
    VIRGA_TRY(from.server, s.string("server"));
    VIRGA_TRY(from.protocol, s.string("protocol"));
    VIRGA_TRY(from.alias, s.string("alias"));
    VIRGA_TRY(from.certificate, s.string("certificate"));
    VIRGA_TRY(from.image_type, s.string("image_type"));
    VIRGA_TRY(auto reach, s.string("reach"));
    for (auto r : {Reach::global, Reach::private_network, Reach::loopback})
      if (reach == to_string(r)) from.reach = r;
    i.update_source = std::move(from);
  }
  VIRGA_TRY(i.properties, f.string_map("properties"));
  VIRGA_TRY(i.profiles, f.strings("profiles"));
  VIRGA_TRY(i.created_at, time(f, "created_at"));
  VIRGA_TRY(i.expires_at, time(f, "expires_at"));
  VIRGA_TRY(i.uploaded_at, time(f, "uploaded_at"));
  VIRGA_TRY(i.last_used_at, time(f, "last_used_at"));
  return i;
}

json::object encode(const ImageAlias& a) {
  return {
      {"project", a.project}, {"name", a.name}, {"type", to_string(a.type)}, {"target", a.target}, {"description", a.description}};
}

Result<ImageAlias> decode_image_alias(const json::object& document) {
  Fields f(document);
  ImageAlias a;
  VIRGA_TRY(a.project, f.string("project"));
  VIRGA_TRY(a.name, f.string("name"));
  VIRGA_TRY(auto type, f.string("type"));
  VIRGA_TRY(a.type, parse_instance_type(type));
  VIRGA_TRY(a.target, f.string("target"));
  VIRGA_TRY(a.description, f.string("description"));
  return a;
}

Result<> check(const Image& i) {
  constexpr std::size_t max_properties = 1000, max_key = 255, max_value = 64u << 10, max_all = 512u << 10, max_profiles = 100;
  if (i.properties.size() > max_properties) return invalid("properties", fmt::format("more than {} properties", max_properties));
  std::size_t all = 0;
  for (const auto& [key, value] : i.properties) {
    all += key.size() + value.size();
    if (all > max_all) return invalid("properties", fmt::format("the properties are longer than {} bytes together", max_all));
    if (key.empty() || key.size() > max_key || has_control(key) || key.find('\n') != std::string::npos)
      return invalid("properties", "a property's name must be 1 to 255 characters of text");
    if (value.size() > max_value || has_control(value))
      return invalid("properties", fmt::format("property '{}' is too long or holds control characters", key));
  }
  if (i.profiles.size() > max_profiles) return invalid("profiles", fmt::format("more than {} profiles", max_profiles));
  for (const auto& p : i.profiles)
    if (auto r = check_object_name("profile", p); !r) return fail(std::move(r).error().with_field("profiles"));
  if (i.filename.size() > 255 || has_control(i.filename) || i.filename.find_first_of("/\n\"") != std::string::npos)
    return invalid("filename", "a file name must be at most 255 characters without '/' and quotes");
  return {};
}

Result<> check_fingerprint(std::string_view f) {
  const bool hex = std::all_of(f.begin(), f.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
  if (f.size() != 64 || !hex) return invalid("fingerprint", "a fingerprint must be 64 lower-case hexadecimal digits");
  return {};
}

Result<std::string> canonical_architecture(std::string_view name) {
  static constexpr std::array<std::pair<std::string_view, std::string_view>, 19> known{{
      {"x86_64", "x86_64"},       {"amd64", "x86_64"},  {"aarch64", "aarch64"},
      {"arm64", "aarch64"},       {"i686", "i686"},     {"i386", "i686"},
      {"i586", "i686"},           {"armv7l", "armv7l"}, {"armhf", "armv7l"},
      {"armv6l", "armv6l"},       {"armel", "armv6l"},  {"ppc64le", "ppc64le"},
      {"ppc64el", "ppc64le"},     {"s390x", "s390x"},   {"riscv64", "riscv64"},
      {"ppc64", "ppc64"},         {"mips64", "mips64"}, {"loongarch64", "loongarch64"},
      {"loong64", "loongarch64"},
  }};
  for (const auto& [from, to] : known)
    if (name == from) return std::string(to);
  return invalid("architecture", "the architecture is not known");
}

}  // namespace virga
