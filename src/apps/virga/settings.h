// The few things the command line remembers between runs, in $XDG_CONFIG_HOME/virga/config.yml or ~/.config/virga/config.yml.
#pragma once

#include <string>

#include "base/error.h"

namespace virga::cli {

struct Settings {
  std::string project;  ///< empty: "default"
};

/// What is missing or unreadable counts as empty.
Settings load_settings();
Result<> save_settings(const Settings& settings);

}  // namespace virga::cli
