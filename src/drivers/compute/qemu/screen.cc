// The screen of a machine that boots by firmware: connections are handed to QEMU as descriptors (it listens nowhere), and pictures
// are drawn by QEMU into memory of ours.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "drivers/compute/qemu/guest.h"
#include "io/file.h"
#include "io/stream.h"

namespace virga::compute::qemu_driver {
namespace {

constexpr off_t largest_picture = 64 << 20;

std::string unique_name() {
  static unsigned next = 0;
  return fmt::format("screen-{}", next++);
}

/// What QEMU says of a machine without a screen tells nobody anything.
Error no_screen(Error error) {
  if (error.kind() == ErrorKind::unavailable || error.kind() == ErrorKind::timeout || error.kind() == ErrorKind::cancelled)
    return error;
  return Error(ErrorKind::unsupported, "the virtual machine has no screen: its image brings a kernel that is booted directly")
      .with_hint("the text console shows what it prints; images that boot by firmware have a screen");
}

}  // namespace

Task<Result<std::unique_ptr<ByteStream>>> join_screen(GuestPtr guest, ConsoleOps::Screen protocol, Executor executor) {
  VIRGA_CO_TRY(auto sockets, io::make_socket_pair());
  const auto name = unique_name();
  VIRGA_CO_CHECK(co_await command_with(guest, std::move(sockets.theirs), "getfd", {{"fdname", name}}));
  // The way to here was the API's to guard: QEMU asks for no password.
  json::object arguments{
      {"protocol", protocol == ConsoleOps::Screen::vnc ? "vnc" : "spice"}, {"fdname", name}, {"skipauth", true}, {"tls", false}};
  auto added = co_await command(guest, "add_client", std::move(arguments));
  if (!added) {
    (void)co_await command(guest, "closefd", {{"fdname", name}});
    co_return fail(no_screen(std::move(added).error()));
  }
  co_return io::make_stream(executor, std::move(sockets.ours));
}

Task<Result<std::string>> take_screenshot(GuestPtr guest) {
  io::UniqueFd memory(::memfd_create("screenshot", MFD_CLOEXEC));
  if (!memory) co_return fail_errno(errno, "make memory for the picture");
  // QEMU takes a descriptor for a file that it would open for writing only if it is for writing only.
  VIRGA_CO_TRY(auto writable, io::open_proc_link(fmt::format("/proc/self/fd/{}", memory.get()), O_WRONLY));
  VIRGA_CO_TRY(auto given, co_await command_with(guest, std::move(writable), "add-fd"));
  const auto* set = given.is_object() ? given.get_object().if_contains("fdset-id") : nullptr;
  if (set == nullptr || !set->is_int64()) co_return fail(ErrorKind::internal, "QEMU did not take the descriptor");
  json::object arguments{{"filename", fmt::format("/dev/fdset/{}", set->get_int64())}, {"format", "png"}};
  auto drawn = co_await command(guest, "screendump", std::move(arguments));
  (void)co_await command(guest, "remove-fd", {{"fdset-id", set->get_int64()}});
  if (!drawn) co_return fail(no_screen(std::move(drawn).error()));
  struct stat st{};
  if (::fstat(memory.get(), &st) != 0 || st.st_size <= 0 || st.st_size > largest_picture)
    co_return fail(ErrorKind::unavailable, "QEMU drew no picture");
  std::string picture(static_cast<std::size_t>(st.st_size), '\0');
  if (::pread(memory.get(), picture.data(), picture.size(), 0) != st.st_size)
    co_return fail(ErrorKind::unavailable, "QEMU drew no picture");
  co_return picture;
}

}  // namespace virga::compute::qemu_driver
