// The tree of commands as data: names, flags, help texts and the function behind each leaf. Parsing follows what users of the incus
// command are used to: flags anywhere behind the verb, "-fvalue", "--flag=value", "--" ends them, list flags may be repeated.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace virga::cli {

class App;

struct Flag {
  enum class Kind {
    boolean,
    text,
    integer,
    list,           ///< may be given several times; each is one entry
    optional_text,  ///< "--flag" alone means its fallback
  };
  using enum Kind;
  std::string_view name = {};
  char letter = 0;
  Kind kind = boolean;
  std::string_view help = {};
  std::string_view fallback = {};  ///< what a flag that is not given means; shown in the help
};

/// What stands behind the verb.
class Args {
 public:
  std::vector<std::string> words;

  std::size_t size() const noexcept { return words.size(); }
  const std::string& operator[](std::size_t i) const { return words[i]; }
  /// The word at `i`, or an empty one.
  std::string word(std::size_t i) const { return i < words.size() ? words[i] : std::string(); }
  bool has(std::string_view flag) const;
  /// The last value given, or the flag's fallback.
  std::string text(std::string_view flag) const;
  std::int64_t integer(std::string_view flag) const;
  const std::vector<std::string>& list(std::string_view flag) const;

 private:
  friend struct Parser;
  std::map<std::string, std::vector<std::string>, std::less<>> given_;
  std::map<std::string, std::string, std::less<>> fallbacks_;
};

inline constexpr int any_number = -1;

struct Command {
  std::string_view use = {};  ///< "launch [<remote>:]<image> [<name>]"; the first word is the name
  std::string_view summary = {};
  std::vector<std::string_view> aliases = {};
  std::string_view description = {};  ///< behind the summary in the command's own help
  std::string_view examples = {};
  std::vector<Flag> flags = {};
  int least = 0;  ///< words, apart from flags
  int most = 0;
  std::function<Result<>(App&, const Args&)> run = {};
  std::vector<Command> children = {};
  bool hidden = false;
  bool own_remotes = false;  ///< gets its words with the remotes in them: it works on several servers at once

  std::string_view name() const { return use.substr(0, use.find(' ')); }
};

struct Parsed {
  std::vector<const Command*> path;  ///< from the root to the command that was named
  Args args;
  bool help = false;
};

const std::vector<Flag>& global_flags();

/// Errors: invalid (unknown command or flag, missing value, wrong number of words), with a suggestion as hint where one is near.
Result<Parsed> parse(const Command& root, const std::vector<std::string>& arguments);
/// The command below `root` that these words name. Errors: not_found.
Result<std::vector<const Command*>> find_command(const Command& root, const std::vector<std::string>& words);
std::string help_text(const std::vector<const Command*>& path);
/// "virga config device add".
std::string full_name(const std::vector<const Command*>& path);

}  // namespace virga::cli
