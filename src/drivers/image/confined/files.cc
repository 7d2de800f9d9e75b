#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <vector>

#include "base/hash.h"
#include "base/log.h"
#include "base/random.h"
#include "drivers/image/confined/confined.h"
#include "io/fd.h"
#include "io/file.h"

namespace virga::image {
namespace {

using io::UniqueFd;

constexpr std::string_view upload_prefix = ".upload-";
constexpr std::string_view root_suffix = ".rootfs";

Result<Bytes> add_file(Sha256& hash, const std::string& path) {
  VIRGA_TRY(auto fd, io::open_path(path, O_RDONLY));
  Bytes total = 0;
  std::vector<char> buffer(1u << 20);
  for (;;) {
    const auto n = ::read(fd.get(), buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, "read the image");
    if (n == 0) return total;
    hash.add({buffer.data(), static_cast<std::size_t>(n)});
    total += static_cast<Bytes>(n);
  }
}

Result<> sync_path(const std::string& path, int flags) {
  VIRGA_TRY(auto fd, io::open_path(path, flags));
  if (::fsync(fd.get()) != 0) return fail_errno(errno, fmt::format("write '{}'", path));
  return {};
}

/// Moves an upload into place; one that has been moved already is success.
Result<> move_file(const std::string& from, const std::string& to) {
  if (!io::exists(from) && io::exists(to)) return {};
  VIRGA_CHECK(sync_path(from, O_RDONLY));
  if (::rename(from.c_str(), to.c_str()) != 0) return fail_errno(errno, "keep the image");
  return {};
}

Result<> remove_file(const std::string& path) {
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) return fail_errno(errno, fmt::format("remove '{}'", path));
  return {};
}

class DirectoryFiles final : public Files {
 public:
  DirectoryFiles(std::string directory, BlockingPool& blocking) : directory_(std::move(directory)), blocking_(blocking) {}

  Task<Result<>> open() override {
    auto made = io::make_directory(directory_, 0700);
    if (!made) co_return made;
    co_return co_await for_each([](const std::string& name) { return name.starts_with(upload_prefix); });
  }

  std::string new_upload_path() override { return fmt::format("{}/{}{}", directory_, upload_prefix, random_hex(16)); }

  Task<Result<Digest>> digest(std::string metadata, std::string rootfs) override {
    co_return co_await blocking_.run([metadata, rootfs]() -> Result<Digest> {
      Sha256 hash;
      Digest digest;
      VIRGA_TRY(digest.size, add_file(hash, metadata));
      if (!rootfs.empty()) {
        VIRGA_TRY(auto more, add_file(hash, rootfs));
        digest.size += more;
      }
      digest.fingerprint = hash.hex();
      return digest;
    });
  }

  Task<Result<>> keep(std::string metadata, std::string rootfs, std::string fingerprint) override {
    auto to = metadata_path(fingerprint);
    auto root_to = rootfs_path(fingerprint);
    auto directory = directory_;
    co_return co_await blocking_.run([=]() -> Result<> {
      if (!rootfs.empty()) VIRGA_CHECK(move_file(rootfs, root_to));
      VIRGA_CHECK(move_file(metadata, to));
      return sync_path(directory, O_RDONLY | O_DIRECTORY);
    });
  }

  Task<Result<>> remove(std::string fingerprint) override {
    auto first = metadata_path(fingerprint);
    auto second = rootfs_path(fingerprint);
    auto directory = directory_;
    co_return co_await blocking_.run([=]() -> Result<> {
      VIRGA_CHECK(remove_file(first));
      VIRGA_CHECK(remove_file(second));
      return sync_path(directory, O_RDONLY | O_DIRECTORY);
    });
  }

  Task<Result<>> discard_upload(std::string path) override {
    if (!path.starts_with(fmt::format("{}/{}", directory_, upload_prefix)))
      co_return fail(ErrorKind::internal, "not the path of an upload");
    co_return co_await blocking_.run([path] { return remove_file(path); });
  }

  Task<Result<>> append(std::string path, std::string bytes) override {
    if (!path.starts_with(fmt::format("{}/{}", directory_, upload_prefix)))
      co_return fail(ErrorKind::internal, "not the path of an upload");
    co_return co_await blocking_.run([path, text = std::move(bytes)]() -> Result<> {
      VIRGA_TRY(auto fd, io::open_path(path, O_WRONLY | O_CREAT | O_APPEND));
      for (std::string_view rest = text; !rest.empty();) {
        const auto n = ::write(fd.get(), rest.data(), rest.size());
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return fail_errno(errno, "write an upload");
        rest.remove_prefix(static_cast<std::size_t>(n));
      }
      return {};
    });
  }

  Task<Result<Bytes>> size_of(std::string path) override {
    co_return co_await blocking_.run([path]() -> Result<Bytes> {
      VIRGA_TRY(auto fd, io::open_path(path, O_RDONLY));
      struct ::stat st{};
      if (::fstat(fd.get(), &st) != 0) return fail_errno(errno, fmt::format("stat '{}'", path));
      return static_cast<Bytes>(st.st_size);
    });
  }

  Task<Result<std::string>> read(std::string path, Bytes offset, std::size_t most) override {
    co_return co_await blocking_.run([path, offset, most]() -> Result<std::string> {
      VIRGA_TRY(auto fd, io::open_path(path, O_RDONLY));
      std::string out(most, '\0');
      const auto n = ::pread(fd.get(), out.data(), out.size(), static_cast<off_t>(offset));
      if (n < 0) return fail_errno(errno, fmt::format("read '{}'", path));
      out.resize(static_cast<std::size_t>(n));
      return out;
    });
  }

  Task<Result<>> sweep(std::set<std::string> known) override {
    co_return co_await for_each([known = std::move(known)](const std::string& name) {
      if (name.starts_with(upload_prefix)) return false;
      const std::string fingerprint = name.ends_with(root_suffix) ? name.substr(0, name.size() - root_suffix.size()) : name;
      return !known.contains(fingerprint);
    });
  }

  std::string metadata_path(const std::string& fingerprint) const override { return fmt::format("{}/{}", directory_, fingerprint); }
  std::string rootfs_path(const std::string& fingerprint) const override {
    return fmt::format("{}/{}{}", directory_, fingerprint, root_suffix);
  }

 private:
  /// Removes the plain files that `doomed` picks.
  Task<Result<>> for_each(std::function<bool(const std::string&)> doomed) {
    auto directory = directory_;
    co_return co_await blocking_.run([directory, doomed = std::move(doomed)]() -> Result<> {
      std::error_code ec;
      for (std::filesystem::directory_iterator it(directory, ec), end; !ec && it != end; it.increment(ec)) {
        const auto name = it->path().filename().string();
        if (!doomed(name)) continue;
        log::info("removing '{}', which an interrupted import left", it->path().string());
        VIRGA_CHECK(remove_file(it->path().string()));
      }
      if (ec) return fail(ErrorKind::unavailable, fmt::format("list '{}': {}", directory, ec.message()));
      return {};
    });
  }

  std::string directory_;
  BlockingPool& blocking_;
};

}  // namespace

std::unique_ptr<Files> make_directory_files(std::string directory, BlockingPool& blocking) {
  return std::make_unique<DirectoryFiles>(std::move(directory), blocking);
}

}  // namespace virga::image
