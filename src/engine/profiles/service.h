// The profiles: configuration and devices that instances share. Each project with profiles of its own has a "default" that cannot
// go. Which project's profiles an instance uses says Projects::profiles_of(). Reads are from memory; event loop only.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/task.h"
#include "engine/cache.h"
#include "engine/caller.h"
#include "engine/events/events.h"
#include "model/profile.h"
#include "model/project.h"
#include "store/store.h"

namespace virga::engine {

using ProfilePtr = std::shared_ptr<const Profile>;

class Profiles {
 public:
  Profiles(Store& store, Events& events);

  static std::string key(std::string_view project, std::string_view name);

  /// URLs of the instances that use a profile; must count what is being made right now, too.
  void set_usage(std::function<std::vector<std::string>(std::string_view project, std::string_view name)> usage) {
    usage_ = std::move(usage);
  }
  /// May refuse a profile, or what would make an instance invalid; asked before each is committed. What it returns is kept until
  /// then.
  using Policy = std::function<Result<std::shared_ptr<void>>(const Profile& next)>;
  void set_policy(Policy policy) { policy_ = std::move(policy); }
  /// Called when a profile was made or changed, whoever did it, before the writer goes on. A deleted one had no users.
  void on_change(std::function<void(const std::string& project, const std::string& name)> hook) { on_change_ = std::move(hook); }
  /// Adds the documents of the instances that use a profile, with its new name, to the transaction that renames it. Without it a
  /// profile in use cannot be renamed.
  void on_rename(std::function<Result<>(const Profile& old, const std::string& new_name, Transaction& transaction)> hook) {
    on_rename_ = std::move(hook);
  }

  /// Loads all, and makes the default project's default profile where there is none.
  Task<Result<>> start();
  /// For Projects::set_companions().
  void project_made(const Project& project, Transaction& transaction) const;
  void project_gone(const Project& project, Transaction& transaction) const;

  ProfilePtr find(std::string_view project, std::string_view name) const;
  /// Errors: not_found.
  Result<ProfilePtr> get(std::string_view project, std::string_view name) const;
  /// All these, in the order given: what expands an instance. Errors: not_found, naming the first that is missing.
  Result<std::vector<ProfilePtr>> get_all(std::string_view project, const std::vector<std::string>& names) const;
  /// An empty project: of all projects.
  std::vector<ProfilePtr> list(std::string_view project = {}) const;
  std::vector<std::string> used_by(std::string_view project, std::string_view name) const;

  /// Errors: invalid, exists.
  Task<Result<ProfilePtr>> create(Profile profile, Caller caller);
  struct Update {
    std::string description;
    Config config;
    Devices devices;
  };
  /// Replaces everything but the name. Errors: not_found, conflict, invalid.
  Task<Result<ProfilePtr>> update(std::string project, std::string name, Update update, std::optional<Revision> expected,
                                  Caller caller);
  /// Errors: not_found, exists, denied (the default profile), busy.
  Task<Result<ProfilePtr>> rename(std::string project, std::string name, std::string new_name, Caller caller);
  /// Errors: not_found, denied (the default profile), busy (in use).
  Task<Result<>> remove(std::string project, std::string name, Caller caller);

 private:
  Store& store_;
  Events& events_;
  Cache<Profile> cache_;
  std::function<std::vector<std::string>(std::string_view, std::string_view)> usage_;
  Policy policy_;
  std::function<void(const std::string&, const std::string&)> on_change_;
  std::function<Result<>(const Profile&, const std::string&, Transaction&)> on_rename_;
};

}  // namespace virga::engine
