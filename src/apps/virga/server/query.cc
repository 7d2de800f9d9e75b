// query: any request, for people who know the API.
#include <fmt/format.h>

#include <algorithm>

#include "apps/virga/app.h"
#include "apps/virga/commands.h"
#include "apps/virga/document.h"
#include "apps/virga/values.h"

namespace virga::cli {
namespace {

Result<json::value> parse_body(const http::ClientResponse& response) {
  json::error_code ec;
  auto value = json::parse(response.body, ec);
  if (ec || !value.is_object())
    return fail(ErrorKind::invalid, fmt::format("the answer (status {}) is not an object of JSON", response.status));
  return value;
}

/// Objects with their keys in order, as the original prints them.
json::value sorted(const json::value& value) {
  if (value.is_array()) {
    json::array out;
    for (const auto& item : value.get_array()) out.push_back(sorted(item));
    return out;
  }
  if (!value.is_object()) return value;
  std::vector<std::string> keys;
  for (const auto& [key, item] : value.get_object()) keys.emplace_back(key);
  std::sort(keys.begin(), keys.end());
  json::object out;
  for (const auto& key : keys) out[key] = sorted(value.get_object().at(key));
  return out;
}

std::string target_of(App& app, std::string path) {
  if (!app.globals().project.empty() && path.find("project=") == std::string::npos)
    path += (path.find('?') == std::string::npos ? "?" : "&") + Url("").query("project", app.globals().project).text().substr(1);
  return path;
}

Result<> query(App& app, const Args& args) {
  auto path = args[0];
  if (!path.starts_with("/")) return fail(ErrorKind::invalid, "Query path must start with /");
  if (args.has("raw") && args.has("wait")) return fail(ErrorKind::invalid, "--wait cannot be combined with --raw");
  std::string data = args.text("data");
  if (data == "-") {
    VIRGA_TRY(data, piped_input());
  }
  VIRGA_TRY(auto* api, app.api());
  VIRGA_TRY(auto response, api->await(api->client().raw(args.text("request"), target_of(app, path), data)));
  auto body = parse_body(response);
  if (!body) {
    if (response.status >= 400)
      return fail(client::kind_of_status(response.status), fmt::format("the server answered with status {}", response.status));
    app.write(response.body);
    return {};
  }
  if (args.has("raw")) {
    app.write(pretty_json(*body) + "\n\n");
    return {};
  }
  VIRGA_TRY(auto answer, client::open_envelope(response.status, response.body));
  if (args.has("wait") && !answer.operation.empty()) {
    VIRGA_TRY(answer.metadata, api->wait(answer.operation));
  }
  const auto& metadata = answer.metadata;
  if (metadata.is_null() || (metadata.is_object() && metadata.get_object().empty())) return {};
  if (metadata.is_string()) {
    app.print(std::string(metadata.get_string()) + "\n");
  } else {
    app.write(pretty_json(sorted(metadata)) + "\n\n");
  }
  return {};
}

}  // namespace

Command query_command() {
  return {.use = "query [<remote>:]<API path>",
          .summary = "Send a raw query to the server",
          .examples =
              "virga query /1.0/instances?recursion=1\n    Show all instances as the API gives them\n\n"
              "virga query -X DELETE --wait /1.0/instances/c1\n    Delete the instance \"c1\"\n\n"
              "virga query -X POST -d '{\"name\": \"p1\"}' /1.0/profiles\n    Create a profile",
          .flags = {{"data", 'd', Flag::text, "Input data"},
                    {"raw", 0, Flag::boolean, "Print the raw response"},
                    {"request", 'X', Flag::text, "Action (defaults to GET)", "GET"},
                    {"wait", 0, Flag::boolean, "Wait for the operation to complete"}},
          .least = 1,
          .most = 1,
          .run = query};
}

}  // namespace virga::cli
