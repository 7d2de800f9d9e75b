#include <arpa/inet.h>

#include <algorithm>

#include "base/text.h"
#include "wire/agent/session.h"

namespace virga::agent {
namespace {

constexpr std::size_t max_text = 256;
/// 2^53: what every reader of JSON takes. A larger number would make whole lists, with all guests in them, unreadable for clients.
constexpr std::uint64_t max_count = std::uint64_t(1) << 53;

std::string text(Reader& r) {
  std::size_t size = 0;
  const char* p = r.text(size);
  return p == nullptr ? std::string() : printable_text({p, size}, max_text);
}

/// An address in the form the system writes it, so that nothing else passes for one.
Result<GuestState::Address> address(Reader& r) {
  GuestState::Address a;
  const auto family = r.u8();
  a.prefix = r.u8();
  const auto scope = r.u8();
  const auto shown = text(r);
  a.ipv6 = family == 6;
  if (!r.ok() || (family != 4 && family != 6) || a.prefix > (a.ipv6 ? 128u : 32u) || scope > 2)
    return fail(ErrorKind::invalid, "malformed address in the guest's state");
  a.scope = scope == 0 ? "global" : scope == 1 ? "link" : "local";
  Byte binary[16];
  char printed[INET6_ADDRSTRLEN];
  const int f = a.ipv6 ? AF_INET6 : AF_INET;
  if (::inet_pton(f, shown.c_str(), binary) != 1 || ::inet_ntop(f, binary, printed, sizeof printed) == nullptr)
    return fail(ErrorKind::invalid, "malformed address in the guest's state");
  a.address = printed;
  return a;
}

Result<GuestState::Interface> interface(Reader& r) {
  GuestState::Interface i;
  i.name = text(r);
  i.mac = text(r);
  i.state = text(r);
  i.type = text(r);
  i.mtu = r.u32();
  for (auto* counter :
       {&i.bytes_in, &i.bytes_out, &i.packets_in, &i.packets_out, &i.errors_in, &i.errors_out, &i.dropped_in, &i.dropped_out})
    *counter = std::min(r.u64(), max_count);
  const auto count = r.u16();
  if (!r.ok() || count > max_addresses) return fail(ErrorKind::invalid, "malformed interface in the guest's state");
  for (unsigned n = 0; n < count; ++n) {
    VIRGA_TRY(auto a, address(r));
    i.addresses.push_back(std::move(a));
  }
  return i;
}

}  // namespace

Result<GuestState> parse_state(const Byte* data, std::size_t size) {
  Reader r(data, size);
  GuestState s;
  s.processes = std::min(r.u64(), max_count);
  s.memory_total = std::min(r.u64(), max_count);
  s.memory_used = std::min(r.u64(), max_count);
  s.cpu_ns = std::min(r.u64(), max_count);
  s.os_name = text(r);
  s.os_version = text(r);
  s.kernel = text(r);
  s.host_name = text(r);
  const auto count = r.u16();
  if (!r.ok() || count > max_interfaces) return fail(ErrorKind::invalid, "malformed state from the guest's agent");
  for (unsigned n = 0; n < count; ++n) {
    VIRGA_TRY(auto i, interface(r));
    // A name is a key where states are shown.
    const bool again =
        std::any_of(s.interfaces.begin(), s.interfaces.end(), [&](const auto& other) { return other.name == i.name; });
    if (!again) s.interfaces.push_back(std::move(i));
  }
  return s;
}

}  // namespace virga::agent
