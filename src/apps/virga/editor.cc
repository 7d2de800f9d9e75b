#include "apps/virga/editor.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <sstream>

#include "apps/virga/text.h"

extern char** environ;

namespace virga::cli {
namespace {

bool in_path(const std::string& program) {
  const char* path = std::getenv("PATH");
  for (const auto& directory : split(path != nullptr ? path : "/usr/bin:/bin", ':'))
    if (!directory.empty() && ::access((directory + "/" + program).c_str(), X_OK) == 0) return true;
  return false;
}

Result<std::vector<std::string>> editor_command() {
  for (const char* variable : {"VISUAL", "EDITOR"}) {
    const char* value = std::getenv(variable);
    if (value == nullptr || *value == '\0') continue;
    std::vector<std::string> argv;  // "code --wait" is common
    for (auto& word : split(value, ' '))
      if (!word.empty()) argv.push_back(std::move(word));
    return argv;
  }
  for (const char* program : {"sensible-editor", "editor", "nano", "vi", "vim", "emacs"})
    if (in_path(program)) return std::vector<std::string>{program};
  return fail(Error(ErrorKind::not_found, "No text editor found")
                  .with_hint("set the EDITOR environment variable, or give the YAML on standard input"));
}

/// A private file that goes when it is no longer needed.
struct ScratchFile {
  std::string path;
  ~ScratchFile() {
    if (!path.empty()) ::unlink(path.c_str());
  }
};

}  // namespace

Result<int> run_program(const std::vector<std::string>& argv, const std::string& output_path) {
  std::vector<char*> arguments;
  arguments.reserve(argv.size() + 1);
  for (const auto& word : argv) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  if (!output_path.empty())
    ::posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, output_path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  pid_t pid = 0;
  const int error = ::posix_spawnp(&pid, arguments[0], &actions, nullptr, arguments.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return fail_errno(error, fmt::format("cannot run '{}'", argv[0]));
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0)
    if (errno != EINTR) return fail_errno(errno, "wait for a program");
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

Result<std::string> edit_text(const std::string& text) {
  VIRGA_TRY(auto argv, editor_command());
  std::string path = (std::filesystem::temp_directory_path() / "virga_editor_XXXXXX.yaml").string();
  const int fd = ::mkostemps(path.data(), 5, O_CLOEXEC);
  if (fd < 0) return fail_errno(errno, "make a temporary file");
  ScratchFile scratch{path};
  ::close(fd);
  {
    std::ofstream file(path);
    file << text;
    if (!file.flush()) return fail(ErrorKind::unavailable, "cannot write a temporary file");
  }
  argv.push_back(path);
  VIRGA_TRY(int code, run_program(argv));
  if (code != 0) return fail(ErrorKind::internal, fmt::format("the editor '{}' failed with exit code {}", argv[0], code));
  std::ifstream file(path);
  std::ostringstream out;
  out << file.rdbuf();
  return out.str();
}

Result<> wait_for_enter(std::string_view prompt) {
  fmt::print("{}\n", prompt);
  std::fflush(stdout);
  std::string line;
  if (!std::getline(std::cin, line)) return fail(ErrorKind::cancelled, "the change was given up");
  return {};
}

}  // namespace virga::cli
