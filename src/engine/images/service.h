// Images: import, aliases, look-up, and unpacking into pools once however many instances are made at the same time. Event loop
// only. Reads come from memory. A file for each verb; service.cc has the reads and what happens when the daemon starts.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/task.h"
#include "drivers/image/files.h"
#include "drivers/image/packer.h"
#include "drivers/image/reader.h"
#include "engine/caller.h"
#include "engine/images/server.h"
#include "model/image.h"

namespace virga {
class Store;
}
namespace virga::storage {
class Driver;
}

namespace virga::engine {

class Operation;
class Operations;
class Events;
class Journal;
using OperationPtr = std::shared_ptr<Operation>;

struct ImportImage {
  std::string project = "default";
  std::string metadata_file;  ///< what was uploaded, at a path that new_upload_path() gave: the unified tarball or the metadata
  std::string rootfs_file;    ///< of a split image; empty: unified
  std::string filename;
  std::string expected_fingerprint;  ///< empty: whatever it is
  bool is_public = false;
  bool auto_update = false;
  Config properties;  ///< over those of the image's own metadata
  std::vector<std::string> profiles;
  std::vector<std::pair<std::string, std::string>> aliases;  ///< name, description; one that is taken for this type is `exists`
  std::optional<WallTime> expires_at;
  bool cached = false;  ///< fetched for an instance
  std::optional<UpdateSource> update_source = {};
};

/// An image of a server. The files of `image` are downloaded.
struct FetchImage {
  ImageSource source;
  ImportImage image;
};

struct UpdateImage {
  std::optional<bool> is_public;
  std::optional<bool> auto_update;
  std::optional<Config> properties;  ///< PATCH: an empty value takes the key away
  std::optional<std::vector<std::string>> profiles;
  std::optional<WallTime> expires_at;
  bool replace = true;  ///< PUT
};

class Images {
 public:
  using Ptr = std::shared_ptr<const Image>;
  using AliasPtr = std::shared_ptr<const ImageAlias>;
  struct Parts {
    Store& store;
    Journal& journal;
    Operations& operations;
    Events& events;
    image::Reader& reader;
    image::Files& files;
    const Clock& clock;
    /// The project whose images a project sees: itself, or "default" where features.images is false. Errors: not_found.
    std::function<Result<std::string>(const std::string&)> project_of;
    /// All open pools; unpacked copies are removed from them with the image.
    std::function<std::vector<storage::Driver*>()> pools;
    image::Limits limits = {};
    image::Packer* packer = nullptr;    ///< null: instances cannot be published here
    remote::Driver* remotes = nullptr;  ///< with `blocking`: servers that images are fetched from; null: none
    BlockingPool* blocking = nullptr;
    /// The server's setting of that key: images.*; empty: its default.
    std::function<std::string(std::string_view key)> setting = {};
  };

  Images(Parts parts, Executor executor);
  ~Images();

  /// May refuse an image of this size in a project (limits.disk). Asked before it is kept; what it returns lives until then.
  using Room = std::function<Result<std::shared_ptr<void>>(const std::string& project, Bytes size)>;
  void set_room(Room room);

  // Reads. Every `project` is the caller's; where features.images is false the default project's images are meant.
  /// In order of project and fingerprint; absent: of all projects.
  std::vector<Ptr> list(const std::optional<std::string>& project) const;
  /// By fingerprint, or the beginning of one that is unique. Errors: not_found, invalid (several begin so).
  Result<Ptr> find(const std::string& project, std::string_view fingerprint) const;
  /// In order of name and type; absent: of all projects.
  std::vector<AliasPtr> aliases(const std::optional<std::string>& project) const;
  std::vector<AliasPtr> aliases_of(const Image& image) const;
  /// Without a type the container's alias is preferred. Errors: not_found.
  Result<AliasPtr> find_alias(const std::string& project, std::string_view name, std::optional<InstanceType> type = {}) const;
  /// What an instance of `type` is to be made from; exactly one of alias and fingerprint is given. Where the fingerprint is of the
  /// other type and one of its aliases stands for an image of `type` too, that one is meant: the stock client resolves an alias
  /// without regard to the type. Errors: not_found, invalid.
  Result<Ptr> resolve(const std::string& project, std::string_view alias, std::string_view fingerprint, InstanceType type) const;
  /// For export. The second is empty unless the image is split.
  std::pair<std::string, std::string> files_of(const Image& image) const;

  // Changes.
  /// A path for an upload: the API creates the file (O_EXCL, 0600), fills it and gives it to import() or discard_upload().
  std::string new_upload_path();
  Task<> discard_upload(std::string path);
  /// Whether the project may have an image of this size besides what it has. Errors: denied (its limit), not_found.
  Result<> check_room(const std::string& project, Bytes size) const;
  /// For what comes or goes in pieces, see image::Files.
  Task<Result<>> append_upload(std::string path, std::string bytes);
  Task<Result<Bytes>> file_size(std::string path);
  Task<Result<std::string>> read_file(std::string path, Bytes offset, std::size_t most);
  /// Owns the uploaded files from here on, also where it fails. Operation metadata: fingerprint, size.
  Result<OperationPtr> import(Caller caller, ImportImage request);
  /// Operation metadata: fingerprint, size, download_progress. An image that is here already is success.
  Result<OperationPtr> fetch(Caller caller, FetchImage request);
  /// Operation metadata: refreshed. The newer image takes the old one's aliases and place. Errors: not_found.
  Result<OperationPtr> refresh(const Caller& caller, const std::string& project, std::string_view fingerprint);
  Result<OperationPtr> remove(const Caller& caller, const std::string& project, std::string_view fingerprint);
  /// `expected`: the revision the caller saw (If-Match). Errors: not_found, conflict, invalid.
  Task<Result<>> update(Caller caller, std::string project, std::string fingerprint, UpdateImage request,
                        std::optional<std::int64_t> expected);
  /// Errors: not_found (the target), exists, invalid.
  Task<Result<>> create_alias(Caller caller, std::string project, std::string name, std::string target, std::string description);
  Task<Result<>> update_alias(Caller caller, std::string project, std::string name, std::optional<std::string> target,
                              std::optional<std::string> description, std::optional<InstanceType> type,
                              std::optional<std::int64_t> expected);
  /// Without a type all aliases of that name are meant, here and below.
  Task<Result<>> rename_alias(Caller caller, std::string project, std::string name, std::string new_name,
                              std::optional<InstanceType> type);
  Task<Result<>> remove_alias(Caller caller, std::string project, std::string name, std::optional<InstanceType> type);

  // For instances.
  /// An import as a part of another operation, which owns nothing of the uploads afterwards, whatever comes of it. Sets the
  /// operation's metadata: fingerprint, size.
  Task<Result<>> import_within(Operation& operation, ImportImage request);
  /// fetch() as a part of another operation; the fingerprint of what is here then.
  Task<Result<std::string>> fetch_within(Operation& operation, FetchImage request);
  /// What fetch() would refuse at once. Errors: invalid, unsupported, not_found (the project).
  Result<> check_fetch(const FetchImage& request) const;
  /// The setting images.compression_algorithm.
  std::string default_compression() const;
  /// The setting backups.compression_algorithm.
  std::string backup_compression() const;
  /// What import() would refuse at once. Errors: invalid, not_found (the project).
  Result<> check_import(const ImportImage& request) const;
  /// For making images of instances. Errors: unsupported.
  Result<image::Packer*> packer() const;
  /// What reads images, and backups of instances.
  image::Reader& reader() const noexcept;
  /// Unpacks the image into the pool unless it is there; calls at the same time share the work. Errors: not_found, invalid,
  /// unavailable.
  Task<Result<>> ensure_unpacked(storage::Driver& pool, std::string fingerprint);
  /// The image's own metadata, which tells of its templates. Errors: not_found, invalid, timeout.
  Task<Result<image::Metadata>> metadata_of(std::string fingerprint);
  /// Notes in memory and, now and then, in the store that an instance was made from it.
  void used(const std::string& project, const std::string& fingerprint);

  // Life of the service. Order: load(), journal.recover(), resume().
  /// Reads the documents and registers how journal rows are taken up again.
  Task<Result<>> load();
  /// Removes files that belong to no image.
  Task<Result<>> resume();
  Task<> stop();
  /// One round of what resume() lets run for ever: cached images that nobody has used for long go, and when it is time, newer ones
  /// are looked for. How long until the next round. For tests, which say what time it is.
  Task<Milliseconds> tend(std::chrono::steady_clock::time_point now);

  struct Impl;

 private:
  Task<> upkeep();
  std::unique_ptr<Impl> impl_;
};

}  // namespace virga::engine
