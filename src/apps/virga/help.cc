// Help texts in the layout that users of the incus command know.
#include <fmt/format.h>

#include <algorithm>

#include "apps/virga/command.h"

namespace virga::cli {
namespace {

std::string indented(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    auto end = text.find('\n');
    auto line = text.substr(0, end);
    out += line.empty() ? std::string("\n") : fmt::format("  {}\n", line);
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
  }
  return out;
}

std::string flag_label(const Flag& flag) {
  std::string label = flag.letter != 0 ? fmt::format("-{}, --{}", flag.letter, flag.name) : fmt::format("    --{}", flag.name);
  if (flag.kind == Flag::optional_text) label += fmt::format("[=\"{}\"]", flag.fallback);
  return label;
}

std::string flags_table(std::string_view title, const std::vector<Flag>& flags) {
  std::size_t width = 0;
  for (const auto& flag : flags) width = std::max(width, flag_label(flag).size());
  std::string out = fmt::format("\n{}:\n", title);
  for (const auto& flag : flags) {
    out += fmt::format("  {:<{}}   {}", flag_label(flag), width, flag.help);
    if (!flag.fallback.empty() && flag.kind == Flag::text) out += fmt::format(" (default \"{}\")", flag.fallback);
    if (!flag.fallback.empty() && flag.kind == Flag::integer) out += fmt::format(" (default {})", flag.fallback);
    out += '\n';
  }
  return out;
}

std::string children_table(const Command& command) {
  std::size_t width = 11;
  for (const auto& child : command.children)
    if (!child.hidden) width = std::max(width, child.name().size());
  std::vector<const Command*> sorted;
  for (const auto& child : command.children)
    if (!child.hidden) sorted.push_back(&child);
  std::sort(sorted.begin(), sorted.end(), [](const Command* a, const Command* b) { return a->name() < b->name(); });
  std::string out = "\nAvailable Commands:\n";
  for (const auto* child : sorted) out += fmt::format("  {:<{}} {}\n", child->name(), width, child->summary);
  return out;
}

std::string usage_line(const std::vector<const Command*>& path) {
  const Command& command = *path.back();
  if (!command.children.empty()) return full_name(path) + " [command]";
  auto parents = path;
  parents.pop_back();
  return fmt::format("{} {} [flags]", full_name(parents), command.use);
}

}  // namespace

std::string help_text(const std::vector<const Command*>& path) {
  const Command& command = *path.back();
  std::string out = "Description:\n" + indented(command.summary);
  if (!command.description.empty()) out += "\n" + indented(command.description);
  out += fmt::format("\nUsage:\n  {}\n", usage_line(path));
  if (!command.aliases.empty()) out += fmt::format("\nAliases:\n  {}, {}\n", command.name(), fmt::join(command.aliases, ", "));
  if (!command.examples.empty()) out += "\nExamples:\n" + indented(command.examples);
  if (!command.children.empty()) out += children_table(command);
  auto flags = command.flags;
  std::sort(flags.begin(), flags.end(), [](const Flag& a, const Flag& b) { return a.name < b.name; });
  if (!flags.empty()) out += flags_table("Flags", flags);
  out += flags_table(path.size() == 1 ? "Flags" : "Global Flags", global_flags());
  if (!command.children.empty())
    out += fmt::format("\nUse \"{} [command] --help\" for more information about a command.\n", full_name(path));
  return out;
}

}  // namespace virga::cli
