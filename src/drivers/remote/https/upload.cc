#include "drivers/remote/https/upload.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/random.h"
#include "wire/http/files.h"

namespace virga::remote {

Result<UploadBody> UploadBody::open(std::vector<Upload> files) {
  UploadBody out;
  const bool multipart = files.size() != 1 || !files.front().part.empty();
  const auto boundary = random_hex(30);
  if (multipart) out.type_ = "multipart/form-data; boundary=" + boundary;
  bool first = true;
  auto text = [&out](std::string piece) {
    out.length_ += piece.size();
    out.pieces_.emplace_back(std::move(piece));
  };
  for (const auto& file : files) {
    auto opened = http::open_file(file.path);
    if (!opened) return fail(std::move(opened).error().wrap("open a file to send"));
    if (multipart)
      text(
          fmt::format("{}--{}\r\nContent-Disposition: form-data; name=\"{}\"; filename=\"{}\"\r\n"
                      "Content-Type: application/octet-stream\r\n\r\n",
                      first ? "" : "\r\n", boundary, file.part, file.file_name));
    out.length_ += opened->length;
    out.pieces_.emplace_back(File{std::move(opened->fd), opened->length});
    first = false;
  }
  if (multipart) text(fmt::format("\r\n--{}--\r\n", boundary));
  return out;
}

Result<std::size_t> UploadBody::read(std::span<char> into) {
  for (; at_ < pieces_.size(); ++at_, offset_ = 0) {
    if (auto* text = std::get_if<std::string>(&pieces_[at_])) {
      const auto n = std::min(into.size(), text->size() - offset_);
      if (n == 0) continue;
      std::copy_n(text->data() + offset_, n, into.data());
      offset_ += n;
      sent_ += n;
      return n;
    }
    auto& file = std::get<File>(pieces_[at_]);
    if (file.left == 0) continue;
    const auto want = static_cast<std::size_t>(std::min<std::uint64_t>(into.size(), file.left));
    const auto n = ::read(file.fd.get(), into.data(), want);
    if (n < 0) return fail_errno(errno, "read a file to send");
    if (n == 0) return fail(ErrorKind::unavailable, "a file became shorter while it was sent");
    file.left -= static_cast<std::uint64_t>(n);
    sent_ += static_cast<std::uint64_t>(n);
    return static_cast<std::size_t>(n);
  }
  return 0;
}

}  // namespace virga::remote
