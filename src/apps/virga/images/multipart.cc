#include "apps/virga/images/multipart.h"

namespace virga::cli {
namespace {

/// `key="value"` or `key=value` in a header.
std::string parameter(std::string_view header, std::string_view key) {
  for (std::size_t at = 0; (at = header.find(key, at)) != std::string_view::npos; at += key.size()) {
    const bool starts = at == 0 || header[at - 1] == ' ' || header[at - 1] == ';';
    auto rest = header.substr(at + key.size());
    if (!starts || rest.empty() || rest[0] != '=') continue;
    rest.remove_prefix(1);
    if (!rest.empty() && rest[0] == '"')
      return std::string(rest.substr(1, rest.find('"', 1) == std::string_view::npos ? 0 : rest.find('"', 1) - 1));
    return std::string(rest.substr(0, rest.find_first_of("; \r\n")));
  }
  return {};
}

std::string_view header_line(std::string_view head, std::string_view name) {
  while (!head.empty()) {
    auto end = head.find("\r\n");
    auto line = head.substr(0, end);
    if (line.size() > name.size() && line.substr(0, name.size()) == name) return line;
    head = end == std::string_view::npos ? std::string_view() : head.substr(end + 2);
  }
  return {};
}

}  // namespace

std::string base_name(std::string_view path) {
  if (auto slash = path.rfind('/'); slash != std::string_view::npos) path.remove_prefix(slash + 1);
  if (path.empty() || path[0] == '.' || path.size() > 200) return {};
  for (char c : path)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) return {};
  return std::string(path);
}

std::string disposition_file_name(std::string_view header) {
  return base_name(parameter(header, "filename"));
}

Result<std::vector<Part>> parse_multipart(std::string_view body, std::string_view content_type) {
  const auto boundary = parameter(content_type, "boundary");
  auto malformed = [] { return fail(ErrorKind::invalid, "the server sent a malformed image"); };
  if (boundary.empty()) return malformed();
  const std::string opening = "--" + boundary, closing = "\r\n--" + boundary;
  if (!body.starts_with(opening)) return malformed();
  body.remove_prefix(opening.size());
  std::vector<Part> parts;
  while (!body.starts_with("--")) {
    if (!body.starts_with("\r\n") || parts.size() > 8) return malformed();
    auto head_end = body.find("\r\n\r\n");
    if (head_end == std::string_view::npos) return malformed();
    auto disposition = header_line(body.substr(2, head_end - 2), "Content-Disposition:");
    body.remove_prefix(head_end + 4);
    auto end = body.find(closing);
    if (end == std::string_view::npos) return malformed();
    parts.push_back({parameter(disposition, "name"), disposition_file_name(disposition), body.substr(0, end)});
    body.remove_prefix(end + closing.size());
  }
  return parts;
}

}  // namespace virga::cli
