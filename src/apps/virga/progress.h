// One line on standard error that is written over while something long goes on; nothing where it is not a terminal or with --quiet.
#pragma once

#include <string>
#include <string_view>

#include "base/json.h"

namespace virga::cli {

class Progress {
 public:
  /// `prefix` stands in front of what an operation tells: "Retrieving image".
  Progress(bool enabled, std::string prefix) : enabled_(enabled), prefix_(std::move(prefix)) {}
  ~Progress() { clear(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  bool enabled() const noexcept { return enabled_; }
  void show(std::string_view text);
  /// Shows what the operation's metadata says: "download_progress" and the like.
  void show(const json::object& operation);
  void clear();

 private:
  bool enabled_;
  std::string prefix_;
  std::string shown_;
};

/// The first text of the operation's metadata whose key ends with "progress"; empty where there is none.
std::string progress_text(const json::object& operation);

}  // namespace virga::cli
