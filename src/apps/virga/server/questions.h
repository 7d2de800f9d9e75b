// What `admin init` asks, and the preseed that the answers make. Pure: who answers is passed in.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/json.h"

namespace virga::cli {

struct Prompt {
  /// Shows a question and returns what was typed. Errors: cancelled (the input has ended).
  std::function<Result<std::string>(const std::string& question)> ask;
  /// Shows what was wrong with an answer.
  std::function<void(const std::string& text)> tell;
};

/// What there is already.
struct HostFacts {
  std::vector<std::string> pools, networks;
  std::vector<std::string> storage_drivers = {"dir"};
};

struct Answers {
  json::object preseed;
  bool print = false;  ///< also show it as YAML
};

Result<Answers> ask_everything(const Prompt& prompt, const HostFacts& facts);

/// Asks until the answer is one; an empty one is the default.
Result<bool> ask_yes_no(const Prompt& prompt, std::string_view question, bool fallback);
Result<std::string> ask_text(const Prompt& prompt, std::string_view question, std::string_view fallback,
                             const std::function<Result<>(const std::string&)>& check = {});

}  // namespace virga::cli
