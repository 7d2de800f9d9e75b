#include "apps/virga/shell/complete.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <tuple>

#include "apps/virga/text.h"

namespace virga::cli {
namespace {

/// "tarball|directory|URL" means three things, and two of them are on this machine.
bool is_file_kind(std::string_view kind) {
  for (const auto& word : split(kind, '|'))
    for (std::string_view known :
         {"file", "path", "source path", "target path", "directory", "tarball", "rootfs tarball", "target"})
      if (word == known) return true;
  return false;
}

/// What the values of flags are, by the flag's name.
struct FlagValues {
  std::string_view flag;
  std::string_view kind;                       ///< live names, or
  std::vector<std::string_view> choices = {};  ///< one of these
};

const std::vector<FlagValues>& flag_values() {
  static const std::vector<FlagValues> table = {
      {"config", "key"},
      {"format", "", {"table", "compact", "csv", "json", "yaml"}},
      {"network", "network"},
      {"pool", "pool"},
      {"profile", "profile"},
      {"project", "project"},
      {"request", "", {"GET", "PUT", "POST", "PATCH", "DELETE"}},
      {"storage", "pool"},
      {"storage-backend", "", {"dir"}},
      {"storage-pool", "pool"},
      {"target-project", "project"},
      {"type", "", {"container", "virtual-machine", "lifecycle", "logging", "operation"}},
  };
  return table;
}

class Completer {
 public:
  Completer(const Command& root, const Aliases& aliases, std::vector<std::string> words, const Names& names)
      : root_(root), aliases_(aliases), words_(std::move(words)), names_(names) {}

  Completion run() {
    current_ = words_.empty() ? std::string() : words_.back();
    if (!words_.empty()) words_.pop_back();
    if (auto expanded = expand_alias(aliases_, words_); expanded && *expanded && **expanded != words_)
      words_ = std::move(**expanded);
    path_ = {&root_};
    if (!walk()) return {};
    if (pending_ != nullptr) {
      flag_value(*pending_, current_, "");
    } else if (!only_words_ && current_.starts_with("-") && current_ != "-") {
      flags();
    } else if (!path_.back()->children.empty()) {
      children();
    } else {
      positional();
    }
    return std::move(out_);
  }

 private:
  const Command& command() const { return *path_.back(); }

  const Flag* find_flag(std::string_view word) const {
    for (const auto* list : {&command().flags, &global_flags()})
      for (const auto& flag : *list)
        if (word == fmt::format("--{}", flag.name) || (flag.letter != 0 && word == fmt::format("-{}", flag.letter))) return &flag;
    return nullptr;
  }

  /// Follows what is there already. False where it names no command.
  bool walk() {
    for (const auto& word : words_) {
      if (pending_ != nullptr) {
        if (pending_->name == "project") project_ = word;
        pending_ = nullptr;
      } else if (word == "--" && !only_words_) {
        only_words_ = true;
      } else if (!only_words_ && word.size() > 1 && word[0] == '-') {
        if (word.starts_with("--project=")) project_ = word.substr(10);
        const auto* flag = find_flag(word);
        if (flag != nullptr && flag->kind != Flag::boolean && flag->kind != Flag::optional_text) pending_ = flag;
      } else if (!command().children.empty()) {
        auto found = find_command(command(), {word});
        if (!found) return false;
        path_.push_back(found->back());
      } else {
        given_.push_back(word);
      }
    }
    return true;
  }

  void offer(const Candidate& candidate, std::string_view written) {
    if (candidate.text.starts_with(written)) out_.candidates.push_back(candidate);
  }

  void children() {
    for (const auto& child : command().children)
      if (!child.hidden) offer({std::string(child.name()), std::string(child.summary)}, current_);
    if (path_.size() > 1) return;
    for (const auto* table : {&aliases_, &builtin_aliases()})
      for (const auto& [name, target] : *table)
        if (name.find(' ') == std::string::npos) offer({name, "alias of " + target}, current_);
  }

  void flags() {
    if (auto equals = current_.find('='); equals != std::string::npos) {
      if (const auto* flag = find_flag(std::string_view(current_).substr(0, equals)); flag != nullptr)
        flag_value(*flag, current_.substr(equals + 1), current_.substr(0, equals + 1));
      return;
    }
    for (const auto* list : {&command().flags, &global_flags()})
      for (const auto& flag : *list) offer({fmt::format("--{}", flag.name), std::string(flag.help)}, current_);
  }

  void flag_value(const Flag& flag, const std::string& written, const std::string& before) {
    const auto& table = flag_values();
    auto it = std::find_if(table.begin(), table.end(), [&](const auto& entry) { return entry.flag == flag.name; });
    if (it == table.end()) {
      out_.files = flag.name.ends_with("file") && flag.name != "profile";
      return;
    }
    for (auto choice : it->choices)
      if (choice.starts_with(written)) out_.candidates.push_back({before + std::string(choice)});
    if (it->kind.empty()) return;
    for (auto& name : ask(it->kind)) {
      if (it->kind == "key") name.text += '=';
      name.text.insert(0, before);
      offer(name, before + written);
    }
  }

  std::vector<Candidate> ask(std::string_view kind, const std::string& remote = {}) {
    NameRequest request{.kind = kind, .path = {}, .words = given_, .project = project_, .remote = remote};
    for (std::size_t i = 1; i < path_.size(); ++i) request.path.emplace_back(path_[i]->name());
    return names_(request);
  }

  void positional() {
    const auto places = placeholders(command().use);
    if (places.empty()) return;
    auto at = given_.size();
    if (at >= places.size()) {
      if (!places.back().repeats) return;
      at = places.size() - 1;
    }
    place(places[at]);
    // "[<instance>] <key>": the server's keys may stand where an instance may.
    if (at == 0 && places.size() > 1 && places[1].kind == "key" &&
        (command().use.find("[<instance>] <key>") != std::string_view::npos ||
         command().use.find("[<instance>[/<snapshot>]] <key>") != std::string_view::npos))
      place(places[1]);
  }

  void place(const Placeholder& place) {
    if (is_file_kind(place.kind)) out_.files = true;
    if (place.kind == "command") {  // help
      if (auto found = find_command(root_, given_); found) path_ = *found, children();
      return;
    }
    const auto colon = current_.find(':');
    const auto before = place.remote && colon != std::string::npos ? current_.substr(0, colon + 1) : std::string();
    if (place.assigns && current_.find('=') != std::string::npos) return;
    for (auto& name : ask(place.kind, before.substr(0, before.find(':')))) {
      if (place.repeats && std::find(given_.begin(), given_.end(), name.text) != given_.end()) continue;
      name.text.insert(0, before);
      if (place.assigns) name.text += '=';
      offer(name, current_);
    }
    if (place.remote && before.empty() && place.kind != "remote")
      for (auto& name : ask("remote")) offer({name.text + ":", name.about}, current_);
  }

  const Command& root_;
  const Aliases& aliases_;
  std::vector<std::string> words_;
  const Names& names_;
  std::string current_;
  std::vector<const Command*> path_;
  std::vector<std::string> given_;
  std::string project_;
  const Flag* pending_ = nullptr;
  bool only_words_ = false;
  Completion out_;
};

/// Splits at spaces outside of angle brackets.
std::vector<std::string> usage_words(std::string_view use) {
  std::vector<std::string> out(1);
  int depth = 0;
  for (char c : use) {
    if (c == '<') ++depth;
    if (c == '>') --depth;
    if (c == ' ' && depth == 0)
      out.emplace_back();
    else
      out.back() += c;
  }
  return out;
}

}  // namespace

std::vector<Placeholder> placeholders(std::string_view use) {
  std::vector<Placeholder> out;
  const auto words = usage_words(use);
  for (std::size_t i = 1; i < words.size(); ++i) {
    const auto& word = words[i];
    Placeholder place;
    for (std::size_t at = 0; (at = word.find('<', at)) != std::string::npos; ++at) {
      const auto kind = word.substr(at + 1, word.find('>', at) - at - 1);
      if (kind == "remote" && word.find(':', at) != std::string::npos)
        place.remote = true;
      else if (place.kind.empty())
        place.kind = kind;
    }
    if (place.kind.empty() && place.remote && word == "[<remote>:]") place.kind = "remote:";
    if (place.kind.empty()) continue;
    place.repeats = word.find("...") != std::string::npos;
    place.assigns = word.find("=<") != std::string::npos;
    out.push_back(std::move(place));
  }
  return out;
}

Completion complete(const Command& root, const Aliases& aliases, std::vector<std::string> words, const Names& names) {
  auto out = Completer(root, aliases, std::move(words), names).run();
  auto& all = out.candidates;
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) {
    if (natural_less(a.text, b.text)) return true;
    return !natural_less(b.text, a.text) && std::tie(a.text, a.about) < std::tie(b.text, b.about);
  });
  all.erase(std::unique(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.text == b.text; }), all.end());
  return out;
}

}  // namespace virga::cli
