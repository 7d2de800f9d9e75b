// export and import: an instance as a tarball.
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <memory>
#include <optional>

#include "apps/virga/instances/instances.h"
#include "apps/virga/new_file.h"
#include "apps/virga/text.h"
#include "apps/virga/values.h"
#include "base/units.h"

namespace virga::cli {
namespace {

/// By the first bytes, as nothing else tells how the server has packed it.
std::string_view ending_of(std::string_view head) {
  using namespace std::string_view_literals;
  for (const auto& [magic, ending] : {std::pair{"\x1f\x8b"sv, ".tar.gz"sv},
                                      {"\xfd"
                                       "7zXZ\0"sv,
                                       ".tar.xz"sv},
                                      {"\x28\xb5\x2f\xfd"sv, ".tar.zst"sv},
                                      {"BZh"sv, ".tar.bz2"sv}})
    if (head.starts_with(magic)) return ending;
  return ".tar";
}

/// Where the bytes of a backup go: a file that is there once it is whole, or standard output.
struct Target {
  std::string name;  ///< empty: the instance's, with an ending
  std::optional<NewFile> file;

  Result<> write(std::string_view bytes) {
    if (file) return file->write(bytes);
    return std::fwrite(bytes.data(), 1, bytes.size(), stdout) == bytes.size()
               ? Result<>{}
               : fail(ErrorKind::unavailable, "cannot write to standard output");
  }
};

Result<> download(App& app, Api& api, const Url& backup, const std::string& instance, Target& target) {
  auto progress = app.progress("Exporting the backup");
  std::string head;
  std::uint64_t received = 0;
  auto sink = [&](std::string_view bytes) -> Result<> {
    if (head.size() < 8) head += bytes.substr(0, 8 - head.size());
    received += bytes.size();
    if (target.file) progress.show(format_bytes(received));
    return target.write(bytes);
  };
  VIRGA_CHECK(api.await(api.client().download(Url(backup).segment("export").text(), sink)));
  progress.clear();
  if (!target.file) return {};
  const auto name = target.name.empty() ? instance + std::string(ending_of(head)) : target.name;
  VIRGA_CHECK(target.file->finish(name));
  app.note("Backup exported successfully!");
  return {};
}

Result<> export_instance(App& app, const Args& args) {
  VIRGA_TRY(const auto name, local_name(args[0]));
  VIRGA_TRY(auto* api, app.api());
  Target target{.name = args.word(1), .file = {}};
  if (target.name != "-") {
    const auto beside = (target.name.empty() ? name : target.name) + ".part";
    VIRGA_TRY(auto file, NewFile::create(beside));
    target.file.emplace(std::move(file));
  }
  json::object body{{"name", ""},
                    {"expires_at", format_time(std::chrono::system_clock::now() + std::chrono::hours(24))},
                    {"instance_only", args.has("instance-only")},
                    {"optimized_storage", args.has("optimized-storage")}};
  if (auto compression = args.text("compression"); !compression.empty()) body["compression_algorithm"] = compression;
  auto progress = app.progress("Backing up instance");
  VIRGA_TRY(auto operation, api->run("POST", instance_url(app, name).segment("backups"), std::move(body), &progress));
  const auto made = strings_of(object_of(operation, "resources"), "backups");
  if (made.empty()) return fail(ErrorKind::internal, "the server did not say the backup's name");
  const auto backup = instance_url(app, name).segment("backups").segment(client::name_in_url(made[0]));
  auto done = download(app, *api, backup, name, target);
  // It is in the file now, or of no use.
  auto removed = api->run("DELETE", backup);
  if (!done) return done;
  if (!removed) return fail(std::move(removed).error().wrap("the backup is exported, but stays on the server"));
  return {};
}

Result<> import_instance(App& app, const Args& args) {
  VIRGA_TRY(auto* config, app.config());
  auto words = args.words;
  // The stock client's way of naming the server: a word of its own in front.
  auto [remote, rest] = client::split_remote(words[0]);
  if (!remote.empty() && rest.empty()) {
    words.erase(words.begin());
    VIRGA_CHECK(config->find(remote));
    VIRGA_CHECK(app.use_remote(remote));
  }
  if (words.empty()) return fail(ErrorKind::invalid, "You must specify a backup file");
  if (words.size() > 2) return fail(ErrorKind::invalid, "Invalid number of arguments");
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(
      words[0] == "-" ? ::fdopen(::dup(0), "rb") : std::fopen(words[0].c_str(), "rbe"), std::fclose);
  if (!file) return fail_errno(errno, fmt::format("open '{}'", words[0]));
  struct ::stat st{};
  if (::fstat(::fileno(file.get()), &st) != 0) return fail_errno(errno, fmt::format("stat '{}'", words[0]));
  if (S_ISDIR(st.st_mode)) return fail(ErrorKind::invalid, fmt::format("'{}' is a directory", words[0]));

  VIRGA_TRY(auto* api, app.api());
  auto progress = app.progress("Importing instance");
  client::Upload upload;
  upload.target = app.url("/1.0/instances").text();
  upload.headers = {{"Content-Type", "application/octet-stream"}};
  if (words.size() > 1) upload.headers.emplace_back("X-Incus-name", words[1]);
  if (auto pool = args.text("storage"); !pool.empty()) upload.headers.emplace_back("X-Incus-pool", pool);
  if (S_ISREG(st.st_mode)) upload.length = static_cast<std::uint64_t>(st.st_size);
  std::uint64_t sent = 0;
  upload.read = [&, length = upload.length](std::span<char> into) -> Result<std::size_t> {
    const auto n = std::fread(into.data(), 1, into.size(), file.get());
    if (n == 0 && std::ferror(file.get()) != 0) return fail_errno(errno, fmt::format("read '{}'", words[0]));
    sent += n;
    if (length && *length > 0) progress.show(fmt::format("{}%", std::min<std::uint64_t>(100, sent * 100 / *length)));
    return n;
  };
  VIRGA_TRY(const auto answer, api->await(api->client().upload(std::move(upload))));
  progress.clear();
  VIRGA_CHECK(api->wait(answer.operation, &progress));
  return {};
}

}  // namespace

Command export_command() {
  return {.use = "export [<remote>:]<instance> [<target>]",
          .summary = "Export instance backups",
          .description =
              "Makes a backup of an instance and downloads it as a tarball, which any server of this kind can import. A "
              "target of - is standard output.",
          .examples = "virga export web web.tar.gz\n\nvirga export web - --compression zstd | ssh other 'cat > web.tar.zst'",
          .flags = {{"compression", 0, Flag::text, "Compression algorithm to use (none for uncompressed)"},
                    {"instance-only", 0, Flag::boolean, "Whether or not to only backup the instance (without snapshots)"},
                    {"optimized-storage", 0, Flag::boolean,
                     "Use storage driver optimized format (can only be restored on a similar pool)"}},
          .least = 1,
          .most = 2,
          .run = export_instance};
}

Command import_command() {
  return {.use = "import [<remote>:] <backup file> [<instance name>]",
          .summary = "Import instance backups",
          .description = "Makes an instance of a backup's tarball, of this server or of another one of its kind.",
          .examples = "virga import web.tar.gz\n\nvirga import lab: web.tar.gz web2 --storage fast",
          .flags = {{"storage", 's', Flag::text, "Storage pool name"}},
          .least = 1,
          .most = 3,
          .run = import_instance,
          .own_remotes = true};
}

}  // namespace virga::cli
