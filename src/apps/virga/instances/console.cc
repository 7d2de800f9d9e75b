// console and screenshot.
#include "client/console.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>

#include "apps/virga/instances/instances.h"

namespace virga::cli {
namespace {

Result<> show_log(App& app, const std::string& name) {
  VIRGA_TRY(auto* api, app.api());
  std::string text;
  auto sink = [&](std::string_view bytes) -> Result<> {
    text += bytes;
    return {};
  };
  VIRGA_CHECK(api->await(api->client().download(instance_url(app, name).segment("console").text(), sink)));
  // What a guest wrote must not steer the terminal; a pipe gets it as it is.
  if (::isatty(STDOUT_FILENO) == 1)
    app.print(text);
  else
    app.write(text);
  return {};
}

/// A viewer that is on this machine; none is no error.
void start_viewer(const std::string& protocol, const std::string& socket) {
  if (std::getenv("DISPLAY") == nullptr && std::getenv("WAYLAND_DISPLAY") == nullptr) return;
  std::string program = protocol == "vnc" ? "vncviewer" : "remote-viewer";
  std::string argument = protocol == "vnc" ? socket : "spice+unix://" + socket;
  char* argv[] = {program.data(), argument.data(), nullptr};
  pid_t pid = -1;
  (void)::posix_spawnp(&pid, program.c_str(), nullptr, nullptr, argv, environ);
}

Result<> show_screen(App& app, const Args& args, const std::string& name) {
  const auto protocol = args.text("protocol");
  VIRGA_TRY(auto* api, app.api());
  char directory[] = "/tmp/virga-screen-XXXXXX";
  if (::mkdtemp(directory) == nullptr) return fail_errno(errno, "make a directory for the socket");
  const auto socket = fmt::format("{}/{}.sock", directory, protocol);
  client::ConsoleSpec spec{instance_url(app, name).segment("console").text(), args.has("force")};
  auto ready = [&] {
    app.warn(fmt::format("The screen of '{}' speaks {} on the unix socket\n  {}\nPress ctrl+c to end.", name,
                         protocol == "vnc" ? "VNC" : "SPICE", socket));
    start_viewer(protocol, socket);
  };
  auto served = api->await(client::serve_screen(api->client(), std::move(spec), protocol, socket, ready));
  std::error_code ec;
  std::filesystem::remove_all(directory, ec);
  return served;
}

Result<> run_console(App& app, const Args& args) {
  VIRGA_TRY(auto name, local_name(args[0]));
  if (args.has("show-log")) return show_log(app, name);
  const auto type = args.text("type");
  if (type != "console" && type != "vga") return fail(ErrorKind::invalid, fmt::format("Unknown console type '{}'", type));
  if (type == "vga") return show_screen(app, args, name);
  VIRGA_TRY(auto* api, app.api());
  client::ConsoleSpec spec{instance_url(app, name).segment("console").text(), args.has("force"),
                           [&app] { app.warn("To detach from the console, press: <ctrl>+a q"); }};
  return api->await(client::attach_console(api->client(), std::move(spec)));
}

Result<> run_screenshot(App& app, const Args& args) {
  VIRGA_TRY(auto name, local_name(args[0]));
  const auto path = args.size() > 1 ? args[1] : name + ".png";
  if (path == "-" && ::isatty(STDOUT_FILENO) == 1)
    return fail(ErrorKind::invalid, "an image is nothing for a terminal: name a file");
  VIRGA_TRY(auto* api, app.api());
  std::string image;
  auto sink = [&](std::string_view bytes) -> Result<> {
    image += bytes;
    return {};
  };
  VIRGA_CHECK(api->await(api->client().download(instance_url(app, name).segment("screenshot").text(), sink)));
  if (path == "-") {
    app.write(image);
    return {};
  }
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return fail_errno(errno, fmt::format("create '{}'", path));
  const bool written = ::write(fd, image.data(), image.size()) == static_cast<ssize_t>(image.size());
  ::close(fd);
  if (!written) return fail(ErrorKind::unavailable, fmt::format("write '{}': not enough room", path));
  app.note(fmt::format("Screenshot of '{}' written to '{}'", name, path));
  return {};
}

}  // namespace

Command console_command() {
  return {.use = "console [<remote>:]<instance>",
          .summary = "Attach to instance consoles",
          .description =
              "This command allows you to interact with the boot console of an instance\n"
              "as well as retrieve past log entries from it. Several may watch at once.",
          .examples = "virga console c1\nvirga console c1 --show-log\nvirga console v1 --type vga",
          .flags = {{"force", 'f', Flag::boolean, "Ends the consoles that others have open"},
                    {"protocol", 0, Flag::text, "Of a screen: spice or vnc", "spice"},
                    {"show-log", 0, Flag::boolean, "Retrieve the instance's console log"},
                    {"type", 't', Flag::text,
                     "Type of connection to establish: 'console' for serial console, 'vga' for graphical output", "console"}},
          .least = 1,
          .most = 1,
          .run = run_console};
}

Command screenshot_command() {
  return {.use = "screenshot [<remote>:]<instance> [<file>]",
          .summary = "Save the screen of a virtual machine as a PNG image",
          .examples = "virga screenshot v1\n    Writes v1.png.\n\nvirga screenshot v1 - | convert - screen.jpg",
          .least = 1,
          .most = 2,
          .run = run_screenshot};
}

}  // namespace virga::cli
