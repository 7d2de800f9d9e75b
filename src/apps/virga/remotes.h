// Which words of a command name a remote. A command says it in its usage line ("[<remote>:]<instance>"), and gets its words
// without: verbs speak to "the" daemon, and the command is run once for each remote that its words name. Pure.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace virga::cli {

struct RemoteWords {
  std::string remote;
  std::vector<std::string> words;
};

/// One entry for each remote, in the order of the words; words that name none belong to `fallback`. Errors: invalid (words of one
/// command that cannot be run apart name several remotes).
Result<std::vector<RemoteWords>> split_by_remote(std::string_view use, const std::vector<std::string>& words,
                                                 const std::string& fallback);

}  // namespace virga::cli
