// The daemon's side of packing: opens what the worker gets, follows its progress, and reads its answer as a stranger's.
#include "drivers/image/packer.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "drivers/image/confined/confined.h"
#include "drivers/image/confined/protocol.h"
#include "io/fd.h"
#include "io/file.h"
#include "io/process.h"

namespace virga::image {
namespace {

using io::UniqueFd;

std::string seconds_of(const Limits& limits) {
  return std::to_string(std::max<std::int64_t>(1, limits.timeout.count() / 1000));
}

Result<UniqueFd> memory_file(std::string_view text) {
  UniqueFd fd(::memfd_create("metadata", MFD_CLOEXEC));
  if (!fd) return fail_errno(errno, "memfd");
  if (::write(fd.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()) || ::lseek(fd.get(), 0, SEEK_SET) != 0)
    return fail_errno(errno, "write the metadata");
  return fd;
}

Result<> sync_file(int fd) {
  if (::fsync(fd) != 0) return fail_errno(errno, "write the image");
  return {};
}

/// As the worker reads them again: "SIZE NAME", a line end, and so many bytes.
std::string joined(const std::map<std::string, std::string>& files) {
  std::string out;
  for (const auto& [name, text] : files) out += fmt::format("{} {}\n{}", text.size(), name, text);
  return out;
}

/// Numbers, a line each, and at the end an answer.
class Lines {
 public:
  explicit Lines(const std::function<void(Bytes)>& progress) : progress_(progress) {}
  void add(std::string_view text) {
    pending_.append(text);
    for (std::size_t end; (end = pending_.find('\n')) != std::string::npos; pending_.erase(0, end + 1))
      line(pending_.substr(0, end));
    if (pending_.size() > max_answer) pending_.clear();
  }
  const std::string& answer() const { return answer_; }

 private:
  void line(std::string text) {
    if (text.starts_with('{')) {
      answer_ = std::move(text);
    } else if (auto n = parse_integer(text, 0, INT64_MAX); n && progress_) {
      progress_(static_cast<Bytes>(*n));
    }
  }
  const std::function<void(Bytes)>& progress_;
  std::string pending_, answer_;
};

class ConfinedPacker final : public Packer {
 public:
  ConfinedPacker(std::string worker, BlockingPool& blocking) : worker_(std::move(worker)), blocking_(blocking) {}

  Task<Result<>> pack(PackRequest request, std::function<void(Bytes)> progress) override {
    UniqueFd root;
    std::string parts;
    if (!request.tree.empty()) {
      VIRGA_CO_TRY(root, io::open_path(request.tree, O_RDONLY | O_DIRECTORY));
      parts = "t";
    } else {
      VIRGA_CO_TRY(root, co_await flat_disk(request));
      parts = "d";
    }
    UniqueFd base;
    if (!request.base.empty()) {
      VIRGA_CO_TRY(base, io::open_path(request.base, O_RDONLY | O_DIRECTORY));
      parts += "b";
    }
    UniqueFd templates;
    if (request.templates) {
      VIRGA_CO_TRY(templates, memory_file(joined(*request.templates)));
      parts += "m";
    }
    Answer about;
    about.inspection.type = request.tree.empty() ? Type::virtual_machine : Type::container;
    about.inspection.metadata = request.metadata;
    about.backup = request.backup;
    VIRGA_CO_TRY(auto metadata, memory_file(encode_answer(about)));
    VIRGA_CO_TRY(auto out, io::open_path(request.into, O_WRONLY | O_CREAT | O_EXCL));
    io::ProcessSpec spec;
    spec.argv = {worker_,
                 "pack",
                 std::string(to_string(request.compression)),
                 std::to_string(request.id_base),
                 std::to_string(request.id_count),
                 std::to_string(request.limits.max_unpacked),
                 std::to_string(request.limits.max_entries),
                 seconds_of(request.limits),
                 parts};
    spec.fds = {{metadata.get(), 3}, {out.get(), 4}, {root.get(), 6}};
    if (base) spec.fds.emplace_back(base.get(), 5);
    if (templates) spec.fds.emplace_back(templates.get(), 7);
    VIRGA_CO_CHECK(co_await follow(std::move(spec), progress));
    co_return co_await blocking_.run([fd = out.get()] { return sync_file(fd); });
  }

 private:
  /// What the guest's disk shows, as one file that stands for itself.
  Task<Result<UniqueFd>> flat_disk(const PackRequest& request) {
    VIRGA_CO_TRY(auto disk, io::open_path(request.disk, O_RDONLY));
    VIRGA_CO_TRY(auto flat, io::open_path(request.scratch, O_RDWR | O_CREAT | O_EXCL));
    io::ProcessSpec spec;
    spec.argv = {worker_,
                 request.backing.empty() ? "convert-disk" : "flatten-disk",
                 std::to_string(request.limits.max_unpacked),
                 seconds_of(request.limits),
                 "qcow2",
                 request.backup ? "raw" : "qcow2"};
    spec.fds = {{disk.get(), 3}, {flat.get(), 4}};
    if (!request.backing.empty()) spec.argv.push_back(std::to_string(request.backing.size()));
    std::vector<UniqueFd> backing;
    for (const auto& path : request.backing) {
      VIRGA_CO_TRY(auto layer, io::open_path(path, O_RDONLY));
      spec.fds.emplace_back(layer.get(), static_cast<int>(5 + backing.size()));
      backing.push_back(std::move(layer));
    }
    auto output = co_await io::run_process(std::move(spec), {.timeout = request.limits.timeout, .max_output = 64u << 10});
    if (!output) co_return fail(std::move(output).error().wrap("copy the disk"));
    constexpr int no_such_program = 127;
    if (output->status.code == no_such_program)
      co_return fail(Error(ErrorKind::unsupported, "'qemu-img' is not installed").with_hint("install the package qemu-utils"));
    if (output->status.code != 0) {
      const bool full = output->err.find("No space left") != std::string::npos;
      co_return fail(full ? ErrorKind::unavailable : ErrorKind::internal,
                     fmt::format("copy the disk: qemu-img ended with code {}", output->status.code));
    }
    co_return flat;
  }

  Task<Result<>> follow(io::ProcessSpec spec, const std::function<void(Bytes)>& progress) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) co_return fail_errno(errno, "pipe");
    UniqueFd from(ends[0]), to(ends[1]);
    if (::fcntl(from.get(), F_SETFL, O_NONBLOCK) != 0) co_return fail_errno(errno, "pipe");
    spec.fds.emplace_back(to.get(), 1);
    VIRGA_CO_TRY(auto process, io::Process::start(spec));
    to.reset();
    Lines lines(progress);
    bool cancelled = false;
    for (char buffer[4096];;) {
      const auto n = ::read(from.get(), buffer, sizeof buffer);
      if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) break;
      if (n > 0) lines.add({buffer, static_cast<std::size_t>(n)});
      cancelled = n < 0 && errno == EAGAIN && !co_await io::wait_readable(from.get());
      if (cancelled) break;
    }
    if (cancelled || co_await is_cancelled()) {
      (void)process.kill(SIGKILL);
      co_await shield();
      (void)co_await process.wait();
      co_return fail(ErrorKind::cancelled, "cancelled");
    }
    auto status = co_await process.wait();
    if (!status) co_return fail(std::move(status).error());
    if (status->signal == SIGXCPU) co_return fail(ErrorKind::invalid, "the root takes more processor time to pack than is allowed");
    if (status->signal != 0) co_return fail(ErrorKind::internal, fmt::format("the packer ended by signal {}", status->signal));
    if (status->code == 0) co_return Result<>{};
    auto answer = decode_answer(lines.answer());
    if (answer) co_return fail(ErrorKind::internal, "the packer failed and says it did not");
    co_return fail(std::move(answer).error());
  }

  std::string worker_;
  BlockingPool& blocking_;
};

}  // namespace

std::unique_ptr<Packer> make_confined_packer(std::string worker, BlockingPool& blocking) {
  return std::make_unique<ConfinedPacker>(std::move(worker), blocking);
}

}  // namespace virga::image
