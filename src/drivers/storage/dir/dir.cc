#include "drivers/storage/dir/dir.h"

#include <fmt/format.h>

#include <map>
#include <set>

#include "base/log.h"
#include "drivers/storage/dir/layout.h"
#include "drivers/storage/dir/snapshot_ops.h"
#include "io/file.h"

namespace virga::storage {
namespace {

using dir::Layout;

VolumeId image_id(std::string fingerprint) {
  return {.kind = VolumeKind::image, .project = {}, .name = std::move(fingerprint)};
}

class DirDriver final : public Driver, public ImageOps, public CloneOps, public CopyOps {
 public:
  DirDriver(std::string root, BlockingPool& pool, std::string worker)
      : layout_(std::move(root)), pool_(pool), snapshots_(layout_, pool, long_work_, std::move(worker)) {}

  const DriverInfo& info() const noexcept override { return info_; }
  ImageOps* images() noexcept override { return this; }
  CloneOps* clones() noexcept override { return this; }
  SnapshotOps* snapshots() noexcept override { return &snapshots_; }
  CopyOps* copies() noexcept override { return this; }

  Task<Result<>> open() override {
    auto found = co_await long_work_.run([this]() -> Result<dir::Scan> {
      VIRGA_CHECK(dir::prepare(layout_));
      return dir::scan(layout_);
    });
    if (!found) co_return fail(std::move(found).error());
    images_.clear();
    keep_images_ = found->damaged;
    for (const auto& [fingerprint, image] : found->images) images_[fingerprint].deleted = image.deleted;
    for (const auto& volume : found->volumes) {
      if (volume.image.empty()) continue;
      if (!images_.contains(volume.image))
        log::warn("{}: its image '{}' is missing in the pool at '{}'", to_string(volume.info.id), volume.image, layout_.root());
      images_[volume.image].clones.insert(volume.info.id);
    }
    std::vector<std::string> known;
    known.reserve(images_.size());
    for (const auto& [fingerprint, image] : images_) known.push_back(fingerprint);
    for (auto& fingerprint : known) VIRGA_CO_CHECK(co_await reap(std::move(fingerprint)));
    co_return Result<>{};
  }

  Task<Result<>> destroy() override {
    auto found = co_await list();
    if (!found && found.error().kind() == ErrorKind::not_found) co_return Result<>{};
    if (!found) co_return fail(std::move(found).error());
    if (!found->empty()) co_return fail(ErrorKind::busy, fmt::format("the pool still holds {}", to_string(found->front().id)));
    co_return co_await pool_.run([this] { return dir::take_away(layout_); });
  }

  Task<Result<>> create(VolumeSpec spec) override { return make(std::move(spec), {}); }
  Task<Result<>> from_image(VolumeSpec spec, std::string fingerprint) override {
    return make(std::move(spec), std::move(fingerprint));
  }

  Task<Result<>> copy(VolumeSpec spec, CopySource from, std::optional<IdShift> shift,
                      std::shared_ptr<TransferControl> control) override {
    return copy_from(std::move(spec), std::move(from), shift, false, std::move(control));
  }
  Task<Result<>> refresh(VolumeSpec spec, CopySource from, std::optional<IdShift> shift,
                         std::shared_ptr<TransferControl> control) override {
    return copy_from(std::move(spec), std::move(from), shift, true, std::move(control));
  }

  Task<Result<>> remove(VolumeId id) override {
    VIRGA_CO_CHECK(check_id(id));
    if (id.kind == VolumeKind::image) co_return co_await remove_image(std::move(id.name));
    VIRGA_CO_CHECK(co_await long_work_.run([this, id] { return dir::remove_volume(layout_, id); }));
    co_return co_await release(id);
  }

  Task<Result<>> rename(VolumeId from, VolumeId to) override {
    VIRGA_CO_CHECK(check_id(from));
    VIRGA_CO_CHECK(check_id(to));
    VIRGA_CO_CHECK(co_await pool_.run([this, from, to] { return dir::rename_volume(layout_, from, to); }));
    for (auto& [fingerprint, image] : images_)
      if (image.clones.erase(from) > 0) image.clones.insert(to);
    co_return Result<>{};
  }

  Task<Result<std::vector<VolumeInfo>>> list() override {
    auto found = co_await pool_.run([this] { return dir::scan(layout_); });
    if (!found) co_return fail(std::move(found).error());
    std::vector<VolumeInfo> out;
    for (auto& volume : found->volumes) out.push_back(std::move(volume.info));
    for (auto& [fingerprint, image] : found->images)
      if (!image.deleted) out.push_back({.id = image_id(fingerprint), .content = image.content});
    co_return out;
  }

  Task<Result<Attachment>> attach(VolumeId id, std::optional<IdShift> shift) override {
    VIRGA_CO_CHECK(check_id(id));
    if (id.kind == VolumeKind::image) co_return fail(ErrorKind::unsupported, "images are not attached, they are cloned");
    co_return co_await pool_.run([this, id, shift] { return dir::attach_volume(layout_, id, shift); });
  }
  Task<Result<>> detach(VolumeId id) override {
    VIRGA_CO_CHECK(check_id(id));
    co_return co_await pool_.run([this, id] { return dir::detach_volume(layout_, id); });
  }
  Task<Result<Usage>> usage(VolumeId id) override {
    VIRGA_CO_CHECK(check_id(id));
    co_return co_await long_work_.run([this, id] { return dir::volume_usage(layout_, id); });
  }
  Task<Result<Usage>> pool_usage() override {
    co_return co_await pool_.run([this] { return dir::file_system_usage(layout_.root()); });
  }

  Task<Result<std::string>> stage(std::string fingerprint) override {
    VIRGA_CO_CHECK(check_id(image_id(fingerprint)));
    VIRGA_CO_CHECK(co_await long_work_.run([this, fingerprint] { return dir::stage_image(layout_, fingerprint); }));
    co_return layout_.stage(fingerprint);
  }
  Task<Result<>> publish(std::string fingerprint, ContentType content) override {
    VIRGA_CO_CHECK(check_id(image_id(fingerprint)));
    const bool was_deleted = images_.contains(fingerprint) && images_[fingerprint].deleted;
    if (was_deleted) {
      if (images_[fingerprint].removing) co_return fail(ErrorKind::busy, fmt::format("image '{}' is being removed", fingerprint));
      images_[fingerprint].deleted = false;  // its data is there; the last clone that goes meanwhile must not take it along
    }
    auto published =
        co_await long_work_.run([this, fingerprint, content] { return dir::publish_image(layout_, fingerprint, content); });
    if (published) {
      images_[fingerprint].deleted = false;
    } else if (was_deleted) {
      images_[fingerprint].deleted = true;
      VIRGA_CO_CHECK(co_await reap(fingerprint));
    }
    co_return published;
  }
  Task<Result<>> discard_stage(std::string fingerprint) override {
    VIRGA_CO_CHECK(check_id(image_id(fingerprint)));
    co_return co_await long_work_.run([this, fingerprint] { return io::remove_tree(layout_.stage(fingerprint)); });
  }
  Result<std::string> path(const std::string& fingerprint) const override {
    auto it = images_.find(fingerprint);
    if (it == images_.end() || it->second.deleted || it->second.removing)
      return fail(ErrorKind::not_found, fmt::format("image '{}' is not in this pool", fingerprint));
    return layout_.image(fingerprint);
  }
  /// What the reader of images has unpacked: plain files, of which it has bounded number and size.
  Result<std::map<std::string, std::string>> templates(const std::string& fingerprint) const override {
    VIRGA_TRY(const auto image, path(fingerprint));
    const auto directory = image + "/templates";
    std::map<std::string, std::string> out;
    Bytes room = Bytes(8) << 20;  // an image that an earlier version took in may have more
    for (const auto& name : io::list_directory(directory).value_or(std::vector<std::string>())) {
      VIRGA_TRY(auto text, io::read_file(directory + "/" + name, 1u << 20));
      if (text.size() > room)
        return fail(ErrorKind::invalid, fmt::format("the templates of image '{}' are too large", fingerprint));
      room -= text.size();
      out[name] = std::move(text);
    }
    return out;
  }

 private:
  struct Image {
    bool deleted = false;  ///< out of the lists, kept until the last clone goes
    bool removing = false;
    std::set<VolumeId> clones;
  };

  Task<Result<>> make(VolumeSpec spec, std::string fingerprint) {
    VIRGA_CO_CHECK(check_id(spec.id));
    if (!fingerprint.empty()) {
      VIRGA_CO_CHECK(path(fingerprint));
      images_[fingerprint].clones.insert(spec.id);  // before the work, so that the image stays meanwhile
    }
    auto made = co_await pool_.run([this, spec, fingerprint] { return dir::make_volume(layout_, spec, fingerprint); });
    // A volume of that name that was there before keeps the image it has.
    if (!made && !fingerprint.empty()) {
      auto kept = co_await pool_.run([this, spec] { return dir::backing_of(layout_.volume(spec.id)); });
      if (kept && *kept != fingerprint) VIRGA_CO_CHECK(co_await release(spec.id, fingerprint));
    }
    co_return made;
  }

  Task<Result<>> copy_from(VolumeSpec spec, CopySource from, std::optional<IdShift> shift, bool over,
                           std::shared_ptr<TransferControl> control) {
    VIRGA_CO_CHECK(check_id(spec.id));
    VIRGA_CO_CHECK(check_id(from.id));
    if (!from.snapshot.empty()) VIRGA_CO_CHECK(check_snapshot_name(from.snapshot));
    auto* other = dynamic_cast<DirDriver*>(from.driver);
    if (other == nullptr) co_return fail(ErrorKind::unsupported, "driver 'dir' cannot copy volumes of other drivers");
    // Much data: not among the threads that mounts wait for.
    if (!copying_) copying_ = std::make_unique<BlockingPool>("copies", 2);
    VIRGA_CO_TRY(const auto image, co_await pool_.run([&] { return dir::backing_of(other->layout_.volume(from.id)); }));
    // Of what is there under that name, whether it is to be replaced or is in the way.
    VIRGA_CO_TRY(const auto before, co_await pool_.run([&] { return dir::backing_of(layout_.volume(spec.id)); }));
    Result<> done;
    if (!image.empty()) done = co_await hold_image(image, *other, spec.id, control);
    if (done)
      done = co_await copying_->run([&] { return dir::copy_volume(layout_, spec, other->layout_, from, shift, over, *control); });
    // The one that is not used after all.
    if (!done && image != before && !image.empty()) VIRGA_CO_CHECK(co_await release(spec.id, image));
    if (done && over && image != before && !before.empty()) VIRGA_CO_CHECK(co_await release(spec.id, before));
    co_return done;
  }

  /// Makes sure that an image is here for `user`, from another pool where it must be.
  Task<Result<>> hold_image(std::string fingerprint, DirDriver& other, VolumeId user, std::shared_ptr<TransferControl> control) {
    const auto [entry, fresh] = images_.try_emplace(fingerprint);
    auto& here = entry->second;
    if (fresh) here.deleted = &other != this;  // nobody asked for the image itself
    if (here.removing) co_return fail(ErrorKind::busy, fmt::format("image '{}' is being removed", fingerprint));
    here.clones.insert(std::move(user));  // before the work, so that the image stays meanwhile
    if (&other == this) co_return Result<>{};
    co_return co_await copying_->run([&] { return dir::copy_image(layout_, other.layout_, fingerprint, *control); });
  }

  Task<Result<>> release(VolumeId id) {
    std::vector<std::string> held;
    for (const auto& [fingerprint, image] : images_)
      if (image.clones.contains(id)) held.push_back(fingerprint);
    for (const auto& fingerprint : held) VIRGA_CO_CHECK(co_await release(id, fingerprint));
    co_return Result<>{};
  }
  Task<Result<>> release(VolumeId id, std::string fingerprint) {
    if (auto it = images_.find(fingerprint); it != images_.end()) it->second.clones.erase(id);
    co_return co_await reap(std::move(fingerprint));
  }

  Task<Result<>> remove_image(std::string fingerprint) {
    auto it = images_.find(fingerprint);
    if (it == images_.end() || it->second.deleted || it->second.removing) co_return Result<>{};
    it->second.deleted = true;
    if (keep_images_ || !it->second.clones.empty()) {
      auto marked = co_await pool_.run([this, fingerprint] { return dir::mark_deleted(layout_, fingerprint); });
      if (!marked && marked.error().kind() != ErrorKind::not_found) {  // not found: the last clone went meanwhile and took it along
        images_[fingerprint].deleted = false;
        co_return marked;
      }
    }
    co_return co_await reap(std::move(fingerprint));
  }

  /// Removes an image that is deleted and has no clones left.
  Task<Result<>> reap(std::string fingerprint) {
    auto it = images_.find(fingerprint);
    if (keep_images_ || it == images_.end() || !it->second.deleted || it->second.removing || !it->second.clones.empty())
      co_return Result<>{};
    it->second.removing = true;
    auto gone = co_await long_work_.run(
        [this, fingerprint] { return dir::discard(layout_, VolumeKind::image, layout_.image(fingerprint)); });
    if (gone) {
      images_.erase(fingerprint);
    } else {
      images_[fingerprint].removing = false;
    }
    co_return gone;
  }

  const DriverInfo info_{.name = "dir", .version = "1", .remote = false};
  const Layout layout_;
  BlockingPool& pool_;
  dir::LongWork long_work_;
  dir::Snapshots snapshots_;
  std::unique_ptr<BlockingPool> copying_;
  std::map<std::string, Image> images_;
  bool keep_images_ = false;  ///< a damaged volume may be the clone of any of them
};

}  // namespace

std::unique_ptr<Driver> make_dir_driver(std::string root, BlockingPool& pool, std::string worker) {
  return std::make_unique<DirDriver>(std::move(root), pool, std::move(worker));
}

}  // namespace virga::storage
