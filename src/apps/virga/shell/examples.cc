#include "apps/virga/shell/examples.h"

#include <fmt/format.h>

#include <deque>
#include <map>

namespace virga::cli {
namespace {

/// What stands for a placeholder, by the word between the angle brackets.
std::string name_for(std::string_view kind) {
  static const std::map<std::string_view, std::string_view> names = {
      {"API path", "/1.0"},
      {"alias", "debian"},
      {"certificate", "client.crt"},
      {"command", "hostname"},
      {"device", "root"},
      {"device name", "root"},
      {"file", "notes.txt"},
      {"fingerprint", "2d5e4f6a7b8c"},
      {"image", "tiny"},
      {"instance", "c1"},
      {"name", "lab"},
      {"network", "virgabr0"},
      {"new-name", "new"},
      {"operation", "344a79e4-d88a-45bf-9c39-c72c26f6ab8a"},
      {"pool", "default"},
      {"profile", "web"},
      {"profiles", "default,web"},
      {"project", "lab"},
      {"remote", "lab"},
      {"snapshot", "before"},
      {"target", "/tmp/target"},
      {"type", "disk"},
      {"URL", "https://lab.example:8443"},
      {"value", "value"},
      {"volume", "data"},
  };
  auto it = names.find(kind);
  return std::string(it == names.end() ? kind : it->second);
}

struct Setting {
  std::string_view key, value;
};

/// A key that the group's objects have.
Setting setting_for(const std::vector<std::string>& path) {
  for (const auto& word : path)
    if (word == "device") return {"size", "2GiB"};
  const std::string_view group = path.empty() ? std::string_view() : std::string_view(path[0]);
  if (group == "network") return {"ipv4.nat", "true"};
  if (group == "storage") return {"user.owner", "me"};
  if (group == "project") return {"limits.instances", "10"};
  if (group == "image") return {"os", "debian"};
  return {"limits.memory", "512MiB"};
}

/// One word of the usage line; empty where it may be left out.
std::string fill_in(const std::vector<std::string>& path, std::string_view word) {
  if (word.starts_with("[<remote>:]") && word.size() > 11) word.remove_prefix(11);
  if (word.starts_with("[") || word == "[flags]") return {};
  const auto setting = setting_for(path);
  std::string out;
  while (!word.empty()) {
    if (word.starts_with("...")) return out;
    if (word[0] != '<') {
      out += word[0];
      word.remove_prefix(1);
      continue;
    }
    const auto end = word.find('>');
    const auto kind = word.substr(1, end - 1);
    if (kind == "key")
      out += setting.key;
    else if (kind == "value")
      out += setting.value;
    else
      out += name_for(kind.substr(0, kind.find('|')));
    word.remove_prefix(end == std::string_view::npos ? word.size() : end + 1);
  }
  return out;
}

void fill(Command& command, std::vector<std::string> path) {
  static std::deque<std::string> texts;  // as long as the program
  if (command.run && command.examples.empty()) {
    texts.push_back(example_of(path, command.use));
    command.examples = texts.back();
  }
  for (auto& child : command.children) {
    auto below = path;
    below.emplace_back(child.name());
    fill(child, std::move(below));
  }
}

}  // namespace

std::string example_of(const std::vector<std::string>& path, std::string_view use) {
  std::string out = fmt::format("virga {}", fmt::join(path, " "));
  int depth = 0;
  std::string word;
  const auto flush = [&] {
    if (auto text = fill_in(path, word); !text.empty()) out += " " + text;
    word.clear();
  };
  use.remove_prefix(std::min(use.size(), use.find(' ')));
  for (char c : use) {
    if (c == '<' || c == '[') ++depth;
    if (c == '>' || c == ']') --depth;
    if (c == ' ' && depth == 0)
      flush();
    else
      word += c;
  }
  flush();
  return out;
}

void fill_examples(Command& root) {
  fill(root, {});
}

}  // namespace virga::cli
