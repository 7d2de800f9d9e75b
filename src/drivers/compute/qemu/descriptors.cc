#include "drivers/compute/qemu/descriptors.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>

#include "io/file.h"
#include "io/unix_socket.h"

namespace virga::compute::qemu_driver {
namespace {

Result<io::UniqueFd> open_regular(const std::string& path, int flags) {
  VIRGA_TRY(auto fd, io::open_path(path, flags));
  struct stat status{};
  if (::fstat(fd.get(), &status) != 0) return fail_errno(errno, fmt::format("look at '{}'", path));
  if (!S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode))
    return fail(ErrorKind::invalid, fmt::format("'{}' is neither a file nor a block device", path));
  return fd;
}

std::uint64_t big_endian(std::string_view bytes, std::size_t at, std::size_t width) {
  std::uint64_t v = 0;
  for (std::size_t i = 0; i < width; ++i) v = v << 8 | static_cast<unsigned char>(bytes[at + i]);
  return v;
}

Result<io::UniqueFd> open_disk(const Passed& p) {
  VIRGA_TRY(auto fd, open_regular(p.name, p.writable ? O_RDWR : O_RDONLY));
  if (p.format != DiskFormat::qcow2) return fd;
  char head[128] = {};
  const auto n = ::pread(fd.get(), head, sizeof head, 0);
  auto good = check_qcow2_header(std::string_view(head, n > 0 ? static_cast<std::size_t>(n) : 0), p.layered);
  if (!good) return fail(std::move(good).error().wrap(fmt::format("disk '{}'", p.name)));
  return fd;
}

/// QEMU reopens kernel and initrd through /proc/self/fd as the guest's user. A file that others may not read is handed over as a
/// copy in memory instead: the image's rights stay as they are.
Result<io::UniqueFd> open_boot_file(const std::string& path) {
  VIRGA_TRY(auto fd, open_regular(path, O_RDONLY));
  struct stat status{};
  if (::fstat(fd.get(), &status) != 0) return fail_errno(errno, fmt::format("look at '{}'", path));
  if ((status.st_mode & S_IROTH) != 0) return fd;
  if (status.st_size > (1ll << 30)) return fail(ErrorKind::invalid, fmt::format("'{}' is larger than 1 GiB", path));
  io::UniqueFd copy(::memfd_create("boot", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!copy) return fail_errno(errno, "make a file in memory");
  for (off_t at = 0; at < status.st_size;) {
    const auto n = ::sendfile(copy.get(), fd.get(), &at, static_cast<std::size_t>(status.st_size - at));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0)
      return n < 0 ? fail_errno(errno, fmt::format("copy '{}'", path))
                   : fail(ErrorKind::unavailable, fmt::format("'{}' became shorter", path));
  }
  ::fcntl(copy.get(), F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE);
  return copy;
}

Result<io::UniqueFd> open_variables(const std::string& path, const std::string& variables_template) {
  if (!io::exists(path)) {
    auto text = io::read_file(variables_template);
    if (!text) return fail(std::move(text).error().wrap("read the firmware's template of variables"));
    VIRGA_CHECK(io::write_file_durably(path, *text, 0600));
  }
  return open_regular(path, O_RDWR);
}

Result<io::UniqueFd> open_one(const Passed& p, const GuestSpec& spec, const std::string& variables_template) {
  switch (p.what) {
    case Passed::What::monitor:
      return io::listen_unix(monitor_path(spec.run_dir));
    case Passed::What::agent:
      return io::listen_unix(agent_path(spec.run_dir));
    case Passed::What::tap:
      return open_tap(p.name);
    case Passed::What::image:
    case Passed::What::disk:
      return open_disk(p);
    case Passed::What::kernel:
    case Passed::What::initrd:
      return open_boot_file(p.name);
    case Passed::What::firmware:
      return open_regular(p.name, O_RDONLY);
    case Passed::What::variables:
      return open_variables(p.name, variables_template);
    case Passed::What::console:
      break;
  }
  return fail(ErrorKind::internal, "a descriptor that is not ours to open");
}

}  // namespace

Result<> check_qcow2_header(std::string_view head, bool has_backing) {
  if (head.size() < 72 || head.substr(0, 4) != std::string_view("QFI\xfb", 4))
    return fail(ErrorKind::invalid, "it is no qcow2 image");
  const auto version = big_endian(head, 4, 4);
  if (version != 2 && version != 3) return fail(ErrorKind::invalid, fmt::format("qcow2 version {} is unknown", version));
  if (big_endian(head, 32, 4) != 0) return fail(ErrorKind::unsupported, "encrypted qcow2 images are not supported");
  if (!has_backing && big_endian(head, 8, 8) != 0)
    return fail(ErrorKind::invalid, "it names a backing file that is not part of the instance");
  if (version == 3) {
    if (head.size() < 80) return fail(ErrorKind::invalid, "its header is cut");
    constexpr std::uint64_t corrupt = 2, external_data = 4;
    const auto features = big_endian(head, 72, 8);
    if (features & external_data) return fail(ErrorKind::invalid, "its data lies in another file");
    if (features & corrupt)
      return fail(Error(ErrorKind::unavailable, "it is marked as corrupt").with_hint("qemu-img check -f qcow2 tells more"));
  }
  return {};
}

Result<io::UniqueFd> open_tap(const std::string& interface) {
  if (interface.empty() || interface.size() >= IFNAMSIZ)
    return fail(ErrorKind::invalid, fmt::format("'{}' is no interface name", interface));
  // TUNSETIFF would make a new interface where there is none.
  if (::if_nametoindex(interface.c_str()) == 0)
    return fail(ErrorKind::not_found, fmt::format("there is no interface '{}'", interface));
  VIRGA_TRY(auto fd, io::open_path("/dev/net/tun", O_RDWR));
  struct ifreq request{};
  std::memcpy(request.ifr_name, interface.c_str(), interface.size());
  request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  if (::ioctl(fd.get(), TUNSETIFF, &request) != 0) return fail_errno(errno, fmt::format("attach to tap '{}'", interface));
  return fd;
}

Result<Opened> open_descriptors(const Plan& plan, const GuestSpec& spec, const std::string& variables_template) {
  Opened opened;
  for (const auto& p : plan.passed) {
    if (p.what == Passed::What::console) continue;
    VIRGA_TRY(auto fd, open_one(p, spec, variables_template));
    opened.fds.emplace_back(std::move(fd), p.number);
  }
  return opened;
}

Result<io::UniqueFd> open_layer(const std::string& path, bool writable, bool layered) {
  return open_disk({.what = Passed::What::disk,
                    .number = -1,
                    .name = path,
                    .writable = writable,
                    .format = DiskFormat::qcow2,
                    .layered = layered});
}

}  // namespace virga::compute::qemu_driver
