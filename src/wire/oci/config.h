// The OCI runtime specification's documents, as typed values and the JSON that runc and crun read: config.json of a bundle and the
// process of an exec. Pure; knows the format, not what virga wants in it.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/json.h"

namespace virga::oci {

struct Rlimit {
  std::string type;  ///< "RLIMIT_NOFILE"
  std::uint64_t soft = 0;
  std::uint64_t hard = 0;
};

struct Process {
  std::vector<std::string> args;
  std::vector<std::string> env;  ///< "NAME=value"
  std::string cwd = "/";
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::vector<std::uint32_t> additional_gids;
  bool terminal = false;
  std::uint16_t columns = 80;
  std::uint16_t rows = 24;
  std::vector<std::string> capabilities;  ///< bounding, permitted and effective alike; nothing is inheritable or ambient
  std::vector<Rlimit> rlimits;
  bool no_new_privileges = false;
};

struct Mount {
  std::string destination;
  std::string type;
  std::string source;
  std::vector<std::string> options;
};

struct IdMap {
  std::uint32_t container = 0;
  std::uint32_t host = 0;
  std::uint32_t size = 0;
};

/// Calls that fail with `errno_value` instead of being made; all others are allowed.
struct SeccompRule {
  std::vector<std::string> names;
  unsigned errno_value = 1;  ///< EPERM
};

struct Resources {
  std::optional<std::uint64_t> memory;       ///< bytes
  std::optional<std::uint64_t> memory_swap;  ///< bytes of memory and swap together
  std::optional<std::uint64_t> cpu_quota_us;
  std::uint64_t cpu_period_us = 100'000;
  std::optional<std::uint64_t> processes;
};

struct Config {
  Process process;
  std::string rootfs;  ///< absolute
  std::string hostname;
  std::vector<Mount> mounts;
  std::vector<std::string> namespaces;  ///< new ones: "pid", "network", ...
  std::vector<IdMap> ids;               ///< for users and groups alike
  std::string cgroups_path;
  Resources resources;
  std::vector<SeccompRule> seccomp;
  std::vector<std::string> seccomp_architectures;
  std::vector<std::string> masked_paths;
  std::vector<std::string> readonly_paths;
  std::map<std::string, std::string> annotations;
};

/// Errors: invalid (a string that holds a NUL, an environment name that is none, no arguments).
Result<json::value> to_json(const Process& process);
Result<json::value> to_json(const Config& config);

}  // namespace virga::oci
