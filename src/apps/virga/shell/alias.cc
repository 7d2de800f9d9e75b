#include "apps/virga/shell/alias.h"

#include <fmt/format.h>

#include <algorithm>

#include "apps/virga/command.h"
#include "apps/virga/commands.h"
#include "apps/virga/listing.h"
#include "apps/virga/text.h"
#include "apps/virga/values.h"

namespace virga::cli {
namespace {

/// Global flags may stand in front of the verb; an alias is looked for behind them.
std::size_t first_word(const std::vector<std::string>& arguments) {
  std::size_t at = 0;
  for (; at < arguments.size() && arguments[at].starts_with("-"); ++at) {
    for (const auto& flag : global_flags())
      if (flag.kind == Flag::text && arguments[at] == fmt::format("--{}", flag.name)) ++at;
  }
  return std::min(at, arguments.size());
}

bool begins_with(const std::vector<std::string>& arguments, std::size_t at, const std::vector<std::string>& name) {
  return arguments.size() - at >= name.size() && std::equal(name.begin(), name.end(), arguments.begin() + static_cast<long>(at));
}

/// The number in "@ARG3@"; 0 where the word is something else.
std::size_t argument_number(std::string_view word) {
  if (!word.starts_with("@ARG") || !word.ends_with("@") || word.size() > 8 || word.size() < 6) return 0;
  const auto number = parse_integer(word.substr(4, word.size() - 5), 1, 99);
  return number ? static_cast<std::size_t>(*number) : 0;
}

Result<std::vector<std::string>> fill_in(const std::string& name, const std::vector<std::string>& target,
                                         const std::vector<std::string>& rest) {
  std::size_t numbered = 0;
  for (const auto& word : target) numbered = std::max(numbered, argument_number(word));
  if (numbered > rest.size())
    return fail(Error(ErrorKind::invalid, fmt::format("The alias \"{}\" needs {} arguments, {} given", name, numbered, rest.size()))
                    .with_hint(fmt::format("it stands for: {}", fmt::join(target, " "))));
  const std::vector<std::string> others(rest.begin() + static_cast<long>(numbered), rest.end());
  std::vector<std::string> out;
  bool placed = false;
  for (const auto& word : target) {
    if (word == "@ARGS@") {
      out.insert(out.end(), others.begin(), others.end());
      placed = true;
    } else if (auto number = argument_number(word); number > 0) {
      out.push_back(rest[number - 1]);
    } else {
      out.push_back(word);
    }
  }
  if (!placed) out.insert(out.end(), others.begin(), others.end());
  return out;
}

Result<> check_name(const std::string& name) {
  if (name.empty() || name.starts_with("-") || name.find_first_of("\n\r\t") != std::string::npos)
    return fail(
        Error(ErrorKind::invalid, fmt::format("Invalid alias \"{}\"", name)).with_hint("use plain words that do not begin with -"));
  return {};
}

Result<> missing(const client::Config& config, const std::string& name) {
  if (config.aliases.contains(name)) return {};
  if (builtin_aliases().contains(name))
    return fail(Error(ErrorKind::invalid, fmt::format("The alias \"{}\" is built in", name))
                    .with_hint(fmt::format("virga alias add {} ... puts one of your own before it", name)));
  return fail(
      Error(ErrorKind::not_found, fmt::format("Alias {} doesn't exist", name)).with_hint("virga alias list shows those there are"));
}

Result<> add(App& app, const Args& args) {
  VIRGA_CHECK(check_name(args[0]));
  VIRGA_TRY(auto target, quoted_words(args[1]));
  if (target.empty()) return fail(ErrorKind::invalid, "The alias stands for nothing");
  VIRGA_TRY(auto* config, app.config());
  if (config->aliases.contains(args[0]))
    return fail(Error(ErrorKind::exists, fmt::format("Alias {} already exists", args[0]))
                    .with_hint(fmt::format("virga alias remove {} first", args[0])));
  config->aliases[args[0]] = args[1];
  VIRGA_CHECK(config->save());
  if (auto found = find_command(app.root(), {args[0]}); found)
    app.warn(fmt::format("The command \"{}\" is hidden by this alias from now on", args[0]));
  return {};
}

Result<> list(App& app, const Args& args) {
  VIRGA_TRY(const auto* config, app.config());
  json::array rows;
  for (const auto& [name, target] : config->aliases)
    rows.push_back(json::object{{"alias", name}, {"target", target}, {"origin", "user"}});
  for (const auto& [name, target] : builtin_aliases())
    if (!config->aliases.contains(name)) rows.push_back(json::object{{"alias", name}, {"target", target}, {"origin", "built-in"}});
  const std::vector<Column> columns = {
      {'a', "ALIAS", field("alias")}, {'t', "TARGET", field("target")}, {'o', "ORIGIN", field("origin")}};
  return print_listing(app, args, columns, rows);
}

Result<> remove(App& app, const Args& args) {
  VIRGA_TRY(auto* config, app.config());
  VIRGA_CHECK(missing(*config, args[0]));
  config->aliases.erase(args[0]);
  return config->save();
}

Result<> rename(App& app, const Args& args) {
  VIRGA_TRY(auto* config, app.config());
  VIRGA_CHECK(missing(*config, args[0]));
  VIRGA_CHECK(check_name(args[1]));
  if (config->aliases.contains(args[1])) return fail(ErrorKind::exists, fmt::format("Alias {} already exists", args[1]));
  auto entry = config->aliases.extract(args[0]);
  entry.key() = args[1];
  config->aliases.insert(std::move(entry));
  return config->save();
}

}  // namespace

const Aliases& builtin_aliases() {
  static const Aliases aliases = {
      {"ip", "list -c n46"}, {"log", "info --show-log"}, {"ps", "list"}, {"sh", "exec @ARG1@ -- sh @ARGS@"}};
  return aliases;
}

Result<std::vector<std::string>> quoted_words(std::string_view text) {
  std::vector<std::string> out;
  std::string word;
  bool inside = false;
  char quote = 0;
  for (char c : text) {
    if (quote != 0) {
      if (c == quote)
        quote = 0;
      else
        word += c;
    } else if (c == '\'' || c == '"') {
      quote = c, inside = true;
    } else if (c == ' ' || c == '\t' || c == '\n') {
      if (inside || !word.empty()) out.push_back(std::move(word));
      word.clear(), inside = false;
    } else {
      word += c;
    }
  }
  if (quote != 0) return fail(ErrorKind::invalid, fmt::format("a quote ({}) is not closed in: {}", quote, text));
  if (inside || !word.empty()) out.push_back(std::move(word));
  return out;
}

Result<std::optional<std::vector<std::string>>> expand_alias(const Aliases& users, const std::vector<std::string>& arguments) {
  const auto at = first_word(arguments);
  std::vector<std::string> best;
  const std::pair<const std::string, std::string>* found = nullptr;
  for (const auto* table : {&users, &builtin_aliases()}) {
    for (const auto& entry : *table) {
      auto name = split(entry.first, ' ');
      if (name.size() > best.size() && begins_with(arguments, at, name)) best = std::move(name), found = &entry;
    }
  }
  if (found == nullptr) return std::nullopt;
  VIRGA_TRY(auto target, quoted_words(found->second));
  const auto behind = arguments.begin() + static_cast<long>(at + best.size());
  VIRGA_TRY(auto words, fill_in(found->first, target, {behind, arguments.end()}));
  words.insert(words.begin(), arguments.begin(), arguments.begin() + static_cast<long>(at));
  return words;
}

Command alias_command() {
  Command group{
      .use = "alias",
      .summary = "Manage command aliases",
      .description =
          "An alias is a word that stands for others. \"@ARGS@\" in it is what follows the alias, \"@ARG1@\" the first word "
          "of\nthat; without @ARGS@ the rest is put at the end. An alias is looked for once, so it may bear the name of a\n"
          "command that it makes more of.",
      .examples = "virga alias add running \"list status=running\"\n    Make \"virga running\" a list of what runs"};
  group.children = {
      {.use = "add <alias> <target>",
       .summary = "Add new aliases",
       .examples = "virga alias add rl \"list -c ns4\"\n    Make \"virga rl\" the same as \"virga list -c ns4\"\n\n"
                   "virga alias add root \"exec @ARG1@ -- su -l\"\n    Make \"virga root c1\" a login shell in c1",
       .least = 2,
       .most = 2,
       .run = add},
      {.use = "list",
       .summary = "List aliases",
       .aliases = {"ls"},
       .description = "Column shorthand chars:\n  a - Alias\n  t - Target\n  o - Origin",
       .examples = "virga alias list\nvirga alias list --format csv -c at",
       .flags = {columns_flag("ato"), format_flag()},
       .run = list},
      {.use = "remove <alias>",
       .summary = "Remove aliases",
       .aliases = {"delete", "rm"},
       .examples = "virga alias remove rl",
       .least = 1,
       .most = 1,
       .run = remove},
      {.use = "rename <alias> <new-name>",
       .summary = "Rename aliases",
       .aliases = {"mv"},
       .examples = "virga alias rename rl running",
       .least = 2,
       .most = 2,
       .run = rename},
  };
  return group;
}

}  // namespace virga::cli
