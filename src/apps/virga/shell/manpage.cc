// manpage: writes the reference of commands into a directory.
#include <fmt/format.h>

#include <filesystem>
#include <fstream>

#include "apps/virga/app.h"
#include "apps/virga/commands.h"
#include "apps/virga/shell/reference.h"

namespace virga::cli {
namespace {

Result<> manpage(App& app, const Args& args) {
  const std::filesystem::path directory(args[0]);
  const auto format = args.text("format");
  std::map<std::string, std::string> pages;
  if (format == "man")
    pages = manual_pages(app.root(), args.has("all"));
  else if (format == "md")
    pages = markdown_pages(app.root(), args.has("all"));
  else
    return fail(
        Error(ErrorKind::invalid, fmt::format("Invalid value \"{}\" for flag \"--format\"", format)).with_hint("one of: man, md"));
  std::error_code ec;
  std::filesystem::create_directories(directory, ec);
  for (const auto& [name, text] : pages) {
    std::ofstream file(directory / name, std::ios::trunc);
    file << text;
    if (!file.flush()) return fail(ErrorKind::unavailable, fmt::format("cannot write {}", (directory / name).string()));
  }
  app.note(fmt::format("{} pages written to {}", pages.size(), directory.string()));
  return {};
}

}  // namespace

Command manpage_command() {
  return {.use = "manpage <target>",
          .summary = "Generate manpages for all commands",
          .examples = "virga manpage /usr/local/share/man/man1\nvirga manpage --format md doc/reference/commands",
          .flags = {{"all", 'a', Flag::boolean, "Include hidden commands"}, {"format", 'f', Flag::text, "Format (man|md)", "man"}},
          .least = 1,
          .most = 1,
          .run = manpage,
          .hidden = true};
}

}  // namespace virga::cli
