// The one place where limits.* and restricted.* of projects are held against what is about to be committed. Every path that makes
// or changes an instance (create, update, patch, profile edit, project edit, move, and those to come: copy, import, restore) ends
// here with the merged object; handlers check nothing. Event loop only.
//
// From check() to the end of the commit others may be checked too: the Hold keeps what was let through counted until then.
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "model/instance.h"
#include "model/profile.h"
#include "model/project.h"
#include "model/project_limits.h"

namespace virga::engine {

class Policy {
 public:
  using InstancePtr = std::shared_ptr<const Instance>;
  using ProjectPtr = std::shared_ptr<const Project>;
  using FindProject = std::function<ProjectPtr(std::string_view name)>;

  explicit Policy(FindProject find) : find_(std::move(find)) {}
  Policy(const Policy&) = delete;
  Policy& operator=(const Policy&) = delete;

  // --- who holds what in a project tells it here
  /// All instances of a project, with those being made right now.
  void set_instances(std::function<std::vector<InstancePtr>(const std::string& project)> instances) {
    instances_ = std::move(instances);
  }
  /// Adds what a service keeps in the project besides instances: networks, images, custom volumes.
  void add_contents(std::function<void(const std::string& project, Amounts& sum)> contents) {
    contents_.push_back(std::move(contents));
  }

  /// What was let through stays counted as long as this lives.
  using Hold = std::shared_ptr<void>;

  // --- checks. Errors: denied (limit or restriction, named), invalid (an instance that cannot be counted), not_found (project).
  /// Instances of any projects as they would be: new ones, and new versions of those that are there (by uuid).
  Result<Hold> check(std::vector<InstancePtr> proposed);
  Result<Hold> check(const Instance& proposed) { return check({std::make_shared<const Instance>(proposed)}); }
  /// Something that is not an instance: {"networks", 1}, {"disk", bytes}, {"disk.pool.fast", bytes}.
  Result<Hold> check(const std::string& project, const Amounts& more);
  /// Whether snapshots may be made in a project (restricted.snapshots).
  Result<> check_snapshot(const std::string& project) const;
  /// Whether backups may be made in a project (restricted.backups).
  Result<> check_backup(const std::string& project) const;
  /// A profile in the project it belongs to. Its instances are check()'s.
  Result<> check(const Profile& profile) const;
  /// A new version of a project against all that is in it. Counted as the project's own, beside the old one, until let go.
  Result<Hold> check(const Project& old, const Project& next);

  /// What is used now.
  Amounts used(const std::string& project) const;

 private:
  /// `key`: of a restriction that is "allow" or "block".
  Result<> allowed(const std::string& project, std::string_view what, const char* key) const;
  struct Proposal {
    std::vector<InstancePtr> instances;
    std::string project;  ///< of `more`
    Amounts more;
    std::shared_ptr<const Project> edited;
  };
  Hold hold(Proposal proposal);
  /// The project as it is, and as those who edit it right now want it.
  std::vector<ProjectPtr> versions(const std::string& name) const;
  /// The sum of what is there, but for the instances that `except` replaces, with what is under way.
  Amounts count(const std::string& project, const std::vector<InstancePtr>& except) const;

  FindProject find_;
  std::function<std::vector<InstancePtr>(const std::string&)> instances_;
  std::vector<std::function<void(const std::string&, Amounts&)>> contents_;
  std::shared_ptr<std::list<Proposal>> under_way_ = std::make_shared<std::list<Proposal>>();
};

}  // namespace virga::engine
