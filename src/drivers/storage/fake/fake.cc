#include "drivers/storage/fake/fake.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>

namespace virga::storage {

Result<> FakeDriver::enter(const std::string& call, const VolumeId& id) {
  if (calls_.size() < 10'000) calls_.push_back(fmt::format("{} {}", call, to_string(id)));
  if (auto it = failures_.find(call); it != failures_.end()) {
    Error error = it->second;
    failures_.erase(it);
    return fail(std::move(error));
  }
  return check_id(id);
}

void FakeDriver::reap() {
  std::erase_if(images_, [&](const auto& entry) {
    return entry.second.deleted &&
           std::none_of(volumes_.begin(), volumes_.end(), [&](const auto& v) { return v.second.image == entry.first; });
  });
}

Task<Result<>> FakeDriver::open() {
  stages_.clear();
  co_return Result<>{};
}

Task<Result<>> FakeDriver::destroy() {
  const bool images = std::any_of(images_.begin(), images_.end(), [](const auto& i) { return !i.second.deleted; });
  if (!volumes_.empty() || images) co_return fail(ErrorKind::busy, "the pool still holds volumes");
  co_return Result<>{};
}

Result<> FakeDriver::make(const VolumeSpec& spec, std::string image) {
  const bool block = spec.content == ContentType::block;
  if (spec.id.kind == VolumeKind::image) return fail(ErrorKind::internal, "image volumes are published, not created");
  if (spec.id.kind == VolumeKind::container && block)
    return fail(ErrorKind::invalid, fmt::format("{}: a container's root is a file system", to_string(spec.id)));
  if (spec.id.kind == VolumeKind::virtual_machine && !block)
    return fail(ErrorKind::invalid, fmt::format("{}: a virtual machine's root is a disk", to_string(spec.id)));
  if (!block && spec.size)
    return fail(
        Error(ErrorKind::unsupported, fmt::format("{}: key 'size' is not supported", to_string(spec.id))).with_field("size"));
  if (!image.empty()) {
    auto it = images_.find(image);
    if (it == images_.end() || it->second.deleted)
      return fail(ErrorKind::not_found, fmt::format("image '{}' is not in this pool", image));
    if (it->second.content != spec.content) return fail(ErrorKind::invalid, fmt::format("image '{}' is of the other kind", image));
  }
  Volume volume{.content = spec.content, .size = spec.size, .image = std::move(image)};
  auto [it, fresh] = volumes_.emplace(spec.id, volume);
  if (!fresh && !it->second.same_as(volume)) return fail(ErrorKind::exists, fmt::format("{} exists already", to_string(spec.id)));
  return {};
}

Task<Result<>> FakeDriver::create(VolumeSpec spec) {
  VIRGA_CO_CHECK(enter("create", spec.id));
  co_return make(spec, {});
}

Task<Result<>> FakeDriver::from_image(VolumeSpec spec, std::string fingerprint) {
  VIRGA_CO_CHECK(enter("from_image", spec.id));
  co_return make(spec, std::move(fingerprint));
}

Task<Result<>> FakeDriver::copy(VolumeSpec spec, CopySource from, std::optional<IdShift> shift,
                                std::shared_ptr<TransferControl> control) {
  VIRGA_CO_CHECK(enter("copy", spec.id));
  if (volumes_.contains(spec.id)) co_return fail(ErrorKind::exists, fmt::format("{} exists already", to_string(spec.id)));
  volumes_[spec.id].content = spec.content;
  auto done = co_await refresh(spec, std::move(from), shift, std::move(control));
  if (!done) volumes_.erase(spec.id);
  co_return done;
}

Task<Result<>> FakeDriver::refresh(VolumeSpec spec, CopySource from, std::optional<IdShift> /*shift*/,
                                   std::shared_ptr<TransferControl> control) {
  VIRGA_CO_CHECK(enter("refresh", spec.id));
  auto* other = dynamic_cast<FakeDriver*>(from.driver);
  if (other == nullptr) co_return fail(ErrorKind::unsupported, "volumes of another driver cannot be copied");
  auto origin = other->volumes_.find(from.id);
  const bool there = origin != other->volumes_.end() && (from.snapshot.empty() || origin->second.snapshots.contains(from.snapshot));
  if (!there) co_return fail(ErrorKind::not_found, fmt::format("{} does not exist", to_string(from.id)));
  auto target = volumes_.find(spec.id);
  if (target == volumes_.end()) co_return fail(ErrorKind::not_found, fmt::format("{} does not exist", to_string(spec.id)));
  if (attached_.contains(spec.id)) co_return fail(ErrorKind::busy, fmt::format("{} is attached", to_string(spec.id)));
  if (origin->second.content != target->second.content) co_return fail(ErrorKind::invalid, "the volumes are of different kinds");
  if (spec.size && spec.size != origin->second.size)
    co_return fail(Error(ErrorKind::unsupported, "the size of a copied disk cannot change yet").with_field("size"));
  if (control->stop) co_return fail(ErrorKind::cancelled, "cancelled");
  const auto& image = origin->second.image;
  if (!image.empty()) images_.try_emplace(image, Image{.content = origin->second.content, .deleted = true});
  target->second = origin->second;
  if (!from.with_snapshots) target->second.snapshots.clear();
  reap();
  co_return Result<>{};
}

Task<Result<>> FakeDriver::remove(VolumeId id) {
  VIRGA_CO_CHECK(enter("remove", id));
  if (id.kind == VolumeKind::image) {
    if (auto it = images_.find(id.name); it != images_.end()) it->second.deleted = true;
  }
  volumes_.erase(id);
  attached_.erase(id);
  std::erase_if(attached_snapshots_, [&](const auto& a) { return a.first == id; });
  reap();
  co_return Result<>{};
}

Task<Result<>> FakeDriver::rename(VolumeId from, VolumeId to) {
  VIRGA_CO_CHECK(enter("rename", from));
  VIRGA_CO_CHECK(check_id(to));
  if (!volumes_.contains(from)) {
    if (volumes_.contains(to)) co_return Result<>{};
    co_return fail(ErrorKind::not_found, fmt::format("{} does not exist", to_string(from)));
  }
  const bool shown =
      std::any_of(attached_snapshots_.begin(), attached_snapshots_.end(), [&](const auto& a) { return a.first == from; });
  if (shown || attached_.contains(from)) co_return fail(ErrorKind::busy, fmt::format("{} is attached", to_string(from)));
  if (volumes_.contains(to)) co_return fail(ErrorKind::exists, fmt::format("{} exists already", to_string(to)));
  auto node = volumes_.extract(from);
  node.key() = to;
  volumes_.insert(std::move(node));
  co_return Result<>{};
}

Task<Result<std::vector<VolumeInfo>>> FakeDriver::list() {
  std::vector<VolumeInfo> out;
  out.reserve(volumes_.size() + images_.size());
  for (const auto& [id, volume] : volumes_) out.push_back({.id = id, .content = volume.content});
  for (const auto& [fingerprint, image] : images_)
    if (!image.deleted)
      out.push_back({.id = {.kind = VolumeKind::image, .project = {}, .name = fingerprint}, .content = image.content});
  co_return out;
}

Task<Result<Attachment>> FakeDriver::attach(VolumeId id, std::optional<IdShift> shift) {
  VIRGA_CO_CHECK(enter("attach", id));
  auto it = volumes_.find(id);
  if (it == volumes_.end()) co_return fail(ErrorKind::not_found, fmt::format("{} does not exist", to_string(id)));
  const auto path = root_ + "/" + relative_path(id);
  const auto& image = it->second.image;
  if (it->second.content == ContentType::block)
    co_return Attachment{
        .path = path + "/root.qcow2",
        .qcow2 = true,
        .backing = image.empty() ? std::vector<std::string>() : std::vector{root_ + "/images/" + image + "/disk.qcow2"}};
  const auto [at, fresh] = attached_.emplace(id, shift ? shift->base : 0);
  if (!fresh && at->second != (shift ? shift->base : 0))
    co_return fail(ErrorKind::busy, fmt::format("{} is attached with other ids", to_string(id)));
  co_return Attachment{.path = path + "/rootfs"};
}

Task<Result<>> FakeDriver::detach(VolumeId id) {
  VIRGA_CO_CHECK(enter("detach", id));
  attached_.erase(id);
  co_return Result<>{};
}

Task<Result<Usage>> FakeDriver::usage(VolumeId id) {
  VIRGA_CO_CHECK(enter("usage", id));
  const bool image = id.kind == VolumeKind::image && images_.contains(id.name);
  if (!image && !volumes_.contains(id)) co_return fail(ErrorKind::not_found, fmt::format("{} does not exist", to_string(id)));
  co_return Usage{.used = 4096, .total = {}};
}

Task<Result<Usage>> FakeDriver::pool_usage() {
  co_return Usage{.used = Bytes(1) << 30, .total = Bytes(10) << 30};
}

Task<Result<std::string>> FakeDriver::stage(std::string fingerprint) {
  VIRGA_CO_CHECK(enter("stage", {.kind = VolumeKind::image, .project = {}, .name = fingerprint}));
  auto path = root_ + "/.stage-" + fingerprint;
  std::error_code ignored;
  if (std::filesystem::is_directory(root_, ignored)) {
    std::filesystem::remove_all(path, ignored);
    if (::mkdir(path.c_str(), 0700) != 0) co_return fail_errno(errno, "make the stage");
  }
  stages_.insert(std::move(fingerprint));
  co_return path;
}

Task<Result<>> FakeDriver::publish(std::string fingerprint, ContentType content) {
  VIRGA_CO_CHECK(enter("publish", {.kind = VolumeKind::image, .project = {}, .name = fingerprint}));
  const bool there = images_.contains(fingerprint);
  if (!there && !stages_.contains(fingerprint))
    co_return fail(ErrorKind::not_found, fmt::format("image '{}' was not staged", fingerprint));
  if (there) {
    images_[fingerprint].deleted = false;
  } else {
    images_[fingerprint] = {.content = content};
  }
  co_return co_await discard_stage(std::move(fingerprint));
}

Task<Result<>> FakeDriver::discard_stage(std::string fingerprint) {
  std::error_code ignored;
  if (stages_.erase(fingerprint) > 0) std::filesystem::remove_all(root_ + "/.stage-" + fingerprint, ignored);
  co_return Result<>{};
}

Result<std::string> FakeDriver::path(const std::string& fingerprint) const {
  auto it = images_.find(fingerprint);
  if (it == images_.end() || it->second.deleted)
    return fail(ErrorKind::not_found, fmt::format("image '{}' is not in this pool", fingerprint));
  return root_ + "/images/" + fingerprint;
}

Result<FakeDriver::Volume*> FakeDriver::enter_snapshot(const std::string& call, const VolumeId& id, const std::string& snapshot) {
  VIRGA_CHECK(enter(call, id));
  VIRGA_CHECK(check_snapshot_name(snapshot));
  auto it = volumes_.find(id);
  return it == volumes_.end() ? nullptr : &it->second;
}

Task<Result<>> FakeDriver::create(VolumeId id, std::string snapshot) {
  VIRGA_CO_TRY(auto* volume, enter_snapshot("create_snapshot", id, snapshot));
  if (volume == nullptr) co_return fail(ErrorKind::not_found, fmt::format("{} does not exist", to_string(id)));
  volume->snapshots.insert(std::move(snapshot));
  co_return Result<>{};
}

Task<Result<>> FakeDriver::remove(VolumeId id, std::string snapshot) {
  VIRGA_CO_TRY(auto* volume, enter_snapshot("remove_snapshot", id, snapshot));
  if (volume != nullptr) volume->snapshots.erase(snapshot);
  attached_snapshots_.erase({id, snapshot});
  co_return Result<>{};
}

Task<Result<>> FakeDriver::rename(VolumeId id, std::string from, std::string to) {
  VIRGA_CO_TRY(auto* volume, enter_snapshot("rename_snapshot", id, from));
  VIRGA_CO_CHECK(check_snapshot_name(to));
  const bool taken = volume != nullptr && volume->snapshots.contains(to);
  if (volume == nullptr || !volume->snapshots.contains(from)) {
    if (taken) co_return Result<>{};
    co_return fail(ErrorKind::not_found, fmt::format("{} has no snapshot '{}'", to_string(id), from));
  }
  if (taken) co_return fail(ErrorKind::exists, fmt::format("{} has a snapshot '{}' already", to_string(id), to));
  if (attached_snapshots_.contains({id, from})) co_return fail(ErrorKind::busy, fmt::format("snapshot '{}' is attached", from));
  volume->snapshots.erase(from);
  volume->snapshots.insert(std::move(to));
  co_return Result<>{};
}

Task<Result<>> FakeDriver::restore(VolumeId id, std::string snapshot) {
  VIRGA_CO_TRY(auto* volume, enter_snapshot("restore_snapshot", id, snapshot));
  if (volume == nullptr || !volume->snapshots.contains(snapshot))
    co_return fail(ErrorKind::not_found, fmt::format("{} has no snapshot '{}'", to_string(id), snapshot));
  if (attached_.contains(id)) co_return fail(ErrorKind::busy, fmt::format("{} is attached", to_string(id)));
  co_return Result<>{};
}

Task<Result<std::vector<std::string>>> FakeDriver::list(VolumeId id) {
  VIRGA_CO_CHECK(check_id(id));
  auto it = volumes_.find(id);
  if (it == volumes_.end()) co_return fail(ErrorKind::not_found, fmt::format("{} does not exist", to_string(id)));
  co_return std::vector<std::string>(it->second.snapshots.begin(), it->second.snapshots.end());
}

Task<Result<Attachment>> FakeDriver::attach(VolumeId id, std::string snapshot, std::optional<IdShift> /*shift*/) {
  VIRGA_CO_TRY(auto* volume, enter_snapshot("attach_snapshot", id, snapshot));
  if (volume == nullptr || !volume->snapshots.contains(snapshot))
    co_return fail(ErrorKind::not_found, fmt::format("{} has no snapshot '{}'", to_string(id), snapshot));
  const auto path = root_ + "/" + relative_path(id);
  if (volume->content == ContentType::block) co_return Attachment{.path = path + "/" + snapshot + ".qcow2", .qcow2 = true};
  attached_snapshots_.insert({id, snapshot});
  co_return Attachment{.path = path + "/snapshots/" + snapshot + "/rootfs"};
}

Task<Result<>> FakeDriver::detach(VolumeId id, std::string snapshot) {
  VIRGA_CO_CHECK(enter_snapshot("detach_snapshot", id, snapshot));
  attached_snapshots_.erase({id, snapshot});
  co_return Result<>{};
}

Task<Result<Usage>> FakeDriver::usage(VolumeId id, std::string snapshot) {
  VIRGA_CO_TRY(auto* volume, enter_snapshot("usage_snapshot", id, snapshot));
  if (volume == nullptr || !volume->snapshots.contains(snapshot))
    co_return fail(ErrorKind::not_found, fmt::format("{} has no snapshot '{}'", to_string(id), snapshot));
  co_return Usage{.used = 4096, .total = {}};
}

}  // namespace virga::storage
