// The byte stream to the daemon: a virtio-serial port, or descriptors given by a test. Output waits in one buffer of fixed size;
// who produces much (commands) asks room() first, so that nothing is ever dropped and nothing ever blocks.
#pragma once

#include <cstddef>
#include <cstdint>

#include "wire/agent/messages.h"

namespace virga::agent {

class Link {
 public:
  /// Takes over the descriptors (they may be the same) and makes them non-blocking. False: this kernel has no epoll.
  bool open(int in, int out);
  void close();
  bool is_open() const { return in_ >= 0; }
  /// Becomes readable when update() has something to do.
  int poll_fd() const { return epoll_; }
  /// Asks the kernel what has changed.
  void update();
  /// The daemon has gone (it may come back on the same port).
  bool hung_up() const { return hung_up_; }
  /// The stream itself has gone.
  bool broken() const { return broken_; }
  bool may_read() const { return readable_ && !hung_up_ && !broken_; }
  bool may_write() const { return writable_ && pending_ > 0 && !hung_up_ && !broken_; }

  /// Up to `size` bytes; 0 when there are none now.
  std::size_t read(Byte* buffer, std::size_t size);
  /// Writes what waits, as far as the other side takes it.
  void flush();
  /// Whether `frames` frames of any size still fit.
  bool room(std::size_t frames) const { return capacity - pending_ >= frames * max_encoded; }
  void send(Type type, std::uint32_t stream, const void* payload, std::size_t size);
  /// Forgets what waits and ends a frame that was sent in part: a new session begins.
  void restart();

 private:
  static constexpr std::size_t capacity = 8 * max_encoded;
  int in_ = -1;
  int out_ = -1;
  int epoll_ = -1;
  bool readable_ = false;
  bool writable_ = false;
  bool hung_up_ = false;
  bool broken_ = false;
  std::size_t pending_ = 0;
  std::size_t start_ = 0;
  Byte buffer_[capacity];
};

/// The agent's port: by udev's link, or by the name the kernel shows in /sys. -1 when there is none (yet).
int open_port();

}  // namespace virga::agent
