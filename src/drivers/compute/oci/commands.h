// Command lines of the OCI runtime, and what its log says. Pure.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace virga::compute::oci_driver {

struct Runtime {
  std::string path;  ///< "/usr/sbin/runc"
  std::string root;  ///< where it keeps its own state
};

/// Names in the directory that a runtime is started in, as its console socket's path may not be longer than a socket's address.
inline constexpr char pid_name[] = "pid";
inline constexpr char log_name[] = "runtime.log";
inline constexpr char process_name[] = "process.json";
inline constexpr char config_name[] = "config.json";
inline constexpr char terminal_name[] = "tty.sock";

/// Started in the bundle, by virga-shim: the terminal goes to its console-receive.sock.
std::vector<std::string> create_command(const Runtime& runtime, const std::string& id);
std::vector<std::string> start_command(const Runtime& runtime, const std::string& id);
/// Also of a guest that runs.
std::vector<std::string> delete_command(const Runtime& runtime, const std::string& id);
/// Started in the directory of the exec session.
std::vector<std::string> exec_command(const Runtime& runtime, const std::string& id, bool terminal);

/// The last error in a runtime's log of JSON lines; empty where there is none.
std::string last_error(std::string_view log);
/// What a shell would return for an exec that failed so: 127 (no such program), 126 (cannot be run), 0: another failure.
int exit_code_of_failed_exec(std::string_view error);

}  // namespace virga::compute::oci_driver
