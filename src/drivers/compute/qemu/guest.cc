#include "drivers/compute/qemu/guest.h"

#include <fmt/format.h>
#include <signal.h>

#include <algorithm>

#include "base/log.h"
#include "drivers/compute/qemu/descriptors.h"
#include "io/unix_socket.h"

namespace virga::compute::qemu_driver {
namespace {

using namespace std::chrono_literals;

constexpr Milliseconds first_pause{50};
constexpr Milliseconds longest_pause{5'000};
/// An emulated machine may take half a minute to its first program.
constexpr auto boot_time = 120s;  // without KVM on a busy host a distribution takes that long
constexpr Milliseconds agent_patience{5'000};
constexpr Milliseconds agent_patience_at_boot{60'000};

/// The agent has closed its port, or went with a reset: its commands end now instead of when another agent appears.
void lose_agent(Guest& guest) {
  guest.agent.reset();
  guest.agent_changed.notify();
}

void take_event(Guest& guest, const qmp::Event& event) {
  if (event.name == "STOP") {
    if (guest.state == State::running) guest.state = State::paused;
  } else if (event.name == "RESUME") {
    if (guest.lives()) guest.state = State::running;
  } else if (event.name == "RESET") {
    guest.booted = std::chrono::steady_clock::now();
    lose_agent(guest);
  } else if (event.name == "VSERPORT_CHANGE") {
    auto* open = event.data.if_contains("open");
    if (open != nullptr && *open == json::value(false)) lose_agent(guest);
  } else if (event.name == "BLOCK_IO_ERROR") {
    // A guest that goes on writing to a full pool makes one of each request.
    const auto now = std::chrono::steady_clock::now();
    if (guest.disk_told != std::chrono::steady_clock::time_point{} && now - guest.disk_told < std::chrono::minutes(1)) return;
    guest.disk_told = now;
    log::warn("virtual machine '{}': a disk fails: {}", guest.id, json::serialize(event.data).substr(0, 300));
  }
}

/// Follows a guest to its end.
Task<> watch(CorePtr core, GuestPtr guest) {
  auto* shim = guest->shim.get();
  auto end = co_await shim->wait_exit();
  if (!end && end.error().kind() == ErrorKind::cancelled) co_return;
  if (!end) log::warn("virtual machine '{}': {}", guest->id, end.error().text());  // QEMU dies with its shim
  guest->state = State::stopped;
  guest->monitor.reset();
  guest->agent.reset();
  guest->ended.notify();
  guest->agent_changed.notify();
  guest->monitor_changed.notify();
  if (guest->expected || core->closing || core->find(guest->id) != guest || !core->handler) co_return;
  GuestEvent event;
  event.id = guest->id;
  event.exit_code = end ? end->code : 128 + SIGKILL;
  core->handler(event);
}

Task<> keep_monitor(CorePtr core, GuestPtr guest) {
  auto pause = first_pause;
  while (guest->lives() && !core->closing) {
    if (guest->monitor && guest->monitor->connected()) {
      pause = first_pause;
      if (!co_await guest->monitor_changed.wait() && co_await is_cancelled()) co_return;
      continue;
    }
    guest->monitor.reset();
    auto monitor = co_await qmp::Client::connect(monitor_path(guest->run_dir));
    if (co_await is_cancelled()) co_return;
    if (monitor && guest->lives()) {
      attach_monitor(guest, std::move(*monitor));
      co_await learn_state(guest);
    } else {
      co_await guest->ended.wait_for(pause);
      if (co_await is_cancelled()) co_return;
      pause = std::min(pause * 2, longest_pause);
    }
  }
}

Task<> keep_agent(CorePtr core, GuestPtr guest) {
  auto pause = first_pause;
  while (guest->lives() && !core->closing) {
    if (guest->agent && guest->agent->connected()) {
      if (guest->agent->ready()) pause = first_pause;
      if (!co_await guest->agent_changed.wait() && co_await is_cancelled()) co_return;
      continue;
    }
    // An agent that breaks the protocol is left alone for longer and longer.
    if (guest->agent) {
      guest->agent.reset();
      co_await guest->ended.wait_for(pause);
      pause = std::min(pause * 2, longest_pause);
      if (co_await is_cancelled() || !guest->lives()) co_return;
    }
    auto socket = co_await io::connect_unix(agent_path(guest->run_dir));
    if (co_await is_cancelled()) co_return;
    if (socket && guest->lives()) {
      guest->agent = std::make_unique<agent::Session>(core->options.executor, std::move(*socket));
      std::weak_ptr<Guest> weak = guest;
      guest->agent->on_close([weak](const Error& why) {
        auto g = weak.lock();
        if (!g) return;
        if (g->lives()) log::debug("virtual machine '{}': {}", g->id, why.text());
        g->agent_changed.notify();
      });
      guest->agent_changed.notify();
    } else {
      co_await guest->ended.wait_for(pause);
      if (co_await is_cancelled()) co_return;
      pause = std::min(pause * 2, longest_pause);
    }
  }
}

}  // namespace

void attach_monitor(const GuestPtr& guest, std::unique_ptr<qmp::Client> monitor) {
  std::weak_ptr<Guest> weak = guest;
  guest->monitor = std::move(monitor);
  guest->monitor->on_event([weak](const qmp::Event& event) {
    if (auto g = weak.lock()) take_event(*g, event);
  });
  guest->monitor->on_close([weak](const Error& why) {
    auto g = weak.lock();
    if (!g) return;
    if (g->lives()) log::debug("virtual machine '{}': {}", g->id, why.text());
    g->monitor_changed.notify();
  });
  guest->monitor_changed.notify();
}

Task<> learn_state(GuestPtr guest) {
  const auto before = guest->state;
  auto answer = co_await command(guest, "query-status", {}, 5s);
  // What an event has told meanwhile is newer.
  if (!answer || !answer->is_object() || guest->state != before || !guest->lives()) co_return;
  const auto word = Fields(answer->get_object()).string("status").value_or("");
  if (word == "prelaunch") guest->state = State::created;
  if (word == "paused" || word == "io-error") guest->state = State::paused;
  if (word == "running") guest->state = State::running;
}

void follow(const CorePtr& core, const GuestPtr& guest) {
  const auto& status = guest->shim->status();
  guest->pid = status.guest_pid;
  guest->start_time = status.guest_start_time;
  core->tasks.spawn("virtual machine " + guest->id, watch(core, guest));
  core->tasks.spawn("monitor of " + guest->id, keep_monitor(core, guest));
  core->tasks.spawn("agent of " + guest->id, keep_agent(core, guest));
}

namespace {

Task<Result<>> wait_for_monitor(GuestPtr guest, Milliseconds timeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  while (guest->lives() && (!guest->monitor || !guest->monitor->connected())) {
    const auto left = std::chrono::duration_cast<Milliseconds>(deadline - std::chrono::steady_clock::now());
    if (left.count() <= 0)
      co_return fail(ErrorKind::unavailable, fmt::format("QEMU of '{}' does not answer on its monitor", guest->id));
    if (!co_await guest->monitor_changed.wait_for(left) && co_await is_cancelled())
      co_return fail(ErrorKind::cancelled, "cancelled while waiting for QEMU's monitor");
  }
  if (!guest->lives()) co_return fail(ErrorKind::unavailable, fmt::format("virtual machine '{}' does not run", guest->id));
  co_return Result<>{};
}

}  // namespace

Task<Result<json::value>> command(GuestPtr guest, std::string name, json::object arguments, Milliseconds timeout) {
  VIRGA_CO_CHECK(co_await wait_for_monitor(guest, timeout));
  co_return co_await guest->monitor->execute(std::move(name), std::move(arguments), timeout);
}

Task<Result<json::value>> command_with(GuestPtr guest, io::UniqueFd fd, std::string name, json::object arguments,
                                       Milliseconds timeout) {
  VIRGA_CO_CHECK(co_await wait_for_monitor(guest, timeout));
  co_return co_await guest->monitor->execute_with(std::move(fd), std::move(name), std::move(arguments), timeout);
}

Task<Result<>> wait_for_agent(GuestPtr guest) {
  const bool booting = std::chrono::steady_clock::now() - guest->booted < boot_time;
  const auto deadline = std::chrono::steady_clock::now() + (booting ? agent_patience_at_boot : agent_patience);
  for (;;) {
    if (guest->state == State::paused)
      co_return fail(Error(ErrorKind::unavailable, "the virtual machine is paused").with_hint("resume it first"));
    if (guest->state != State::running) co_return fail(ErrorKind::unavailable, "the virtual machine does not run");
    if (guest->agent && guest->agent->ready()) co_return Result<>{};
    const auto left = std::chrono::duration_cast<Milliseconds>(deadline - std::chrono::steady_clock::now());
    if (left.count() <= 0) {
      auto error = Error(ErrorKind::unavailable, "no virga-agent answers in the virtual machine");
      co_return fail(
          std::move(error).with_hint(booting ? "the guest may still be booting; otherwise install and start virga-agent in it"
                                             : "install and start virga-agent in the guest"));
    }
    // In short turns: the state may change meanwhile, and so may the session.
    const auto turn = std::min(left, Milliseconds(500));
    if (guest->agent && guest->agent->connected()) {
      auto ready = co_await guest->agent->wait_ready(turn);
      if (!ready && ready.error().kind() == ErrorKind::cancelled) co_return fail(std::move(ready).error());
    } else if (!co_await guest->agent_changed.wait_for(turn) && co_await is_cancelled()) {
      co_return fail(ErrorKind::cancelled, "cancelled while waiting for the guest's agent");
    }
  }
}

json::object remember(const GuestSpec& spec) {
  json::array nics;
  for (const auto& nic : spec.nics)
    nics.push_back({{"device", nic.device}, {"host_name", nic.host_name}, {"mac", nic.mac}, {"mtu", nic.mtu}});
  return {{"memory_mib", memory_mib(spec)}, {"cpus", spec.cpus.value_or(1)}, {"nics", std::move(nics)}};
}

Result<> recall(Guest& guest, std::string_view text) {
  VIRGA_TRY(auto object, parse_json_object(text));
  Fields fields(object);
  VIRGA_TRY(auto memory, fields.integer("memory_mib"));
  VIRGA_TRY(auto cpus, fields.integer("cpus", 1));
  guest.memory_mib = static_cast<std::uint64_t>(std::max<std::int64_t>(memory, 0));
  guest.cpus = static_cast<std::uint32_t>(std::clamp<std::int64_t>(cpus, 1, 255));
  guest.nics.clear();
  auto* nics = object.if_contains("nics");
  if (nics == nullptr || !nics->is_array()) return {};
  for (const auto& n : nics->get_array()) {
    if (!n.is_object()) return invalid("nics", "a network interface is no object");
    Fields nic(n.get_object());
    VIRGA_TRY(auto device, nic.string("device"));
    VIRGA_TRY(auto host_name, nic.string("host_name"));
    VIRGA_TRY(auto mac, nic.string("mac"));
    VIRGA_TRY(auto mtu, nic.integer("mtu", 1500));
    guest.nics.push_back(
        {.device = device, .guest_name = {}, .host_name = host_name, .mac = mac, .mtu = static_cast<std::uint32_t>(mtu)});
  }
  return {};
}

}  // namespace virga::compute::qemu_driver
