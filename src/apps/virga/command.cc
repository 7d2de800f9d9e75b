#include "apps/virga/command.h"

#include <fmt/format.h>

#include <algorithm>

#include "apps/virga/elsewhere.h"
#include "apps/virga/suggest.h"
#include "base/units.h"

namespace virga::cli {
namespace {

const Command* child_named(const Command& command, std::string_view word) {
  for (const auto& child : command.children) {
    if (child.name() == word) return &child;
    if (std::find(child.aliases.begin(), child.aliases.end(), word) != child.aliases.end()) return &child;
  }
  return nullptr;
}

tl::unexpected<Error> unknown_command(const std::vector<const Command*>& path, std::string_view word) {
  std::vector<std::string> names;
  for (const auto& child : path.back()->children)
    if (!child.hidden) names.emplace_back(child.name());
  Error error(ErrorKind::invalid, fmt::format("unknown command \"{}\" for \"{}\"", word, full_name(path)));
  auto below = full_name({path.begin() + 1, path.end()});
  if (auto instead = instead_of(below.empty() ? std::string(word) : fmt::format("{} {}", below, word)); !instead.empty())
    return fail(std::move(error).with_hint(std::string(instead)));
  if (auto near = nearest(word, names); !near.empty())
    return fail(std::move(error).with_hint(fmt::format("Did you mean this?\n\t{}", near)));
  return fail(std::move(error).with_hint(fmt::format("{} --help shows what there is", full_name(path))));
}

}  // namespace

bool Args::has(std::string_view flag) const {
  auto it = given_.find(flag);
  return it != given_.end() && it->second.back() != "false";
}

std::string Args::text(std::string_view flag) const {
  if (auto it = given_.find(flag); it != given_.end()) return it->second.back();
  auto it = fallbacks_.find(flag);
  return it == fallbacks_.end() ? std::string() : it->second;
}

std::int64_t Args::integer(std::string_view flag) const {
  return parse_integer(text(flag), INT64_MIN, INT64_MAX).value_or(0);  // parse() has checked it
}

const std::vector<std::string>& Args::list(std::string_view flag) const {
  static const std::vector<std::string> none;
  auto it = given_.find(flag);
  return it == given_.end() ? none : it->second;
}

const std::vector<Flag>& global_flags() {
  static const std::vector<Flag> flags = {
      {"debug", 0, Flag::boolean, "Show all debug messages"},
      {"force-local", 0, Flag::boolean, "Force using the local unix socket"},
      {"help", 'h', Flag::boolean, "Print help"},
      {"project", 0, Flag::text, "Override the source project"},
      {"quiet", 'q', Flag::boolean, "Don't show progress information"},
      {"target", 0, Flag::text, "Cluster member name (only where the server is clustered)"},
      {"verbose", 'v', Flag::boolean, "Show all information messages"},
      {"version", 0, Flag::boolean, "Print version number"},
  };
  return flags;
}

std::string full_name(const std::vector<const Command*>& path) {
  std::string out;
  for (const auto* command : path) {
    if (!out.empty()) out += ' ';
    out += command->name();
  }
  return out;
}

struct Parser {
  const std::vector<std::string>& in;
  Parsed out;
  std::size_t at = 0;

  const Command& command() const { return *out.path.back(); }

  const Flag* find_flag(std::string_view name) const {
    for (const auto& flag : command().flags)
      if (flag.name == name) return &flag;
    for (const auto& flag : global_flags())
      if (flag.name == name) return &flag;
    return nullptr;
  }

  const Flag* find_letter(char letter) const {
    for (const auto& flag : command().flags)
      if (flag.letter == letter) return &flag;
    for (const auto& flag : global_flags())
      if (flag.letter == letter) return &flag;
    return nullptr;
  }

  Result<> store(const Flag& flag, std::string value) {
    if (flag.kind == Flag::integer && !parse_integer(value, INT64_MIN, INT64_MAX))
      return fail(ErrorKind::invalid,
                  fmt::format("invalid argument \"{}\" for \"--{}\" flag: a whole number is expected", value, flag.name));
    if (flag.kind == Flag::boolean) {
      auto truth = parse_bool(value);
      if (!truth)
        return fail(ErrorKind::invalid,
                    fmt::format("invalid argument \"{}\" for \"--{}\" flag: true or false is expected", value, flag.name));
      value = *truth ? "true" : "false";
    }
    if (flag.name == "help") out.help = true;
    out.args.given_[std::string(flag.name)].push_back(std::move(value));
    return {};
  }

  Result<std::string> following_value(const std::string& shown) {
    if (at + 1 >= in.size()) return fail(ErrorKind::invalid, fmt::format("flag needs an argument: {}", shown));
    return in[++at];
  }

  /// Mostly the flag was meant for the program in the guest.
  std::string flags_hint() const {
    const auto name = full_name(out.path);
    if (command().name() == "exec" && out.args.words.size() > 1)
      return "flags of the command itself stand behind --: virga exec c1 -- ls -l";
    return fmt::format("{} --help shows the flags there are", name);
  }

  Result<> long_flag(std::string_view word) {
    auto equals = word.find('=');
    auto name = word.substr(2, equals == std::string_view::npos ? equals : equals - 2);
    const auto* flag = find_flag(name);
    if (flag == nullptr) {
      std::vector<std::string> names;
      for (const auto& f : command().flags) names.emplace_back(f.name);
      Error error(ErrorKind::invalid, fmt::format("unknown flag: --{}", name));
      if (auto near = nearest(name, names); !near.empty())
        return fail(std::move(error).with_hint(fmt::format("Did you mean this?\n\t--{}", near)));
      return fail(std::move(error).with_hint(flags_hint()));
    }
    if (equals != std::string_view::npos) return store(*flag, std::string(word.substr(equals + 1)));
    if (flag->kind == Flag::boolean) return store(*flag, "true");
    if (flag->kind == Flag::optional_text) return store(*flag, std::string(flag->fallback));
    VIRGA_TRY(auto value, following_value(std::string(word)));
    return store(*flag, std::move(value));
  }

  Result<> short_flags(std::string_view word) {
    for (std::size_t i = 1; i < word.size(); ++i) {
      const auto* flag = find_letter(word[i]);
      if (flag == nullptr)
        return fail(
            Error(ErrorKind::invalid, fmt::format("unknown shorthand flag: '{}' in {}", word[i], word)).with_hint(flags_hint()));
      if (flag->kind == Flag::boolean) {
        VIRGA_CHECK(store(*flag, "true"));
        continue;
      }
      if (i + 1 < word.size()) return store(*flag, std::string(word.substr(word[i + 1] == '=' ? i + 2 : i + 1)));
      VIRGA_TRY(auto value, following_value(fmt::format("'{}' in {}", word[i], word)));
      return store(*flag, std::move(value));
    }
    return {};
  }

  Result<> word(const std::string& text) {
    if (command().children.empty()) {
      out.args.words.push_back(text);
      return {};
    }
    const auto* child = child_named(command(), text);
    if (child == nullptr) return unknown_command(out.path, text);
    out.path.push_back(child);
    return {};
  }

  Result<> run() {
    bool only_words = false;
    for (; at < in.size(); ++at) {
      const std::string& text = in[at];
      if (only_words || text.size() < 2 || text[0] != '-') {
        VIRGA_CHECK(word(text));
      } else if (text == "--") {
        only_words = true;
      } else if (text[1] == '-') {
        VIRGA_CHECK(long_flag(text));
      } else {
        VIRGA_CHECK(short_flags(text));
      }
    }
    for (const auto& flag : command().flags) out.args.fallbacks_.emplace(flag.name, flag.fallback);
    return {};
  }
};

Result<Parsed> parse(const Command& root, const std::vector<std::string>& arguments) {
  Parser parser{.in = arguments, .out = {}};
  parser.out.path.push_back(&root);
  VIRGA_CHECK(parser.run());
  return std::move(parser.out);
}

Result<std::vector<const Command*>> find_command(const Command& root, const std::vector<std::string>& words) {
  std::vector<const Command*> path = {&root};
  for (const auto& word : words) {
    const auto* child = child_named(*path.back(), word);
    if (child == nullptr) return unknown_command(path, word);
    path.push_back(child);
  }
  return path;
}

}  // namespace virga::cli
