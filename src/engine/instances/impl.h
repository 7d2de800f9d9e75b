// What the files of this folder share. Not for others.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/task.h"
#include "engine/cache.h"
#include "engine/instances/backups.h"
#include "engine/instances/service.h"
#include "engine/instances/spec.h"
#include "engine/journal/journal.h"
#include "engine/operations/operations.h"
#include "engine/url.h"
#include "model/instance.h"
#include "model/snapshot.h"
#include "store/store.h"

namespace virga::image {
struct PackRequest;
}

namespace virga::engine {

/// Ranges of host ids, one a guest, so that no two guests share a user.
class IdRanges {
 public:
  /// Errors: unavailable (65 000 guests).
  Result<std::uint32_t> take();
  void mark(std::uint32_t base) { used_.insert(base); }
  void release(std::uint32_t base) { used_.erase(base); }

 private:
  static constexpr std::uint32_t first = 1'000'000;
  static constexpr std::uint32_t last = 4'200'000'000;
  std::set<std::uint32_t> used_;
};

/// What the document says after a guest has ended: that it is stopped, or still what it was, for one that is to come back.
enum class Power { stopped, keep };
/// What a stop changes in the document.
void mark_stopped(Instance& instance, Power power);
/// Whether a virtual machine that runs is still to get the files of its templates.
bool templates_due(const Instance& instance);
/// volatile.last_state.power
std::string power_of(const Instance& instance);
bool limits_differ(const Instance& a, const Instance& b);
bool has_schedule(const Instance& instance);
/// How a container sees the ids of its volumes; a virtual machine's disk has none.
std::optional<storage::IdShift> id_shift(const Instance& instance);

/// With its parents, for the daemon alone.
Result<> make_private_directory(const std::string& path);
/// Two words and a number: a name that can be said aloud.
std::string made_up_name();

struct Packing;
struct Copying;
struct BackingUp;
struct Importing;
struct MigrationChannels;
struct FetchImage;
struct InstanceMetadata;

struct Instances::Impl {
  using Key = std::pair<std::string, std::string>;  // project, name

  Impl(Parts p, Executor ex)
      : parts(std::move(p)),
        executor(std::move(ex)),
        tasks(executor),
        snapshot_documents(parts.store, "/snapshots/", decode_snapshot),
        due(executor),
        tending(executor) {}

  Parts parts;
  Executor executor;
  TaskGroup tasks;
  std::map<Key, Ptr> all;
  std::map<Key, Ptr> pending;  // being created: they count as users of what they use
  std::unordered_map<std::string, Key> by_uuid;
  std::map<Key, std::string> renaming;  // profiles: project and new name, to the old name, until the commit is seen
  IdRanges ids;
  std::unordered_map<std::string, WallTime> started_at;  // by uuid
  std::unordered_map<std::string, Bytes> disk_used;      // by uuid, as last asked for
  std::set<std::string> measuring;                       // uuids of those whose disk use is being counted
  std::int64_t next_revision = 1;
  std::uint64_t generation = 0;                                // counts changes of `all`
  std::set<std::string> unadopted;                             // uuids of guests that may run, but did not answer
  std::vector<compute::GuestEvent> early_events;               // until resume() has seen to every guest
  std::unordered_map<std::string, std::string> patient_stops;  // uuid to the operation that waits for a clean shutdown
  std::unordered_map<std::string, int> quick_reboots;          // uuid to how many in a row
  std::function<void(const Instance&, const std::string&)> on_autostart;
  bool resumed = false;                                                           // events of guests count from here on
  std::unordered_multimap<std::string, std::weak_ptr<ByteStream>> file_sessions;  // by uuid: of guests that do not run
  std::unordered_multimap<std::string, std::weak_ptr<int>> file_readers;          // by uuid: one for each session, running or not
  bool stopping = false;
  std::unique_ptr<BlockingPool> rendering;     // of templates: made when the first instance has some
  Cache<InstanceSnapshot> snapshot_documents;  // by uuid of the instance and name
  Notification due;                            // the next moment of a schedule may be another one now
  AsyncMutex tending;
  WallTime tended{};  // schedules were looked after up to here
  std::function<void(const Instance&, const std::string&)> on_scheduled;

  // --- memory (load.cc)
  Result<Ptr> get(const std::string& project, const std::string& name) const;
  Ptr put(Instance instance);  // a new snapshot replaces the old
  void erase(const std::string& project, const std::string& name);
  void set_status(const std::string& project, const std::string& name, InstanceStatus status);
  InstanceStatus live_status(const Instance& instance) const;  // what the driver says
  Result<> check_adopted(const Instance& instance) const;      // whether the driver knows; before what must not meet a guest
  Result<std::vector<std::shared_ptr<const Profile>>> profiles_of(const Instance& instance) const;
  compute::Driver& driver(InstanceType type) { return type == InstanceType::container ? parts.containers : parts.vms; }
  const compute::Driver& driver(InstanceType type) const { return type == InstanceType::container ? parts.containers : parts.vms; }
  Result<storage::Driver*> storage_of(const Instance& instance) const;
  Result<storage::Driver*> storage_at(const std::string& pool, std::string field) const;
  bool uses_profile(const Instance& instance, const std::string& project, const std::string& name) const;
  void profile_changed(const std::string& project, const std::string& name);
  std::vector<Ptr> users_of(const std::string& project, const std::string& profile) const;  // those being created, too
  std::vector<std::string> urls_where(const std::function<bool(const Instance&)>& condition) const;

  /// Starts an operation that holds the instance: "Starting instance" and so on. The body gets the current snapshot.
  using Body = std::function<Task<Result<>>(Operation&)>;
  Result<OperationPtr> operate(const Caller& caller, const std::string& project, const std::string& name, std::string description,
                               Body body, bool wait_for_turn = false);
  void interrupt_patient_stop(const std::string& uuid);
  void lifecycle(const std::string& action, const Instance& instance, const Caller& caller, json::object context = {});

  // --- procedures: each builds the steps of a verb; the journal runs them, recovery builds them again from the row's arguments
  Procedure create_procedure(std::string id, Ptr instance);
  Procedure start_procedure(std::string id, Ptr instance, bool templates);
  Procedure stop_procedure(std::string id, Ptr instance, Power power);
  Procedure move_procedure(std::string id, Ptr instance, Ptr moved);
  Procedure remove_procedure(std::string id, Ptr instance);
  Procedure publish_procedure(std::string id, Ptr instance, std::string snapshot, std::shared_ptr<Packing> packing);
  Procedure snapshot_procedure(std::string id, Ptr instance, std::shared_ptr<InstanceSnapshot> snapshot, bool runs);
  Procedure remove_snapshot_procedure(std::string id, Ptr instance, std::string snapshot);
  Procedure rename_snapshot_procedure(std::string id, Ptr instance, std::string from, std::string to);
  Procedure restore_procedure(std::string id, Ptr before, Ptr after, std::string snapshot);
  Procedure files_procedure(std::string id, Ptr instance, std::shared_ptr<ByteStream>* opened);
  void register_procedures();
  void register_snapshot_procedures();
  /// How a row of an instance that is still there is turned into its procedure again.
  Journal::Builder recovering(std::function<Procedure(std::string, Ptr, const json::object&)> make);

  // --- copies (copy.cc)
  Result<Ptr> copy_model(const Instance& source, const CopySource& from) const;
  Result<Instance> copied(const Instance& source, const CreateInstance& request) const;
  void add_copy_steps(Procedure& p, std::shared_ptr<const Copying> work);
  Procedure copy_procedure(std::string id, std::shared_ptr<const Copying> work);
  Procedure refresh_procedure(std::string id, std::shared_ptr<const Copying> work);
  void register_copies();
  Task<Result<>> run_copy(Operation& operation, Procedure procedure, std::shared_ptr<const Copying> work);
  Task<Result<>> copy(Operation& operation, CreateInstance request, Caller caller);
  Task<Result<>> refresh(Operation& operation, CreateInstance request, Caller caller);
  /// Shows how much was moved, and stops it when the operation is cancelled, until it is cancelled itself.
  Task<> show_transfer(Operation& operation, std::string what, std::shared_ptr<TransferControl> control);

  // --- changes (update.cc)
  /// `project` and `name`: where it is to be; empty: where it is.
  Result<Instance> updated(const Instance& before, const UpdateInstance& request, const std::string& project = {},
                           const std::string& name = {}) const;
  Result<> check_change(const Instance& before, const Instance& after) const;  // of the merged object
  Task<Result<>> commit_update(Ptr before, Instance after);
  /// The documents of a change; names in `gone` the NICs that give their addresses back.
  Transaction update_transaction(const Instance& before, Instance& after, std::vector<std::string>& gone) const;

  // --- renames and moves (move.cc)
  Result<Instance> moved(const Instance& before, const MoveInstance& request) const;
  Ptr moved_to(Ptr before, Instance moved);
  Instance moved_again(const Instance& now, const json::object& arguments) const;  // from a journal row
  Task<Result<>> move(std::string operation_id, Ptr before, MoveInstance request, Caller caller);

  // --- snapshots (snapshots.cc, restore.cc, schedule.cc)
  std::vector<SnapshotPtr> snapshots_of(const std::string& uuid) const;
  Result<SnapshotPtr> snapshot_of(const Instance& instance, const std::string& name) const;
  Result<storage::SnapshotOps*> snapshot_ops(const Instance& instance) const;
  Result<InstanceSnapshot> planned_snapshot(const Instance& instance, const CreateSnapshot& request, bool scheduled) const;
  Result<OperationPtr> start_snapshot(const Caller& caller, const std::string& project, const std::string& name,
                                      CreateSnapshot request, bool scheduled);
  Task<Result<>> take_snapshot(Operation& operation, std::string project, std::string name, CreateSnapshot request, Caller caller,
                               bool scheduled);
  Task<Result<>> remove_snapshot(std::string operation_id, Ptr instance, std::string snapshot, Caller caller);
  Task<Result<>> restore(Operation& operation, std::string project, std::string name, std::string snapshot, Caller caller);
  Result<Instance> restored(const Instance& now, const InstanceSnapshot& snapshot) const;
  Task<> merge_layers(Ptr instance);  // gives space of removed snapshots back, as far as it can now
  Task<Result<>> hold_guest(Ptr instance);
  Task<Result<>> release_guest(Ptr instance);
  void erase_snapshots(const Instance& instance, Transaction& t) const;
  /// The documents of one instance's snapshots as another's, whose volume has them by then.
  Task<Result<>> put_copied_snapshots(const Instance& from, const Instance& to, Transaction& t);
  void snapshot_lifecycle(const std::string& action, const Instance& instance, const std::string& snapshot, const Caller& caller,
                          json::object context = {});
  Task<> tend_for_ever();
  Task<std::optional<WallTime>> tend();
  Result<OperationPtr> remove_expired(const std::string& project, const std::string& name, const std::string& snapshot);
  void at_startup(const Instance& instance);
  // --- backups (backup.cc), and instances made of them (import.cc)
  std::map<std::string, std::map<std::string, Backup>> backups;  // by uuid and name
  std::set<std::string> backups_asked;                           // names that were made up, of backups being made
  /// Gone with this object: a wait that its end wakes looks here before it looks at anything else.
  std::shared_ptr<const bool> alive = std::make_shared<const bool>(true);
  Notification prune_soon{executor};
  std::string backup_directory(const std::string& uuid) const;
  Result<> check_without_snapshots(const Instance& instance, bool instance_only) const;
  const Backup* find_backup(const Instance& instance, const std::string& name) const;
  Procedure backup_procedure(std::string id, std::shared_ptr<BackingUp> work);
  Procedure backup_rename_procedure(std::string id, Ptr instance, Backup before, std::string name);
  Task<Result<>> back_up(Operation& operation, Ptr asked, CreateBackup request, Caller caller);
  Task<Result<>> run_backup(Operation& operation, std::shared_ptr<BackingUp> work);
  Task<Result<>> forget_backup(Ptr instance, std::string name);
  Task<WallTime> prune_backups();
  Task<> keep_pruning();
  Task<Result<>> load_backups();
  void sweep_backups();
  Result<> remove_backups(const std::string& uuid) const;
  void erase_backups(const std::string& uuid, Transaction& t) const;
  void register_backups();
  Procedure import_procedure(std::string id, std::shared_ptr<Importing> work);
  Result<Instance> imported(const ImportBackup& request, Instance instance, const std::string& pool) const;
  /// `wanted`: what the instance is to be instead of what the backup says.
  Task<Result<>> import_backup(Operation& operation, ImportBackup request, Caller caller, const CreateInstance* wanted = nullptr);
  void register_imports();

  // --- copies between servers (migration.cc)
  Task<Result<MigrationChannels>> connect_channels(Operation& operation, std::optional<MigrationPeer> peer);
  Task<Result<>> send_file(Operation& operation, MigrationChannels& channels, std::string path);
  Task<Result<>> send_instance(Operation& operation, Ptr instance, MigrateInstance request, Caller caller);
  Task<Result<>> receive_file(Operation& operation, MigrationChannels& channels, std::string path);
  Task<Result<>> receive_instance(Operation& operation, CreateInstance request, Caller caller);
  void open_channels(OperationSpec& spec) const;
  Instance requested(const CreateInstance& request) const;

  // --- what all ways to a new instance share (admit.cc)
  /// Makes it, where `held` is expected of the store while that begins.
  using MakeInstance = std::function<Task<Result<>>(Ptr instance, Transaction held)>;
  static Error name_taken(const std::string& name);
  std::string free_name(const std::string& project) const;  // made up; empty: none was found
  Result<> check_networks(const Instance& instance) const;
  /// Holds what the instance is named and refers to, has it made, and puts it among the others. `purpose`: "create instance 'c1'".
  Task<Result<>> admit(Instance instance, Caller caller, std::string purpose, MakeInstance make);
  /// What comes after its root: the last step, and the outcome, with `documents` besides its own.
  void add_last_steps(Procedure& p, Ptr instance, std::shared_ptr<const Transaction> documents);

  // --- verbs, inside an operation that holds the instance
  Task<Result<>> create(std::string operation_id, Instance instance, Caller caller);
  Result<> place(Instance& instance) const;  // what its profiles say: the expanded configuration, and the pool it lies in
  Task<Result<>> fetch_image(Operation& operation, FetchImage request, Instance& instance, bool profiles_of_image);
  /// Of an instance that this operation has just made: one that was cancelled takes it away again.
  Task<Result<>> start_created(Operation& operation, std::string project, std::string name, Caller caller);
  Task<Result<>> start(std::string operation_id, std::string project, std::string name, Caller caller);
  Task<Result<>> stop(Operation& operation, std::string project, std::string name, Caller caller, bool force,
                      std::int64_t timeout_seconds, bool restarting);
  Task<Result<>> teardown(std::string operation_id, Ptr instance,
                          Power power);  // what remains of a guest that has ended; an ephemeral one goes
  Task<Result<>> remove(std::string operation_id, Ptr instance, Caller caller);
  Task<Result<>> restart(Operation& operation, std::string project, std::string name, Caller caller, bool force,
                         std::int64_t timeout_seconds);
  Task<Result<>> publish(Operation& operation, std::string project, std::string name, PublishInstance request);
  Task<Result<>> stop_for_shutdown(Operation& operation, std::string project, std::string name, Caller caller, bool force,
                                   std::int64_t timeout_seconds);
  Task<Result<>> stop_group(std::vector<Ptr> group, Caller caller, bool force, std::int64_t timeout_seconds);
  Task<Result<>> freeze(std::string project, std::string name, Caller caller);
  Task<Result<>> unfreeze(std::string project, std::string name, Caller caller);
  Task<> adopt(Ptr instance);
  Task<> adopt_late();  // those that could not be adopted, again and again
  Task<> ended_meanwhile(Ptr instance, bool rebooted);
  Task<> start_with_host(bool host_started);
  Task<> apply_limits(Ptr instance);
  void reboot_later(Ptr instance);
  Task<> reboot_after(Ptr instance, Milliseconds pause);
  Task<> guest_ended(std::string uuid, bool reboot);

  // --- steps that more than one procedure has (steps.cc)
  Task<Result<>> make_directories(Ptr instance);
  Task<Result<>> remove_run_directory(Ptr instance);
  Task<Result<>> detach_root(Ptr instance);
  Task<Result<>> remove_root(Ptr instance);  // the volume, which is detached
  /// `attached`: its root, or that of a snapshot.
  Task<Result<>> pack_root(Ptr instance, storage::Attachment attached, image::PackRequest request,
                           std::function<void(Bytes)> progress, std::string_view purpose);
  Task<Result<>> attach_and_create(Ptr instance);
  Task<Result<>> remove_guest(Ptr instance);

  // --- files (files.cc)
  Task<Result<std::shared_ptr<ByteStream>>> open_stopped(Ptr instance);
  void end_file_sessions(const std::string& uuid);
  Result<std::shared_ptr<int>> admit_file_reader(const Instance& instance);

  // --- consoles (console.cc)
  std::unordered_multimap<std::string, std::string> consoles;  // operations of open consoles, by uuid

  // --- metadata and templates (metadata.cc, templates.cc)
  Task<Result<std::optional<InstanceMetadata>>> kept_metadata(std::string uuid);  // absent: it has none of its own
  Task<Result<>> remember_metadata(const Instance& instance, Transaction& t);
  Task<Result<std::vector<compute::NewFile>>> render_templates(Ptr instance);
  Task<Result<>> apply_templates(Ptr instance, std::string root);
  Task<> deliver_templates(std::string uuid);  // into a virtual machine, once its agent answers
  Task<Result<>> deliver_templates_now(Ptr instance);

  // --- NICs (nics.cc)
  Result<> reserve_addresses(Instance& instance);  // fills volatile.<device>.hwaddr; taken back by networks.forget()
  void put_addresses(const Instance& instance, Transaction& t) const;
  Task<Result<Ptr>> ensure_addresses(Ptr instance);
  Result<std::uint32_t> nic_mtu(const NicDevice& nic) const;
  Task<Result<>> plug_taps(Ptr instance);
  Task<Result<>> plug_veths(Ptr instance);
  Task<Result<>> unplug_nics(Ptr instance);
};

}  // namespace virga::engine
