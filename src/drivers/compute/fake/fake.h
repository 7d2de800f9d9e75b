// A compute driver whose guests are entries in a map: for tests of the engine and for the benchmark of long lists. Guests live in a
// FakeWorld, so that a second driver on the same world plays the daemon after a restart. Event loop only.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "drivers/compute/driver.h"

namespace virga::compute {

/// What would be processes. Tests look into it and make things go wrong.
struct FakeWorld {
  struct Guest {
    GuestSpec spec;
    GuestStatus status;
  };
  std::map<std::string, Guest> guests;
  pid_t next_pid = 100'000;

  std::map<std::string, std::string> written;  ///< what write_running() wrote, by path
  std::vector<std::string> calls;              ///< "create db1-uuid", oldest first, while `record` is set
  bool record = true;
  std::map<std::string, Error> fail_next;  ///< call name ("start") -> what its next call returns, once
  bool ignores_shutdown = false;           ///< stop() runs into its time-out
  Milliseconds delay{0};                   ///< each call takes so long; cancelling ends it early with an error
};

class FakeDriver final : public Driver, private ExecOps, private FileOps, private DiskOps, private FreezeOps {
 public:
  explicit FakeDriver(Kind kind = Kind::container, std::shared_ptr<FakeWorld> world = std::make_shared<FakeWorld>());

  FakeWorld& world() noexcept { return *world_; }
  /// The guest ends by itself: stop() was not called.
  void end_guest(const std::string& id, int exit_code, bool reboot = false);

  const DriverInfo& info() const noexcept override { return info_; }
  Result<LaunchPlan> plan(const GuestSpec& spec) const override;
  Task<Result<GuestStatus>> create(GuestSpec spec) override;
  Task<Result<>> start(std::string id) override;
  Task<Result<>> stop(std::string id, Milliseconds timeout) override;
  Task<Result<>> remove(std::string id) override;
  Task<Result<>> pause(std::string id) override;
  Task<Result<>> resume(std::string id) override;
  GuestStatus status(const std::string& id) const override;
  Task<Result<GuestStats>> stats(std::string id) override;
  Task<Result<GuestStatus>> adopt(std::string id, std::string run_dir) override;
  void on_event(std::function<void(GuestEvent)> handler) override { handler_ = std::move(handler); }
  Task<> shut_down() override;
  ExecOps* exec() noexcept override { return this; }
  FileOps* files() noexcept override { return this; }
  DiskOps* disks() noexcept override { return info_.kind == Kind::virtual_machine ? this : nullptr; }
  FreezeOps* freezing() noexcept override { return info_.kind == Kind::virtual_machine ? this : nullptr; }

 private:
  Task<Result<>> add_layer(std::string id, std::size_t disk, Disk layer) override;
  Task<Result<>> merge_layers(std::string id, std::size_t disk, Disk layers, std::string upper, std::string lower) override;
  Task<Result<>> freeze_files(std::string id, Milliseconds longest) override;
  Task<Result<>> thaw_files(std::string id) override;
  /// Commands it knows: true, false, echo, cat, env, pwd, sleep (until a signal), and "exit N". Others end with 127.
  Task<Result<std::unique_ptr<ExecSession>>> exec(std::string id, ExecSpec spec) override;
  Task<Result<std::unique_ptr<ByteStream>>> open_files(std::string id) override;
  Task<Result<>> write_running(std::string id, std::vector<NewFile> files) override;
  Task<Result<>> begin(std::string call, std::string id);
  Result<FakeWorld::Guest*> running_or_paused(const std::string& id);

  DriverInfo info_;
  std::shared_ptr<FakeWorld> world_;
  std::function<void(GuestEvent)> handler_;
};

}  // namespace virga::compute
