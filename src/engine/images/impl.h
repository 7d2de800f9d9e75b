// What the images service keeps inside; private to this folder.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "drivers/storage/driver.h"
#include "engine/cache.h"
#include "engine/events/events.h"
#include "engine/images/service.h"
#include "engine/journal/journal.h"
#include "engine/operations/operations.h"
#include "engine/url.h"

namespace virga::engine {

struct Images::Impl {
  /// An image that is being unpacked into a pool; everyone who wants it there waits for the same work.
  struct Unpacking {
    explicit Unpacking(Executor executor) : done(std::move(executor)) {}
    Notification done;
    std::optional<Result<>> result;
    int waiting = 0;
    bool abandoned = false;  ///< nobody waited any more; it is ending
    TaskGroup::Id task = 0;
  };
  using UnpackKey = std::pair<storage::Driver*, std::string>;

  Impl(Parts p, Executor ex)
      : parts(std::move(p)),
        executor(ex),
        images(parts.store, "/images/", decode_image),
        aliases(parts.store, "/image-aliases/", decode_image_alias),
        tasks(ex) {}

  static std::string key(std::string_view project, std::string_view fingerprint) {
    return "/images/" + std::string(project) + "/" + std::string(fingerprint);
  }
  static std::string alias_key(std::string_view project, InstanceType type, std::string_view name) {
    return "/image-aliases/" + std::string(project) + "/" + std::string(to_string(type)) + "/" + std::string(name);
  }
  static std::string alias_url(std::string_view project, std::string_view name) {
    return url({"images", "aliases", name}, project);
  }

  Ptr image(std::string_view project, std::string_view fingerprint) const { return images.find(key(project, fingerprint)); }
  /// Any project's image of that fingerprint; null where there is none.
  Ptr any(std::string_view fingerprint) const;
  /// Images of that fingerprint in other projects.
  bool shared(std::string_view project, std::string_view fingerprint) const;
  std::vector<AliasPtr> named(std::string_view project, std::string_view name, std::optional<InstanceType> type) const;
  /// named(), and where there is none: `tiny/vm` and `tiny/container` mean one kind of `tiny`. The stock client looks an alias up
  /// without saying which kind it is for, and could not reach the other one.
  std::vector<AliasPtr> meant(std::string_view project, std::string_view name, std::optional<InstanceType> type) const;
  /// A conflict in a commit of ours: the ETag's where the caller gave one.
  Task<Result<>> commit(Transaction transaction);

  Task<Result<>> import(Operation& operation, const ImportImage& request);
  Result<Image> compose(const ImportImage& request, const image::Digest& digest, const image::Inspection& inspection) const;
  Procedure import_procedure(std::string id, Image image, std::vector<ImageAlias> new_aliases, std::string metadata,
                             std::string rootfs);
  Procedure remove_procedure(std::string id, std::string project, std::string fingerprint);
  void register_kinds();
  Task<Result<>> remove_now(Operation& operation, Ptr image);

  // --- servers (fetch.cc, refresh.cc)
  std::string setting(std::string_view key, std::string_view fallback) const;
  Result<ImageProtocol*> protocol(const ImageSource& source) const;
  Ptr fetched_before(std::string_view project, const ImageSource& source) const;
  Task<Result<>> adopt(Operation& operation, Ptr old, FetchImage request);
  Task<Result<std::string>> fetch(Operation& operation, FetchImage request);
  Task<> discard_files(ImportImage request);
  Task<Result<bool>> refresh(Operation& operation, Ptr old);
  WallTime expiry_of(const Image& image) const;
  Task<WallTime> prune();
  Task<> update_all();

  Task<> unpack(storage::Driver& pool, std::string fingerprint, std::shared_ptr<Unpacking> job);
  Task<Result<>> unpack_staged(storage::ImageOps& ops, std::string fingerprint);

  Parts parts;
  Room room;
  Executor executor;
  Cache<Image> images;
  Cache<ImageAlias> aliases;
  std::map<UnpackKey, std::shared_ptr<Unpacking>> unpacking;
  std::map<std::string, std::unique_ptr<ImageProtocol>, std::less<>> protocols;  ///< by name
  std::optional<std::chrono::steady_clock::time_point> next_update;              ///< when the servers are looked at again
  std::set<std::string> removing;                                                ///< fingerprints whose files are going
  std::multiset<std::string> importing;                                          ///< fingerprints whose files are coming
  TaskGroup tasks;
};

}  // namespace virga::engine
