// Reading packets, on both sides, and writing them into fixed buffers: what does not fit, or is not there, makes ok() false. No
// allocation, no exceptions.
#pragma once

#include <string.h>

#include "wire/sftp/protocol.h"

namespace virga::sftp {

class In {
 public:
  In(const unsigned char* data, std::size_t size) : at_(data), left_(size) {}
  std::uint8_t u8() { return static_cast<std::uint8_t>(number(1)); }
  std::uint32_t u32() { return static_cast<std::uint32_t>(number(4)); }
  std::uint64_t u64() { return number(8); }
  const char* bytes(std::size_t& size) {
    size = u32();
    if (!ok_ || left_ < size) {
      ok_ = false;
      size = 0;
      return nullptr;
    }
    const auto* p = at_;
    at_ += size;
    left_ -= size;
    return reinterpret_cast<const char*>(p);
  }
  /// A text without NUL, copied behind one. False: too long or malformed.
  bool text(char* to, std::size_t room) {
    std::size_t size = 0;
    const char* from = bytes(size);
    if (from == nullptr || size >= room || memchr(from, 0, size) != nullptr) return ok_ = false;
    memcpy(to, from, size);
    to[size] = 0;
    return true;
  }
  Attributes attributes() {
    Attributes a;
    a.flags = u32();
    if ((a.flags & attr_size) != 0) a.size = u64();
    if ((a.flags & attr_owner) != 0) {
      a.uid = u32();
      a.gid = u32();
    }
    if ((a.flags & attr_permissions) != 0) a.permissions = u32();
    if ((a.flags & attr_times) != 0) {
      a.accessed = u32();
      a.modified = u32();
    }
    if ((a.flags & attr_extended) != 0) ok_ = false;  // nobody sends them
    return a;
  }
  bool ok() const { return ok_; }

 private:
  std::uint64_t number(unsigned width) {
    if (!ok_ || left_ < width) {
      ok_ = false;
      return 0;
    }
    std::uint64_t v = 0;
    for (unsigned i = 0; i < width; ++i) v = v << 8 | at_[i];
    at_ += width;
    left_ -= width;
    return v;
  }
  const unsigned char* at_;
  std::size_t left_;
  bool ok_ = true;
};

class Out {
 public:
  Out(unsigned char* buffer, std::size_t capacity) : begin_(buffer), capacity_(capacity) {}
  void start(Type type, std::uint32_t id) {
    size_ = 4;
    ok_ = true;
    u8(static_cast<std::uint8_t>(type));
    u32(id);
  }
  void u8(std::uint8_t v) { number(v, 1); }
  void u32(std::uint32_t v) { number(v, 4); }
  void u64(std::uint64_t v) { number(v, 8); }
  void text(const char* data, std::size_t size) {
    u32(static_cast<std::uint32_t>(size));
    if (!room(size)) return;
    if (size > 0) memcpy(begin_ + size_, data, size);
    size_ += size;
  }
  void text(const char* s) { text(s, strlen(s)); }
  void attributes(const Attributes& a) {
    u32(a.flags);
    if ((a.flags & attr_size) != 0) u64(a.size);
    if ((a.flags & attr_owner) != 0) {
      u32(a.uid);
      u32(a.gid);
    }
    if ((a.flags & attr_permissions) != 0) u32(a.permissions);
    if ((a.flags & attr_times) != 0) {
      u32(a.accessed);
      u32(a.modified);
    }
  }
  void patch_u32(std::size_t at, std::uint32_t v) {
    for (unsigned i = 0; i < 4; ++i) begin_[at + i] = static_cast<unsigned char>(v >> (8 * (3 - i)));
  }
  /// Where data may be put in place, before grow().
  unsigned char* end() { return begin_ + size_; }
  void grow(std::size_t n) { size_ += n; }
  void rewind(std::size_t size) {
    size_ = size;
    ok_ = true;
  }
  std::size_t size() const { return size_; }
  bool ok() const { return ok_; }
  const unsigned char* finish() {
    patch_u32(0, static_cast<std::uint32_t>(size_ - 4));
    return begin_;
  }

 private:
  bool room(std::size_t n) {
    if (!ok_ || capacity_ - size_ < n) ok_ = false;
    return ok_;
  }
  void number(std::uint64_t v, unsigned width) {
    if (!room(width)) return;
    for (unsigned i = 0; i < width; ++i) begin_[size_++] = static_cast<unsigned char>(v >> (8 * (width - 1 - i)));
  }
  unsigned char* begin_;
  std::size_t capacity_;
  std::size_t size_ = 4;
  bool ok_ = true;
};

}  // namespace virga::sftp
