#include "io/netlink.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <libmnl/libmnl.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <sched.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <thread>
#include <utility>

#include "base/units.h"
#include "io/fd.h"

namespace virga::io {
namespace {

std::string format_mac(const unsigned char* m) {
  return fmt::format("{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", m[0], m[1], m[2], m[3], m[4], m[5]);
}

Result<std::array<unsigned char, 6>> parse_mac(const std::string& text) {
  std::array<unsigned char, 6> out{};
  if (text.size() != 17) return fail(ErrorKind::invalid, fmt::format("'{}' is not a MAC address", text));
  auto digit = [](char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
  };
  for (std::size_t i = 0; i < 6; ++i) {
    const int hi = digit(text[i * 3]), lo = digit(text[i * 3 + 1]);
    if (hi < 0 || lo < 0 || (i < 5 && text[i * 3 + 2] != ':'))
      return fail(ErrorKind::invalid, fmt::format("'{}' is not a MAC address", text));
    out[i] = static_cast<unsigned char>(hi * 16 + lo);
  }
  return out;
}

Result<> check_name(std::string_view name) {
  if (!is_interface_name(name)) return fail(ErrorKind::invalid, fmt::format("'{}' is not an interface name", name));
  return {};
}

/// The attributes of one message by type, checked for length before they are read.
template <std::size_t N>
struct Attributes {
  std::array<const nlattr*, N> at{};
  static int collect(const nlattr* attr, void* data) {
    auto* self = static_cast<Attributes*>(data);
    const auto type = mnl_attr_get_type(attr);
    if (type < N) self->at[type] = attr;
    return MNL_CB_OK;
  }
  const nlattr* get(std::size_t type, std::size_t bytes) const {
    const auto* a = at[type];
    return a != nullptr && mnl_attr_get_payload_len(a) >= bytes ? a : nullptr;
  }
  std::string text(std::size_t type) const {
    const auto* a = at[type];
    if (a == nullptr) return {};
    const char* s = static_cast<const char*>(mnl_attr_get_payload(a));
    return std::string(s, ::strnlen(s, mnl_attr_get_payload_len(a)));
  }
  std::uint32_t u32(std::size_t type) const {
    const auto* a = get(type, 4);
    return a == nullptr ? 0 : mnl_attr_get_u32(a);
  }
};

Link parse_link(const nlmsghdr* header) {
  Link link;
  const auto* info = static_cast<const ifinfomsg*>(mnl_nlmsg_get_payload(header));
  Attributes<IFLA_MAX + 1> a;
  mnl_attr_parse(header, sizeof *info, &decltype(a)::collect, &a);
  link.index = info->ifi_index;
  link.up = (info->ifi_flags & IFF_UP) != 0;
  link.running = (info->ifi_flags & IFF_RUNNING) != 0;
  link.loopback = (info->ifi_flags & IFF_LOOPBACK) != 0;
  link.name = a.text(IFLA_IFNAME);
  link.alias = a.text(IFLA_IFALIAS);
  link.mtu = a.u32(IFLA_MTU);
  link.group = a.u32(IFLA_GROUP);
  link.master = static_cast<int>(a.u32(IFLA_MASTER));
  if (const auto* mac = a.get(IFLA_ADDRESS, 6)) link.mac = format_mac(static_cast<const unsigned char*>(mnl_attr_get_payload(mac)));
  if (const auto* stats = a.get(IFLA_STATS64, 4 * sizeof(std::uint64_t))) {
    std::uint64_t first[4];  // rx_packets, tx_packets, rx_bytes, tx_bytes; the attribute need not be aligned
    std::memcpy(first, mnl_attr_get_payload(stats), sizeof first);
    link.counters = {first[2], first[3], first[0], first[1]};
  }
  if (const auto* kind = a.at[IFLA_LINKINFO]) {
    Attributes<IFLA_INFO_MAX + 1> i;
    mnl_attr_parse_nested(kind, &decltype(i)::collect, &i);
    link.kind = i.text(IFLA_INFO_KIND);
  }
  return link;
}

LinkAddress parse_address(const nlmsghdr* header) {
  LinkAddress out;
  const auto* info = static_cast<const ifaddrmsg*>(mnl_nlmsg_get_payload(header));
  Attributes<IFA_MAX + 1> a;
  mnl_attr_parse(header, sizeof *info, &decltype(a)::collect, &a);
  out.index = static_cast<int>(info->ifa_index);
  out.v6 = info->ifa_family == AF_INET6;
  out.prefix = info->ifa_prefixlen;
  out.scope = info->ifa_scope == RT_SCOPE_UNIVERSE ? "global" : info->ifa_scope == RT_SCOPE_LINK ? "link" : "local";
  const std::size_t bytes = out.v6 ? 16 : 4;
  const auto* address = a.get(IFA_LOCAL, bytes);
  if (address == nullptr) address = a.get(IFA_ADDRESS, bytes);
  char text[INET6_ADDRSTRLEN] = "";
  if (address != nullptr) ::inet_ntop(info->ifa_family, mnl_attr_get_payload(address), text, sizeof text);
  out.address = text;
  return out;
}

struct Cidr {
  int family = AF_INET;
  unsigned prefix = 0;
  std::array<unsigned char, 16> bytes{};
  std::size_t size() const { return family == AF_INET6 ? 16 : 4; }
};

Result<Cidr> parse_cidr(const std::string& text) {
  Cidr out;
  const auto slash = text.find('/');
  const auto host = text.substr(0, slash);
  out.family = host.find(':') != std::string::npos ? AF_INET6 : AF_INET;
  if (slash == std::string::npos || ::inet_pton(out.family, host.c_str(), out.bytes.data()) != 1)
    return fail(ErrorKind::invalid, fmt::format("'{}' is not an address with prefix length", text));
  VIRGA_TRY(auto prefix, parse_integer(text.substr(slash + 1), 0, out.family == AF_INET6 ? 128 : 32));
  out.prefix = static_cast<unsigned>(prefix);
  return out;
}

/// What the kernel says about a refused request, behind the error number (NETLINK_EXT_ACK).
std::string extended_message(const nlmsghdr* header, const nlmsgerr* error) {
  if ((header->nlmsg_flags & NLM_F_ACK_TLVS) == 0) return {};
  std::size_t skip = sizeof *error;
  if ((header->nlmsg_flags & NLM_F_CAPPED) == 0) skip += mnl_nlmsg_get_payload_len(&error->msg);
  if (mnl_nlmsg_get_payload_len(header) <= skip) return {};
  Attributes<NLMSGERR_ATTR_MAX + 1> a;
  mnl_attr_parse(header, static_cast<unsigned>(skip), &decltype(a)::collect, &a);
  return a.text(NLMSGERR_ATTR_MSG);
}

}  // namespace

/// One request and its answers; kept out of the header so that libmnl stays out of it too.
struct NetlinkCalls {
  Netlink& self;
  std::array<char, 8192> request{};
  nlmsghdr* header = nullptr;

  explicit NetlinkCalls(Netlink& netlink, std::uint16_t type, std::uint16_t flags) : self(netlink) {
    header = mnl_nlmsg_put_header(request.data());
    header->nlmsg_type = type;
    header->nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | flags);
    header->nlmsg_seq = self.sequence_++;
  }
  template <class T>
  T* body() {
    return static_cast<T*>(mnl_nlmsg_put_extra_header(header, sizeof(T)));
  }

  /// Sends, and hands every message of the answer to `each`. Errors: of the system, with `what` in front.
  Result<> run(const std::string& what, const std::function<void(const nlmsghdr*)>& each = {}) {
    if (mnl_socket_sendto(self.socket_, header, header->nlmsg_len) < 0) return fail_errno(errno, what);
    std::vector<char> buffer(65536);
    bool interrupted = false;
    for (;;) {
      const auto got = mnl_socket_recvfrom(self.socket_, buffer.data(), buffer.size());
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return fail_errno(errno, what);
      int left = static_cast<int>(got);
      for (auto* m = reinterpret_cast<const nlmsghdr*>(buffer.data()); mnl_nlmsg_ok(m, left); m = mnl_nlmsg_next(m, &left)) {
        if (m->nlmsg_seq != header->nlmsg_seq) continue;  // the tail of a request that was given up
        if ((m->nlmsg_flags & NLM_F_DUMP_INTR) != 0) interrupted = true;
        if (m->nlmsg_type == NLMSG_DONE) {
          if (interrupted) return fail(ErrorKind::conflict, fmt::format("{}: interfaces changed meanwhile", what));
          return {};
        }
        if (m->nlmsg_type == NLMSG_ERROR) {
          if (mnl_nlmsg_get_payload_len(m) < sizeof(nlmsgerr))
            return fail(ErrorKind::internal, fmt::format("{}: short answer", what));
          const auto* e = static_cast<const nlmsgerr*>(mnl_nlmsg_get_payload(m));
          if (e->error == 0) return {};
          auto words = extended_message(m, e);
          return fail_errno(-e->error, words.empty() ? what : fmt::format("{}: {}", what, words));
        }
        if (each) each(m);
        if ((m->nlmsg_flags & NLM_F_MULTI) == 0 && (header->nlmsg_flags & NLM_F_ACK) == 0) return {};
      }
    }
  }
};

bool is_interface_name(std::string_view name) noexcept {
  if (name.empty() || name.size() >= IFNAMSIZ || name == "." || name == "..") return false;
  for (const char c : name)
    if (c <= ' ' || c == '/' || c == ':' || c == 0x7f) return false;
  return true;
}

Result<Netlink> Netlink::open() {
  auto* socket = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);
  if (socket == nullptr) return fail_errno(errno, "open a netlink socket");
  Netlink out(socket);
  if (mnl_socket_bind(socket, 0, MNL_SOCKET_AUTOPID) < 0) return fail_errno(errno, "bind a netlink socket");
  int on = 1;
  (void)mnl_socket_setsockopt(socket, NETLINK_EXT_ACK, &on, sizeof on);  // only for better words
  return out;
}

Result<Netlink> Netlink::open_in(pid_t pid) {
  UniqueFd space(::open(fmt::format("/proc/{}/ns/net", pid).c_str(), O_RDONLY | O_CLOEXEC));
  if (!space) return fail_errno(errno == ENOENT ? ESRCH : errno, fmt::format("open the network namespace of process {}", pid));
  Result<Netlink> out = fail(ErrorKind::internal, "not run");
  // A thread of its own enters the namespace and ends in it: no way leads back wrong.
  std::thread visitor([&] {
    out = ::setns(space.get(), CLONE_NEWNET) == 0
              ? open()
              : fail_errno(errno, fmt::format("enter the network namespace of process {}", pid));
  });
  visitor.join();
  return out;
}

Netlink::Netlink(Netlink&& other) noexcept : socket_(std::exchange(other.socket_, nullptr)), sequence_(other.sequence_) {}
Netlink& Netlink::operator=(Netlink&& other) noexcept {
  std::swap(socket_, other.socket_);
  std::swap(sequence_, other.sequence_);
  return *this;
}
Netlink::~Netlink() {
  if (socket_ != nullptr) mnl_socket_close(socket_);
}

Result<std::vector<Link>> Netlink::links() {
  for (int attempt = 0;; ++attempt) {
    std::vector<Link> out;
    NetlinkCalls call(*this, RTM_GETLINK, NLM_F_DUMP);
    call.body<ifinfomsg>()->ifi_family = AF_UNSPEC;
    auto done = call.run("list interfaces", [&](const nlmsghdr* m) {
      if (m->nlmsg_type == RTM_NEWLINK && mnl_nlmsg_get_payload_len(m) >= sizeof(ifinfomsg)) out.push_back(parse_link(m));
    });
    if (done) return out;
    if (done.error().kind() != ErrorKind::conflict || attempt == 9) return fail(std::move(done).error());
  }
}

Result<std::optional<Link>> Netlink::find_link(const std::string& name) {
  VIRGA_CHECK(check_name(name));
  std::optional<Link> out;
  NetlinkCalls call(*this, RTM_GETLINK, 0);
  call.body<ifinfomsg>()->ifi_family = AF_UNSPEC;
  mnl_attr_put_strz(call.header, IFLA_IFNAME, name.c_str());
  auto done = call.run(fmt::format("look up interface '{}'", name), [&](const nlmsghdr* m) {
    if (m->nlmsg_type == RTM_NEWLINK && mnl_nlmsg_get_payload_len(m) >= sizeof(ifinfomsg)) out = parse_link(m);
  });
  if (!done && done.error().kind() != ErrorKind::not_found) return fail(std::move(done).error());
  return out;
}

Result<std::vector<LinkAddress>> Netlink::addresses(int index) {
  for (int attempt = 0;; ++attempt) {
    std::vector<LinkAddress> out;
    NetlinkCalls call(*this, RTM_GETADDR, NLM_F_DUMP);
    call.body<ifaddrmsg>()->ifa_family = AF_UNSPEC;
    auto done = call.run("list addresses", [&](const nlmsghdr* m) {
      if (m->nlmsg_type != RTM_NEWADDR || mnl_nlmsg_get_payload_len(m) < sizeof(ifaddrmsg)) return;
      auto address = parse_address(m);
      if (!address.address.empty() && (index == 0 || address.index == index)) out.push_back(std::move(address));
    });
    if (done) return out;
    if (done.error().kind() != ErrorKind::conflict || attempt == 9) return fail(std::move(done).error());
  }
}

Result<> Netlink::create_bridge(const std::string& name, const std::string& mac, std::uint32_t group) {
  VIRGA_CHECK(check_name(name));
  VIRGA_TRY(auto bytes, parse_mac(mac));
  NetlinkCalls call(*this, RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL);
  call.body<ifinfomsg>();
  mnl_attr_put_strz(call.header, IFLA_IFNAME, name.c_str());
  mnl_attr_put(call.header, IFLA_ADDRESS, bytes.size(), bytes.data());
  mnl_attr_put_u32(call.header, IFLA_GROUP, group);
  auto* info = mnl_attr_nest_start(call.header, IFLA_LINKINFO);
  mnl_attr_put_strz(call.header, IFLA_INFO_KIND, "bridge");
  mnl_attr_nest_end(call.header, info);
  return call.run(fmt::format("create bridge '{}'", name));
}

Result<> Netlink::create_veth(const VethSpec& spec) {
  VIRGA_CHECK(check_name(spec.host_name));
  VIRGA_CHECK(check_name(spec.peer_name));
  VIRGA_TRY(auto mac, parse_mac(spec.peer_mac));
  if (spec.peer_pid <= 0)
    return fail(ErrorKind::invalid, fmt::format("create interface '{}': no process to give its other end to", spec.host_name));
  NetlinkCalls call(*this, RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL);
  auto* header = call.header;
  call.body<ifinfomsg>();
  mnl_attr_put_strz(header, IFLA_IFNAME, spec.host_name.c_str());
  mnl_attr_put_u32(header, IFLA_MTU, spec.mtu);
  mnl_attr_put_u32(header, IFLA_GROUP, spec.group);
  auto* info = mnl_attr_nest_start(header, IFLA_LINKINFO);
  mnl_attr_put_strz(header, IFLA_INFO_KIND, "veth");
  auto* data = mnl_attr_nest_start(header, IFLA_INFO_DATA);
  auto* peer = mnl_attr_nest_start(header, VETH_INFO_PEER);
  auto* peer_info = static_cast<ifinfomsg*>(mnl_nlmsg_put_extra_header(header, sizeof(ifinfomsg)));
  peer_info->ifi_family = AF_UNSPEC;
  mnl_attr_put_strz(header, IFLA_IFNAME, spec.peer_name.c_str());
  mnl_attr_put(header, IFLA_ADDRESS, mac.size(), mac.data());
  mnl_attr_put_u32(header, IFLA_MTU, spec.mtu);
  mnl_attr_put_u32(header, IFLA_NET_NS_PID, static_cast<std::uint32_t>(spec.peer_pid));
  mnl_attr_nest_end(header, peer);
  mnl_attr_nest_end(header, data);
  mnl_attr_nest_end(header, info);
  VIRGA_CHECK(call.run(
      fmt::format("create interface '{}' with '{}' in the network of process {}", spec.host_name, spec.peer_name, spec.peer_pid)));
  auto inside = open_in(spec.peer_pid);  // a peer cannot be created up: its driver misses the other end at that moment
  auto raised = inside ? inside->set_link(spec.peer_name, {.up = true}) : Result<>(fail(std::move(inside).error()));
  if (!raised) (void)delete_link(spec.host_name);
  return raised;
}

Result<> Netlink::create_tap(const std::string& name, uid_t owner, const std::string& alias) {
  VIRGA_TRY(auto there, find_link(name));
  if (there) return fail(ErrorKind::exists, fmt::format("interface '{}' exists already", name));
  UniqueFd tun(::open("/dev/net/tun", O_RDWR | O_CLOEXEC));
  if (!tun) {
    const int reason = errno;
    return fail(fail_errno(reason, "open '/dev/net/tun'").value().with_hint("load the kernel module: modprobe tun"));
  }
  ifreq request{};
  std::memcpy(request.ifr_name, name.c_str(), name.size());
  request.ifr_flags = static_cast<short>(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_TUN_EXCL);
  auto what = fmt::format("create tap '{}'", name);
  if (::ioctl(tun.get(), TUNSETIFF, &request) != 0)
    return errno == EBUSY ? fail(ErrorKind::exists, fmt::format("interface '{}' exists already", name)) : fail_errno(errno, what);
  if (::ioctl(tun.get(), TUNSETOWNER, static_cast<unsigned long>(owner)) != 0) return fail_errno(errno, what);
  VIRGA_CHECK(set_link(name, {.alias = alias}));
  if (::ioctl(tun.get(), TUNSETPERSIST, 1ul) != 0) return fail_errno(errno, what);
  return {};
}

Result<> Netlink::set_link(const std::string& name, const LinkChange& change) {
  VIRGA_CHECK(check_name(name));
  NetlinkCalls call(*this, RTM_SETLINK, NLM_F_ACK);
  auto* header = call.header;
  auto* info = call.body<ifinfomsg>();
  info->ifi_family = AF_UNSPEC;
  if (change.up) {
    info->ifi_change = IFF_UP;
    info->ifi_flags = *change.up ? IFF_UP : 0u;
  }
  mnl_attr_put_strz(header, IFLA_IFNAME, name.c_str());
  if (change.mtu) mnl_attr_put_u32(header, IFLA_MTU, *change.mtu);
  if (change.mac) {
    VIRGA_TRY(auto bytes, parse_mac(*change.mac));
    mnl_attr_put(header, IFLA_ADDRESS, bytes.size(), bytes.data());
  }
  if (change.alias) {
    if (change.alias->size() > 255) return fail(ErrorKind::invalid, "interface alias longer than 255 bytes");
    mnl_attr_put(header, IFLA_IFALIAS, change.alias->size(), change.alias->data());
  }
  if (change.master) {
    std::uint32_t index = 0;
    if (!change.master->empty()) {
      VIRGA_TRY(auto master, find_link(*change.master));
      if (!master) return fail(ErrorKind::not_found, fmt::format("bridge '{}' does not exist", *change.master));
      index = static_cast<std::uint32_t>(master->index);
    }
    mnl_attr_put_u32(header, IFLA_MASTER, index);
  }
  if (change.no_ipv6_address) {
    auto* families = mnl_attr_nest_start(header, IFLA_AF_SPEC);
    auto* inet6 = mnl_attr_nest_start(header, AF_INET6);
    mnl_attr_put_u8(header, IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE);
    mnl_attr_nest_end(header, inet6);
    mnl_attr_nest_end(header, families);
  }
  return call.run(fmt::format("change interface '{}'", name));
}

Result<> Netlink::delete_link(const std::string& name) {
  VIRGA_CHECK(check_name(name));
  NetlinkCalls call(*this, RTM_DELLINK, NLM_F_ACK);
  call.body<ifinfomsg>();
  mnl_attr_put_strz(call.header, IFLA_IFNAME, name.c_str());
  auto done = call.run(fmt::format("delete interface '{}'", name));
  if (!done && done.error().kind() == ErrorKind::not_found) return {};
  return done;
}

Result<> Netlink::set_addresses(const std::string& name, const std::vector<std::string>& cidrs) {
  VIRGA_TRY(auto link, find_link(name));
  if (!link) return fail(ErrorKind::not_found, fmt::format("interface '{}' does not exist", name));
  VIRGA_TRY(auto present, addresses(link->index));
  auto change = [&](std::uint16_t type, std::uint16_t flags, const std::string& text) -> Result<> {
    VIRGA_TRY(auto cidr, parse_cidr(text));
    NetlinkCalls call(*this, type, flags | NLM_F_ACK);
    auto* info = call.body<ifaddrmsg>();
    info->ifa_family = static_cast<unsigned char>(cidr.family);
    info->ifa_prefixlen = static_cast<unsigned char>(cidr.prefix);
    info->ifa_index = static_cast<unsigned>(link->index);
    mnl_attr_put(call.header, IFA_LOCAL, cidr.size(), cidr.bytes.data());
    mnl_attr_put(call.header, IFA_ADDRESS, cidr.size(), cidr.bytes.data());
    if (cidr.family == AF_INET6) {
      mnl_attr_put_u32(call.header, IFA_FLAGS, IFA_F_NODAD);
    } else if (cidr.prefix < 31) {
      std::uint32_t host = 0;
      std::memcpy(&host, cidr.bytes.data(), 4);
      const std::uint32_t broadcast = host | htonl(cidr.prefix == 0 ? ~0u : (1u << (32 - cidr.prefix)) - 1);
      mnl_attr_put(call.header, IFA_BROADCAST, 4, &broadcast);
    }
    return call.run(fmt::format("{} address '{}' of '{}'", type == RTM_NEWADDR ? "add" : "remove", text, name));
  };
  // Normal forms on both sides, so that "fd42:0::1/64" is found again.
  std::vector<std::string> wanted;
  for (const auto& text : cidrs) {
    VIRGA_TRY(auto cidr, parse_cidr(text));
    char normal[INET6_ADDRSTRLEN] = "";
    ::inet_ntop(cidr.family, cidr.bytes.data(), normal, sizeof normal);
    wanted.push_back(fmt::format("{}/{}", normal, cidr.prefix));
  }
  std::vector<std::string> kept;
  for (const auto& address : present) {
    auto text = fmt::format("{}/{}", address.address, address.prefix);
    if (std::find(wanted.begin(), wanted.end(), text) != wanted.end()) {
      kept.push_back(std::move(text));
      continue;
    }
    if (address.scope != "global") continue;
    auto removed = change(RTM_DELADDR, 0, text);
    // EADDRNOTAVAIL (internal): a secondary address went with its primary
    if (!removed && removed.error().kind() != ErrorKind::not_found && removed.error().kind() != ErrorKind::internal) return removed;
  }
  for (const auto& text : wanted) {
    if (std::find(kept.begin(), kept.end(), text) != kept.end()) continue;
    if (auto added = change(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, text); !added && added.error().kind() != ErrorKind::exists)
      return added;
  }
  return {};
}

}  // namespace virga::io
