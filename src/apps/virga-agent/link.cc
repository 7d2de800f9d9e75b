#include "link.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <initializer_list>

namespace virga::agent {

bool Link::open(int in, int out) {
  epoll_ = ::epoll_create1(EPOLL_CLOEXEC);
  if (epoll_ < 0) return false;
  in_ = in;
  out_ = out;
  readable_ = writable_ = true;
  hung_up_ = broken_ = false;
  pending_ = start_ = 0;
  // Edge-triggered: a port without a daemon reports its hang-up once, and its return once, instead of all the time.
  struct epoll_event event = {};
  event.events = EPOLLIN | EPOLLET | (in == out ? EPOLLOUT : 0u);
  event.data.u32 = 0;
  for (int fd : {in, out}) {
    ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK);
    ::fcntl(fd, F_SETFD, FD_CLOEXEC);
  }
  if (::epoll_ctl(epoll_, EPOLL_CTL_ADD, in, &event) != 0) return false;
  if (in != out) {
    event.events = EPOLLOUT | EPOLLET;
    event.data.u32 = 1;
    if (::epoll_ctl(epoll_, EPOLL_CTL_ADD, out, &event) != 0) return false;
  }
  return true;
}

void Link::close() {
  if (epoll_ >= 0) ::close(epoll_);
  if (out_ >= 0 && out_ != in_) ::close(out_);
  if (in_ >= 0) ::close(in_);
  in_ = out_ = epoll_ = -1;
}

void Link::update() {
  struct epoll_event events[2];
  const int n = ::epoll_wait(epoll_, events, 2, 0);
  for (int i = 0; i < n; ++i) {
    if (events[i].events & EPOLLIN) readable_ = true;
    if (events[i].events & EPOLLOUT) writable_ = true;
    if (events[i].data.u32 == 0) hung_up_ = (events[i].events & EPOLLHUP) != 0;
  }
}

std::size_t Link::read(Byte* buffer, std::size_t size) {
  const ssize_t n = ::read(in_, buffer, size);
  if (n > 0) return static_cast<std::size_t>(n);
  if (n == 0) {
    readable_ = false;
    hung_up_ = true;
  } else if (errno == EAGAIN) {
    readable_ = false;
  } else if (errno != EINTR) {
    broken_ = true;
  }
  return 0;
}

void Link::flush() {
  while (may_write()) {
    const ssize_t n = ::write(out_, buffer_ + start_, pending_);
    if (n > 0) {
      start_ += static_cast<std::size_t>(n);
      pending_ -= static_cast<std::size_t>(n);
    } else if (errno == EAGAIN || n == 0) {
      writable_ = false;
    } else if (errno == EPIPE) {
      hung_up_ = true;
    } else if (errno != EINTR) {
      broken_ = true;
    }
  }
  if (pending_ == 0) start_ = 0;
}

void Link::send(Type type, std::uint32_t stream, const void* payload, std::size_t size) {
  if (size > max_payload || !room(1)) return;  // cannot be: who sends has asked for room
  if (capacity - start_ - pending_ < max_encoded) {
    ::memmove(buffer_, buffer_ + start_, pending_);
    start_ = 0;
  }
  pending_ += encode_frame(static_cast<std::uint8_t>(type), stream, payload, size, buffer_ + start_ + pending_);
}

void Link::restart() {
  start_ = 0;
  pending_ = 1;
  buffer_[0] = 0;
}

int open_port() {
  char path[320];
  ::snprintf(path, sizeof path, "/dev/virtio-ports/%s", port_name);
  int fd = ::open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
  if (fd >= 0) return fd;
  DIR* ports = ::opendir("/sys/class/virtio-ports");
  if (ports == nullptr) return -1;
  while (const dirent* entry = ::readdir(ports)) {
    char name[64] = {};
    ::snprintf(path, sizeof path, "/sys/class/virtio-ports/%s/name", entry->d_name);
    const int file = ::open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) continue;
    ssize_t n = ::read(file, name, sizeof name - 1);
    ::close(file);
    while (n > 0 && name[n - 1] == '\n') name[--n] = 0;
    if (::strcmp(name, port_name) != 0) continue;
    ::snprintf(path, sizeof path, "/dev/%s", entry->d_name);
    fd = ::open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    break;
  }
  ::closedir(ports);
  return fd;
}

}  // namespace virga::agent
