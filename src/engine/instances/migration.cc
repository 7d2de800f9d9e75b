// Copies between servers. The source makes a backup and sends it over the channel "fs"; the target imports it, with the
// configuration that its own client has asked for. On "control" the source says first what is coming and the target last what
// became of it:
//   source: {"format": "backup", "size": BYTES}      target: {"ok": true} or {"error": "..."}
#include "engine/instances/migration.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "base/random.h"
#include "drivers/remote/driver.h"
#include "engine/images/service.h"
#include "engine/images/transfers.h"
#include "engine/instances/backups.h"
#include "engine/instances/impl.h"
#include "engine/projects/service.h"

namespace virga::engine {
namespace {

constexpr std::size_t piece = 256u << 10;
constexpr Milliseconds connecting{30'000};
constexpr Bytes most = Bytes(1) << 44;

/// A channel to another server, as operations have them.
class RemoteChannel final : public Channel {
 public:
  explicit RemoteChannel(std::unique_ptr<remote::Channel> channel) : channel_(std::move(channel)) {}
  Task<Result<Message>> read() override {
    VIRGA_CO_TRY(auto got, co_await channel_->read());
    Message out;
    out.kind = got.kind == remote::Channel::Message::Kind::text     ? Message::Kind::text
               : got.kind == remote::Channel::Message::Kind::binary ? Message::Kind::binary
                                                                    : Message::Kind::close;
    out.data = std::move(got.data);
    co_return out;
  }
  Task<Result<>> write(Message message) override {
    remote::Channel::Message out;
    out.kind = message.kind == Message::Kind::text     ? remote::Channel::Message::Kind::text
               : message.kind == Message::Kind::binary ? remote::Channel::Message::Kind::binary
                                                       : remote::Channel::Message::Kind::close;
    out.data = std::move(message.data);
    co_return co_await channel_->write(std::move(out));
  }
  Task<> close() override { return channel_->close(); }

 private:
  std::unique_ptr<remote::Channel> channel_;
};

Result<> check_peer(const std::string& field, const MigrationPeer& peer) {
  constexpr std::string_view path = "/1.0/operations/";
  const auto& url = peer.operation;
  const auto at = url.find(path);
  const auto id = at == std::string::npos ? std::string() : url.substr(at + path.size());
  const auto host = at == std::string::npos || !url.starts_with("https://") ? std::string() : url.substr(8, at - 8);
  if (host.empty() || host.find_first_of("?#@ \\/") != std::string::npos || id.empty() ||
      id.find_first_not_of("0123456789abcdef-") != std::string::npos)
    return invalid(field + ".operation", fmt::format("'{}.operation' must be https://HOST:PORT/1.0/operations/ID", field));
  for (const auto* name : {"control", "fs"}) {
    auto secret = peer.secrets.find(name);
    if (secret == peer.secrets.end() || secret->second.empty() ||
        secret->second.find_first_not_of("0123456789abcdefABCDEF-") != std::string::npos)
      return invalid(field + ".secrets", fmt::format("'{}.secrets' must hold the secret of the channel '{}'", field, name));
  }
  return {};
}

Message text(const json::object& object) {
  return {.kind = Message::Kind::text, .data = json::serialize(object)};
}

Result<json::object> read_text(const Message& message) {
  if (message.kind == Message::Kind::close) return fail(ErrorKind::unavailable, "the other server has ended the transfer");
  if (message.kind == Message::Kind::binary)
    return fail(ErrorKind::unsupported, "the other server speaks another protocol for copies of instances");
  return parse_json_object(message.data);
}

}  // namespace

/// Both channels of one transfer.
struct MigrationChannels {
  std::unique_ptr<Channel> control, fs;
};

Task<Result<MigrationChannels>> Instances::Impl::connect_channels(Operation& operation, std::optional<MigrationPeer> peer) {
  MigrationChannels out;
  for (auto [name, into] : {std::pair{"control", &out.control}, {"fs", &out.fs}}) {
    if (!peer) {
      VIRGA_CO_TRY(*into, co_await operation.wait_channel(name, connecting));
      continue;
    }
    if (parts.remotes == nullptr) co_return fail(ErrorKind::unsupported, "other servers cannot be reached from here");
    remote::Request request{.url = fmt::format("{}/websocket?secret={}", peer->operation, peer->secrets.at(name))};
    request.certificate = peer->certificate;
    request.reach = reach_of_caller(operation.spec().caller, peer->operation);
    auto channel = co_await parts.remotes->channel(std::move(request));
    if (!channel) co_return fail(std::move(channel).error().wrap("reach the other server"));
    *into = std::make_unique<RemoteChannel>(std::move(*channel));
  }
  co_return out;
}

// --- the source

Task<Result<>> Instances::Impl::send_file(Operation& operation, MigrationChannels& channels, std::string path) {
  auto& images = parts.images;
  VIRGA_CO_TRY(const auto size, co_await images.file_size(path));
  VIRGA_CO_CHECK(co_await channels.control->write(text({{"format", "backup"}, {"size", size}})));
  for (Bytes at = 0; at < size;) {
    VIRGA_CO_TRY(auto bytes, co_await images.read_file(path, at, piece));
    if (bytes.empty()) co_return fail(ErrorKind::internal, "the backup became shorter while it was sent");
    at += bytes.size();
    VIRGA_CO_CHECK(co_await channels.fs->write({.kind = Message::Kind::binary, .data = std::move(bytes)}));
    operation.set_progress("fs_progress", json::string(fmt::format("{}% ({})", at * 100 / size, format_bytes(at))));
  }
  VIRGA_CO_TRY(const auto answer, co_await channels.control->read());
  VIRGA_CO_TRY(const auto said, read_text(answer));
  VIRGA_CO_TRY(const auto problem, Fields(said).string("error"));
  if (!problem.empty())
    co_return fail(ErrorKind::unavailable, fmt::format("the target could not take it: {}", problem.substr(0, 500)));
  VIRGA_CO_TRY(const bool ok, Fields(said).boolean("ok"));
  if (!ok) co_return fail(ErrorKind::unavailable, "the target does not say what became of it");
  co_return Result<>{};
}

Task<Result<>> Instances::Impl::send_instance(Operation& operation, Ptr instance, MigrateInstance request, Caller caller) {
  operation.set_may_cancel(true);
  // First, as secrets are good for a short time only.
  VIRGA_CO_TRY(auto channels, co_await connect_channels(operation, request.target));
  CreateBackup backup;
  backup.name = "migration-" + operation.id().substr(0, 8);
  backup.instance_only = true;
  backup.compression = "zstd";
  backup.expires_at = parts.clock.now() + std::chrono::hours(24);  // should the daemon end meanwhile
  auto made = co_await back_up(operation, instance, backup, caller);
  if (!made) {
    co_await shield();
    (void)co_await channels.control->write(text({{"error", made.error().chain()}}));
    co_return made;
  }
  auto sent = co_await send_file(operation, channels, backup_directory(instance->uuid) + "/" + backup.name);
  co_await shield();
  co_await channels.fs->close();
  co_await channels.control->close();
  auto forgotten = co_await forget_backup(instance, backup.name);
  if (!forgotten) operation.warn("what was sent stays: {}", forgotten.error().text());
  co_return sent;
}

Result<OperationPtr> Instances::migrate(const Caller& caller, const std::string& project, const std::string& name,
                                        MigrateInstance request) {
  auto* self = impl_.get();
  VIRGA_TRY(auto instance, self->get(project, name));
  VIRGA_CHECK(self->check_without_snapshots(*instance, request.instance_only));
  if (request.target) VIRGA_CHECK(check_peer("target", *request.target));
  VIRGA_CHECK(self->parts.images.packer());
  OperationSpec spec;
  spec.project = project;
  spec.description = "Migrating instance";
  spec.resources = {{"instances", {instance_url(project, name)}}};
  spec.caller = caller;
  if (!request.target) self->open_channels(spec);
  return self->parts.operations.start(std::move(spec), [self, instance, request, caller](Operation& o) {
    return self->send_instance(o, instance, request, caller);
  });
}

/// The other server connects them, or the client for it: whoever knows the secrets.
void Instances::Impl::open_channels(OperationSpec& spec) const {
  spec.op_class = OperationClass::websocket;
  spec.channels = {"control", "fs"};
  spec.bearer = true;
}

// --- the target

Task<Result<>> Instances::Impl::receive_file(Operation& operation, MigrationChannels& channels, std::string path) {
  VIRGA_CO_TRY(const auto first, co_await channels.control->read());
  VIRGA_CO_TRY(const auto said, read_text(first));
  const Fields fields(said);
  VIRGA_CO_TRY(const auto problem, fields.string("error"));
  if (!problem.empty())
    co_return fail(ErrorKind::unavailable, fmt::format("the source could not send it: {}", problem.substr(0, 500)));
  VIRGA_CO_TRY(const auto format, fields.string("format"));
  VIRGA_CO_TRY(const auto size, fields.integer("size"));
  if (format != "backup" || size <= 0 || static_cast<Bytes>(size) > most)
    co_return fail(ErrorKind::unsupported, "the source sends what is not known here");
  for (Bytes have = 0; have < static_cast<Bytes>(size);) {
    VIRGA_CO_TRY(auto message, co_await channels.fs->read());
    if (message.kind != Message::Kind::binary) co_return fail(ErrorKind::unavailable, "the source has ended the transfer");
    have += message.data.size();
    if (have > static_cast<Bytes>(size)) co_return fail(ErrorKind::invalid, "the source sends more than it has said");
    VIRGA_CO_CHECK(co_await parts.images.append_upload(path, std::move(message.data)));
    operation.set_progress("fs_progress",
                           json::string(fmt::format("{}% ({})", have * 100 / static_cast<Bytes>(size), format_bytes(have))));
  }
  co_return Result<>{};
}

Task<Result<>> Instances::Impl::receive_instance(Operation& operation, CreateInstance request, Caller caller) {
  VIRGA_CO_TRY(auto channels, co_await connect_channels(operation, request.migration->peer));
  ImportBackup import;
  import.project = request.project;
  import.name = request.name;
  import.file = parts.images.new_upload_path();
  auto done = co_await receive_file(operation, channels, import.file);
  if (done) done = co_await import_backup(operation, import, caller, &request);
  co_await shield();
  co_await parts.images.discard_upload(import.file);
  (void)co_await channels.control->write(done ? text({{"ok", true}}) : text({{"error", done.error().chain()}}));
  co_await channels.control->close();
  if (!done || !request.start) co_return done;
  co_return co_await start_created(operation, request.project, request.name, caller);
}

Result<OperationPtr> Instances::receive(const Caller& caller, CreateInstance request) {
  auto* self = impl_.get();
  VIRGA_TRY(const auto project, self->parts.projects.get(request.project));
  for (int tries = 0; request.name.empty() && tries < 20; ++tries) {
    auto name = made_up_name();
    if (!find(request.project, name)) request.name = name;
  }
  if (request.migration->peer) VIRGA_CHECK(check_peer("source", *request.migration->peer));
  // Once here, so that a wrong field is the answer to the request; once more with all that came.
  ImportBackup import;
  import.project = request.project;
  import.name = request.name;
  VIRGA_TRY(auto trial, self->imported(import, self->requested(request), ""));
  VIRGA_CHECK(self->parts.projects.policy().check(trial));
  OperationSpec spec;
  spec.project = project->name;
  spec.description = "Creating instance";
  spec.resources = {{"instances", {instance_url(request.project, request.name)}}};
  spec.may_cancel = true;
  spec.caller = caller;
  if (!request.migration->peer) self->open_channels(spec);
  return self->parts.operations.start(std::move(spec),
                                      [self, request, caller](Operation& o) { return self->receive_instance(o, request, caller); });
}

/// What its client wants the instance to be; what the source says about itself does not count.
Instance Instances::Impl::requested(const CreateInstance& request) const {
  Instance out;
  out.name = request.name;
  out.type = request.type;
  if (!request.architecture.empty()) out.architecture = request.architecture;
  out.description = request.description;
  out.ephemeral = request.ephemeral;
  out.profiles = request.profiles.value_or(std::vector<std::string>{"default"});
  out.config = request.config;
  out.devices = request.devices;
  // Clients send it as the source had it; the rest of what daemons keep they leave out.
  erase_if(out.config, [](const auto& e) { return e.second.empty(); });
  out.config["volatile.apply_template"] = "copy";
  return out;
}

}  // namespace virga::engine
