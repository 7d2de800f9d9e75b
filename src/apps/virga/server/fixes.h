// What `admin doctor --fix` can do by itself: remedies that change nothing but a setting, a module or a directory. Which ones is
// pure.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "apps/virga/server/checks.h"
#include "base/error.h"

namespace virga::cli {

struct Fix {
  enum class Kind { module, setting, directory, package };
  Kind kind;
  std::vector<std::string> names;  ///< modules, packages, the directory, or the setting's name
  std::string value = {};          ///< of a setting
};

/// The fix that a remedy stands for: "modprobe X", "sysctl K=V", "mkdir DIRECTORY", "apt install P...". Absent: a person has to
/// act.
std::optional<Fix> fix_of(const Finding& finding);
/// Does it, and says what was done. Errors: denied, unavailable, unsupported.
Result<std::string> apply_fix(const Fix& fix);

/// Directories and settings of this host, besides what the kernel can do.
std::vector<Finding> check_host();

}  // namespace virga::cli
