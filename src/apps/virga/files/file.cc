// The group `virga file`, and its small verbs: create, delete, edit.
#include <fmt/format.h>

#include "apps/virga/commands.h"
#include "apps/virga/editor.h"
#include "apps/virga/files/files.h"

namespace virga::cli {
namespace {

Result<> run_create(App& app, const Args& args) {
  VIRGA_TRY(auto place, parse_place(args[0]));
  VIRGA_TRY(auto wish, read_wish(args));
  wish.type = args.text("type");
  if (wish.type != "file" && wish.type != "directory" && wish.type != "symlink")
    return fail(ErrorKind::invalid, fmt::format("Invalid type '{}': file, symlink or directory", wish.type));
  if (place.path.ends_with('/') && wish.type == "file") wish.type = "directory";
  while (place.path.size() > 1 && place.path.ends_with('/')) place.path.pop_back();
  const bool is_link = wish.type == "symlink";
  if (is_link != (args.size() == 2))
    return fail(ErrorKind::invalid, is_link ? "A link needs a target" : "Only a link has a target");
  if (args.has("create-dirs")) VIRGA_CHECK(make_parents(app, place, wish));
  VIRGA_TRY(auto facts, look_at(app, place));
  if (facts && !args.has("force"))
    return fail(
        Error(ErrorKind::exists, fmt::format("'{}' already exists", place.text())).with_hint("--force creates it all the same"));
  if (facts && facts->type != wish.type) VIRGA_CHECK(remove_file(app, place, false));
  if (facts && is_link && facts->type == "symlink") VIRGA_CHECK(remove_file(app, place, false));
  if (!wish.mode && !is_link) wish.mode = wish.type == "directory" ? 0755 : 0644;
  return send_text(app, place, wish, is_link ? args[1] : std::string());
}

Result<> run_delete(App& app, const Args& args) {
  for (const auto& word : args.words) {
    VIRGA_TRY(auto place, parse_place(word));
    VIRGA_CHECK(remove_file(app, place, args.has("force")));
  }
  return {};
}

Result<> run_edit(App& app, const Args& args) {
  VIRGA_TRY(auto place, parse_place(args[0]));
  VIRGA_TRY(auto facts, look_at(app, place));
  if (facts && facts->type == "directory") return fail(ErrorKind::invalid, fmt::format("'{}' is a directory", place.text()));
  FileWish keep;  // owner and mode stay as they are
  if (!stdin_is_terminal()) {
    VIRGA_TRY(auto text, piped_input());
    return send_text(app, place, keep, std::move(text));
  }
  std::string before;
  auto sink = [&](std::string_view bytes) -> Result<> {
    if (before.size() + bytes.size() > (16u << 20)) return fail(ErrorKind::invalid, "the file is too large for an editor (16 MiB)");
    before += bytes;
    return {};
  };
  if (facts) VIRGA_CHECK(receive_file(app, place, sink));
  VIRGA_TRY(auto after, edit_text(before));
  return after == before && facts ? Result<>{} : send_text(app, place, keep, std::move(after));
}

}  // namespace

Command file_command() {
  Command group{
      .use = "file",
      .summary = "Manage files in instances",
      .description = "Containers also while they are stopped, virtual machines while their agent runs.",
      .examples = "virga file push app.conf web/etc/app.conf\nvirga file pull -r web/var/log .\nvirga file edit web/etc/hosts"};
  group.children = {
      {.use = "create [<remote>:]<instance>/<path> [<symlink target path>]",
       .summary = "Create files and directories in instances",
       .examples =
           "virga file create foo/bar\n    To create a file /bar in the foo instance.\n\n"
           "virga file create --type=symlink foo/bar baz\n    To create a symlink /bar in instance foo whose target is baz.",
       .flags = {{"create-dirs", 'p', Flag::boolean, "Create any directories necessary"},
                 {"force", 'f', Flag::boolean, "Force creating files or directories"},
                 {"gid", 0, Flag::text, "Set the file's gid on create", "-1"},
                 {"mode", 0, Flag::text, "Set the file's perms on create"},
                 {"type", 0, Flag::text, "The type to create (file, symlink, or directory)", "file"},
                 {"uid", 0, Flag::text, "Set the file's uid on create", "-1"}},
       .least = 1,
       .most = 2,
       .run = run_create},
      {.use = "delete [<remote>:]<instance>/<path> [[<remote>:]<instance>/<path>...]",
       .summary = "Delete files in instances",
       .aliases = {"rm"},
       .flags = {{"force", 'f', Flag::boolean, "Force deleting files, directories, and subdirectories"}},
       .least = 1,
       .most = any_number,
       .run = run_delete},
      {.use = "edit [<remote>:]<instance>/<path>",
       .summary = "Edit files in instances",
       .description = "With input that is not a terminal, that becomes the file's content.",
       .least = 1,
       .most = 1,
       .run = run_edit},
      mount_command(),
      pull_command(),
      push_command(),
  };
  return group;
}

}  // namespace virga::cli
