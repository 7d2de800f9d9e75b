#include "apps/virga/files/files.h"

#include <fmt/format.h>

#include <charconv>

#include "apps/virga/instances/instances.h"

namespace virga::cli {
namespace {

Url files_url(App& app, const FilePlace& place) {
  return instance_url(app, place.instance).segment("files").query("path", place.path);
}

std::uint32_t number_in(const http::ClientResponse& response, std::string_view header, int base) {
  const auto text = response.header(header);
  std::uint32_t out = 0;
  std::from_chars(text.data(), text.data() + text.size(), out, base);
  return out;
}

std::vector<std::pair<std::string, std::string>> headers_of(const FileWish& wish) {
  std::vector<std::pair<std::string, std::string>> out{{"Content-Type", "application/octet-stream"}, {"X-Incus-type", wish.type}};
  if (wish.uid) out.emplace_back("X-Incus-uid", std::to_string(*wish.uid));
  if (wish.gid) out.emplace_back("X-Incus-gid", std::to_string(*wish.gid));
  if (wish.mode) out.emplace_back("X-Incus-mode", fmt::format("{:04o}", *wish.mode));
  return out;
}

}  // namespace

Result<FilePlace> parse_place(const std::string& word) {
  VIRGA_TRY(auto name, local_name(word));
  const auto slash = name.find('/');
  if (slash == std::string::npos || slash == 0)
    return fail(ErrorKind::invalid, fmt::format("Invalid path '{}': expected <instance>/<path>", word));
  return FilePlace{name.substr(0, slash), name.substr(slash)};
}

Result<FileWish> read_wish(const Args& args) {
  FileWish wish;
  for (auto [flag, into] : {std::pair("uid", &wish.uid), std::pair("gid", &wish.gid)}) {
    if (!args.has(flag) || args.text(flag) == "-1") continue;
    VIRGA_TRY(auto id, parse_integer(args.text(flag), 0, UINT32_MAX - 1));
    *into = static_cast<std::uint32_t>(id);
  }
  if (const auto text = args.text("mode"); !text.empty()) {
    std::uint32_t mode = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), mode, 8);
    if (error != std::errc() || end != text.data() + text.size() || mode > 07777)
      return fail(ErrorKind::invalid, fmt::format("Invalid mode '{}': expected octal digits such as 0644", text));
    wish.mode = mode;
  }
  return wish;
}

Result<std::optional<FileFacts>> look_at(App& app, const FilePlace& place) {
  VIRGA_TRY(auto* api, app.api());
  VIRGA_TRY(auto response, api->await(api->client().raw("HEAD", files_url(app, place).text(), {})));
  if (response.status == 404) {
    // Without a body there are no words: the instance may be what is missing.
    VIRGA_CHECK(api->get(instance_url(app, place.instance)));
    return std::nullopt;
  }
  if (response.status >= 400) {
    VIRGA_CHECK(receive_file(app, place, [](std::string_view) { return Result<>{}; }));
    return std::nullopt;
  }
  FileFacts facts;
  facts.type = response.header("X-Incus-type");
  facts.uid = number_in(response, "X-Incus-uid", 10);
  facts.gid = number_in(response, "X-Incus-gid", 10);
  facts.mode = number_in(response, "X-Incus-mode", 8);
  return facts;
}

Result<std::vector<std::string>> names_in(App& app, const FilePlace& place) {
  VIRGA_TRY(auto* api, app.api());
  VIRGA_TRY(auto array, api->array(files_url(app, place)));
  std::vector<std::string> out;
  for (const auto& name : array) {
    // A guest names its files as it likes; what would leave the directory on our side is no name.
    if (!name.is_string()) continue;
    std::string text(name.get_string());
    if (text.empty() || text == "." || text == ".." || text.find('/') != std::string::npos || text.find('\0') != std::string::npos)
      return fail(ErrorKind::invalid, "the server sent a name that is none");
    out.push_back(std::move(text));
  }
  return out;
}

Result<> receive_file(App& app, const FilePlace& place, const std::function<Result<>(std::string_view)>& sink) {
  VIRGA_TRY(auto* api, app.api());
  VIRGA_CHECK(api->await(api->client().download(files_url(app, place).text(), sink)));
  return {};
}

Result<std::string> link_target(App& app, const FilePlace& place) {
  std::string target;
  auto sink = [&](std::string_view bytes) -> Result<> {
    if (target.size() + bytes.size() > 4095) return fail(ErrorKind::invalid, "the target of a link is too long");
    target += bytes;
    return {};
  };
  VIRGA_CHECK(receive_file(app, place, sink));
  return target;
}

Result<> send_file(App& app, const FilePlace& place, const FileWish& wish, std::function<Result<std::size_t>(std::span<char>)> read,
                   std::optional<std::uint64_t> length) {
  VIRGA_TRY(auto* api, app.api());
  client::Upload upload{files_url(app, place).text(), headers_of(wish), std::move(read), length};
  VIRGA_CHECK(api->await(api->client().upload(std::move(upload))));
  return {};
}

Result<> send_text(App& app, const FilePlace& place, const FileWish& wish, std::string text) {
  auto read = [text, done = std::size_t(0)](std::span<char> into) mutable -> Result<std::size_t> {
    const auto n = std::min(into.size(), text.size() - done);
    std::copy_n(text.data() + done, n, into.data());
    done += n;
    return n;
  };
  return send_file(app, place, wish, read, text.size());
}

Result<> remove_file(App& app, const FilePlace& place, bool force) {
  VIRGA_TRY(auto* api, app.api());
  http::ClientRequest request;
  if (!force) {
    VIRGA_CHECK(api->send("DELETE", files_url(app, place)));
    return {};
  }
  VIRGA_TRY(auto facts, look_at(app, place));
  if (!facts) return fail(ErrorKind::not_found, fmt::format("file '{}' not found", place.text()));
  if (facts->type == "directory") {
    VIRGA_TRY(auto names, names_in(app, place));
    for (const auto& name : names) VIRGA_CHECK(remove_file(app, {place.instance, place.path + "/" + name}, true));
  }
  return remove_file(app, place, false);
}

Result<> make_parents(App& app, const FilePlace& place, const FileWish& wish) {
  FileWish directory = wish;
  directory.type = "directory";
  directory.mode = 0755;
  for (auto slash = place.path.find('/', 1); slash != std::string::npos; slash = place.path.find('/', slash + 1)) {
    const FilePlace parent{place.instance, place.path.substr(0, slash)};
    VIRGA_TRY(auto facts, look_at(app, parent));
    if (!facts) VIRGA_CHECK(send_text(app, parent, directory, {}));
  }
  return {};
}

}  // namespace virga::cli
