// Files of instances, as the verbs of `virga file` use them: one call each, with what the headers say.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "apps/virga/app.h"
#include "apps/virga/command.h"

namespace virga::cli {

/// "c1/etc/hosts": instance and absolute path in it.
struct FilePlace {
  std::string instance;
  std::string path;
  std::string text() const { return instance + path; }
};
/// Errors: invalid (no path), unsupported (another remote).
Result<FilePlace> parse_place(const std::string& word);

struct FileFacts {
  std::string type;  ///< file, directory or symlink
  std::uint32_t uid = 0, gid = 0, mode = 0;
};

/// What a file is to be; absent: the server's choice.
struct FileWish {
  std::string type = "file";
  std::optional<std::uint32_t> uid, gid, mode;
};
/// --uid, --gid, --mode. Errors: invalid.
Result<FileWish> read_wish(const Args& args);

/// Nothing where there is no such file. Errors: those of the server.
Result<std::optional<FileFacts>> look_at(App& app, const FilePlace& place);
/// The names in a directory.
Result<std::vector<std::string>> names_in(App& app, const FilePlace& place);
Result<std::string> link_target(App& app, const FilePlace& place);
/// Sends what `read` gives. `length`: where it is known.
Result<> send_file(App& app, const FilePlace& place, const FileWish& wish, std::function<Result<std::size_t>(std::span<char>)> read,
                   std::optional<std::uint64_t> length);
/// A directory (no text) or a link (its target).
Result<> send_text(App& app, const FilePlace& place, const FileWish& wish, std::string text);
Result<> receive_file(App& app, const FilePlace& place, const std::function<Result<>(std::string_view)>& sink);
Result<> remove_file(App& app, const FilePlace& place, bool force);
/// The directories above a path, as `mkdir -p` makes them.
Result<> make_parents(App& app, const FilePlace& place, const FileWish& wish);

Command push_command();
Command pull_command();
Command mount_command();

}  // namespace virga::cli
