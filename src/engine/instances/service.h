// Instances: everything virga does with guests. The API calls it; it validates, claims the instance, starts an operation, and
// drives the drivers through journalled procedures. Event loop only. Reads come from memory.
//
// One file a verb: create.cc copy.cc backup.cc import.cc migration.cc snapshots.cc restore.cc schedule.cc start.cc stop.cc move.cc
// remove.cc update.cc exec.cc files.cc; load.cc is what happens when the daemon starts; spec.cc turns an instance into what drivers
// take (pure).
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/byte_stream.h"
#include "base/clock.h"
#include "base/task.h"
#include "drivers/compute/driver.h"
#include "engine/caller.h"
#include "engine/images/server.h"
#include "engine/instances/migration.h"
#include "model/instance.h"
#include "model/snapshot.h"

namespace virga {
class Store;
struct Transaction;
}  // namespace virga
namespace virga::remote {
class Driver;
}  // namespace virga::remote

namespace virga::engine {

class Operation;
class Operations;
class Events;
class Journal;
class Projects;
class Profiles;
class Pools;
class Networks;
class Images;
struct PublishInstance;
struct Backup;
struct CreateBackup;
struct ImportBackup;
struct Procedure;
using OperationPtr = std::shared_ptr<Operation>;

/// Where a copy comes from.
struct CopySource {
  std::string project;
  std::string name;
  std::string snapshot = {};         ///< of it; empty: as it is now
  bool instance_only = false;        ///< without its snapshots
  std::optional<InstanceType> type;  ///< where the client says so: it must be the source's
  bool refresh = false;              ///< over an instance that is there, if it is
};

struct CreateInstance {
  std::string project = "default";
  std::string name;  ///< empty: one is made up
  InstanceType type = InstanceType::container;
  std::string architecture;  ///< empty: the host's
  std::string description;
  bool ephemeral = false;
  std::optional<std::vector<std::string>> profiles;  ///< absent: those of the image, or "default"
  Config config;
  Devices devices;
  std::string image_alias;                        ///< one of the two is given
  std::string image_fingerprint;                  ///< or a unique prefix
  std::optional<ImageSource> image_server = {};   ///< instead of both: an image that is fetched where it is not here
  std::optional<MigrationSource> migration = {};  ///< instead of an image: another server sends its root
  std::optional<CopySource> copy = {};            ///< instead of an image: what is absent above is the source's
  bool start = false;
};

/// What PUT replaces and PATCH merges into.
struct UpdateInstance {
  std::optional<std::string> description;
  std::optional<std::string> architecture;
  std::optional<bool> ephemeral;
  std::optional<std::vector<std::string>> profiles;
  std::optional<Config> config;    ///< PATCH: an empty value takes the key away
  std::optional<Devices> devices;  ///< PATCH: whole devices are replaced
  bool replace = true;             ///< PUT
};

/// A new name, another project, or both; `changes` says what else is to be different there.
struct MoveInstance {
  std::string project;  ///< empty: the same
  std::string name;     ///< empty: the same
  UpdateInstance changes;
};

struct CreateSnapshot {
  std::string name;                    ///< empty: as snapshots.pattern says
  std::optional<WallTime> expires_at;  ///< the zero time: never; absent: as snapshots.expiry.manual or snapshots.expiry says
  bool stateful = false;               ///< refused: not supported yet
};

enum class StateAction { start, stop, restart, freeze, unfreeze };

struct StateChange {
  StateAction action = StateAction::start;
  bool force = false;
  bool stateful = false;              ///< refused: not supported yet
  std::int64_t timeout_seconds = -1;  ///< of a clean shutdown; -1: wait without limit
};

struct ExecRequest {
  std::vector<std::string> command;
  std::map<std::string, std::string> environment;
  std::string cwd;
  std::uint32_t user = 0;
  std::uint32_t group = 0;
  bool interactive = false;
  bool wait_for_websocket = false;
  bool record_output = false;  ///< refused: not supported yet
  std::uint16_t width = 0;
  std::uint16_t height = 0;
};

struct ConsoleRequest {
  bool vga = false;
  std::string protocol = "spice";  ///< of a screen: "spice" or "vnc"
  bool force = false;              ///< ends the consoles that others have open
  std::uint16_t width = 0;
  std::uint16_t height = 0;
};

struct InstanceState {
  InstanceStatus status = InstanceStatus::stopped;
  pid_t pid = 0;
  std::optional<compute::GuestStats> stats;  ///< of a guest that runs
  std::optional<Bytes> disk_used;            ///< of the root volume
  std::string root_device;
  WallTime started_at{};
};

class Instances {
 public:
  using Ptr = std::shared_ptr<const Instance>;
  struct Parts {
    Store& store;
    Journal& journal;
    Operations& operations;
    Events& events;
    Projects& projects;
    Profiles& profiles;
    Pools& pools;
    Networks& networks;
    Images& images;
    compute::Driver& containers;
    compute::Driver& vms;
    const Clock& clock;
    std::string state_dir;
    std::string boot_id;                ///< of the running kernel: a new one means that the host was restarted
    remote::Driver* remotes = nullptr;  ///< other servers; null: they cannot be reached
  };

  explicit Instances(Parts parts, Executor executor);
  ~Instances();

  // Reads.
  Ptr find(const std::string& project, const std::string& name) const;
  /// In order of project and name; absent: of all projects.
  std::vector<Ptr> list(const std::optional<std::string>& project) const;
  /// Changes whenever find() or list() could answer otherwise than before.
  std::uint64_t generation() const noexcept;
  /// Asks the guest's host side and, within two seconds, its agent. Errors: not_found.
  Task<Result<InstanceState>> state(std::string project, std::string name);
  /// What is known about an instance without asking anybody. The disk's use is what state() last learned.
  struct Vitals {
    pid_t pid = 0;
    WallTime started_at{};
    std::string root_device;
    std::optional<Bytes> disk_used;
  };
  Vitals vitals(const Instance& instance) const;
  /// The directory of its logs: console.log, and init.log or qemu.log. A log may be missing.
  std::string log_directory(const Instance& instance) const;
  /// URLs of the instances that use a profile, a network or a pool, as `used_by` shows them.
  std::vector<std::string> users_of_profile(const std::string& project, const std::string& name) const;
  std::vector<std::string> users_of_network(const std::string& name) const;
  std::vector<std::string> users_of_pool(const std::string& name) const;
  std::vector<std::string> users_of_project(const std::string& name) const;
  /// Whether all instances that use a profile could live with this version of it, and their projects allow it. Errors: invalid,
  /// denied; names the first instance that could not. What it returns is kept until the profile is committed.
  Result<std::shared_ptr<void>> check_profile(const Profile& next) const;
  /// For Policy::set_instances(): all of a project, with those being made.
  std::vector<Ptr> counted(const std::string& project) const;
  /// Adds the documents of the instances that use a profile, with its new name. Errors: busy.
  Result<> rename_profile(const Profile& old, const std::string& new_name, Transaction& transaction) const;
  /// Merges a changed profile into the instances that use it.
  void profile_changed(const std::string& project, const std::string& name);

  // Changes. What can be said at once (a wrong field, a name that is taken, an instance that is busy) is the returned error; the
  // rest is the operation's.
  Task<Result<OperationPtr>> create(Caller caller, CreateInstance request);
  /// create() of a request with a source to copy.
  Result<OperationPtr> copy(const Caller& caller, CreateInstance request);
  /// create() of a request that another server sends the root for.
  Result<OperationPtr> receive(const Caller& caller, CreateInstance request);
  /// Sends a copy to another server, see engine/instances/migration.h. The source may run. Errors: not_found, invalid.
  Result<OperationPtr> migrate(const Caller& caller, const std::string& project, const std::string& name, MigrateInstance request);
  Result<OperationPtr> change_state(const Caller& caller, const std::string& project, const std::string& name, StateChange change);
  /// Renames a stopped instance, or moves it to another project. Errors: not_found, invalid, exists, denied (the project's policy).
  Result<OperationPtr> move(const Caller& caller, const std::string& project, const std::string& name, MoveInstance request);
  Result<OperationPtr> remove(const Caller& caller, const std::string& project, const std::string& name);
  /// `expected`: the revision the caller saw (If-Match). Errors: conflict.
  Result<OperationPtr> update(const Caller& caller, const std::string& project, const std::string& name, UpdateInstance request,
                              std::optional<std::int64_t> expected);
  /// Makes an image of a stopped instance, or of a snapshot; see engine/instances/publish.h.
  Result<OperationPtr> publish(const Caller& caller, const std::string& project, const std::string& name, PublishInstance request);

  // Snapshots.
  using SnapshotPtr = std::shared_ptr<const InstanceSnapshot>;
  /// The oldest first.
  std::vector<SnapshotPtr> snapshots(const Instance& instance) const;
  /// Errors: not_found.
  Result<SnapshotPtr> snapshot(const Instance& instance, const std::string& name) const;
  /// Errors: not_found, exists, invalid, denied (restricted.snapshots).
  Result<OperationPtr> create_snapshot(const Caller& caller, const std::string& project, const std::string& name,
                                       CreateSnapshot request);
  Result<OperationPtr> remove_snapshot(const Caller& caller, const std::string& project, const std::string& name,
                                       const std::string& snapshot);
  Result<OperationPtr> rename_snapshot(const Caller& caller, const std::string& project, const std::string& name,
                                       const std::string& snapshot, const std::string& new_name);
  /// `expected`: the revision the caller saw (If-Match).
  Result<OperationPtr> update_snapshot(const Caller& caller, const std::string& project, const std::string& name,
                                       const std::string& snapshot, WallTime expires_at, std::optional<std::int64_t> expected);
  /// The instance becomes what it was; one that runs is stopped for it and started again. Errors: not_found, invalid, denied.
  Result<OperationPtr> restore(const Caller& caller, const std::string& project, const std::string& name,
                               const std::string& snapshot);
  /// Takes what snapshots.schedule asks for and removes what has expired, up to now. The service does so by itself; returns when
  /// the next moment is. Nothing: never.
  Task<std::optional<WallTime>> tend_snapshots();
  /// Called after each scheduled snapshot: the reason why it could not be taken, or an empty one.
  void on_scheduled_snapshot(std::function<void(const Instance&, const std::string& error)> call);

  // Backups; see engine/instances/backups.h. The operation that makes one names it in its resources.
  Result<std::vector<Backup>> backups(const std::string& project, const std::string& name) const;  ///< in order of name
  Result<Backup> backup(const std::string& project, const std::string& name, const std::string& backup) const;
  /// The path of its tarball.
  Result<std::string> backup_file(const std::string& project, const std::string& name, const std::string& backup) const;
  Result<OperationPtr> create_backup(const Caller& caller, const std::string& project, const std::string& name,
                                     CreateBackup request);
  Result<OperationPtr> rename_backup(const Caller& caller, const std::string& project, const std::string& name,
                                     const std::string& backup, const std::string& new_name);
  Result<OperationPtr> remove_backup(const Caller& caller, const std::string& project, const std::string& name,
                                     const std::string& backup);
  /// Makes an instance of a backup. Owns the file from here on, also where it fails. Errors: invalid, exists, denied, unsupported.
  Task<Result<OperationPtr>> import_backup(Caller caller, ImportBackup request);
  Result<OperationPtr> exec(const Caller& caller, const std::string& project, const std::string& name, ExecRequest request);
  Result<OperationPtr> console(const Caller& caller, const std::string& project, const std::string& name, ConsoleRequest request);
  Task<Result<>> clear_console_log(Caller caller, std::string project, std::string name);
  /// A PNG image. Errors: unsupported (it has no screen), invalid (it does not run).
  Task<Result<std::string>> screenshot(std::string project, std::string name);
  /// What its image told of it and the user may have changed, in the API's form; and the templates of files that are rendered into
  /// its root. Errors: not_found, invalid, conflict.
  Task<Result<json::object>> metadata(std::string project, std::string name);
  Task<Result<>> set_metadata(Caller caller, std::string project, std::string name, json::object metadata);
  Task<Result<std::vector<std::string>>> templates(std::string project, std::string name);
  Task<Result<std::string>> read_template(std::string project, std::string name, std::string file);
  Task<Result<>> write_template(Caller caller, std::string project, std::string name, std::string file, std::string text);
  Task<Result<>> remove_template(Caller caller, std::string project, std::string name, std::string file);
  /// The files of a guest, by SFTP; of one that does not run, too, where its kind allows it. The stream ends when the guest's root
  /// changes hands (it starts, stops, is renamed or deleted). Errors: not_found, busy, unavailable, unsupported.
  Task<Result<std::unique_ptr<ByteStream>>> open_files(std::string project, std::string name);
  /// Tells who listens what was done to a file: action is "pushed", "retrieved" or "deleted".
  void file_event(const Caller& caller, const Instance& instance, const std::string& action, const std::string& path);

  /// Called when an instance was to start with the host: the reason why it could not, or an empty one.
  void on_autostart(std::function<void(const Instance&, const std::string& error)> call);

  // Life of the service. Order: load(), journal.recover(), resume().
  /// Reads the documents, registers how journal rows are taken up again, and adopts the guests that run.
  Task<Result<>> load();
  /// Clears up after guests that ended meanwhile and starts what is to be started with the host.
  Task<Result<>> resume();
  /// Stops all guests that run, the first of boot.stop.priority first, those that do not stop in time by force. They start again
  /// with the next daemon. Errors: unavailable, naming those that run on.
  Task<Result<>> stop_all(Caller caller, bool force, std::int64_t timeout_seconds);
  /// Lets go of the guests, which run on.
  Task<> shut_down();

  struct Impl;

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace virga::engine
