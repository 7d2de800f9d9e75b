#include "apps/virga/server/preseed.h"

#include <fmt/format.h>

#include "apps/virga/values.h"
#include "base/units.h"

namespace virga::cli {
namespace {

/// The base64 between the lines of a PEM text, or the text without blanks.
std::string bare(std::string_view certificate) {
  std::string out;
  while (!certificate.empty()) {
    const auto line = certificate.substr(0, certificate.find('\n'));
    certificate.remove_prefix(std::min(certificate.size(), line.size() + 1));
    if (line.starts_with("-----")) continue;
    for (char c : line)
      if (c != ' ' && c != '\r' && c != '\t') out += c;
  }
  return out;
}

}  // namespace

Result<> ensure_certificate(App& app, Api& api, const json::object& wanted) {
  const auto key = bare(text_of(wanted, "certificate"));
  if (key.empty()) return fail(ErrorKind::invalid, "an entry of certificates has no certificate");
  VIRGA_TRY(auto known, api.array(Url("/1.0/certificates").query("recursion", "1")));
  for (const auto& entry : objects_of(known))
    if (bare(text_of(entry, "certificate")) == key) return {};
  json::object body = wanted;
  body["certificate"] = key;
  if (body.contains("restricted")) {
    VIRGA_TRY(bool restricted, parse_bool(text_of(wanted, "restricted")));
    body["restricted"] = restricted;
  }
  auto made = api.send("POST", Url("/1.0/certificates"), std::move(body));
  if (!made) return fail(std::move(made).error().wrap(fmt::format("Failed to trust certificate '{}'", text_of(wanted, "name"))));
  app.note(fmt::format("Certificate {} added", text_of(wanted, "name")));
  return {};
}

Result<> ensure_volume(App& app, Api& api, const json::object& wanted) {
  const auto name = text_of(wanted, "name"), pool = text_of(wanted, "pool");
  if (name.empty() || pool.empty()) return fail(ErrorKind::invalid, "an entry of storage_volumes needs a name and a pool");
  const auto project = text_of(wanted, "project");
  const auto custom = Url("/1.0/storage-pools").segment(pool).segment("volumes").segment("custom").project(project);
  auto existing = api.object(Url(custom).segment(name));
  if (existing) return {};
  if (existing.error().kind() != ErrorKind::not_found) return fail(std::move(existing).error());
  json::object body = wanted;
  body.erase("pool");
  body.erase("project");
  auto made = api.send("POST", custom, std::move(body));
  if (!made) return fail(std::move(made).error().wrap(fmt::format("Failed to create storage volume '{}'", name)));
  app.note(fmt::format("Storage volume {} created", name));
  return {};
}

}  // namespace virga::cli
