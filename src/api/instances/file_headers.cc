#include "api/instances/file_headers.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <charconv>

namespace virga::api {
namespace {

constexpr std::uint64_t most_id = 0xfffffffe;  // the next one means "no id" to the kernel (S16)

Result<std::optional<std::uint32_t>> read_number(const http::Headers& headers, const char* name, int base, std::uint64_t most) {
  auto text = headers.get(name);
  if (text.empty()) return std::nullopt;
  if (base == 8 && text.starts_with("0o")) text.remove_prefix(2);
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc() || end != text.data() + text.size() || value > most)
    return invalid(name, fmt::format("{} must be {} at most {}", name, base == 8 ? "an octal number of" : "a number of",
                                     base == 8 ? "7777" : std::to_string(most)));
  return static_cast<std::uint32_t>(value);
}

}  // namespace

Result<FileHeaders> read_file_headers(const http::Headers& headers) {
  FileHeaders out;
  const auto type = headers.get("x-incus-type"), write = headers.get("x-incus-write");
  if (type == "directory") {
    out.type = FileHeaders::Type::directory;
  } else if (type == "symlink") {
    out.type = FileHeaders::Type::symlink;
  } else if (!type.empty() && type != "file") {
    return invalid("X-Incus-type", "X-Incus-type must be 'file', 'directory' or 'symlink'");
  }
  if (!write.empty() && write != "overwrite" && write != "append")
    return invalid("X-Incus-write", "X-Incus-write must be 'overwrite' or 'append'");
  out.append = write == "append";
  VIRGA_TRY(out.uid, read_number(headers, "X-Incus-uid", 10, most_id));
  VIRGA_TRY(out.gid, read_number(headers, "X-Incus-gid", 10, most_id));
  VIRGA_TRY(out.mode, read_number(headers, "X-Incus-mode", 8, 07777));
  return out;
}

std::string_view file_type(const sftp::Attributes& attributes) noexcept {
  if (S_ISREG(attributes.permissions)) return "file";
  if (S_ISDIR(attributes.permissions)) return "directory";
  if (S_ISLNK(attributes.permissions)) return "symlink";
  return {};
}

std::vector<std::pair<std::string, std::string>> file_headers(const sftp::Attributes& a) {
  const auto time = fmt::gmtime(static_cast<std::time_t>(a.modified));
  return {{"X-Incus-uid", std::to_string(a.uid)},
          {"X-Incus-gid", std::to_string(a.gid)},
          {"X-Incus-mode", fmt::format("{:04o}", a.permissions & 07777)},
          {"X-Incus-modified", fmt::format("{:%Y-%m-%d %H:%M:%S} +0000 UTC", time)},
          {"X-Incus-type", std::string(file_type(a))}};
}

}  // namespace virga::api
