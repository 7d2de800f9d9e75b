// Stand-ins for guests: processes in network namespaces of their own, whose NICs send and receive real packets, crafted ones too.
#pragma once

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <chrono>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "io/fd.h"
#include "model/address.h"

namespace virga::testing {

struct CommandResult {
  int code = -1;
  std::string out;
};

inline CommandResult shell(const std::string& command) {
  CommandResult result;
  FILE* pipe = ::popen(("exec 2>&1; " + command).c_str(), "re");
  if (pipe == nullptr) return result;
  char buffer[4096];
  while (std::fgets(buffer, sizeof buffer, pipe) != nullptr) result.out += buffer;
  const int status = ::pclose(pipe);
  result.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128;
  return result;
}

/// Asks again until it is so, at most ten seconds.
inline bool eventually(const std::function<bool()>& condition) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (std::chrono::steady_clock::now() < end) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return condition();
}

class GuestNamespace {
 public:
  GuestNamespace() {
    int p[2];
    if (::pipe2(p, O_CLOEXEC) != 0) return;
    pid_ = ::fork();
    if (pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (::unshare(CLONE_NEWNET) != 0) ::_exit(1);
      (void)!::write(p[1], "x", 1);
      for (;;) ::pause();
    }
    ::close(p[1]);
    char c;
    (void)!::read(p[0], &c, 1);
    ::close(p[0]);
  }
  ~GuestNamespace() { end(); }
  GuestNamespace(const GuestNamespace&) = delete;
  GuestNamespace& operator=(const GuestNamespace&) = delete;
  void end() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    int status;
    ::waitpid(pid_, &status, 0);
    pid_ = -1;
  }
  pid_t pid() const { return pid_; }
  CommandResult run(const std::string& command) const {
    return shell("nsenter --net=/proc/" + std::to_string(pid_) + "/ns/net sh -c '" + command + "'");
  }

 private:
  pid_t pid_ = -1;
};

using Frame = std::vector<unsigned char>;

/// A raw socket on an interface inside a guest: sees and sends whole frames.
class Wire {
 public:
  Wire(pid_t pid, const std::string& interface) {
    std::thread visitor([&] {
      io::UniqueFd space(::open(("/proc/" + std::to_string(pid) + "/ns/net").c_str(), O_RDONLY | O_CLOEXEC));
      if (::setns(space.get(), CLONE_NEWNET) != 0) return;
      fd_.reset(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL)));
      sockaddr_ll address{};
      address.sll_family = AF_PACKET;
      address.sll_protocol = htons(ETH_P_ALL);
      address.sll_ifindex = static_cast<int>(::if_nametoindex(interface.c_str()));
      ok_ = address.sll_ifindex != 0 && ::bind(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
      // Tags that the kernel took off come beside the frame.
      int on = 1;
      ::setsockopt(fd_.get(), SOL_PACKET, PACKET_AUXDATA, &on, sizeof on);
    });
    visitor.join();
  }
  bool ok() const { return ok_; }
  bool send(const Frame& frame) const {
    return ::send(fd_.get(), frame.data(), frame.size(), 0) == static_cast<ssize_t>(frame.size());
  }
  /// All frames from others up to and including one that equals `last`; without it when five seconds pass.
  std::vector<Frame> receive_until(const Frame& last) const {
    std::vector<Frame> out;
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(5);
    while (std::chrono::steady_clock::now() < end) {
      pollfd p{fd_.get(), POLLIN, 0};
      if (::poll(&p, 1, 100) <= 0) continue;
      Frame frame(4096);
      sockaddr_ll from{};
      iovec data{frame.data(), frame.size()};
      alignas(cmsghdr) char control[256];
      msghdr message{&from, sizeof from, &data, 1, control, sizeof control, 0};
      const auto n = ::recvmsg(fd_.get(), &message, 0);
      if (n <= 0 || from.sll_pkttype == PACKET_OUTGOING) continue;
      frame.resize(static_cast<std::size_t>(n));
      for (auto* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
        if (c->cmsg_level != SOL_PACKET || c->cmsg_type != PACKET_AUXDATA) continue;
        tpacket_auxdata aux;
        std::memcpy(&aux, CMSG_DATA(c), sizeof aux);
        if ((aux.tp_status & TP_STATUS_VLAN_VALID) == 0) continue;
        const unsigned char tag[4] = {
            static_cast<unsigned char>(aux.tp_vlan_tpid >> 8), static_cast<unsigned char>(aux.tp_vlan_tpid),
            static_cast<unsigned char>(aux.tp_vlan_tci >> 8), static_cast<unsigned char>(aux.tp_vlan_tci)};
        frame.insert(frame.begin() + 12, tag, tag + 4);
      }
      const bool done = frame == last;
      out.push_back(std::move(frame));
      if (done) return out;
    }
    return out;
  }

 private:
  io::UniqueFd fd_;
  bool ok_ = false;
};

// --- frames ---

inline Frame& append(Frame& to, std::initializer_list<unsigned> bytes) {
  for (auto b : bytes) to.push_back(static_cast<unsigned char>(b));
  return to;
}
inline Frame& append(Frame& to, const Frame& more) {
  return to.insert(to.end(), more.begin(), more.end()), to;
}
inline Frame& append(Frame& to, const Mac& mac) {
  return to.insert(to.end(), mac.bytes.begin(), mac.bytes.end()), to;
}
inline Frame& append(Frame& to, const IpAddress& ip) {
  return to.insert(to.end(), ip.bytes.begin(), ip.bytes.begin() + (ip.v6 ? 16 : 4)), to;
}

inline Mac mac_of(std::string_view text) {
  Mac out;
  for (std::size_t i = 0; i < 6; ++i)
    out.bytes[i] = static_cast<std::uint8_t>(std::stoi(std::string(text.substr(i * 3, 2)), nullptr, 16));
  return out;
}
inline IpAddress ip_of(std::string_view text) {
  return *parse_ip(text);
}
inline Mac broadcast() {
  return mac_of("ff:ff:ff:ff:ff:ff");
}

inline Frame ethernet(const Mac& to, const Mac& from, unsigned type, const Frame& payload) {
  Frame out;
  append(append(append(out, to), from), {type >> 8, type & 0xff});
  append(out, payload);
  if (out.size() < 60) out.resize(60);
  return out;
}

inline Frame arp(unsigned operation, const Mac& sender, const IpAddress& sender_ip, const Mac& target, const IpAddress& target_ip) {
  Frame out;
  append(out, {0, 1, 8, 0, 6, 4, 0, operation});
  append(append(append(append(out, sender), sender_ip), target), target_ip);
  return out;
}

inline Frame udp(unsigned from, unsigned to, std::size_t bytes = 32) {
  Frame out;
  const auto length = static_cast<unsigned>(8 + bytes);
  append(out, {from >> 8, from & 0xff, to >> 8, to & 0xff, length >> 8, length & 0xff, 0, 0});
  out.resize(length, 'x');
  return out;
}

inline Frame ipv4(const IpAddress& from, const IpAddress& to, unsigned protocol, const Frame& payload) {
  Frame out;
  const auto length = static_cast<unsigned>(20 + payload.size());
  append(out, {0x45, 0, length >> 8, length & 0xff, 0, 1, 0, 0, 64, protocol, 0, 0});
  append(append(out, from), to);
  unsigned sum = 0;
  for (std::size_t i = 0; i < 20; i += 2) sum += static_cast<unsigned>(out[i] << 8 | out[i + 1]);
  sum = (sum & 0xffff) + (sum >> 16);
  sum = ~(sum + (sum >> 16)) & 0xffff;
  out[10] = static_cast<unsigned char>(sum >> 8);
  out[11] = static_cast<unsigned char>(sum);
  return append(out, payload);
}

inline Frame ipv6(const IpAddress& from, const IpAddress& to, unsigned next, const Frame& payload) {
  Frame out;
  const auto length = static_cast<unsigned>(payload.size());
  append(out, {0x60, 0, 0, 0, length >> 8, length & 0xff, next, 255});
  append(append(out, from), to);
  return append(out, payload);
}

/// An ICMPv6 message of neighbour discovery: type, and the target where it has one. The checksum is right: the bridge's snooping
/// looks.
inline Frame icmp6(unsigned type, const IpAddress* target = nullptr) {
  Frame out;
  append(out, {type, 0, 0, 0, 0, 0, 0, 0});
  if (target != nullptr) append(out, *target);
  out.resize(std::max<std::size_t>(out.size(), 24));
  return out;
}

}  // namespace virga::testing
