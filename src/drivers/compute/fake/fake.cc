#include "drivers/compute/fake/fake.h"

#include "drivers/compute/fake/exec.h"

namespace virga::compute {
namespace {
tl::unexpected<Error> no_guest(const std::string& id) {
  return fail(ErrorKind::not_found, "no guest '" + id + "'");
}
}  // namespace

FakeDriver::FakeDriver(Kind kind, std::shared_ptr<FakeWorld> world) : world_(std::move(world)) {
  info_.name = "fake";
  info_.version = "1";
  info_.kind = kind;
}

void FakeDriver::end_guest(const std::string& id, int exit_code, bool reboot) {
  auto it = world_->guests.find(id);
  if (it == world_->guests.end()) return;
  it->second.status = {.state = State::stopped, .pid = -1, .start_time = 0};
  if (handler_) handler_({.id = id, .reboot = reboot, .exit_code = exit_code});
}

Task<Result<>> FakeDriver::begin(std::string call, std::string id) {
  if (world_->record) world_->calls.push_back(call + " " + id);
  if (world_->delay.count() > 0 && !co_await sleep_for(world_->delay))
    co_return fail(ErrorKind::cancelled, call + " was cancelled");
  if (auto it = world_->fail_next.find(call); it != world_->fail_next.end()) {
    Error error = it->second;
    world_->fail_next.erase(it);
    co_return fail(std::move(error));
  }
  co_return Result<>();
}

Result<LaunchPlan> FakeDriver::plan(const GuestSpec& spec) const {
  if (spec.id.empty()) return invalid("id", "a guest needs an id");
  if (spec.kind != info_.kind) return fail(ErrorKind::unsupported, "this fake runs the other kind of guest");
  LaunchPlan plan;
  plan.argv = {"fake", spec.id, spec.name};
  plan.config = json::object{{"cpus", spec.cpus.value_or(0)}, {"memory", spec.memory.value_or(0)}, {"nics", spec.nics.size()}};
  return plan;
}

Task<Result<GuestStatus>> FakeDriver::create(GuestSpec spec) {
  VIRGA_CO_CHECK(plan(spec));
  VIRGA_CO_CHECK(co_await begin("create", spec.id));
  const std::string id = spec.id;
  if (world_->guests.contains(id)) co_return fail(ErrorKind::busy, "guest '" + id + "' is there already");
  FakeWorld::Guest guest;
  guest.spec = std::move(spec);
  const pid_t pid = world_->next_pid++;
  guest.status = {.state = State::created, .pid = pid, .start_time = static_cast<std::uint64_t>(pid)};
  const GuestStatus status = guest.status;
  world_->guests.emplace(id, std::move(guest));
  co_return status;
}

Task<Result<>> FakeDriver::start(std::string id) {
  VIRGA_CO_CHECK(co_await begin("start", id));
  auto it = world_->guests.find(id);
  if (it == world_->guests.end()) co_return no_guest(id);
  auto& state = it->second.status.state;
  if (state == State::running) co_return Result<>();
  if (state != State::created) co_return fail(ErrorKind::unavailable, "guest '" + id + "' was not just created");
  state = State::running;
  co_return Result<>();
}

Task<Result<>> FakeDriver::stop(std::string id, Milliseconds timeout) {
  VIRGA_CO_CHECK(co_await begin("stop", id));
  auto it = world_->guests.find(id);
  if (it == world_->guests.end() || it->second.status.state == State::stopped) co_return Result<>();
  if (world_->ignores_shutdown || it->second.status.state == State::paused) {
    if (!co_await sleep_for(timeout)) co_return fail(ErrorKind::cancelled, "stop was cancelled");
    co_return fail(ErrorKind::timeout, "guest '" + id + "' did not shut down in time");
  }
  it->second.status = {.state = State::stopped, .pid = -1, .start_time = 0};
  co_return Result<>();
}

Task<Result<>> FakeDriver::remove(std::string id) {
  VIRGA_CO_CHECK(co_await begin("remove", id));
  world_->guests.erase(id);
  co_return Result<>();
}

Result<FakeWorld::Guest*> FakeDriver::running_or_paused(const std::string& id) {
  auto it = world_->guests.find(id);
  if (it == world_->guests.end()) return no_guest(id);
  const State state = it->second.status.state;
  if (state != State::running && state != State::paused) return fail(ErrorKind::unavailable, "guest '" + id + "' does not run");
  return &it->second;
}

Task<Result<>> FakeDriver::pause(std::string id) {
  VIRGA_CO_CHECK(co_await begin("pause", id));
  VIRGA_CO_TRY(FakeWorld::Guest * guest, running_or_paused(id));
  guest->status.state = State::paused;
  co_return Result<>();
}

Task<Result<>> FakeDriver::resume(std::string id) {
  VIRGA_CO_CHECK(co_await begin("resume", id));
  VIRGA_CO_TRY(FakeWorld::Guest * guest, running_or_paused(id));
  guest->status.state = State::running;
  co_return Result<>();
}

Task<Result<>> FakeDriver::add_layer(std::string id, std::size_t /*disk*/, Disk layer) {
  VIRGA_CO_CHECK(co_await begin("add_layer", id));
  VIRGA_CO_TRY(FakeWorld::Guest * guest, running_or_paused(id));
  if (!guest->spec.disks.empty()) guest->spec.disks.front() = std::move(layer);
  co_return Result<>();
}

Task<Result<>> FakeDriver::merge_layers(std::string id, std::size_t /*disk*/, Disk /*layers*/, std::string /*upper*/,
                                        std::string /*lower*/) {
  co_return co_await begin("merge_layers", id);
}

Task<Result<>> FakeDriver::freeze_files(std::string id, Milliseconds /*longest*/) {
  co_return co_await begin("freeze_files", id);
}

Task<Result<>> FakeDriver::thaw_files(std::string id) {
  co_return co_await begin("thaw_files", id);
}

GuestStatus FakeDriver::status(const std::string& id) const {
  auto it = world_->guests.find(id);
  return it == world_->guests.end() ? GuestStatus() : it->second.status;
}

Task<Result<GuestStats>> FakeDriver::stats(std::string id) {
  VIRGA_CO_CHECK(co_await begin("stats", id));
  VIRGA_CO_TRY(FakeWorld::Guest * guest, running_or_paused(id));
  GuestStats out;
  out.processes = 3;
  out.cpu_ns = 1'000'000'000;
  out.memory_used = 8u << 20;
  out.memory_peak = 9u << 20;
  out.memory_total = guest->spec.memory.value_or(1u << 30);
  out.host_name = guest->spec.name;
  for (const auto& nic : guest->spec.nics) {
    GuestStats::Interface i;
    i.name = nic.guest_name;
    i.host_name = nic.host_name;
    i.mac = nic.mac;
    i.mtu = nic.mtu;
    i.state = "up";
    i.type = "broadcast";
    out.interfaces.push_back(std::move(i));
  }
  co_return out;
}

Task<Result<std::unique_ptr<ByteStream>>> FakeDriver::open_files(std::string) {
  co_return fail(ErrorKind::unsupported, "the fake driver's guests have no files");
}

Task<Result<>> FakeDriver::write_running(std::string id, std::vector<NewFile> files) {
  VIRGA_CO_CHECK(co_await begin("write_running", id));
  VIRGA_CO_CHECK(running_or_paused(id));
  for (auto& file : files) world_->written[file.path] = std::move(file.text);
  co_return Result<>();
}

Task<Result<GuestStatus>> FakeDriver::adopt(std::string id, std::string) {
  VIRGA_CO_CHECK(co_await begin("adopt", id));
  co_return status(id);
}

Task<> FakeDriver::shut_down() {
  handler_ = nullptr;
  co_return;
}

Task<Result<std::unique_ptr<ExecSession>>> FakeDriver::exec(std::string id, ExecSpec spec) {
  VIRGA_CO_CHECK(co_await begin("exec", id));
  VIRGA_CO_TRY(FakeWorld::Guest * guest, running_or_paused(id));
  if (guest->status.state != State::running) co_return fail(ErrorKind::unavailable, "guest '" + id + "' is paused");
  auto executor = co_await current_executor();
  co_return std::make_unique<FakeExecSession>(std::move(executor), std::move(spec));
}

}  // namespace virga::compute
