#include "api/images/export.h"

#include <fmt/format.h>

#include "base/random.h"
#include "wire/http/files.h"

namespace virga::api {
namespace {

/// A name is the uploader's: nothing but plain characters goes into a header (S47).
std::string plain_name(std::string_view name, std::string_view fallback) {
  std::string out;
  for (char c : name.substr(0, 128)) {
    const bool plain =
        (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
    out.push_back(plain ? c : '_');
  }
  return out.empty() || out.front() == '.' ? std::string(fallback) : out;
}

std::string part_head(std::string_view boundary, std::string_view name, std::string_view file_name, bool first) {
  return fmt::format(
      "{}--{}\r\nContent-Disposition: form-data; name=\"{}\"; filename=\"{}\"\r\nContent-Type: application/octet-stream\r\n\r\n",
      first ? "" : "\r\n", boundary, name, file_name);
}

}  // namespace

Result<http::Response> export_image(const engine::Images& images, const Image& image) {
  const auto [metadata, rootfs] = images.files_of(image);
  VIRGA_TRY(auto first, http::open_file(metadata));
  const auto name = plain_name(image.filename, image.fingerprint);
  http::Response response;
  if (rootfs.empty()) {
    response.content_type = "application/octet-stream";
    response.headers.emplace_back("Content-Disposition", fmt::format("inline;filename={}", name));
    response.body = std::move(first);
    return response;
  }
  VIRGA_TRY(auto second, http::open_file(rootfs));
  const auto boundary = random_hex(30);
  const bool vm = image.type == InstanceType::virtual_machine;
  http::PartsBody parts;
  parts.emplace_back(part_head(boundary, "metadata", "meta-" + name, true));
  parts.emplace_back(std::move(first));
  parts.emplace_back(part_head(boundary, vm ? "rootfs.img" : "rootfs", image.fingerprint + (vm ? ".qcow2" : ".root"), false));
  parts.emplace_back(std::move(second));
  parts.emplace_back(fmt::format("\r\n--{}--\r\n", boundary));
  response.content_type = {};
  response.headers.emplace_back("Content-Type", "multipart/form-data; boundary=" + boundary);
  response.body = std::move(parts);
  return response;
}

}  // namespace virga::api
