// Tarballs byte by byte, so that tests can say what no tar program would.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

namespace virga::test {

struct TarEntry {
  std::string name = {};
  char type = '0';  ///< '0' file, '1' hard link, '2' symlink, '3' char, '4' block, '5' directory, '6' fifo
  std::string data = {};
  std::string link = {};
  unsigned mode = 0644;
  std::uint64_t uid = 0;
  std::uint64_t gid = 0;
  unsigned major = 0;
  unsigned minor = 0;
  std::uint64_t claimed_size = 0;  ///< where it is not data.size()
};

class TarBuilder {
 public:
  TarBuilder& add(const TarEntry& e) {
    std::string header(512, '\0');
    auto put = [&](std::size_t at, std::string_view text, std::size_t width) {
      header.replace(at, std::min(width, text.size()), text.substr(0, width));
    };
    auto octal = [&](std::size_t at, std::uint64_t value, int width) {
      char text[32];
      std::snprintf(text, sizeof text, "%0*llo", width - 1, static_cast<unsigned long long>(value));
      if (std::string_view(text).size() < static_cast<std::size_t>(width)) return put(at, text, static_cast<std::size_t>(width));
      header[at] = '\x80';  // base 256, for what octal digits cannot say
      for (int i = 0; i < std::min(8, width - 1); ++i)
        header[at + static_cast<std::size_t>(width - 1 - i)] = static_cast<char>(value >> (8 * i));
    };
    if (e.name.size() > 100) long_name('L', e.name);
    if (e.link.size() > 100) long_name('K', e.link);
    put(0, e.name, 100);
    octal(100, e.mode, 8);
    octal(108, e.uid, 8);
    octal(116, e.gid, 8);
    octal(124, e.claimed_size != 0 ? e.claimed_size : e.data.size(), 12);
    octal(136, 1'700'000'000, 12);
    header[156] = e.type;
    put(157, e.link, 100);
    put(257, "ustar  ", 8);
    octal(329, e.major, 8);
    octal(337, e.minor, 8);
    return seal(std::move(header), e.data);
  }
  TarBuilder& file(std::string name, std::string data, unsigned mode = 0644) {
    return add({.name = std::move(name), .data = std::move(data), .mode = mode});
  }
  TarBuilder& directory(std::string name, unsigned mode = 0755) {
    return add({.name = std::move(name), .type = '5', .mode = mode});
  }
  TarBuilder& symlink(std::string name, std::string target) {
    return add({.name = std::move(name), .type = '2', .link = std::move(target), .mode = 0777});
  }
  TarBuilder& hardlink(std::string name, std::string target) {
    return add({.name = std::move(name), .type = '1', .link = std::move(target)});
  }
  /// Pax records for the next entry: {"path", ...}, {"SCHILY.xattr.trusted.x", ...}
  TarBuilder& pax(std::initializer_list<std::pair<std::string_view, std::string_view>> records) {
    std::string body;
    for (const auto& [key, value] : records) {
      std::string line;
      for (std::size_t length = key.size() + value.size() + 3;; ++length) {
        line = std::to_string(length) + " " + std::string(key) + "=" + std::string(value) + "\n";
        if (line.size() == length) break;
      }
      body += line;
    }
    std::string header(512, '\0');
    header.replace(0, 11, "PaxHeaders/");
    char size[13];
    std::snprintf(size, sizeof size, "%011zo", body.size());
    header.replace(124, 11, size);
    header[156] = 'x';
    header.replace(257, 8, std::string("ustar\00000", 8));
    return seal(std::move(header), body);
  }
  TarBuilder& raw(std::string_view bytes) {
    bytes_ += bytes;
    return *this;
  }
  std::string str() const { return bytes_ + std::string(1024, '\0'); }
  std::string without_end() const { return bytes_; }

 private:
  void long_name(char type, const std::string& name) {
    std::string header(512, '\0');
    header.replace(0, 13, "././@LongLink");
    char size[13];
    std::snprintf(size, sizeof size, "%011zo", name.size() + 1);
    header.replace(124, 11, size);
    header[156] = type;
    header.replace(257, 7, "ustar  ");
    seal(std::move(header), name + std::string(1, '\0'));
  }
  TarBuilder& seal(std::string header, std::string_view data) {
    header.replace(148, 8, "        ");
    unsigned sum = 0;
    for (char c : header) sum += static_cast<unsigned char>(c);
    char text[8];
    std::snprintf(text, sizeof text, "%06o", sum & 0777777);
    header.replace(148, 7, std::string(text, 7));
    bytes_ += header;
    bytes_ += data;
    bytes_.append((512 - data.size() % 512) % 512, '\0');
    return *this;
  }
  std::string bytes_;
};

}  // namespace virga::test
