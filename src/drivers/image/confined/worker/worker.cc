#include "drivers/image/confined/worker/worker.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <clocale>
#include <cstdlib>
#include <new>
#include <string>
#include <string_view>
#include <vector>

#include "base/units.h"
#include "drivers/image/confined/protocol.h"
#include "drivers/image/confined/worker/layout.h"
#include "drivers/image/confined/worker/pack.h"
#include "drivers/image/confined/worker/sandbox.h"

namespace virga::image {
namespace {

using Arguments = std::vector<std::string_view>;

constexpr std::int64_t max_seconds = 86'400;
constexpr std::int64_t max_layers = 120;

Result<std::int64_t> number(const Arguments& args, std::size_t at, std::int64_t max) {
  if (at >= args.size()) return fail(ErrorKind::invalid, "too few arguments");
  return parse_integer(args[at], 0, max);
}

Result<Answer> read(const Arguments& args) {
  const bool unpack = args[0] == "unpack", backup = args[1] == "backup";
  if (args.size() != (backup ? 7u : 5u)) return fail(ErrorKind::invalid, "wrong number of arguments");
  Job job;
  if (backup) {
    VIRGA_TRY(auto base, number(args, 5, UINT32_MAX));
    VIRGA_TRY(auto count, number(args, 6, UINT32_MAX));
    job.backup = true;
    job.id_base = static_cast<std::uint32_t>(base);
    job.id_count = static_cast<std::uint32_t>(count);
  } else {
    VIRGA_TRY(job.rootfs_format, parse_root_format(args[1]));
  }
  VIRGA_TRY(auto bytes, number(args, 2, INT64_MAX));
  VIRGA_TRY(auto entries, number(args, 3, INT64_MAX));
  VIRGA_TRY(auto seconds, number(args, 4, max_seconds));
  job.limits.max_unpacked = static_cast<Bytes>(bytes);
  job.limits.max_entries = static_cast<std::uint64_t>(entries);
  job.metadata_fd = 3;
  if (job.rootfs_format != RootFormat::none) job.rootfs_fd = 4;
  if (unpack) job.into_fd = 5;
  // Names are bytes: with any other character set the archive library would normalise what a pax header says.
  ::setlocale(LC_CTYPE, "C");
  Sandbox sandbox;
  sandbox.cpu = std::chrono::seconds(seconds);
  sandbox.largest_file = job.limits.max_unpacked;
  sandbox.keeps_owners = unpack;
  if (unpack) sandbox.places.push_back({5, true});
  VIRGA_CHECK(enter(sandbox));
  VIRGA_TRY(auto answer, read_image(job));

  return answer;
}

int answer_with(std::string text, int code) {
  for (std::string_view rest = text; !rest.empty();) {
    const auto n = ::write(1, rest.data(), rest.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return 1;
    rest.remove_prefix(static_cast<std::size_t>(n));
  }
  return code;
}

Result<> pack(const Arguments& args) {
  if (args.size() != 8) return fail(ErrorKind::invalid, "wrong number of arguments");
  PackJob job;
  VIRGA_TRY(job.compression, parse_compression(args[1]));
  VIRGA_TRY(auto base, number(args, 2, UINT32_MAX));
  VIRGA_TRY(auto count, number(args, 3, UINT32_MAX));
  VIRGA_TRY(auto bytes, number(args, 4, INT64_MAX));
  VIRGA_TRY(auto entries, number(args, 5, INT64_MAX));
  VIRGA_TRY(auto seconds, number(args, 6, max_seconds));
  job.id_base = static_cast<std::uint32_t>(base);
  job.id_count = static_cast<std::uint32_t>(count);
  job.limits.max_unpacked = static_cast<Bytes>(bytes);
  job.limits.max_entries = static_cast<std::uint64_t>(entries);
  const auto parts = args[7];
  job.metadata_fd = 3;
  job.out_fd = 4;
  if (parts.find('b') != std::string_view::npos) job.base_fd = 5;
  if (parts.find('m') != std::string_view::npos) job.templates_fd = 7;
  if (parts.find('t') != std::string_view::npos) job.tree_fd = 6;
  if (parts.find('d') != std::string_view::npos) job.disk_fd = 6;
  if ((job.tree_fd < 0) == (job.disk_fd < 0)) return fail(ErrorKind::invalid, "neither a tree nor a disk");
  job.progress = [](Bytes read) { (void)answer_with(fmt::format("{}\n", read), 0); };
  ::setlocale(LC_CTYPE, "C");
  Sandbox sandbox;
  sandbox.cpu = std::chrono::seconds(seconds);
  sandbox.memory = Bytes(512) << 20;  // xz looks far back
  sandbox.largest_file = job.limits.max_unpacked;
  sandbox.reads_all = true;
  sandbox.places = {{4, true}, {6, false}};
  if (job.base_fd >= 0) sandbox.places.push_back({5, false});
  VIRGA_CHECK(enter(sandbox));
  return pack_image(job);
}

/// A disk of layers, the topmost first: each and its format is named, so that nobody follows a name in a header.
std::string layered(const std::vector<int>& descriptors) {
  std::string out = "null";
  for (auto fd = descriptors.rbegin(); fd != descriptors.rend(); ++fd)
    out = fmt::format(R"({{"driver":"qcow2","file":{{"driver":"file","filename":"/proc/self/fd/{}"}},"backing":{}}})", *fd, out);
  return "json:" + out;
}

int become(const Sandbox& sandbox, std::vector<const char*> argv) {
  ::setenv("MALLOC_ARENA_MAX", "2", 1);
  if (auto r = enter(sandbox); !r) {
    const auto text = r.error().chain() + "\n";
    (void)!::write(2, text.data(), text.size());
    return 1;
  }
  argv.push_back(nullptr);
  ::execv(argv[0], const_cast<char**>(argv.data()));
  return 127;
}

}  // namespace

int worker_main(int argc, char** argv) {
  Arguments args(argv + 1, argv + argc);
  if (args.empty()) return 2;
  // What a daemon that was killed has asked for nobody waits for.
  (void)::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (args[0] == "inspect" || args[0] == "unpack") {
    try {
      auto answer = read(args);
      return answer ? answer_with(encode_answer(*answer), 0) : answer_with(encode_error(answer.error()), 1);
    } catch (const std::bad_alloc&) {
      return answer_with(R"({"error":{"kind":"invalid","message":"the image needs more memory to read than is allowed"}})", 1);
    }
  }
  if (args[0] == "pack") {
    try {
      auto done = pack(args);
      return done ? answer_with("{}\n", 0) : answer_with(encode_error(done.error()) + "\n", 1);
    } catch (const std::bad_alloc&) {
      return answer_with("{\"error\":{\"kind\":\"invalid\",\"message\":\"the root needs more memory to pack than is allowed\"}}\n",
                         1);
    }
  }
  Sandbox sandbox;
  sandbox.runs_program = true;
  if (args[0] == "squashfs-to-tar") {
    auto seconds = number(args, 1, max_seconds);
    if (!seconds) return 2;
    sandbox.cpu = std::chrono::seconds(*seconds);
    sandbox.memory = Bytes(384) << 20;
    sandbox.largest_file = 64u << 10;  // its standard error
    sandbox.places = {{3, false}};
    return become(sandbox, {"/usr/bin/sqfs2tar", "--no-skip", "--root-becomes", ".", "/proc/self/fd/3"});
  }
  if (args[0] == "convert-disk" || args[0] == "flatten-disk") {
    const bool flatten = args[0] == "flatten-disk";
    auto bytes = number(args, 1, INT64_MAX);
    auto seconds = number(args, 2, max_seconds);
    auto below = flatten ? number(args, 5, max_layers) : Result<std::int64_t>(0);
    if (!bytes || !seconds || !below || args.size() != (flatten ? 6u : 5u)) return 2;
    // Both formats are said; nothing is guessed.
    const char* from = args[3] == "raw" ? "raw" : "qcow2";
    const char* to = args[4] == "raw" ? "raw" : "qcow2";
    sandbox.cpu = std::chrono::seconds(*seconds);
    sandbox.memory = Bytes(1) << 30;
    sandbox.largest_file = static_cast<Bytes>(*bytes);
    sandbox.places = {{3, false}, {4, true}};
    if (flatten) {
      std::vector<int> layers{3};
      for (int n = 0; n < *below; ++n) layers.push_back(5 + n);
      for (std::size_t n = 1; n < layers.size(); ++n) sandbox.places.push_back({layers[n], false});
      const auto disk = layered(layers);
      return become(sandbox, {"/usr/bin/qemu-img", "convert", "-O", to, "-t", "writeback", disk.c_str(), "/proc/self/fd/4"});
    }
    // "writeback": flushed before it ends.
    return become(sandbox,
                  {"/usr/bin/qemu-img", "convert", "-f", from, "-O", to, "-t", "writeback", "/proc/self/fd/3", "/proc/self/fd/4"});
  }
  if (args[0] == "merge-layers") {
    auto below = number(args, 1, max_layers);
    auto seconds = number(args, 2, max_seconds);
    if (!below || !seconds) return 2;
    sandbox.cpu = std::chrono::seconds(*seconds);
    sandbox.memory = Bytes(2) << 30;
    sandbox.largest_file = Bytes(1) << 52;  // a layer is as large as its disk may become
    // The upper layer is only read, but opened as commits do it.
    sandbox.places = {{3, true}, {4, true}};
    std::vector<int> layers{3, 4};
    for (int n = 0; n < *below; ++n) {
      layers.push_back(5 + n);
      sandbox.places.push_back({5 + n, false});
    }
    const auto disk = layered(layers);
    return become(sandbox, {"/usr/bin/qemu-img", "commit", "-d", "-t", "writeback", disk.c_str()});
  }
  return 2;
}

}  // namespace virga::image
