#include "drivers/network/bridge/driver.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <sched.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <map>
#include <thread>

#include "base/log.h"
#include "drivers/network/bridge/dnsmasq.h"
#include "drivers/network/bridge/kernel.h"
#include "io/file.h"
#include "io/process.h"

namespace virga::network {

struct BridgeDriver::Impl {
  Impl(Executor ex, Options o)
      : options(std::move(o)),
        pool("network", 1),
        deletions("unplug", 4),
        kernel(options.tag),
        dnsmasq(pool, options.dnsmasq),
        services(ex),
        tasks(ex) {}
  Options options;
  BlockingPool pool;  ///< one thread: the kernel part is used by nobody else
  BlockingPool deletions;
  BridgeKernel kernel;
  Dnsmasq dnsmasq;
  AsyncMutex services;  ///< apply and remove, one at a time
  TaskGroup tasks;
  /// The dnsmasq of each bridge, and the task that waits for its end.
  struct Service {
    BridgeSpec spec;
    TaskGroup::Id watcher = 0;
  };
  std::map<std::string, Service> running;
  bool stopping = false;
  std::function<void(Repair)> repaired;
  io::UniqueFd changes;  ///< the kernel tells here what happens to nftables
};

namespace {

io::UniqueFd subscribe_to_tables() {
  io::UniqueFd fd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_NETFILTER));
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  int group = NFNLGRP_NFTABLES;
  if (!fd || ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::setsockopt(fd.get(), SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group) != 0)
    fd.reset();
  return fd;
}

/// Reads what is there; true where a table was deleted, or where messages were lost and one may have been.
bool table_deleted(int fd) {
  bool deleted = false;
  alignas(nlmsghdr) std::array<char, 65536> buffer;
  for (;;) {
    const auto got = ::recv(fd, buffer.data(), buffer.size(), 0);
    if (got < 0 && errno == ENOBUFS) {
      deleted = true;
      continue;
    }
    if (got <= 0) return deleted;
    auto left = static_cast<int>(got);
    for (auto* m = reinterpret_cast<const nlmsghdr*>(buffer.data()); mnl_nlmsg_ok(m, left); m = mnl_nlmsg_next(m, &left))
      if (m->nlmsg_type == ((NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_DELTABLE)) deleted = true;
  }
}

/// `nft flush ruleset` by whoever must not leave guests without filters: the tables are put back at once.
Task<> watch_tables(BlockingPool& pool, BridgeKernel& kernel, int fd, const std::function<void(Driver::Repair)>& tell) {
  while (!co_await is_cancelled() && co_await io::wait_readable(fd)) {
    if (!table_deleted(fd)) continue;
    auto repair = [&kernel] { return kernel.repair(); };
    auto repaired = co_await pool.run(repair);
    if (!repaired) log::error("put the firewall rules back: {}", repaired.error().text());
    if (!repaired || !*repaired) continue;
    log::warn("somebody removed the firewall rules of virga's networks: they are back");
    if (tell) tell({"", "somebody removed the firewall rules of virga's networks: they are back"});
  }
}

std::vector<Finding> try_rules() {
  std::vector<Finding> out;
  // In a namespace that ends with this thread: bridges and tables of the host are not touched.
  std::thread visitor([&out] {
    if (::unshare(CLONE_NEWNET) != 0) {
      out.push_back({"network namespaces", false, std::strerror(errno), "run virgad as root"});
      return;
    }
    auto netlink = io::Netlink::open();
    auto bridge = netlink ? netlink->create_bridge("probe0", "0a:00:00:00:00:01", 0) : Result<>(fail(std::move(netlink).error()));
    out.push_back({"bridge", bridge.has_value(), bridge ? "" : bridge.error().chain(),
                   bridge ? "" : "load the kernel module: modprobe bridge"});
    BridgeRules rules{.bridge = *InterfaceName::parse("probe0"),
                      .ipv4 = *parse_cidr("10.0.0.1/24"),
                      .ipv4_nat = true,
                      .ipv4_dhcp = true,
                      .ipv6 = *parse_cidr("fd42::1/64"),
                      .ipv6_nat = true,
                      .ipv6_dhcp = true};
    RuleWriter writer("probe");
    Nft nft;
    auto all = nft.run(writer.base() + writer.bridge(rules));
    out.push_back({"nftables", all.has_value(), all ? "families bridge and inet, sets, maps and NAT" : all.error().chain(),
                   all ? ""
                       : "use a kernel with nf_tables, nft_nat, nft_masq and nf_tables_bridge (Debian's has them: modprobe "
                         "nf_tables nf_tables_bridge)"});
  });
  visitor.join();
  const bool tun = io::exists("/dev/net/tun");
  out.push_back({"tap devices", tun, tun ? "" : "/dev/net/tun is missing", tun ? "" : "load the kernel module: modprobe tun"});
  return out;
}

}  // namespace

Result<std::unique_ptr<BridgeDriver>> BridgeDriver::create(Executor executor, Options options) {
  VIRGA_CHECK(check_tag(options.tag));
  auto impl = std::make_unique<Impl>(std::move(executor), std::move(options));
  impl->changes = subscribe_to_tables();
  if (impl->changes) {
    impl->tasks.spawn("watch nftables", watch_tables(impl->pool, impl->kernel, impl->changes.get(), impl->repaired));
  } else {
    log::warn("cannot watch nftables: rules that somebody flushes come back at the next change only");
  }
  return std::unique_ptr<BridgeDriver>(new BridgeDriver(std::move(impl)));
}

BridgeDriver::BridgeDriver(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
BridgeDriver::~BridgeDriver() = default;

void BridgeDriver::on_repair(std::function<void(Repair)> call) {
  impl_->repaired = std::move(call);
}

bool BridgeDriver::has_ipv6() const {
  return io::exists("/proc/sys/net/ipv6");
}

/// Runs under `services`. Starts what is needed, and the watcher that brings it back should it die.
Task<Result<>> BridgeDriver::serve(BridgeSpec spec) {
  VIRGA_CO_TRY(auto pidfd, co_await impl_->dnsmasq.ensure(spec));
  if (impl_->stopping) co_return Result<>{};
  auto& service = impl_->running[spec.bridge];
  impl_->tasks.cancel(service.watcher);
  service.watcher = impl_->tasks.spawn("watch dnsmasq", watch_service(spec.bridge, std::move(pidfd)));
  service.spec = std::move(spec);
  co_return Result<>{};
}

Task<> BridgeDriver::watch_service(std::string bridge, io::UniqueFd pidfd) {
  if (!co_await io::wait_readable(pidfd.get())) co_return;
  for (;;) {
    auto guard = co_await impl_->services.lock();
    auto it = impl_->running.find(bridge);
    // Whoever changes a service cancels its watcher first: a dnsmasq that was replaced or removed is not brought back.
    if (!guard || co_await is_cancelled() || it == impl_->running.end()) co_return;
    log::warn("dnsmasq of network '{}' has ended: it is started again", bridge);
    auto done = co_await serve(it->second.spec);
    if (impl_->repaired)
      impl_->repaired({bridge, done ? "dnsmasq has ended and was started again"
                                    : "dnsmasq has ended and cannot be started again: " + done.error().text()});
    if (done) co_return;
    log::error("start dnsmasq of network '{}' again: {}", bridge, done.error().text());
    guard->release();
    if (!co_await sleep_for(Milliseconds(10'000))) co_return;
  }
}

Task<Result<>> BridgeDriver::apply(BridgeSpec spec) {
  VIRGA_CO_TRY(auto guard, co_await impl_->services.lock());
  auto call = [this, &spec] { return impl_->kernel.apply(spec); };
  VIRGA_CO_CHECK(co_await impl_->pool.run(call));
  if (!spec.ipv4_cidr.empty() || !spec.ipv6_cidr.empty()) co_return co_await serve(std::move(spec));
  forget_service(spec.bridge);
  co_return co_await impl_->dnsmasq.remove(std::move(spec));
}

void BridgeDriver::forget_service(const std::string& bridge) {
  auto it = impl_->running.find(bridge);
  if (it == impl_->running.end()) return;
  impl_->tasks.cancel(it->second.watcher);
  impl_->running.erase(it);
}

Task<Result<>> BridgeDriver::remove(BridgeSpec spec) {
  VIRGA_CO_TRY(auto guard, co_await impl_->services.lock());
  forget_service(spec.bridge);
  VIRGA_CO_CHECK(co_await impl_->dnsmasq.remove(spec));
  auto call = [this, &spec] { return impl_->kernel.remove(spec); };
  co_return co_await impl_->pool.run(call);
}

Task<Result<>> BridgeDriver::plug_tap(NicSpec nic, TapTarget target) {
  auto call = [this, &nic, &target] { return impl_->kernel.plug(nic, target); };
  co_return co_await impl_->pool.run(call);
}

Task<Result<>> BridgeDriver::plug_namespace(NicSpec nic, NamespaceTarget target) {
  auto call = [this, &nic, &target] { return impl_->kernel.plug(nic, target); };
  co_return co_await impl_->pool.run(call);
}

/// An interface takes the kernel some 20 ms to delete; several at once wait for the same. Others plug meanwhile.
Task<Result<>> BridgeDriver::unplug(std::string host_name) {
  auto begin = [this, &host_name] { return impl_->kernel.begin_unplug(host_name); };
  VIRGA_CO_TRY(const bool there, co_await impl_->pool.run(begin));
  if (there) {
    auto erase = [&host_name]() -> Result<> {
      VIRGA_TRY(auto netlink, io::Netlink::open());
      return netlink.delete_link(host_name);
    };
    VIRGA_CO_CHECK(co_await impl_->deletions.run(erase));
  }
  auto end = [this, &host_name] { return impl_->kernel.end_unplug(host_name); };
  co_return co_await impl_->pool.run(end);
}

Task<Result<BridgeState>> BridgeDriver::observe(std::string bridge) {
  auto call = [this, &bridge] { return impl_->kernel.observe(bridge); };
  co_return co_await impl_->pool.run(call);
}

Task<Result<std::vector<std::string>>> BridgeDriver::host_subnets() {
  auto call = [this] { return impl_->kernel.subnets(); };
  co_return co_await impl_->pool.run(call);
}

Task<Result<bool>> BridgeDriver::interface_exists(std::string name) {
  auto call = [this, &name] { return impl_->kernel.interface_exists(name); };
  co_return co_await impl_->pool.run(call);
}

Task<Result<std::vector<std::string>>> BridgeDriver::list_nics() {
  auto call = [this] { return impl_->kernel.nics(); };
  co_return co_await impl_->pool.run(call);
}

Task<> BridgeDriver::shut_down() {
  impl_->stopping = true;  // nobody starts a watcher behind the cancel
  impl_->tasks.cancel();
  co_await impl_->tasks.join();
}

Task<std::vector<Finding>> BridgeDriver::probe() {
  auto out = co_await impl_->pool.run(try_rules);
  io::ProcessSpec process;
  process.argv = {impl_->options.dnsmasq, "--version"};
  auto version = co_await io::run_process(std::move(process));
  const bool ok = version && version->status.code == 0;
  out.push_back({"dnsmasq", ok,
                 ok ? version->out.substr(0, version->out.find('\n')) : "not installed: networks have neither DHCP nor DNS",
                 ok ? "" : "apt install dnsmasq-base"});
  co_return out;
}

}  // namespace virga::network
