#include "drivers/compute/oci/commands.h"

#include "base/json.h"

namespace virga::compute::oci_driver {
namespace {

std::vector<std::string> base(const Runtime& runtime) {
  return {runtime.path, "--root", runtime.root};
}

void add(std::vector<std::string>& to, std::initializer_list<std::string> more) {
  to.insert(to.end(), more);
}

}  // namespace

std::vector<std::string> create_command(const Runtime& runtime, const std::string& id) {
  auto argv = base(runtime);
  add(argv, {"--log", log_name, "--log-format", "json", "create", "--bundle", ".", "--pid-file", pid_name, "--console-socket",
             "console-receive.sock", id});
  return argv;
}

std::vector<std::string> start_command(const Runtime& runtime, const std::string& id) {
  auto argv = base(runtime);
  add(argv, {"start", id});
  return argv;
}

std::vector<std::string> delete_command(const Runtime& runtime, const std::string& id) {
  auto argv = base(runtime);
  add(argv, {"delete", "--force", id});
  return argv;
}

std::vector<std::string> exec_command(const Runtime& runtime, const std::string& id, bool terminal) {
  auto argv = base(runtime);
  add(argv, {"--log", log_name, "--log-format", "json", "exec", "--process", process_name, "--pid-file", pid_name, "--detach"});
  if (terminal) add(argv, {"--console-socket", terminal_name});
  argv.push_back(id);
  return argv;
}

std::string last_error(std::string_view log) {
  std::string found;
  while (!log.empty()) {
    const auto end = log.find('\n');
    const auto line = log.substr(0, end);
    log.remove_prefix(end == std::string_view::npos ? log.size() : end + 1);
    auto entry = parse_json_object(line);
    if (!entry) continue;
    Fields fields(*entry);
    const auto level = fields.string("level").value_or(""), message = fields.string("msg").value_or("");
    if ((level == "error" || level == "fatal") && !message.empty()) found = message;
  }
  return found.substr(0, 1000);
}

int exit_code_of_failed_exec(std::string_view error) {
  // "exec failed: unable to start container process: exec: \"x\": executable file not found in $PATH", "... stat /x: no such file
  // or directory", "... permission denied": with the quoted name it is about the command, else about the container.
  auto has = [error](std::string_view what) { return error.find(what) != std::string_view::npos; };
  if (has("executable file") && has("not found")) return 127;
  const bool about_command = has("exec: \"") || has("exec /");
  if (about_command && (has("no such file or directory") || has("not a directory"))) return 127;
  if (about_command && (has("permission denied") || has("exec format error") || has("is a directory"))) return 126;
  return 0;
}

}  // namespace virga::compute::oci_driver
