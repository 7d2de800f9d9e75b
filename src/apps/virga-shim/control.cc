// RUN_DIR/shim.sock: fixed structs in, fixed structs out. A daemon that does not read is disconnected; it may connect again.
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "apps/virga-shim/shim.h"

namespace virga::shim {
namespace {

/// With --die-with-parent the end of the first connection is the shim's end, whoever noticed it.
void hang_up(Source& source) {
  const bool first = shim.first_connection >= 0 && &source == &shim.connections[shim.first_connection];
  unwatch(source);
  if (!first) return;
  shim.first_connection = -1;
  if (shim.options.die_with_parent) shim.ending = true;
}

void send_message(Source& to, Kind kind, Op op, uint32_t sequence, int error) {
  Message m = {};
  m.magic = magic;
  m.kind = kind;
  m.op = op;
  m.sequence = sequence;
  m.error = error;
  m.stage = shim.failed_stage;
  m.status = shim.status;
  memcpy(m.words, shim.words, shim.words_size);
  if (send(to.fd, &m, sizeof m, MSG_DONTWAIT | MSG_NOSIGNAL) != static_cast<ssize_t>(sizeof m)) hang_up(to);
}

int answer(const Request& request) {
  switch (request.op) {
    case Op::status:
      return 0;
    case Op::signal:
      if (shim.status.exited) return 0;
      if (shim.status.guest_pid <= 0) return EAGAIN;
      // The guest is our unreaped child: its pid cannot mean another process.
      return kill(shim.status.guest_pid, request.argument) == 0 || errno == ESRCH ? 0 : errno;
    case Op::dismiss:
      if (!shim.status.exited) return EBUSY;
      shim.ending = true;
      return 0;
    case Op::destroy:
      shim.ending = true;
      return 0;
    case Op::resize:
      return console_resize(static_cast<uint32_t>(request.argument));
    case Op::clear:
      return log_clear(shim.console_log);
  }
  return EINVAL;
}

}  // namespace

void control_accept() {
  int fd = accept4(shim.control_listen.fd, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd < 0) return;
  ucred peer = {};
  socklen_t size = sizeof peer;
  const bool ours = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && (peer.uid == 0 || peer.uid == geteuid());
  for (auto& c : shim.connections)
    if (ours && c.fd < 0) {
      watch(c, fd, SourceKind::connection, EPOLLIN);
      return;
    }
  close(fd);
}

void connection_ready(Source& source, uint32_t) {
  Request request;
  const ssize_t n = recv(source.fd, &request, sizeof request, MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n != static_cast<ssize_t>(sizeof request) || request.magic != magic) return hang_up(source);
  const int error = answer(request);
  send_message(source, Kind::reply, request.op, request.sequence, error);
}

void push(Kind kind) {
  for (auto& c : shim.connections)
    if (c.fd >= 0) send_message(c, kind, Op::status, 0, shim.failed_errno);
}

}  // namespace virga::shim
