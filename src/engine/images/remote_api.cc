#include "engine/images/remote_api.h"

#include <fmt/format.h>

#include "engine/url.h"

namespace virga::engine {

Result<> check_server(std::string_view field, std::string_view url) {
  if (url.starts_with("https://") && url.find_first_of("?#@ \\") == std::string_view::npos) return {};
  return invalid(std::string(field), fmt::format("'{}' must be the URL of a server, https://HOST:PORT", field));
}

std::string join_url(std::string_view server, std::string_view path) {
  while (server.ends_with('/')) server.remove_suffix(1);
  return fmt::format("{}{}", server, path);
}

std::string query_of(std::initializer_list<std::pair<std::string_view, std::string_view>> items) {
  std::string out;
  for (const auto& [key, value] : items)
    if (!value.empty()) out += fmt::format("{}{}={}", out.empty() ? "?" : "&", key, url_encode(value));
  return out;
}

Result<json::object> open_answer(const remote::Answer& answer) {
  auto body = parse_json_object(answer.body);
  if (answer.status / 100 != 2) {
    const auto words = body ? Fields(*body).string("error").value_or("") : std::string();
    const auto kind = answer.status == 404   ? ErrorKind::not_found
                      : answer.status == 403 ? ErrorKind::denied
                                             : ErrorKind::unavailable;
    return fail(kind, fmt::format("the server answered {}{}{}", answer.status, words.empty() ? "" : ": ", words.substr(0, 300)));
  }
  if (!body) return fail(std::move(body).error().wrap("the server's answer"));
  return Fields(*body).object("metadata");
}

}  // namespace virga::engine
