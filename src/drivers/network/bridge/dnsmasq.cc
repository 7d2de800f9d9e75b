#include "drivers/network/bridge/dnsmasq.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <grp.h>
#include <net/if.h>
#include <netinet/in.h>
#include <pwd.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <functional>
#include <map>

#include "base/log.h"
#include "base/units.h"
#include "io/file.h"
#include "io/process.h"
#include "model/address.h"

namespace virga::network {
namespace {

std::string path(const BridgeSpec& spec, std::string_view file) {
  return fmt::format("{}/dnsmasq.{}", spec.state_dir, file);
}

std::string pid_file_argument(const BridgeSpec& spec) {
  return "--pid-file=" + path(spec, "pid");
}

/// The command line of a process; empty for one that is gone, a zombie, or a thread of the kernel.
std::vector<std::string> command_line(pid_t pid) {
  std::vector<std::string> out;
  auto text = io::read_file(fmt::format("/proc/{}/cmdline", pid), 1u << 20);
  if (!text) return out;
  std::size_t at = 0;
  while (at < text->size()) {
    const auto end = std::min(text->find('\0', at), text->size());
    out.push_back(text->substr(at, end - at));
    at = end + 1;
  }
  return out;
}

struct Running {
  pid_t pid = -1;
  io::UniqueFd pidfd;
  std::vector<std::string> argv;
};

/// Opens the process first and reads its command line then: what was read belongs to the process that is held.
Running inspect(pid_t pid, const std::string& argument) {
  Running out;
  io::UniqueFd fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!fd) return out;
  auto argv = command_line(pid);
  if (std::find(argv.begin(), argv.end(), argument) == argv.end()) return out;
  out.pid = pid;
  out.pidfd = std::move(fd);
  out.argv = std::move(argv);
  return out;
}

Running find_by_pid_file(const BridgeSpec& spec) {
  auto text = io::read_file(path(spec, "pid"), 64);
  if (!text) return {};
  while (!text->empty() && (text->back() == '\n' || text->back() == ' ')) text->pop_back();
  auto pid = parse_integer(*text, 1, 1 << 30);
  return pid ? inspect(static_cast<pid_t>(*pid), pid_file_argument(spec)) : Running{};
}

/// For when the pid file is lost: every process is asked.
std::vector<Running> find_by_search(const BridgeSpec& spec) {
  std::vector<Running> out;
  auto names = io::list_directory("/proc");
  if (!names) return out;
  for (const auto& name : *names) {
    auto pid = parse_integer(name, 1, 1 << 30);
    if (!pid) continue;
    if (auto found = inspect(static_cast<pid_t>(*pid), pid_file_argument(spec)); found.pid > 0) out.push_back(std::move(found));
  }
  return out;
}

Result<> signal(const Running& process, int number) {
  if (::syscall(SYS_pidfd_send_signal, process.pidfd.get(), number, nullptr, 0) != 0 && errno != ESRCH)
    return fail_errno(errno, fmt::format("signal dnsmasq {}", process.pid));
  return {};
}

Task<> watch_exit(int pidfd, std::shared_ptr<Notification> ended) {
  if (co_await io::wait_readable(pidfd)) ended->notify();
}

/// Ends a process and waits until it is gone: politely, after a second no longer.
Task<Result<>> end(Running process) {
  VIRGA_CO_CHECK(signal(process, SIGTERM));
  TaskGroup group(co_await current_executor());
  auto ended = std::make_shared<Notification>(co_await current_executor());
  group.spawn("dnsmasq exit", watch_exit(process.pidfd.get(), ended));
  if (!co_await ended->wait_for(Milliseconds(1000))) (void)signal(process, SIGKILL);
  co_await group.join();
  co_return Result<>{};
}

/// Replaces a file that may be lost in a power cut: it is written again at every start of the daemon. True where the text differs.
Result<bool> write_list(const std::string& file, const std::string& text, gid_t gid) {
  if (auto old = io::read_file(file); old && *old == text) return false;
  const auto beside = file + ".new";
  VIRGA_TRY(auto fd, io::open_path(beside, O_WRONLY | O_CREAT | O_TRUNC, 0640));
  if (::fchown(fd.get(), 0, gid) != 0 || ::fchmod(fd.get(), 0640) != 0) return fail_errno(errno, fmt::format("chown '{}'", beside));
  for (std::size_t done = 0; done < text.size();) {
    const auto n = ::write(fd.get(), text.data() + done, text.size() - done);
    if (n < 0 && errno != EINTR) return fail_errno(errno, fmt::format("write '{}'", beside));
    if (n > 0) done += static_cast<std::size_t>(n);
  }
  if (::rename(beside.c_str(), file.c_str()) != 0) return fail_errno(errno, fmt::format("rename to '{}'", file));
  return true;
}

Result<bool> write_lists(const BridgeSpec& spec, const DnsmasqUser& user) {
  VIRGA_TRY(const bool hosts, write_list(path(spec, "hosts"), dnsmasq_hosts(spec), user.gid));
  VIRGA_TRY(const bool names, write_list(path(spec, "names"), dnsmasq_names(spec), user.gid));
  // dnsmasq opens it before it gives up root. Made by dnsmasq, it would tell every user of the host who is on the network.
  VIRGA_TRY(auto leases, io::open_path(path(spec, "leases"), O_WRONLY | O_CREAT, 0600));
  if (::fchmod(leases.get(), 0600) != 0) return fail_errno(errno, fmt::format("chmod '{}'", path(spec, "leases")));
  return hosts || names;
}

/// Whether dnsmasq said so.
bool port_is_taken(const Error& error) {
  return error.message().find("Address already in use") != std::string::npos;
}

bool others_may_pass(const std::string& directory) {
  struct stat st{};
  return ::stat(directory.c_str(), &st) == 0 && (st.st_mode & S_IXOTH) != 0;
}

/// Tells dnsmasq in the guest's name that an address is free again (RFC 2131 DHCPRELEASE): it would refuse to give it to the next
/// guest.
Result<> release_lease(const BridgeSpec& spec, const HeldLease& lease) {
  VIRGA_TRY(auto mac, parse_mac(lease.mac));
  VIRGA_TRY(auto address, parse_ip(lease.address));
  VIRGA_TRY(auto own, parse_cidr(spec.ipv4_cidr));
  if (address.v6) return {};
  std::array<unsigned char, 300> packet{};
  packet[0] = 1;  // BOOTREQUEST
  packet[1] = 1;  // Ethernet
  packet[2] = 6;
  std::memcpy(&packet[12], address.bytes.data(), 4);                          // ciaddr
  std::memcpy(&packet[28], mac.bytes.data(), 6);                              // chaddr
  const unsigned char options[] = {0x63, 0x82, 0x53, 0x63, 53, 1, 7, 54, 4};  // magic; message type: release; server identifier
  std::memcpy(&packet[236], options, sizeof options);
  std::memcpy(&packet[236 + sizeof options], own.address.bytes.data(), 4);
  packet[236 + sizeof options + 4] = 255;
  io::UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket) return fail_errno(errno, "open a socket");
  if (::setsockopt(socket.get(), SOL_SOCKET, SO_BINDTODEVICE, spec.bridge.data(), static_cast<socklen_t>(spec.bridge.size())) != 0)
    return fail_errno(errno, "bind a socket to the bridge");
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(67);
  std::memcpy(&to.sin_addr, own.address.bytes.data(), 4);
  if (::sendto(socket.get(), packet.data(), packet.size(), 0, reinterpret_cast<const sockaddr*>(&to), sizeof to) < 0)
    return fail_errno(errno, "send a DHCP release");
  return {};
}

}  // namespace

DnsmasqUser choose_dnsmasq_user(const std::string& state_dir) {
  if (::geteuid() != 0) return {};
  for (auto at = state_dir; !at.empty(); at.resize(at.rfind('/')))
    if (!others_may_pass(at)) return {};
  for (const char* name : {"dnsmasq", "nobody"}) {
    const auto* user = ::getpwnam(name);
    if (user == nullptr) continue;
    DnsmasqUser out{name, "", user->pw_gid};
    const auto* group = ::getgrgid(user->pw_gid);
    if (group == nullptr) continue;
    out.group = group->gr_name;
    return out;
  }
  return {};
}

std::vector<std::string> dnsmasq_command(const BridgeSpec& spec, const std::string& program, const DnsmasqUser& user) {
  std::vector<std::string> argv{
      program,
      "--conf-file=/dev/null",
      "--no-hosts",
      "--strict-order",
      "--bind-dynamic",
      "--except-interface=lo",
      "--interface=" + spec.bridge,
      pid_file_argument(spec),
      "--user=" + user.user,
      "--group=" + user.group,
      "--quiet-dhcp",
      "--quiet-dhcp6",
      "--quiet-ra",
      "--domain-needed",
      "--domain=" + spec.dns_domain,
      "--local=/" + spec.dns_domain + "/",
      "--addn-hosts=" + path(spec, "names"),
  };
  const bool v4 = !spec.ipv4_cidr.empty() && spec.ipv4_dhcp;
  const bool v6 = !spec.ipv6_cidr.empty();
  if (v4) {
    const auto own = parse_cidr(spec.ipv4_cidr).value_or(Cidr{});
    argv.insert(argv.end(), {"--dhcp-authoritative", "--no-ping", "--dhcp-no-override", "--dhcp-ignore-names",
                             "--dhcp-hostsfile=" + path(spec, "hosts"), "--dhcp-leasefile=" + path(spec, "leases"),
                             fmt::format("--dhcp-range={},static,{},1h", own.subnet().address.text(), own.netmask())});
    if (spec.mtu != 1500) argv.push_back(fmt::format("--dhcp-option-force=option:mtu,{}", spec.mtu));
  }
  if (v6) {
    const auto own = parse_cidr(spec.ipv6_cidr).value_or(Cidr{});
    if (!v4) argv.push_back("--dhcp-leasefile=" + path(spec, "leases"));
    argv.push_back("--enable-ra");
    argv.push_back(fmt::format("--dhcp-range={},{},{},1h", own.subnet().address.text(), spec.ipv6_dhcp ? "ra-stateless" : "ra-only",
                               own.prefix));
    if (spec.mtu != 1500) argv.push_back(fmt::format("--ra-param={},mtu:{},high,0,0", spec.bridge, spec.mtu));
  }
  return argv;
}

std::string dnsmasq_hosts(const BridgeSpec& spec) {
  std::string out;
  for (const auto& lease : spec.leases)
    if (!lease.ipv4.empty())
      out += fmt::format("{},{}{}{}\n", lease.mac, lease.ipv4, lease.host_name.empty() ? "" : ",", lease.host_name);
  return out;
}

std::string dnsmasq_names(const BridgeSpec& spec) {
  std::string out;
  for (const auto& lease : spec.leases) {
    if (lease.host_name.empty()) continue;
    for (const auto* address : {&lease.ipv4, &lease.ipv6})
      if (!address->empty()) out += fmt::format("{0} {1}.{2} {1}\n", *address, lease.host_name, spec.dns_domain);
  }
  return out;
}

std::vector<HeldLease> stale_leases(std::string_view lease_file, std::string_view old_hosts, const BridgeSpec& spec) {
  std::map<std::string, std::string> wanted;  // address -> MAC
  for (const auto& lease : spec.leases) wanted[lease.ipv4] = lease.mac;
  std::vector<HeldLease> out;
  const auto consider = [&](std::string_view mac_text, std::string_view address_text) {
    auto mac = parse_mac(mac_text);
    auto address = parse_ip(address_text);
    if (!mac || !address || address->v6) return;
    auto it = wanted.find(address->text());
    if (it != wanted.end() && it->second == mac->text()) return;
    HeldLease held{mac->text(), address->text()};
    if (std::find(out.begin(), out.end(), held) == out.end()) out.push_back(std::move(held));
  };
  const auto each_line = [](std::string_view text, char separator,
                            const std::function<void(const std::array<std::string_view, 3>&)>& use) {
    while (!text.empty()) {
      const auto end = std::min(text.find('\n'), text.size());
      auto line = text.substr(0, end);
      text.remove_prefix(std::min(end + 1, text.size()));
      std::array<std::string_view, 3> words;
      for (auto& word : words) {
        const auto at = std::min(line.find(separator), line.size());
        word = line.substr(0, at);
        line.remove_prefix(std::min(at + 1, line.size()));
      }
      use(words);
    }
  };
  // "EXPIRY MAC ADDRESS NAME CLIENT-ID"; lines of DHCPv6 hold no MAC.
  each_line(lease_file, ' ', [&](const auto& words) { consider(words[1], words[2]); });
  each_line(old_hosts, ',', [&](const auto& words) { consider(words[0], words[1]); });
  return out;
}

Task<Result<>> Dnsmasq::start(const BridgeSpec& spec, std::vector<std::string> argv) {
  auto what = fmt::format("start dnsmasq for '{}'", spec.bridge);
  io::ProcessSpec process;
  process.argv = std::move(argv);
  process.new_session = true;
  auto ran = co_await io::run_process(std::move(process), {.timeout = Milliseconds(10'000)});
  if (!ran) {
    auto error = std::move(ran).error();
    if (error.kind() == ErrorKind::not_found)
      error = Error(ErrorKind::unavailable, "dnsmasq is not installed").with_hint("apt install dnsmasq-base");
    co_return fail(std::move(error).wrap(std::move(what)));
  }
  if (ran->status.code == 0) co_return Result<>{};
  auto words = ran->err.substr(0, 500);
  std::replace(words.begin(), words.end(), '\n', ' ');
  auto error = Error(ErrorKind::unavailable, fmt::format("{}: {}", what, words));
  if (port_is_taken(error))
    error = std::move(error).with_hint(
        "another DNS or DHCP server has taken the port: let it listen on its own interfaces only (dnsmasq: bind-dynamic)");
  co_return fail(std::move(error));
}

Task<Result<io::UniqueFd>> Dnsmasq::ensure(BridgeSpec spec) {
  struct Found {
    Result<bool> changed = false;
    std::string old_hosts;
    Running running;
    std::vector<std::string> argv;
  };
  auto look = [this, &spec] {
    Found found;
    const auto user = choose_dnsmasq_user(spec.state_dir);
    found.argv = dnsmasq_command(spec, program_, user);
    found.old_hosts = io::read_file(path(spec, "hosts")).value_or("");
    found.changed = write_lists(spec, user);
    found.running = find_by_pid_file(spec);
    return found;
  };
  auto found = co_await pool_.run(look);
  VIRGA_CO_TRY(const bool changed, std::move(found.changed));
  const bool alive = found.running.pid > 0;
  if (alive && found.running.argv == found.argv) {
    if (changed) VIRGA_CO_CHECK(signal(found.running, SIGHUP));
  } else {
    if (alive) VIRGA_CO_CHECK(co_await end(std::exchange(found.running, {})));
    auto started = co_await start(spec, found.argv);
    if (!started && started.error().kind() == ErrorKind::unavailable) {
      // Perhaps one of ours whose pid file was lost holds the sockets.
      auto search = [&spec] { return find_by_search(spec); };
      auto strays = co_await pool_.run(search);
      for (auto& stray : strays) VIRGA_CO_CHECK(co_await end(std::move(stray)));
      if (!strays.empty()) started = co_await start(spec, found.argv);
    }
    // A process that was killed has no command line any more, but its sockets for some milliseconds yet.
    for (int tries = 0; !started && port_is_taken(started.error()) && tries < 10; ++tries) {
      if (!co_await sleep_for(Milliseconds(100))) break;
      started = co_await start(spec, found.argv);
    }
    if (!started) co_return fail(std::move(started).error());
  }
  auto release = [&spec, &found] {
    if (found.running.pid < 0) found.running = find_by_pid_file(spec);
    if (spec.ipv4_cidr.empty() || !spec.ipv4_dhcp) return;
    for (const auto& lease : stale_leases(io::read_file(path(spec, "leases")).value_or(""), found.old_hosts, spec))
      if (auto sent = release_lease(spec, lease); !sent)
        log::warn("release the address {} on '{}': {}", lease.address, spec.bridge, sent.error().text());
  };
  co_await pool_.run(release);
  if (found.running.pid < 0)
    co_return fail(ErrorKind::unavailable, fmt::format("dnsmasq for '{}' ended as soon as it had started", spec.bridge));
  co_return std::move(found.running.pidfd);
}

Task<Result<>> Dnsmasq::remove(BridgeSpec spec) {
  auto search = [&spec] { return find_by_search(spec); };
  auto processes = co_await pool_.run(search);
  for (auto& process : processes) VIRGA_CO_CHECK(co_await end(std::move(process)));
  auto clear = [&spec]() -> Result<> {
    for (const char* file : {"pid", "hosts", "hosts.new", "names", "names.new", "leases"})
      if (::unlink(path(spec, file).c_str()) != 0 && errno != ENOENT && errno != ENOTDIR)
        return fail_errno(errno, fmt::format("remove '{}'", path(spec, file)));
    return {};
  };
  co_return co_await pool_.run(clear);
}

}  // namespace virga::network
