// The projects: name spaces. "default" is there from the first start and cannot go. Reads are from memory; event loop only.
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
#include "engine/projects/policy.h"
#include "model/project.h"
#include "store/store.h"

namespace virga::engine {

using ProjectPtr = std::shared_ptr<const Project>;

class Projects {
 public:
  Projects(Store& store, Events& events);

  /// Key of the project's document. Who makes something in a project puts expect(key, revision) into his transaction.
  static std::string key(std::string_view name);

  /// URLs of what is in a project, but for its default profile. Must count what is being made right now, too.
  void set_usage(std::function<std::vector<std::string>(std::string_view project)> usage) { usage_ = std::move(usage); }
  /// Documents that are born and die with a project (its default profile) are added to the same transaction.
  struct Companions {
    std::function<void(const Project& made, Transaction& transaction)> made;
    std::function<void(const Project& gone, Transaction& transaction)> gone;
    /// It is renamed, or removed for good (an empty name): who refers to it by name follows.
    std::function<void(const std::string& name, const std::string& new_name, Transaction& transaction)> moved = {};
  };
  void set_companions(Companions companions) { companions_ = std::move(companions); }

  /// Loads all, and makes the default project where there is none.
  Task<Result<>> start();

  ProjectPtr find(std::string_view name) const;
  /// Errors: not_found.
  Result<ProjectPtr> get(std::string_view name) const;
  std::vector<ProjectPtr> list() const;
  /// What used_by shows: set_usage's and the project's default profile.
  std::vector<std::string> used_by(std::string_view name) const;

  /// Whose images, profiles, networks and volumes a project uses: its own name or "default". Errors: not_found.
  Result<std::string> images_of(std::string_view name) const;
  Result<std::string> profiles_of(std::string_view name) const;
  Result<std::string> networks_of(std::string_view name) const;
  Result<std::string> volumes_of(std::string_view name) const;

  /// Limits and restrictions: asked by whoever commits something that counts.
  Policy& policy() noexcept { return policy_; }

  /// Errors: invalid, unsupported, exists.
  Task<Result<ProjectPtr>> create(Project project, Caller caller);
  /// Replaces description and configuration. Errors: not_found, conflict, invalid, busy (features of a project that is in use),
  /// denied (an instance that the new restrictions forbid).
  Task<Result<ProjectPtr>> update(std::string name, std::string description, Config config, std::optional<Revision> expected,
                                  Caller caller);
  /// Errors: not_found, exists, denied (the default project), busy (in use).
  Task<Result<ProjectPtr>> rename(std::string name, std::string new_name, Caller caller);
  /// Errors: not_found, denied (the default project), busy (in use: names some of it).
  Task<Result<>> remove(std::string name, std::optional<Revision> expected, Caller caller);

 private:
  Result<> check_unused(const std::string& name, const char* doing) const;

  Store& store_;
  Events& events_;
  Cache<Project> cache_;
  Policy policy_;
  std::function<std::vector<std::string>(std::string_view)> usage_;
  Companions companions_;
};

}  // namespace virga::engine
