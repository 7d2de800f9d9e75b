// /1.0/instances/{name}/files and .../sftp. Both are SFTP to whatever serves the guest's files; here it is turned into HTTP, piece
// by piece, so that a file of any size costs the same memory.
#include <fmt/format.h>

#include <algorithm>

#include "api/context.h"
#include "api/instances/file_headers.h"
#include "api/respond.h"
#include "api/router.h"
#include "api/routes.h"
#include "engine/instances/service.h"
#include "wire/sftp/client.h"

namespace virga::api {
namespace {

using http::Response;
using sftp::Attributes;

constexpr std::size_t most_entries = 200'000;
constexpr std::size_t longest_path = 4095;
constexpr std::size_t most_unsized = 16u << 20;  // of a file of /proc, which does not say how long it is
constexpr std::size_t piece = sftp::max_data;

struct Session {
  engine::Instances::Ptr instance;
  std::string path;
  std::unique_ptr<sftp::Client> files;
  Error wrapped(Error error) const {
    return std::move(error).wrap(fmt::format("file '{}' of instance '{}'", path, instance->name));
  }
};

Task<Result<Session>> open_session(Context& c) {
  Session s;
  s.instance = c.services.instances.find(c.project, c.param(0));
  if (!s.instance)
    co_return fail(ErrorKind::not_found, fmt::format("instance '{}' does not exist in project '{}'", c.param(0), c.project));
  s.path = std::string(c.query("path"));
  if (s.path.empty()) co_return invalid("path", "the path of a file is needed");
  if (s.path.find('\0') != std::string::npos || s.path.size() > longest_path)
    co_return invalid("path", "the path is too long or holds a NUL");
  if (s.path.front() != '/') s.path.insert(0, "/");
  c.request.cancel_on_hangup = true;
  VIRGA_CO_TRY(auto stream, co_await c.services.instances.open_files(c.project, s.instance->name));
  VIRGA_CO_TRY(s.files, co_await sftp::Client::open(std::move(stream)));
  co_return s;
}

Task<Result<Response>> send_directory(Session& s, Response response) {
  VIRGA_CO_TRY(auto entries, co_await s.files->list(s.path, most_entries));
  std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  json::array names;
  for (const auto& entry : entries) names.emplace_back(valid_utf8(entry.name));
  auto listing = sync(names);
  listing.headers = std::move(response.headers);
  co_return listing;
}

/// What the answer's body reads from; lives as long as it is sent.
struct Download {
  std::unique_ptr<sftp::Client> files;
  std::string handle;
  std::string first;
  Task<Result<std::string>> next() {
    if (!first.empty()) co_return std::exchange(first, {});
    co_return co_await files->read_next(handle);
  }
};

Task<Result<Response>> send_file(Session& s, Response response) {
  auto download = std::make_shared<Download>();
  VIRGA_CO_TRY(download->handle, co_await s.files->open_file(s.path, sftp::open_read, 0));
  VIRGA_CO_TRY(const auto attributes, co_await s.files->stat_file(download->handle));
  download->files = std::move(s.files);
  VIRGA_CO_TRY(download->first, co_await download->files->read_next(download->handle));
  if (attributes.size == 0) {
    while (true) {
      VIRGA_CO_TRY(auto more, co_await download->files->read_next(download->handle));
      if (more.empty()) break;
      download->first += more;
      if (download->first.size() > most_unsized) co_return fail(ErrorKind::unavailable, "the file does not end");
    }
    response.body = std::move(download->first);
    co_return response;
  }
  response.body = http::StreamBody{attributes.size, [download] { return download->next(); }};
  co_return response;
}

Task<Result<Response>> send(Context& c, Session& s, bool head) {
  VIRGA_CO_TRY(auto attributes, co_await s.files->lstat(s.path));
  const auto type = file_type(attributes);
  if (type.empty()) co_return fail(ErrorKind::invalid, "it is neither a regular file nor a directory nor a link");
  Response response;
  response.headers = file_headers(attributes);
  if (head) {
    response.content_type = "application/octet-stream";
    if (type == "file") response.body = http::StreamBody{attributes.size, {}};
    co_return response;
  }
  c.services.instances.file_event(c.caller(), *s.instance, "retrieved", s.path);
  if (type == "directory") co_return co_await send_directory(s, std::move(response));
  response.content_type = "application/octet-stream";
  response.headers.emplace_back("Content-Disposition", "inline");
  if (type == "file") co_return co_await send_file(s, std::move(response));
  VIRGA_CO_TRY(auto target, co_await s.files->read_link(s.path));
  response.body = std::move(target);
  co_return response;
}

Task<Result<Response>> send_with_context(Context& c, bool head) {
  VIRGA_CO_TRY(auto s, co_await open_session(c));
  auto sent = co_await send(c, s, head);
  if (!sent) co_return fail(s.wrapped(std::move(sent).error()));
  co_return sent;
}

Task<Result<Response>> get(Context& c) {
  return send_with_context(c, false);
}
Task<Result<Response>> head(Context& c) {
  return send_with_context(c, true);
}

/// What the headers ask for; of something new, also what they leave out.
Attributes wanted(const FileHeaders& h, const std::optional<Attributes>& there, std::uint32_t mode) {
  Attributes a;
  if (h.uid || h.gid) {
    a.flags |= sftp::attr_owner;
    a.uid = h.uid.value_or(there ? there->uid : 0);
    a.gid = h.gid.value_or(there ? there->gid : 0);
  }
  if (h.mode || !there) {
    a.flags |= sftp::attr_permissions;
    a.permissions = h.mode.value_or(mode);
  }
  return a;
}

Task<Result<std::optional<Attributes>>> look(Session& s) {
  auto there = co_await s.files->stat(s.path);
  if (there) co_return std::optional<Attributes>(*there);
  if (there.error().kind() == ErrorKind::not_found) co_return std::optional<Attributes>();
  co_return fail(std::move(there).error());
}

Task<Result<>> receive_file(Context& c, Session& s, const FileHeaders& h) {
  VIRGA_CO_TRY(const auto there, co_await look(s));
  const auto attributes = wanted(h, there, 0644);
  const auto flags = sftp::open_write | sftp::open_create | (h.append ? sftp::open_append : sftp::open_truncate);
  // What is secret is so from its first byte: owner and mode come before the content.
  VIRGA_CO_TRY(auto handle, co_await s.files->open_file(s.path, flags, there ? 0644 : attributes.permissions & 0777));
  if (attributes.flags != 0) VIRGA_CO_CHECK(co_await s.files->set_file(handle, attributes));
  std::string buffer;
  while (true) {
    buffer.resize(piece);
    std::size_t filled = 0;
    while (filled < piece) {
      VIRGA_CO_TRY(const auto n, co_await c.request.body->read_some(std::span(buffer).subspan(filled)));
      if (n == 0) break;
      filled += n;
    }
    if (filled == 0) break;
    buffer.resize(filled);
    VIRGA_CO_CHECK(co_await s.files->write_next(handle, std::move(buffer)));
    buffer = {};
  }
  VIRGA_CO_CHECK(co_await s.files->finish_writing());
  co_return co_await s.files->close(handle);
}

Task<Result<>> make_directory(Session& s, const FileHeaders& h) {
  VIRGA_CO_TRY(const auto there, co_await look(s));
  if (there && file_type(*there) != "directory") co_return fail(ErrorKind::exists, "it is there and is no directory");
  const auto attributes = wanted(h, there, 0755);
  if (!there) VIRGA_CO_CHECK(co_await s.files->make_directory(s.path, attributes.permissions & 0777));
  if (attributes.flags == 0) co_return Result<>{};
  co_return co_await s.files->set(s.path, attributes);
}

Task<Result<>> make_link(Context& c, Session& s, const FileHeaders& h) {
  VIRGA_CO_TRY(auto target, co_await c.request.body->read_all(4095));
  if (target.empty()) co_return invalid("body", "the body must be the target of the link");
  auto made = co_await s.files->make_link(target, s.path);
  if (!made && made.error().kind() == ErrorKind::exists) {
    auto now = co_await s.files->read_link(s.path);
    if (!now || *now != target) co_return made;
  } else if (!made) {
    co_return made;
  }
  if (!h.uid && !h.gid) co_return Result<>{};
  Attributes a;
  a.flags = sftp::attr_owner;
  a.uid = h.uid.value_or(0);
  a.gid = h.gid.value_or(0);
  co_return co_await s.files->set_link(s.path, a);
}

Task<Result<>> receive(Context& c, Session& s, const FileHeaders& h) {
  switch (h.type) {
    case FileHeaders::Type::file:
      return receive_file(c, s, h);
    case FileHeaders::Type::directory:
      return make_directory(s, h);
    case FileHeaders::Type::symlink:
      return make_link(c, s, h);
  }
  return make_directory(s, h);
}

Task<Result<Response>> post(Context& c) {
  VIRGA_CO_TRY(const auto headers, read_file_headers(c.request.headers));
  VIRGA_CO_TRY(auto s, co_await open_session(c));
  auto received = co_await receive(c, s, headers);
  if (!received) co_return fail(s.wrapped(std::move(received).error()));
  c.services.instances.file_event(c.caller(), *s.instance, "pushed", s.path);
  co_return empty();
}

Task<Result<>> remove_path(Session& s, bool recursive) {
  VIRGA_CO_TRY(const auto attributes, co_await s.files->lstat(s.path));
  if (file_type(attributes) != "directory") co_return co_await s.files->remove(s.path);
  if (!recursive) co_return co_await s.files->remove_directory(s.path);
  co_return co_await s.files->remove_tree(s.path, most_entries);
}

Task<Result<Response>> remove(Context& c) {
  VIRGA_CO_TRY(auto s, co_await open_session(c));
  const auto force = c.request.headers.get("x-incus-force");
  auto removed = co_await remove_path(s, force == "true" || force == "1");
  if (!removed) co_return fail(s.wrapped(std::move(removed).error()));
  c.services.instances.file_event(c.caller(), *s.instance, "deleted", s.path);
  co_return empty();
}

/// One direction of an SFTP connection; its end ends the other.
Task<> pump(ByteStream& from, ByteStream& to) {
  while (true) {
    auto bytes = co_await from.read();
    if (!bytes || bytes->empty()) break;
    if (!co_await to.write(std::move(*bytes))) break;
  }
  from.abort();
  to.abort();
}

Task<> join_streams(std::shared_ptr<ByteStream> files, std::unique_ptr<ByteStream> client) {
  TaskGroup back(co_await current_executor());
  back.spawn("sftp answers", pump(*files, *client));
  co_await pump(*client, *files);
  co_await shield();
  co_await back.join();
}

Task<Result<Response>> sftp_connection(Context& c) {
  auto instance = c.services.instances.find(c.project, c.param(0));
  if (!instance)
    co_return fail(ErrorKind::not_found, fmt::format("instance '{}' does not exist in project '{}'", c.param(0), c.project));
  if (!http::equals_ignoring_case(c.request.headers.get("upgrade"), "sftp"))
    co_return fail(Error(ErrorKind::invalid, "this needs the header 'Upgrade: sftp'").with_field("Upgrade"));
  VIRGA_CO_TRY(auto stream, co_await c.services.instances.open_files(c.project, instance->name));
  auto files = std::shared_ptr<ByteStream>(std::move(stream));
  Response response;
  response.body =
      http::RawUpgradeBody{"sftp", [files](std::unique_ptr<ByteStream> client) { return join_streams(files, std::move(client)); }};
  co_return response;
}

}  // namespace

void add_file_routes(Router& router) {
  using http::Method;
  const auto files = "/1.0/instances/{name}/files";
  router.add(Method::get, files, {get});
  router.add(Method::head, files, {head});
  router.add(Method::post, files, {post, Access::member, BodyKind::stream});
  router.add(Method::del, files, {remove});
  router.add(Method::get, "/1.0/instances/{name}/sftp", {sftp_connection});
}

}  // namespace virga::api
