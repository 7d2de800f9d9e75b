// The steps that starting, stopping and removing share. Each is idempotent: it may find its work done, wholly or in part, by a
// daemon that was killed.
#include <fmt/format.h>

#include <filesystem>
#include <iterator>

#include "drivers/image/packer.h"
#include "engine/images/service.h"
#include "engine/instances/impl.h"
#include "engine/networks/service.h"

namespace virga::engine {

namespace fs = std::filesystem;

namespace {

Result<> make_one(const std::string& path, fs::perms mode) {
  std::error_code ec;
  fs::create_directories(path, ec);
  if (!ec) fs::permissions(path, mode, ec);
  if (ec) return fail(ErrorKind::unavailable, fmt::format("make directory '{}': {}", path, ec.message()));
  return {};
}

}  // namespace

Result<> make_private_directory(const std::string& path) {
  return make_one(path, fs::perms(0700));
}

std::optional<storage::IdShift> id_shift(const Instance& instance) {
  if (instance.type != InstanceType::container) return std::nullopt;
  return storage::IdShift{instance.id_base, ids_per_guest};
}

Task<Result<>> Instances::Impl::make_directories(Ptr instance) {
  const auto paths = paths_of(parts.state_dir, *instance);
  // 0711: QEMU, as its own user, reaches the sockets that it is given, and sees no other name.
  VIRGA_CO_CHECK(make_one(paths.run, fs::perms(0711)));
  co_return make_one(paths.logs, fs::perms(0700));
}

Task<Result<>> Instances::Impl::remove_run_directory(Ptr instance) {
  std::error_code ec;
  fs::remove_all(paths_of(parts.state_dir, *instance).run, ec);
  if (ec) co_return fail(ErrorKind::unavailable, fmt::format("remove the run directory: {}", ec.message()));
  co_return Result<>{};
}

Task<Result<>> Instances::Impl::detach_root(Ptr instance) {
  VIRGA_CO_TRY(auto* storage, storage_of(*instance));
  co_return co_await storage->detach(volume_id(*instance));
}

Task<Result<>> Instances::Impl::remove_root(Ptr instance) {
  VIRGA_CO_TRY(auto* storage, storage_of(*instance));
  co_return co_await storage->remove(volume_id(*instance));
}

Task<Result<>> Instances::Impl::pack_root(Ptr instance, storage::Attachment attached, image::PackRequest request,
                                          std::function<void(Bytes)> progress, std::string_view purpose) {
  request.base = attached.image;
  if (const auto shift = id_shift(*instance)) {
    request.tree = attached.path;
    request.id_base = shift->base;
    request.id_count = shift->count;
  } else {
    if (!attached.qcow2) co_return fail(ErrorKind::unsupported, fmt::format("only disks in qcow2 files can be {} so far", purpose));
    request.disk = attached.path;
    request.backing = attached.backing;
  }
  VIRGA_CO_TRY(auto* packer, parts.images.packer());
  co_return co_await packer->pack(std::move(request), std::move(progress));
}

Task<Result<>> Instances::Impl::attach_and_create(Ptr instance) {
  end_file_sessions(instance->uuid);  // two mounts of one root would not see each other's changes
  VIRGA_CO_TRY(auto* storage, storage_of(*instance));
  auto attached = co_await storage->attach(volume_id(*instance), id_shift(*instance));
  if (!attached) co_return fail(std::move(attached).error().wrap("attach the root volume"));

  VIRGA_CO_TRY(auto spec, guest_spec(*instance, paths_of(parts.state_dir, *instance)));
  for (const auto& nic : nics_of(*instance)) {
    VIRGA_CO_TRY(auto mtu, nic_mtu(nic));
    spec.nics.push_back({.device = nic.device,
                         .guest_name = nic.guest_name,
                         .host_name = Networks::host_interface(instance->uuid, nic.device),
                         .mac = nic.mac,
                         .mtu = mtu});
  }
  if (instance->type == InstanceType::container) {
    spec.rootfs = attached->path;
    auto applied = co_await apply_templates(instance, attached->path);
    if (!applied) co_return fail(std::move(applied).error().wrap("apply the templates"));
  } else {
    compute::Disk disk;
    disk.device = root_disk(instance->expanded_devices).value().first;
    disk.path = attached->path;
    disk.format = attached->qcow2 ? compute::DiskFormat::qcow2 : compute::DiskFormat::raw;
    disk.backing = attached->backing;
    spec.disks.push_back(std::move(disk));
    if (attached->boot) {
      auto& boot = *attached->boot;
      spec.direct_boot = compute::DirectBoot{.kernel = boot.kernel, .initrd = boot.initrd, .command_line = boot.command_line};
    } else {
      auto secure = instance->expanded_config.find("security.secureboot");
      const bool wanted =
          secure == instance->expanded_config.end() || secure->second.empty() || parse_bool(secure->second).value_or(true);
      spec.firmware = compute::FirmwareBoot{.variables = fs::path(attached->path).parent_path().string() + "/qemu.nvram",
                                            .secure_boot = wanted};
    }
  }
  auto created = co_await driver(instance->type).create(std::move(spec));
  if (!created) co_return fail(std::move(created).error());
  co_return Result<>{};
}

Task<Result<>> Instances::Impl::remove_guest(Ptr instance) {
  end_file_sessions(instance->uuid);
  co_return co_await driver(instance->type).remove(instance->uuid);
}

}  // namespace virga::engine
