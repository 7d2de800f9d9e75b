#include "drivers/image/confined/confined.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

#include "drivers/image/confined/protocol.h"
#include "io/fd.h"
#include "io/file.h"
#include "io/process.h"

namespace virga::image {
namespace {

using io::UniqueFd;

/// Descriptors of one call. The worker gets them under fixed numbers.
struct Inputs {
  UniqueFd metadata, rootfs, into;
  RootFormat format = RootFormat::none;
};

Result<UniqueFd> open_plain(const std::string& path) {
  VIRGA_TRY(auto fd, io::open_path(path, O_RDONLY));
  struct ::stat st{};
  if (::fstat(fd.get(), &st) != 0) return fail_errno(errno, "stat the image");
  if (!S_ISREG(st.st_mode)) return fail(ErrorKind::invalid, "the image is not a plain file");
  return fd;
}

Result<Inputs> open_inputs(const std::string& metadata, const std::string& rootfs, const std::string& into) {
  Inputs in;
  VIRGA_TRY(in.metadata, open_plain(metadata));
  if (!rootfs.empty()) {
    VIRGA_TRY(in.rootfs, open_plain(rootfs));
    char head[8] = {};
    const auto n = ::pread(in.rootfs.get(), head, sizeof head, 0);
    if (n < 0) return fail_errno(errno, "read the image");
    in.format = root_format({head, static_cast<std::size_t>(n)});
  }
  if (!into.empty()) {
    VIRGA_TRY(in.into, io::open_path(into, O_RDONLY | O_DIRECTORY));
  }
  return in;
}

/// Why a worker ended without an answer.
Error ended_by(int signal) {
  switch (signal) {
    case SIGXCPU:
      return Error(ErrorKind::invalid, "the image takes more processor time to read than is allowed");
    case SIGSYS:
      return Error(ErrorKind::invalid, "the image made its reader do something forbidden");
    default:
      return Error(ErrorKind::invalid, fmt::format("the image made its reader end by signal {}", signal));
  }
}

/// The answer of `inspect` or `unpack`.
Result<Answer> answer_of(Result<io::ProcessOutput> output) {
  if (!output) {
    if (output.error().kind() == ErrorKind::timeout)
      return fail(ErrorKind::timeout, "the image takes longer to read than is allowed");
    return fail(std::move(output).error());
  }
  if (output->status.signal != 0) return fail(ended_by(output->status.signal));
  auto answer = decode_answer(output->out);
  if (answer && output->status.code != 0) return fail(ErrorKind::internal, "the image reader failed and says it did not");
  return answer;
}

constexpr int no_such_program = 127;

Error missing(std::string_view tool, std::string_view package) {
  return Error(ErrorKind::unsupported, fmt::format("'{}' is not installed", tool))
      .with_hint(fmt::format("install the package {}", package));
}

/// The words of a tool that failed, in one line.
std::string last_line(std::string_view text) {
  while (text.ends_with('\n')) text.remove_suffix(1);
  auto line = text.substr(text.rfind('\n') + 1);
  std::string out(line.substr(0, 300));
  for (char& c : out)
    if (c < 0x20 || c == 0x7f) c = '?';
  return out;
}

class ConfinedReader final : public Reader {
 public:
  explicit ConfinedReader(std::string worker) : worker_(std::move(worker)) {}

  Task<Result<Inspection>> inspect(std::string metadata_file, std::string rootfs_file) override {
    VIRGA_CO_TRY(auto inputs, open_inputs(metadata_file, rootfs_file, {}));
    auto answer = co_await read(std::move(inputs), Limits{});
    if (!answer) co_return fail(std::move(answer).error());
    co_return std::move(answer->inspection);
  }

  Task<Result<Inspection>> unpack(UnpackRequest request) override {
    VIRGA_CO_TRY(auto inputs, open_inputs(request.metadata_file, request.rootfs_file, request.into));
    UniqueFd into(::fcntl(inputs.into.get(), F_DUPFD_CLOEXEC, 0));
    UniqueFd disk;
    if (inputs.format == RootFormat::qcow2) disk.reset(::fcntl(inputs.rootfs.get(), F_DUPFD_CLOEXEC, 0));
    const bool unified = inputs.format == RootFormat::none;
    auto answer = co_await (request.backup ? read_backup(std::move(inputs), request) : read(std::move(inputs), request.limits));
    if (!answer) co_return fail(std::move(answer).error());
    if (answer->convert_disk) {
      if (unified) {
        VIRGA_CO_TRY(disk, io::open_in(into.get(), "rootfs.img", O_RDONLY));
      }
      auto converted = co_await convert(into.get(), std::move(disk), request.backup ? "raw" : "qcow2", request.limits);
      if (!converted) co_return fail(std::move(converted).error());
      if (unified && ::unlinkat(into.get(), "rootfs.img", 0) != 0) co_return fail_errno(errno, "remove the packed disk");
    }
    // Not taken from the worker's word: the caller publishes what lies here.
    struct ::stat st{};
    const bool container = answer->inspection.type == Type::container;
    if (::fstatat(into.get(), container ? "rootfs" : "disk.qcow2", &st, AT_SYMLINK_NOFOLLOW) != 0 ||
        (container ? !S_ISDIR(st.st_mode) : !S_ISREG(st.st_mode)))
      co_return fail(ErrorKind::internal, "the image reader left no root behind");
    co_return std::move(answer->inspection);
  }

  Task<Result<BackupInspection>> inspect_backup(std::string file, Limits limits) override {
    VIRGA_CO_TRY(auto inputs, open_inputs(file, {}, {}));
    UnpackRequest request;
    request.limits = limits;
    auto answer = co_await read_backup(std::move(inputs), request);
    if (!answer) co_return fail(std::move(answer).error());
    if (!answer->backup) co_return fail(ErrorKind::internal, "the backup's reader says nothing about it");
    co_return BackupInspection{.type = answer->inspection.type, .documents = std::move(answer->backup->documents)};
  }

 private:
  Task<Result<Answer>> read(Inputs inputs, Limits limits) {
    io::ProcessSpec spec;
    spec.argv = {worker_,
                 inputs.into ? "unpack" : "inspect",
                 std::string(to_string(inputs.format)),
                 std::to_string(limits.max_unpacked),
                 std::to_string(limits.max_entries),
                 std::to_string(seconds(limits))};
    spec.fds.emplace_back(inputs.metadata.get(), 3);
    if (inputs.into) spec.fds.emplace_back(inputs.into.get(), 5);
    io::ProcessLimits process{.timeout = limits.timeout, .max_output = max_answer};
    if (inputs.format != RootFormat::squashfs) {
      if (inputs.rootfs) spec.fds.emplace_back(inputs.rootfs.get(), 4);
      auto output = co_await io::run_process(std::move(spec), process);
      co_return answer_of(std::move(output));
    }
    co_return co_await read_squashfs(std::move(spec), std::move(inputs.rootfs), process, limits);
  }

  Task<Result<Answer>> read_backup(Inputs inputs, UnpackRequest request) {
    io::ProcessSpec spec;
    spec.argv = {worker_,
                 inputs.into ? "unpack" : "inspect",
                 "backup",
                 std::to_string(request.limits.max_unpacked),
                 std::to_string(request.limits.max_entries),
                 std::to_string(seconds(request.limits)),
                 std::to_string(request.id_base),
                 std::to_string(request.id_count)};
    spec.fds.emplace_back(inputs.metadata.get(), 3);
    if (inputs.into) spec.fds.emplace_back(inputs.into.get(), 5);
    auto output = co_await io::run_process(std::move(spec), {.timeout = request.limits.timeout, .max_output = max_answer});
    co_return answer_of(std::move(output));
  }

  /// Two workers: one turns the squashfs into a tarball, and the other reads that by the rules that hold for all tarballs.
  Task<Result<Answer>> read_squashfs(io::ProcessSpec reader, UniqueFd squashfs, io::ProcessLimits process, Limits limits) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) co_return fail_errno(errno, "pipe");
    UniqueFd from(ends[0]), to(ends[1]);
    UniqueFd words(::memfd_create("stderr", MFD_CLOEXEC));
    if (!words) co_return fail_errno(errno, "memfd");
    io::ProcessSpec spec;
    spec.argv = {worker_, "squashfs-to-tar", std::to_string(seconds(limits))};
    spec.fds = {{squashfs.get(), 3}, {to.get(), 1}, {words.get(), 2}};
    VIRGA_CO_TRY(auto unpacker, io::Process::start(spec));
    to.reset();  // the reader sees the end when the unpacker's own end closes
    reader.fds.emplace_back(from.get(), 4);
    auto output = co_await io::run_process(std::move(reader), process);
    from.reset();
    co_await shield();
    auto answer = answer_of(std::move(output));
    // Having closed its end it is about to exit; what it does instead is of no interest.
    TaskGroup watch(co_await current_executor());
    watch.spawn("squashfs", kill_later(unpacker, Milliseconds(answer ? 5000 : 0)));
    auto status = co_await unpacker.wait();
    watch.cancel();
    co_await watch.join();
    char text[4096];
    const auto n = ::pread(words.get(), text, sizeof text, 0);
    const auto line = last_line({text, static_cast<std::size_t>(std::max<ssize_t>(n, 0))});
    if (status && status->code == no_such_program) co_return fail(missing("sqfs2tar", "squashfs-tools-ng"));
    if (status && status->signal == 0 && status->code != 0 && (answer || answer.error().kind() == ErrorKind::invalid))
      co_return fail(ErrorKind::invalid, "malformed squashfs: " + line);
    if (!answer) co_return fail(std::move(answer).error());
    if (!status) co_return fail(std::move(status).error());
    if (status->signal != 0) co_return fail(ended_by(status->signal));
    co_return answer;
  }

  static Task<> kill_later(io::Process& process, Milliseconds after) {
    if (co_await sleep_for(after)) (void)process.kill(SIGKILL);
  }

  Task<Result<>> convert(int into, UniqueFd disk, std::string format, Limits limits) {
    if (!disk) co_return fail(ErrorKind::internal, "the packed disk is gone");
    VIRGA_CO_TRY(auto target, io::open_in(into, "disk.qcow2", O_RDWR | O_CREAT | O_EXCL));
    io::ProcessSpec spec;
    spec.argv = {worker_, "convert-disk", std::to_string(limits.max_unpacked), std::to_string(seconds(limits)), format, "qcow2"};
    spec.fds = {{disk.get(), 3}, {target.get(), 4}};
    auto output = co_await io::run_process(std::move(spec), {.timeout = limits.timeout, .max_output = 64u << 10});
    if (!output) co_return fail(std::move(output).error().wrap("convert the disk"));
    if (output->status.signal != 0) co_return fail(ended_by(output->status.signal));
    if (output->status.code == no_such_program) co_return fail(missing("qemu-img", "qemu-utils"));
    if (output->status.code != 0) {
      const auto words = last_line(output->err);
      const bool full = words.find("No space left") != std::string::npos;
      co_return fail(full ? ErrorKind::unavailable : ErrorKind::invalid, fmt::format("malformed {} disk: {}", format, words));
    }
    co_return Result<>();
  }

  static std::int64_t seconds(const Limits& limits) { return std::max<std::int64_t>(1, limits.timeout.count() / 1000); }

  std::string worker_;
};

}  // namespace

std::unique_ptr<Reader> make_confined_reader(std::string worker) {
  return std::make_unique<ConfinedReader>(std::move(worker));
}

}  // namespace virga::image
