// What profiles, pools, networks and projects have in common: an object with a configuration that is shown, changed key by key,
// edited as YAML, renamed and deleted by the same verbs.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "apps/virga/app.h"
#include "apps/virga/command.h"
#include "apps/virga/document.h"

namespace virga::cli {

struct Resource {
  std::string_view noun;                   ///< "storage pool", in messages
  std::string_view word;                   ///< "pool", in usage lines
  std::string_view group;                  ///< "storage": the command group
  std::string_view base;                   ///< "/1.0/storage-pools"
  std::vector<std::string_view> editable;  ///< the fields of a PUT
  std::vector<std::string_view> shown;     ///< the fields of `show`, in order

  Url url(App& app, const std::string& name) const { return app.url(base).segment(name); }
  /// "Storage pool": the noun at the start of a sentence.
  std::string title() const;
};

/// The fields of an object that a PUT takes back.
json::object editable_part(const Resource& resource, const json::object& object);
/// Changes an object by compare-and-set on its ETag. Errors: conflict (somebody else changed it meanwhile), and what `change` says.
Result<> update(App& app, const Resource& resource, const std::string& name,
                const std::function<Result<>(json::object& editable)>& change);

Command show_command(const Resource& resource);
Command get_command(const Resource& resource);
Command set_command(const Resource& resource);
Command unset_command(const Resource& resource);
Command edit_command(const Resource& resource);
Command delete_command(const Resource& resource);
Command rename_command(const Resource& resource);

/// Puts `settings` into (or, for `unset`, takes the keys out of) the configuration, or the properties with -p.
Result<> apply_settings(json::object& editable, const KeyValues& settings, bool property);
Result<> remove_setting(json::object& editable, const std::string& key, bool property);
std::string setting_text(const json::object& config, const std::string& key);

}  // namespace virga::cli
