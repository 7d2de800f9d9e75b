#include "apps/virga/shell/reference.h"

#include <fmt/format.h>

#include <algorithm>

#include "apps/virga/text.h"
#include "base/version.h"

namespace virga::cli {
namespace {

using Path = std::vector<const Command*>;

std::vector<const Command*> shown_children(const Command& command, bool hidden) {
  std::vector<const Command*> out;
  for (const auto& child : command.children)
    if (!child.hidden || hidden) out.push_back(&child);
  std::sort(out.begin(), out.end(), [](auto* a, auto* b) { return a->name() < b->name(); });
  return out;
}

std::vector<Flag> sorted_flags(std::vector<Flag> flags) {
  std::sort(flags.begin(), flags.end(), [](const Flag& a, const Flag& b) { return a.name < b.name; });
  return flags;
}

std::string synopsis(const Path& path) {
  const Command& command = *path.back();
  if (!command.children.empty()) return full_name(path) + " [command]";
  auto parents = path;
  parents.pop_back();
  return fmt::format("{}{}{} [flags]", full_name(parents), parents.empty() ? "" : " ", command.use);
}

std::string fallback_of(const Flag& flag) {
  return flag.fallback.empty() || flag.kind == Flag::boolean ? std::string() : fmt::format(" (default: {})", flag.fallback);
}

/// Examples are commands at the left edge, each with what it does indented below it.
struct Example {
  std::string command;
  std::string about;
};
std::vector<Example> examples_of(std::string_view text) {
  std::vector<Example> out;
  for (const auto& line : split(text, '\n')) {
    if (line.empty()) continue;
    if (line[0] != ' ' || out.empty()) {
      out.push_back({line, {}});
    } else {
      auto& about = out.back().about;
      about += (about.empty() ? "" : " ") + line.substr(line.find_first_not_of(' '));
    }
  }
  return out;
}

// Manual pages.

std::string roff(std::string_view text) {
  std::string out;
  bool at_line = true;
  for (char c : text) {
    if (at_line && (c == '.' || c == '\'')) out += "\\&";
    if (c == '\\')
      out += "\\e";
    else if (c == '-')
      out += "\\-";
    else
      out += c;
    at_line = c == '\n';
  }
  return out;
}

std::string page_name(const Path& path) {
  auto name = full_name(path);
  std::replace(name.begin(), name.end(), ' ', '-');
  return name;
}

std::string roff_flags(std::string_view title, const std::vector<Flag>& flags) {
  std::string out = fmt::format(".SH {}\n", title);
  for (const auto& flag : sorted_flags(flags)) {
    auto label = flag.letter != 0 ? fmt::format("\\fB\\-{}\\fR, \\fB\\-\\-{}\\fR", flag.letter, roff(flag.name))
                                  : fmt::format("\\fB\\-\\-{}\\fR", roff(flag.name));
    if (flag.kind == Flag::optional_text)
      label += fmt::format("[={}]", roff(flag.fallback));
    else if (flag.kind != Flag::boolean)
      label += " \\fIVALUE\\fR";
    out += fmt::format(".TP\n{}\n{}{}\n", label, roff(flag.help), roff(fallback_of(flag)));
  }
  return out;
}

std::string manual_page(const Path& path, bool hidden) {
  const Command& command = *path.back();
  std::string out =
      fmt::format(".TH {} 1 \"\" \"virga {}\" \"virga\"\n.SH NAME\n{} \\- {}\n.SH SYNOPSIS\n.B {}\n", roff(upper(page_name(path))),
                  version, roff(page_name(path)), roff(command.summary), roff(synopsis(path)));
  out += fmt::format(".SH DESCRIPTION\n{}\n", roff(command.summary));
  if (!command.description.empty()) out += fmt::format(".PP\n.nf\n{}\n.fi\n", roff(command.description));
  if (!command.aliases.empty()) out += fmt::format(".SH ALIASES\n{}\n", roff(fmt::format("{}", fmt::join(command.aliases, ", "))));
  if (!command.flags.empty()) out += roff_flags("OPTIONS", command.flags);
  out += roff_flags("GLOBAL OPTIONS", global_flags());
  if (!command.examples.empty()) {
    out += ".SH EXAMPLES\n";
    for (const auto& example : examples_of(command.examples))
      out += fmt::format(".TP\n.B {}\n{}\n", roff(example.command), example.about.empty() ? "\\&" : roff(example.about));
  }
  std::vector<std::string> related;
  if (path.size() > 1) related.push_back(page_name({path.begin(), path.end() - 1}));
  for (const auto* child : shown_children(command, hidden)) related.push_back(page_name(path) + "-" + std::string(child->name()));
  if (!related.empty()) {
    out += ".SH SEE ALSO\n";
    for (std::size_t i = 0; i < related.size(); ++i)
      out += fmt::format(".BR {} (1){}\n", roff(related[i]), i + 1 < related.size() ? "," : "");
  }
  return out;
}

void add_manual_pages(const Path& path, bool hidden, std::map<std::string, std::string>& out) {
  out[page_name(path) + ".1"] = manual_page(path, hidden);
  for (const auto* child : shown_children(*path.back(), hidden)) {
    auto below = path;
    below.push_back(child);
    add_manual_pages(below, hidden, out);
  }
}

// Markdown.

/// '<' and '|' mean something else in text.
std::string marked(std::string_view text) {
  std::string out;
  for (char c : text) {
    if (c == '<' || c == '>' || c == '|' || c == '*' || c == '_' || c == '[' || c == ']') out += '\\';
    out += c;
  }
  return out;
}

std::string flag_table(const std::vector<Flag>& flags) {
  std::string out = "| Flag | What it does |\n|---|---|\n";
  for (const auto& flag : sorted_flags(flags)) {
    auto name = flag.letter != 0 ? fmt::format("`-{}`, `--{}`", flag.letter, flag.name) : fmt::format("`--{}`", flag.name);
    out += fmt::format("| {} | {}{} |\n", name, marked(flag.help), marked(fallback_of(flag)));
  }
  return out;
}

std::string section(const Path& path, int level, bool hidden) {
  const Command& command = *path.back();
  std::string out = fmt::format("{} {}\n\n{}.\n\n```usage\n{}\n```\n", std::string(static_cast<std::size_t>(level), '#'),
                                full_name(path), marked(command.summary), synopsis(path));
  if (!command.aliases.empty()) out += fmt::format("\nAlso: `{}`\n", fmt::join(command.aliases, "`, `"));
  if (!command.description.empty()) out += fmt::format("\n```text\n{}\n```\n", command.description);
  if (!command.flags.empty()) out += "\n" + flag_table(command.flags);
  if (!command.examples.empty()) {
    out += "\n```console\n";
    for (const auto& example : examples_of(command.examples))
      out += (example.about.empty() ? "" : fmt::format("# {}\n", example.about)) + example.command + "\n";
    out += "```\n";
  }
  for (const auto* child : shown_children(command, hidden)) {
    auto below = path;
    below.push_back(child);
    out += "\n" + section(below, std::min(level + 1, 4), hidden);
  }
  return out;
}

constexpr std::string_view made = "<!-- made from the program by ./dev docs -->\n\n";

}  // namespace

std::map<std::string, std::string> manual_pages(const Command& root, bool hidden) {
  std::map<std::string, std::string> out;
  add_manual_pages({&root}, hidden, out);
  return out;
}

std::map<std::string, std::string> markdown_pages(const Command& root, bool hidden) {
  std::map<std::string, std::string> out;
  std::string index = fmt::format("{}# Commands\n\n| Command | What it does |\n|---|---|\n", made);
  for (const auto* child : shown_children(root, hidden)) {
    index += fmt::format("| [{0}]({0}.md) | {1} |\n", child->name(), marked(child->summary));
    out[fmt::format("{}.md", child->name())] = std::string(made) + section({&root, child}, 1, hidden);
  }
  out["README.md"] = index + "\nFlags that every command has:\n\n" + flag_table(global_flags());
  return out;
}

}  // namespace virga::cli
