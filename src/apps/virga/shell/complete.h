// What can stand next on a command line. The tree of commands is the one table: a word's place in the usage line says what it names
// ("<instance>"), and a flag's name what its value is. Looking up live names is behind Names, so that the rest is pure.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "apps/virga/command.h"
#include "apps/virga/shell/alias.h"

namespace virga::cli {

struct Candidate {
  std::string text;
  std::string about = {};
  friend bool operator==(const Candidate&, const Candidate&) = default;
};

/// What names of a kind there are.
struct NameRequest {
  std::string_view kind;           ///< "instance", "pool", "key", ...: the word between the angle brackets
  std::vector<std::string> path;   ///< the command, without the program: {"config", "set"}
  std::vector<std::string> words;  ///< behind it, before the one that is completed
  std::string project;             ///< as given with --project
  std::string remote;              ///< in front of the word; empty: the default one
};
using Names = std::function<std::vector<Candidate>(const NameRequest&)>;

struct Completion {
  std::vector<Candidate> candidates;  ///< all begin with what is there
  bool files = false;                 ///< the shell may offer file names too
};

/// `words` are those behind the program's name; the last one is being written and may be empty.
Completion complete(const Command& root, const Aliases& aliases, std::vector<std::string> words, const Names& names);

/// What the words of a usage line name, by place: "[<remote>:]<image> [<remote>:][<name>]" gives {image, name}.
struct Placeholder {
  std::string kind;
  bool remote = false;   ///< "remote:" may stand in front
  bool repeats = false;  ///< and all that follow are the same
  bool assigns = false;  ///< "<key>=<value>"
};
std::vector<Placeholder> placeholders(std::string_view use);

/// Live names from the daemon; empty where it does not answer.
Names live_names(App& app);

}  // namespace virga::cli
