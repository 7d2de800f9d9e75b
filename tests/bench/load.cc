// A small load generator for the API over a unix socket: one thread, epoll, keep-alive connections with one request under way each.
//   load get SOCKET PATH CONNECTIONS SECONDS        requests a second, p50, p99
//   load events SOCKET LISTENERS CHANGES            time until all listeners have heard of a change, for each change
// Prints one line of JSON. Understands Content-Length and chunked answers, checks that each is a 200.
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

[[noreturn]] void die(const std::string& what) {
  std::fprintf(stderr, "load: %s\n", what.c_str());
  std::exit(1);
}

int connect_to(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) die("the socket's path is too long");
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || ::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) die("cannot connect to " + path);
  return fd;
}

void send_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const auto n = ::send(fd, text.data(), text.size(), MSG_NOSIGNAL);
    if (n <= 0) die("the connection broke");
    text.remove_prefix(static_cast<std::size_t>(n));
  }
}

/// Follows one answer through its bytes without keeping the body.
class Answer {
 public:
  /// True when the answer is complete.
  bool feed(std::string_view bytes) {
    total_ += bytes.size();
    if (!in_body_) {
      head_.append(bytes);
      const auto end = head_.find("\r\n\r\n");
      if (end == std::string::npos) return false;
      if (!head_.starts_with("HTTP/1.1 200")) die("unexpected answer: " + head_.substr(0, 300));
      std::string lower = head_.substr(0, end);
      std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return std::tolower(c); });
      const auto length = lower.find("content-length:");
      chunked_ = length == std::string::npos;
      left_ = chunked_ ? 0 : std::strtoull(lower.c_str() + length + 15, nullptr, 10);
      in_body_ = true;
      const std::string rest = head_.substr(end + 4);
      return body(rest);
    }
    return body(bytes);
  }
  std::size_t total() const { return total_; }
  void reset() { *this = Answer(); }

 private:
  bool body(std::string_view bytes) {
    if (!chunked_) {
      left_ -= std::min<std::size_t>(left_, bytes.size());
      return left_ == 0;
    }
    // Only one answer is under way on a connection: it ends where the last chunk does.
    tail_.append(bytes.substr(bytes.size() - std::min<std::size_t>(bytes.size(), 7)));
    if (tail_.size() > 7) tail_.erase(0, tail_.size() - 7);
    return tail_.ends_with("0\r\n\r\n") && (tail_.size() < 7 || tail_.ends_with("\r\n0\r\n\r\n"));
  }
  std::string head_, tail_;
  std::size_t left_ = 0, total_ = 0;
  bool in_body_ = false, chunked_ = false;
};

struct Connection {
  int fd = -1;
  Clock::time_point began;
  Answer answer;
};

double percentile(std::vector<double>& sorted, double p) {
  return sorted.empty() ? 0 : sorted[std::min(sorted.size() - 1, static_cast<std::size_t>(p * static_cast<double>(sorted.size())))];
}

int get(const std::string& socket, const std::string& path, int connections, double seconds) {
  const std::string request = "GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n";
  const int poll = ::epoll_create1(EPOLL_CLOEXEC);
  std::vector<std::unique_ptr<Connection>> all;
  for (int i = 0; i < connections; ++i) {
    all.push_back(std::make_unique<Connection>());
    all.back()->fd = connect_to(socket);
    epoll_event event{.events = EPOLLIN, .data = {.ptr = all.back().get()}};
    ::epoll_ctl(poll, EPOLL_CTL_ADD, all.back()->fd, &event);
  }
  std::vector<double> took;
  std::size_t bytes = 0;
  const auto begin = Clock::now();
  auto begin_request = [&](Connection& c) {
    c.answer.reset();
    c.began = Clock::now();
    send_all(c.fd, request);
  };
  for (auto& c : all) begin_request(*c);
  int busy = connections;
  std::vector<char> buffer(1u << 20);
  while (busy > 0) {
    epoll_event events[64];
    const int n = ::epoll_wait(poll, events, 64, 300'000);
    if (n <= 0) die("no answer for five minutes");
    for (int i = 0; i < n; ++i) {
      auto& c = *static_cast<Connection*>(events[i].data.ptr);
      const auto got = ::recv(c.fd, buffer.data(), buffer.size(), 0);
      if (got <= 0) die("the daemon closed the connection");
      if (!c.answer.feed({buffer.data(), static_cast<std::size_t>(got)})) continue;
      bytes += c.answer.total();
      took.push_back(std::chrono::duration<double, std::milli>(Clock::now() - c.began).count());
      if (std::chrono::duration<double>(Clock::now() - begin).count() < seconds) {
        begin_request(c);
      } else {
        --busy;
      }
    }
  }
  const double spent = std::chrono::duration<double>(Clock::now() - begin).count();
  std::sort(took.begin(), took.end());
  std::printf("{\"requests\": %zu, \"seconds\": %.3f, \"rate\": %.6g, \"p50_ms\": %.3f, \"p99_ms\": %.3f, \"bytes\": %zu}\n",
              took.size(), spent, static_cast<double>(took.size()) / spent, percentile(took, 0.50), percentile(took, 0.99),
              bytes / took.size());
  return 0;
}

void open_listener(Connection& c, const std::string& socket) {
  c.fd = connect_to(socket);
  send_all(c.fd,
           "GET /1.0/events?type=lifecycle HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
           "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
  std::string head;
  char byte = 0;
  while (!head.ends_with("\r\n\r\n")) {
    if (::recv(c.fd, &byte, 1, 0) != 1) die("the event stream was refused");
    head += byte;
  }
  if (!head.starts_with("HTTP/1.1 101")) die("the event stream was refused: " + head);
}

/// Changes a profile again and again; each time all listeners must hear of it before the next one.
int events(const std::string& socket, int listeners, int changes) {
  const int poll = ::epoll_create1(EPOLL_CLOEXEC);
  std::vector<std::unique_ptr<Connection>> all;
  for (int i = 0; i < listeners; ++i) {
    all.push_back(std::make_unique<Connection>());
    open_listener(*all.back(), socket);
    epoll_event event{.events = EPOLLIN, .data = {.ptr = all.back().get()}};
    ::epoll_ctl(poll, EPOLL_CTL_ADD, all.back()->fd, &event);
  }
  const int fd = connect_to(socket);
  std::vector<double> took;
  std::vector<char> buffer(1u << 16);
  const auto begin = Clock::now();
  for (int n = 0; n < changes; ++n) {
    const std::string body = "{\"description\": \"change " + std::to_string(n) + "\"}";
    const auto began = Clock::now();
    send_all(fd, "PATCH /1.0/profiles/default HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: " +
                     std::to_string(body.size()) + "\r\n\r\n" + body);
    for (int heard = 0; heard < listeners;) {
      epoll_event ready[64];
      const int count = ::epoll_wait(poll, ready, 64, 30'000);
      if (count <= 0) die("an event did not come");
      for (int i = 0; i < count; ++i) {
        const auto got = ::recv(static_cast<Connection*>(ready[i].data.ptr)->fd, buffer.data(), buffer.size(), 0);
        if (got <= 0) die("an event stream ended");
        if (std::string_view(buffer.data(), static_cast<std::size_t>(got)).find("profile-updated") != std::string_view::npos)
          ++heard;
      }
    }
    took.push_back(std::chrono::duration<double, std::milli>(Clock::now() - began).count());
    Answer answer;
    for (bool done = false; !done;) {
      const auto got = ::recv(fd, buffer.data(), buffer.size(), 0);
      if (got <= 0) die("the daemon closed the connection");
      done = answer.feed({buffer.data(), static_cast<std::size_t>(got)});
    }
  }
  const double spent = std::chrono::duration<double>(Clock::now() - begin).count();
  std::sort(took.begin(), took.end());
  std::printf("{\"changes\": %d, \"listeners\": %d, \"rate\": %.6g, \"p50_ms\": %.3f, \"p99_ms\": %.3f}\n", changes, listeners,
              changes / spent, percentile(took, 0.50), percentile(took, 0.99));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "";
  if (mode == "get" && argc == 6) return get(argv[2], argv[3], std::atoi(argv[4]), std::atof(argv[5]));
  if (mode == "events" && argc == 5) return events(argv[2], std::atoi(argv[3]), std::atoi(argv[4]));
  die("usage: load get SOCKET PATH CONNECTIONS SECONDS | load events SOCKET LISTENERS CHANGES");
}
