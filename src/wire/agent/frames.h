// Frames between the daemon and virga-agent over one byte stream (virtio-serial). Plain C++ without exceptions, allocation or
// library: the static agent and the daemon share this header.
//
//   on the stream:   COBS(header payload) 00   COBS(header payload) 00 ...
//   header:          u8 type | u8 flags (0) | u16 payload length | u32 stream        little-endian
//
// Consistent-overhead byte stuffing keeps the byte 00 out of a frame, so a receiver that joins in the middle of one (the other side
// was killed and started again) finds the next frame by looking for a 00. Who connects sends a 00 first: it ends what a former
// sender left unfinished. A frame whose length does not match its header was cut, and is dropped. Which session a frame belongs to
// is settled by the nonce in hello (messages.h), not here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace virga::agent {

using Byte = unsigned char;

inline constexpr std::size_t max_payload = 32768;
inline constexpr std::size_t header_size = 8;
inline constexpr std::size_t max_frame = header_size + max_payload;
/// The longest a frame may be on the stream, with its final 00.
inline constexpr std::size_t max_encoded = max_frame + max_frame / 254 + 2;

struct Frame {
  std::uint8_t type = 0;
  std::uint32_t stream = 0;
  const Byte* payload = nullptr;
  std::size_t size = 0;
};

namespace detail {

/// Stuffs one run of bytes after another, so that header and payload need not be joined first.
struct Stuffer {
  Byte* code;
  Byte* at;
  unsigned run = 1;
  explicit Stuffer(Byte* out) : code(out), at(out + 1) {}
  void put(const Byte* data, std::size_t size) {
    const Byte* end = data + size;
    while (data < end) {
      const std::size_t room = 255 - run;
      const std::size_t left = static_cast<std::size_t>(end - data);
      const std::size_t take = left < room ? left : room;
      const void* zero = std::memchr(data, 0, take);
      const std::size_t n = zero != nullptr ? static_cast<std::size_t>(static_cast<const Byte*>(zero) - data) : take;
      std::memcpy(at, data, n);
      at += n;
      data += n;
      run += static_cast<unsigned>(n);
      if (zero != nullptr) {
        ++data;
        next();
      } else if (run == 255) {
        next();
      }
    }
  }
  void next() {
    *code = static_cast<Byte>(run);
    code = at++;
    run = 1;
  }
  Byte* finish() {
    *code = static_cast<Byte>(run);
    *at++ = 0;
    return at;
  }
};

}  // namespace detail

/// Writes one frame with its final 00 to `out`, which has room for max_encoded bytes. `size` is at most max_payload. Returns the
/// length.
inline std::size_t encode_frame(std::uint8_t type, std::uint32_t stream, const void* payload, std::size_t size, Byte* out) {
  const Byte header[header_size] = {type,
                                    0,
                                    static_cast<Byte>(size),
                                    static_cast<Byte>(size >> 8),
                                    static_cast<Byte>(stream),
                                    static_cast<Byte>(stream >> 8),
                                    static_cast<Byte>(stream >> 16),
                                    static_cast<Byte>(stream >> 24)};
  detail::Stuffer stuffer(out);
  stuffer.put(header, header_size);
  if (size > 0) stuffer.put(static_cast<const Byte*>(payload), size);
  return static_cast<std::size_t>(stuffer.finish() - out);
}

/// Takes a stream apart. Never fails: what is no frame is counted and skipped up to the next 00.
class Decoder {
 public:
  /// Calls `handle(const Frame&)` for each whole frame; it returns false to stop. The frame's bytes are valid during that call
  /// only. Returns how many bytes of `data` were taken, which is all of them unless it was stopped.
  template <class F>
  std::size_t feed(const Byte* data, std::size_t size, F&& handle) {
    std::size_t at = 0;
    while (at < size) {
      if (data[at] == 0) {
        ++at;
        Frame frame;
        const bool whole = finish(frame);
        if (whole && !handle(static_cast<const Frame&>(frame))) return at;
        continue;
      }
      if (skipping_) {
        const void* zero = std::memchr(data + at, 0, size - at);
        at = zero != nullptr ? static_cast<std::size_t>(static_cast<const Byte*>(zero) - data) : size;
        continue;
      }
      if (left_ == 0) {
        // A code byte: so many bytes follow, then a 00 of the original (not after a full run of 254, nor at the frame's end).
        if (zero_due_ && !store_zero()) continue;
        left_ = data[at] - 1u;
        zero_due_ = data[at] != 255;
        any_ = true;
        ++at;
        continue;
      }
      std::size_t n = size - at < left_ ? size - at : left_;
      if (const void* zero = std::memchr(data + at, 0, n); zero != nullptr)
        n = static_cast<std::size_t>(static_cast<const Byte*>(zero) - (data + at));
      if (n > max_frame - filled_) {
        skipping_ = true;
        continue;
      }
      std::memcpy(buffer_ + filled_, data + at, n);
      filled_ += n;
      left_ -= static_cast<unsigned>(n);
      at += n;
    }
    return at;
  }
  /// Frames that were cut or damaged so far.
  std::uint64_t damaged() const { return damaged_; }

 private:
  bool store_zero() {
    if (filled_ == max_frame) {
      skipping_ = true;
      return false;
    }
    buffer_[filled_++] = 0;
    zero_due_ = false;
    return true;
  }
  bool finish(Frame& frame) {
    const bool empty = !any_ && !skipping_;
    bool whole = any_ && !skipping_ && left_ == 0 && filled_ >= header_size;
    if (whole) {
      frame.type = buffer_[0];
      frame.size = buffer_[2] | static_cast<std::size_t>(buffer_[3]) << 8;
      frame.stream = buffer_[4] | static_cast<std::uint32_t>(buffer_[5]) << 8 | static_cast<std::uint32_t>(buffer_[6]) << 16 |
                     static_cast<std::uint32_t>(buffer_[7]) << 24;
      frame.payload = buffer_ + header_size;
      whole = frame.size == filled_ - header_size;
    }
    if (!whole && !empty) ++damaged_;
    filled_ = 0;
    left_ = 0;
    zero_due_ = any_ = skipping_ = false;
    return whole;
  }

  std::size_t filled_ = 0;
  unsigned left_ = 0;      // bytes of the current run that are still to come
  bool zero_due_ = false;  // a 00 belongs between this run and the next
  bool any_ = false;
  bool skipping_ = false;
  std::uint64_t damaged_ = 0;
  Byte buffer_[max_frame];
};

/// Appends values to a payload; what does not fit makes ok() false and writes nothing.
class Writer {
 public:
  Writer(Byte* buffer, std::size_t capacity) : begin_(buffer), at_(buffer), end_(buffer + capacity) {}
  void u8(std::uint8_t v) { number(v, 1); }
  void u16(std::uint16_t v) { number(v, 2); }
  void u32(std::uint32_t v) { number(v, 4); }
  void u64(std::uint64_t v) { number(v, 8); }
  void bytes(const void* data, std::size_t size) {
    if (!room(size)) return;
    if (size > 0) std::memcpy(at_, data, size);
    at_ += size;
  }
  /// A string of at most 65535 bytes with its length in front.
  void text(const char* data, std::size_t size) {
    if (size > 65535 || !room(size + 2)) {
      ok_ = false;
      return;
    }
    u16(static_cast<std::uint16_t>(size));
    bytes(data, size);
  }
  void text(const char* s) { text(s, std::strlen(s)); }
  bool ok() const { return ok_; }
  std::size_t size() const { return static_cast<std::size_t>(at_ - begin_); }
  const Byte* data() const { return begin_; }
  /// Takes back everything behind `size`, also a failure: for lists that end where the room ends.
  void rewind(std::size_t size) {
    at_ = begin_ + size;
    ok_ = true;
  }
  void patch_u16(std::size_t offset, std::uint16_t v) {
    begin_[offset] = static_cast<Byte>(v);
    begin_[offset + 1] = static_cast<Byte>(v >> 8);
  }

 private:
  bool room(std::size_t n) {
    if (!ok_ || static_cast<std::size_t>(end_ - at_) < n) ok_ = false;
    return ok_;
  }
  void number(std::uint64_t v, unsigned width) {
    if (!room(width)) return;
    for (unsigned i = 0; i < width; ++i) *at_++ = static_cast<Byte>(v >> (8 * i));
  }
  Byte* begin_;
  Byte* at_;
  Byte* end_;
  bool ok_ = true;
};

/// Takes values out of a payload; reading past its end makes ok() false and yields zeros. Bytes behind the known fields are
/// allowed: later versions append.
class Reader {
 public:
  Reader(const Byte* data, std::size_t size) : at_(data), end_(data + size) {}
  std::uint8_t u8() { return static_cast<std::uint8_t>(number(1)); }
  std::uint16_t u16() { return static_cast<std::uint16_t>(number(2)); }
  std::uint32_t u32() { return static_cast<std::uint32_t>(number(4)); }
  std::uint64_t u64() { return number(8); }
  /// A string in place; null where it does not fit.
  const char* text(std::size_t& size) {
    size = u16();
    return reinterpret_cast<const char*>(take(size));
  }
  const Byte* take(std::size_t size) {
    if (!ok_ || left() < size) {
      ok_ = false;
      return nullptr;
    }
    const Byte* p = at_;
    at_ += size;
    return p;
  }
  std::size_t left() const { return static_cast<std::size_t>(end_ - at_); }
  const Byte* rest() const { return at_; }
  bool ok() const { return ok_; }

 private:
  std::uint64_t number(unsigned width) {
    const Byte* p = take(width);
    std::uint64_t v = 0;
    for (unsigned i = 0; p != nullptr && i < width; ++i) v |= static_cast<std::uint64_t>(p[i]) << (8 * i);
    return v;
  }
  const Byte* at_;
  const Byte* end_;
  bool ok_ = true;
};

}  // namespace virga::agent
