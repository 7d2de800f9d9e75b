#include "apps/virga/app.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <iostream>

#include "apps/virga/settings.h"
#include "apps/virga/text.h"
#include "client/endpoint.h"

namespace virga::cli {
namespace {

http::Endpoint this_machine() {
  return client::local_endpoint([](const char* name) -> const char* { return std::getenv(name); });
}

}  // namespace

App::App(const Command& root, Globals globals) : root_(root), globals_(std::move(globals)) {}
App::~App() {
  std::fflush(stdout);
}

std::string App::socket_path() const {
  return this_machine().unix_path;
}

Result<Api*> App::api() {
  if (api_) return api_.get();
  auto api = std::make_unique<Api>(this_machine());
  if (auto ok = api->connect(); !ok) {
    auto error = std::move(ok).error();
    if (error.kind() == ErrorKind::denied)
      return fail(std::move(error)
                      .wrap(fmt::format("You may not use the virga daemon (socket path: {})", socket_path()))
                      .with_hint("run this as root or as a member of the group that owns the socket"));
    return fail(Error(error.kind(), fmt::format("The virga daemon doesn't appear to be started (socket path: {})", socket_path()))
                    .with_hint("start it, for example with: systemctl start virgad\nor name its socket: "
                               "VIRGA_SOCKET=/path/unix.socket virga ..."));
  }
  api_ = std::move(api);
  return api_.get();
}

const std::string& App::project() {
  if (!project_) {
    project_ = globals_.project;
    if (project_->empty()) project_ = load_settings().project;
    if (project_->empty()) project_ = "default";
  }
  return *project_;
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
  auto colon = argument.find(':');
  if (colon == std::string::npos) return argument;
  auto remote = argument.substr(0, colon);
  if (remote == "local") return argument.substr(colon + 1);
  return fail(Error(ErrorKind::unsupported, fmt::format("The remote \"{}\" doesn't exist", remote))
                  .with_hint("virga speaks to the daemon of this machine only: leave the remote out, or write local:"));
}

Result<std::string> optional_local_name(const Args& args, std::size_t index) {
  return local_name(args.word(index));
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
