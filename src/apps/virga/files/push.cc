// file push: single files, standard input, and trees.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "apps/virga/files/files.h"

namespace virga::cli {
namespace {

namespace fs = std::filesystem;

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd_ > 2) ::close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

Result<> send_descriptor(App& app, const FilePlace& place, const FileWish& wish, int fd, std::optional<std::uint64_t> length) {
  auto read = [fd](std::span<char> into) -> Result<std::size_t> {
    const auto n = ::read(fd, into.data(), into.size());
    if (n < 0) return fail_errno(errno, "read");
    return static_cast<std::size_t>(n);
  };
  return send_file(app, place, wish, read, length);
}

/// What is not asked for comes from the file.
FileWish completed(FileWish wish, const struct ::stat& st) {
  if (!wish.uid) wish.uid = st.st_uid;
  if (!wish.gid) wish.gid = st.st_gid;
  if (!wish.mode) wish.mode = st.st_mode & 07777;
  return wish;
}

Result<> push_file(App& app, const std::string& source, const FilePlace& place, const FileWish& wish) {
  if (source == "-") return send_descriptor(app, place, wish, STDIN_FILENO, std::nullopt);
  Descriptor file(::open(source.c_str(), O_RDONLY | O_CLOEXEC));
  struct ::stat st{};
  if (file.get() < 0 || ::fstat(file.get(), &st) != 0) return fail_errno(errno, fmt::format("open '{}'", source));
  if (S_ISDIR(st.st_mode))
    return fail(Error(ErrorKind::invalid, fmt::format("'{}' is a directory", source)).with_hint("push it with --recursive"));
  std::optional<std::uint64_t> length;
  if (S_ISREG(st.st_mode)) length = static_cast<std::uint64_t>(st.st_size);
  return send_descriptor(app, place, completed(wish, st), file.get(), length);
}

/// A directory with all that is in it, to `place` itself.
Result<> push_tree(App& app, const fs::path& source, const FilePlace& place, const FileWish& wish) {
  struct ::stat st{};
  if (::lstat(source.c_str(), &st) != 0) return fail_errno(errno, fmt::format("look at '{}'", source.string()));
  FileWish one = completed(wish, st);
  if (S_ISLNK(st.st_mode)) {
    std::error_code ec;
    one.type = "symlink";
    one.mode.reset();
    return send_text(app, place, one, fs::read_symlink(source, ec).string());
  }
  if (S_ISREG(st.st_mode)) return push_file(app, source.string(), place, wish);
  if (!S_ISDIR(st.st_mode)) return fail(ErrorKind::invalid, fmt::format("'{}' isn't a supported file type", source.string()));
  one.type = "directory";
  VIRGA_CHECK(send_text(app, place, one, {}));
  std::vector<fs::path> entries;
  std::error_code ec;
  for (const auto& entry : fs::directory_iterator(source, ec)) entries.push_back(entry.path());
  if (ec) return fail(ErrorKind::denied, fmt::format("read directory '{}': {}", source.string(), ec.message()));
  std::sort(entries.begin(), entries.end());
  for (const auto& entry : entries)
    VIRGA_CHECK(push_tree(app, entry, {place.instance, place.path + "/" + entry.filename().string()}, wish));
  return {};
}

std::string last_part(const std::string& path) {
  auto name = fs::path(path).filename();
  std::error_code ec;
  if (name.empty() || name == "." || name == "..") name = fs::canonical(path, ec).filename();
  if (ec) name = fs::path(path).parent_path().filename();  // reading it will say what is wrong
  return name.string();
}

Result<> run_push(App& app, const Args& args) {
  VIRGA_TRY(auto target, parse_place(args.words.back()));
  VIRGA_TRY(auto wish, read_wish(args));
  const std::vector<std::string> sources(args.words.begin(), args.words.end() - 1);
  const bool recursive = args.has("recursive");
  bool into = recursive || sources.size() > 1 || target.path.ends_with('/');
  while (target.path.size() > 1 && target.path.ends_with('/')) target.path.pop_back();
  if (args.has("create-dirs")) {
    FilePlace below = target;
    if (into) below.path += "/x";
    VIRGA_CHECK(make_parents(app, below, wish));
  }
  if (!into) {
    VIRGA_TRY(auto facts, look_at(app, target));
    into = facts && facts->type == "directory" && sources[0] != "-";
  }
  for (const auto& source : sources) {
    FilePlace place = target;
    if (into && source == "-") return fail(ErrorKind::invalid, "standard input needs the name of a file as its target");
    if (into) place.path = (target.path == "/" ? "" : target.path) + "/" + last_part(source);
    VIRGA_CHECK(recursive ? push_tree(app, source, place, wish) : push_file(app, source, place, wish));
  }
  return {};
}

}  // namespace

Command push_command() {
  return {
      .use = "push <source path>... [<remote>:]<instance>/<path>",
      .summary = "Push files into instances",
      .description = "Owner and permissions are those of the source unless told otherwise. A source of \"-\" is standard input.",
      .examples =
          "virga file push /etc/hosts foo/etc/hosts\n    To push /etc/hosts into the instance \"foo\".\n\n"
          "echo hello | virga file push - foo/root/hello --mode=0600\n    To write what comes from a pipe.",
      .flags = {{"create-dirs", 'p', Flag::boolean, "Create any directories necessary"},
                {"gid", 0, Flag::text, "Set the file's gid on push", "-1"},
                {"mode", 0, Flag::text, "Set the file's perms on push"},
                {"recursive", 'r', Flag::boolean, "Recursively transfer files"},
                {"uid", 0, Flag::text, "Set the file's uid on push", "-1"}},
      .least = 2,
      .most = any_number,
      .run = run_push};
}

}  // namespace virga::cli
