#include "api/images/upload.h"

#include <fmt/format.h>

#include "wire/http/files.h"
#include "wire/http/multipart.h"
#include "wire/http/parse.h"

namespace virga::api {
namespace {

constexpr std::size_t step = 256u << 10;

/// Anything that bytes are read from: the body, or a part of it.
using Source = std::function<Task<Result<std::size_t>>(std::span<char>)>;

/// Asked again after each so many bytes, before the next are written.
constexpr std::size_t room_step = 16u << 20;

/// What all parts of an upload have brought so far, held against what the project may still have.
struct Room {
  Context& context;
  std::size_t have = 0, asked = 0;
  Result<> take(std::size_t more) {
    have += more;
    if (have < asked + room_step) return {};
    asked = have;
    return context.services.images.check_room(context.project, have);
  }
};

/// The sender is read only as fast as the disk takes it.
Task<Result<>> save(const Source& source, std::string path, BlockingPool& files, Room& room) {
  VIRGA_CO_TRY(auto file, http::FileWriter::create(path));
  std::string buffer(step, '\0');
  while (true) {
    std::size_t have = 0;
    bool end = false;
    while (have < step && !end) {
      VIRGA_CO_TRY(const std::size_t n, co_await source(std::span(buffer).subspan(have)));
      end = n == 0;
      have += n;
    }
    VIRGA_CO_CHECK(room.take(have));
    if (have != 0) {
      auto write = [&]() -> Result<> { return file.write(std::string_view(buffer).substr(0, have)); };
      VIRGA_CO_CHECK(co_await files.run(write));
    }
    if (end) co_return Result<>{};
  }
}

/// "a=b&c=d" as clients put properties, profiles and aliases into headers.
Result<std::vector<std::pair<std::string, std::string>>> decode_form(std::string_view text, std::string_view header) {
  std::vector<std::pair<std::string, std::string>> out;
  while (!text.empty()) {
    const auto item = text.substr(0, text.find('&'));
    text.remove_prefix(std::min(text.size(), item.size() + 1));
    if (item.empty()) continue;
    const auto equals = item.find('=');
    auto key = http::percent_decode(item.substr(0, equals), true);
    auto value = http::percent_decode(equals == std::string_view::npos ? std::string_view() : item.substr(equals + 1), true);
    if (!key || !value || !http::valid_utf8(*key) || !http::valid_utf8(*value))
      return invalid(std::string(header), fmt::format("malformed header '{}'", header));
    out.emplace_back(std::move(*key), std::move(*value));
  }
  return out;
}

Result<engine::ImportImage> read_headers(const Context& c) {
  engine::ImportImage out;
  const auto& h = c.request.headers;
  out.project = c.project;
  out.filename = h.get("x-incus-filename");
  out.expected_fingerprint = h.get("x-incus-fingerprint");
  const auto is_public = h.get("x-incus-public");
  out.is_public = is_public == "true" || is_public == "1";
  VIRGA_TRY(auto properties, decode_form(h.get("x-incus-properties"), "X-Incus-properties"));
  for (auto& [key, value] : properties) out.properties.insert_or_assign(std::move(key), std::move(value));
  VIRGA_TRY(auto profiles, decode_form(h.get("x-incus-profiles"), "X-Incus-profiles"));
  for (auto& [key, value] : profiles)
    if (key == "profile") out.profiles.push_back(std::move(value));
  VIRGA_TRY(auto aliases, decode_form(h.get("x-incus-aliases"), "X-Incus-aliases"));
  for (auto& [key, value] : aliases)
    if (key == "alias") out.aliases.emplace_back(std::move(value), "");
  return out;
}

Task<Result<>> receive_parts(Context& c, engine::ImportImage& out) {
  VIRGA_CO_TRY(const auto boundary, http::multipart_boundary(c.request.headers.get("content-type")));
  http::MultipartReader reader(*c.request.body, boundary);
  const Source source = [&](std::span<char> into) { return reader.read_some(into); };
  Room room{c};
  while (true) {
    VIRGA_CO_TRY(auto part, co_await reader.next());
    if (!part) break;
    // "rootfs.img" is what clients call the root of a virtual machine; what it truly is, the reader of images finds out.
    const bool root = part->name == "rootfs" || part->name == "rootfs.img";
    if (!root && part->name != "metadata")
      co_return invalid(part->name, fmt::format("unknown part '{}' in the upload", part->name));
    auto& file = root ? out.rootfs_file : out.metadata_file;
    if (!file.empty()) co_return invalid(part->name, fmt::format("part '{}' appears twice in the upload", part->name));
    file = c.services.images.new_upload_path();
    if (!root && out.filename.empty()) out.filename = part->file_name;
    VIRGA_CO_CHECK(co_await save(source, file, c.shared.files(), room));
  }
  if (out.metadata_file.empty() || out.rootfs_file.empty())
    co_return fail(ErrorKind::invalid, "a split image needs the parts 'metadata' and 'rootfs'");
  co_return Result<>{};
}

Task<Result<>> receive_raw(Context& c, engine::ImportImage& out) {
  const Source source = [&](std::span<char> into) { return c.request.body->read_some(into); };
  out.metadata_file = c.services.images.new_upload_path();
  Room room{c};
  co_return co_await save(source, out.metadata_file, c.shared.files(), room);
}

}  // namespace

Task<Result<std::string>> receive_file(Context& c) {
  engine::ImportImage upload;
  auto received = co_await receive_raw(c, upload);
  if (received) co_return upload.metadata_file;
  co_await shield();
  co_await c.services.images.discard_upload(upload.metadata_file);
  co_return fail(std::move(received).error());
}

Task<Result<engine::ImportImage>> receive_image(Context& c) {
  const auto type = c.request.headers.get("content-type");
  VIRGA_CO_TRY(auto out, read_headers(c));
  if (const auto length = c.request.body->length()) VIRGA_CO_CHECK(c.services.images.check_room(c.project, *length));
  auto received = type.starts_with("multipart/") ? co_await receive_parts(c, out) : co_await receive_raw(c, out);
  if (received) co_return out;
  co_await shield();
  for (auto& file : {out.metadata_file, out.rootfs_file})
    if (!file.empty()) co_await c.services.images.discard_upload(file);
  co_return fail(std::move(received).error());
}

}  // namespace virga::api
