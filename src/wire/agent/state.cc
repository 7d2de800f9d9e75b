#include <arpa/inet.h>

#include "wire/agent/session.h"

namespace virga::agent {
namespace {

constexpr std::size_t max_text = 256;

/// A string of the guest's, fit for logs, JSON and terminals: control characters and what is not UTF-8 become '?'.
std::string text(Reader& r) {
  std::size_t size = 0;
  const char* p = r.text(size);
  if (p == nullptr) return {};
  std::string out(p, std::min(size, max_text));
  for (std::size_t i = 0; i < out.size();) {
    const auto c = static_cast<unsigned char>(out[i]);
    std::size_t length = c < 0x80 ? 1 : c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xf0 && c < 0xf5 ? 4 : 0;
    bool good = length > 0 && i + length <= out.size() && (length > 1 || (c >= 0x20 && c != 0x7f));
    for (std::size_t k = 1; good && k < length; ++k) good = (static_cast<unsigned char>(out[i + k]) & 0xc0) == 0x80;
    if (good && length > 1) {
      const auto second = static_cast<unsigned char>(out[i + 1]);
      // Overlong forms, surrogates, beyond U+10FFFF, and the C1 control characters.
      if ((c == 0xe0 && second < 0xa0) || (c == 0xed && second >= 0xa0) || (c == 0xf0 && second < 0x90) ||
          (c == 0xf4 && second >= 0x90) || (c == 0xc2 && second < 0xa0))
        good = false;
    }
    if (!good) {
      out[i] = '?';
      length = 1;
    }
    i += length;
  }
  return out;
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
    *counter = r.u64();
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
  s.processes = r.u64();
  s.memory_total = r.u64();
  s.memory_used = r.u64();
  s.cpu_ns = r.u64();
  s.os_name = text(r);
  s.os_version = text(r);
  s.kernel = text(r);
  s.host_name = text(r);
  const auto count = r.u16();
  if (!r.ok() || count > max_interfaces) return fail(ErrorKind::invalid, "malformed state from the guest's agent");
  for (unsigned n = 0; n < count; ++n) {
    VIRGA_TRY(auto i, interface(r));
    s.interfaces.push_back(std::move(i));
  }
  return s;
}

}  // namespace virga::agent
