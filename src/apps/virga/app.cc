#include "apps/virga/app.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iostream>

#include "apps/virga/text.h"
#include "client/endpoint.h"

namespace virga::cli {
namespace {

http::Endpoint this_machine() {
  return client::local_endpoint([](const char* name) -> const char* { return std::getenv(name); });
}

/// The service where there is one, else the program that was installed with this one.
std::string how_to_start(const std::string& socket) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  const auto state = fs::path(socket).parent_path();
  if (state == "/var/lib/virga" && fs::is_directory("/run/systemd/system", ignored)) return "start it: sudo systemctl start virgad";
  if (fs::path(socket).filename() != "unix.socket") return "start virgad, its daemon";
  const auto here = fs::read_symlink("/proc/self/exe", ignored).parent_path();
  for (const auto& program : {here / "virgad", here / "../libexec/virga/virgad"})
    if (fs::exists(program, ignored))
      return fmt::format("start it: sudo {} --state-dir {}", program.lexically_normal().string(), state.string());
  return "start virgad, its daemon";
}

}  // namespace

App::App(const Command& root, Globals globals) : root_(root), globals_(std::move(globals)) {}
App::~App() {
  std::fflush(stdout);
}

std::string App::socket_path() const {
  return this_machine().unix_path;
}

Result<client::Config*> App::config() {
  if (!config_) {
    VIRGA_TRY(auto loaded, client::Config::load([](const char* name) -> const char* { return std::getenv(name); }));
    config_ = std::move(loaded);
  }
  return &*config_;
}

const std::string& App::remote() {
  if (remote_.empty()) {
    auto known = config();
    remote_ = globals_.force_local || !known ? "local" : (*known)->default_remote;
  }
  return remote_;
}

Result<> App::use_remote(const std::string& name) {
  VIRGA_TRY(auto* known, config());
  VIRGA_CHECK(known->find(name));
  if (remote_ != name) project_.reset();
  remote_ = name;
  return {};
}

Result<Api*> App::api() {
  return api_of(remote());
}

Result<Api*> App::api_of(const std::string& remote) {
  auto& slot = apis_[remote];
  if (slot) return slot.get();
  VIRGA_TRY(auto* known, config());
  http::Endpoint endpoint = this_machine();
  if (!globals_.force_local) {
    VIRGA_TRY(endpoint, known->endpoint(remote));
  }
  const bool by_socket = !endpoint.unix_path.empty();
  const auto where = by_socket ? endpoint.unix_path : fmt::format("{}:{}", endpoint.host, endpoint.port);
  auto api = std::make_unique<Api>(std::move(endpoint));
  if (auto ok = api->connect(); !ok) {
    auto error = std::move(ok).error();
    if (!by_socket) return fail(std::move(error).wrap(fmt::format("remote \"{}\"", remote)));
    if (error.kind() == ErrorKind::denied)
      return fail(std::move(error)
                      .wrap(fmt::format("You may not use the virga daemon (socket path: {})", where))
                      .with_hint("run this as root or as a member of the group that owns the socket"));
    return fail(
        Error(error.kind(), fmt::format("The virga daemon doesn't appear to be started (socket path: {})", where))
            .with_hint(fmt::format("{}\nor name its socket: VIRGA_SOCKET=/path/unix.socket virga ...", how_to_start(where))));
  }
  slot = std::move(api);
  return slot.get();
}

const std::string& App::project() {
  if (!project_) project_ = project_of(remote());
  return *project_;
}

std::string App::project_of(const std::string& remote) {
  if (!globals_.project.empty()) return globals_.project;
  if (auto known = config(); known)
    if (auto entry = (*known)->find(remote); entry && !(*entry)->project.empty()) return (*entry)->project;
  return "default";
}

Url App::url(std::string_view base) {
  Url url(base);
  return project() == "default" && globals_.project.empty() ? url : std::move(url).query("project", project());
}

void App::print(std::string_view text) {
  write(escaped(text));
}
void App::write(std::string_view bytes) {
  std::fwrite(bytes.data(), 1, bytes.size(), stdout);
}

void App::note(std::string_view text) {
  if (globals_.quiet) return;
  print(fmt::format("{}\n", text));
  std::fflush(stdout);
}

void App::warn(std::string_view text) {
  std::fflush(stdout);
  fmt::print(stderr, "{}\n", escaped(text));
}

Progress App::progress(std::string prefix) const {
  return {!globals_.quiet && ::isatty(STDERR_FILENO) == 1, std::move(prefix)};
}

Result<std::string> local_name(const std::string& argument) {
  return argument;
}

Result<std::string> optional_local_name(const Args& args, std::size_t index) {
  return args.word(index);
}

bool stdin_is_terminal() {
  return ::isatty(STDIN_FILENO) == 1;
}

Result<std::string> piped_input() {
  if (stdin_is_terminal()) return std::string();
  constexpr std::size_t limit = 16u << 20;
  std::string text;
  char buffer[16384];
  for (;;) {
    const auto n = ::read(STDIN_FILENO, buffer, sizeof buffer);
    if (n == 0) return text;
    if (n < 0) {
      if (errno == EINTR) continue;
      return errno == EBADF ? Result<std::string>(text) : fail_errno(errno, "read standard input");
    }
    text.append(buffer, static_cast<std::size_t>(n));
    if (text.size() > limit) return fail(ErrorKind::invalid, "standard input is longer than 16 MiB");
  }
}

Result<bool> confirm(std::string_view question) {
  fmt::print("{} (yes/no) [default=no]: ", escaped(question));
  std::fflush(stdout);
  std::string answer;
  if (!std::getline(std::cin, answer)) return fail(ErrorKind::cancelled, "no answer");
  return answer == "yes" || answer == "y" || answer == "Y" || answer == "YES" || answer == "Yes";
}

}  // namespace virga::cli
