#include "apps/virga/remotes.h"

#include <fmt/format.h>

#include <algorithm>

#include "client/config.h"

namespace virga::cli {
namespace {

constexpr std::string_view mark = "[<remote>:]";

struct Usage {
  std::vector<bool> marked;  ///< by position
  bool bare = false;         ///< a remote may stand by itself, at any place
  bool repeats = false;      ///< the last marked word may come again
};

Usage read_usage(std::string_view use) {
  Usage out;
  use.remove_prefix(std::min(use.size(), use.find(' ')));
  while (!use.empty()) {
    use.remove_prefix(1);
    const auto token = use.substr(0, use.find(' '));
    use.remove_prefix(token.size());
    if (token == mark) {
      out.bare = true;
    } else if (token.find("...") != std::string_view::npos) {
      out.repeats = token.find(mark) != std::string_view::npos;
    } else {
      out.marked.push_back(token.find(mark) != std::string_view::npos);
    }
  }
  return out;
}

bool may_name(const Usage& usage, std::size_t position) {
  if (position < usage.marked.size()) return usage.marked[position];
  return usage.repeats;
}

}  // namespace

Result<std::vector<RemoteWords>> split_by_remote(std::string_view use, const std::vector<std::string>& words,
                                                 const std::string& fallback) {
  const auto usage = read_usage(use);
  std::vector<RemoteWords> out;
  std::string last;
  const auto put = [&](const std::string& remote, std::string word) {
    auto it = std::find_if(out.begin(), out.end(), [&](const auto& entry) { return entry.remote == remote; });
    if (it == out.end()) it = out.insert(out.end(), {remote, {}});
    it->words.push_back(std::move(word));
    last = remote;
  };
  std::string standing;  // a remote that stood by itself
  std::size_t position = 0;
  for (const auto& word : words) {
    auto [remote, rest] = client::split_remote(word);
    if (usage.bare && !remote.empty() && standing.empty() && (rest.empty() || position == 0)) {
      standing = remote;
      if (!rest.empty()) put(remote, std::move(rest));
      continue;
    }
    if (!remote.empty() && may_name(usage, position)) {
      put(remote, std::move(rest));
    } else {
      // What does not name a remote itself goes with the word before it, a key with its instance.
      put(may_name(usage, position) || last.empty() ? (standing.empty() ? fallback : standing) : last, word);
    }
    ++position;
  }
  if (!standing.empty()) {
    RemoteWords all{standing, {}};
    for (auto& entry : out) all.words.insert(all.words.end(), entry.words.begin(), entry.words.end());
    return std::vector<RemoteWords>{std::move(all)};
  }
  if (out.empty()) out.push_back({fallback, {}});
  if (out.size() > 1 && !usage.repeats)
    return fail(
        Error(ErrorKind::invalid,
              fmt::format("\"{}:\" and \"{}:\" are different servers: this command works on one", out[0].remote, out[1].remote))
            .with_hint(use.find("<image>") == std::string_view::npos
                           ? std::string()
                           : "instances are made from images of their own server: virga image list shows those, virga image "
                             "build makes one,\nvirga image copy brings one from another virga server"));
  return out;
}

}  // namespace virga::cli
