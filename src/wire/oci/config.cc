#include "wire/oci/config.h"

#include <fmt/format.h>

#include <utility>

namespace virga::oci {
namespace {

json::array strings(const std::vector<std::string>& list) {
  json::array out;
  for (const auto& s : list) out.emplace_back(s);
  return out;
}

Result<> check_text(std::string_view text, std::string_view what) {
  if (text.find('\0') != std::string_view::npos) return fail(ErrorKind::invalid, fmt::format("{} holds a NUL", what));
  return {};
}

Result<> check(const Process& p) {
  if (p.args.empty() || p.args[0].empty()) return fail(ErrorKind::invalid, "no command is given");
  for (const auto& a : p.args) VIRGA_CHECK(check_text(a, "an argument"));
  for (const auto& e : p.env) {
    VIRGA_CHECK(check_text(e, "an environment variable"));
    const auto equals = e.find('=');
    if (equals == 0 || equals == std::string::npos) return fail(ErrorKind::invalid, "an environment variable has no name");
  }
  VIRGA_CHECK(check_text(p.cwd, "the working directory"));
  if (!p.cwd.starts_with('/'))
    return fail(ErrorKind::invalid, fmt::format("the working directory '{}' is not an absolute path", p.cwd));
  return {};
}

json::object capabilities(const std::vector<std::string>& names) {
  const auto all = strings(names);
  return {{"bounding", all}, {"effective", all}, {"permitted", all}, {"inheritable", json::array()}, {"ambient", json::array()}};
}

json::array ids(const std::vector<IdMap>& maps) {
  json::array out;
  for (const auto& m : maps) out.push_back({{"containerID", m.container}, {"hostID", m.host}, {"size", m.size}});
  return out;
}

json::object resources(const Resources& r) {
  // Devices are an allow list: the runtime adds the harmless ones (null, zero, tty, ...) to "none".
  json::object out{{"devices", json::array{json::object{{"allow", false}, {"access", "rwm"}}}}};
  if (r.memory) {
    json::object memory{{"limit", *r.memory}};
    if (r.memory_swap) memory["swap"] = *r.memory_swap;
    out["memory"] = std::move(memory);
  }
  if (r.cpu_quota_us) out["cpu"] = json::object{{"quota", *r.cpu_quota_us}, {"period", r.cpu_period_us}};
  if (r.processes) out["pids"] = json::object{{"limit", *r.processes}};
  return out;
}

json::object seccomp(const Config& c) {
  json::array calls;
  for (const auto& rule : c.seccomp)
    calls.push_back(json::object{{"names", strings(rule.names)}, {"action", "SCMP_ACT_ERRNO"}, {"errnoRet", rule.errno_value}});
  return {{"defaultAction", "SCMP_ACT_ALLOW"}, {"architectures", strings(c.seccomp_architectures)}, {"syscalls", std::move(calls)}};
}

}  // namespace

Result<json::value> to_json(const Process& p) {
  VIRGA_CHECK(check(p));
  json::object user{{"uid", p.uid}, {"gid", p.gid}};
  if (!p.additional_gids.empty()) {
    json::array gids;
    for (auto g : p.additional_gids) gids.emplace_back(g);
    user["additionalGids"] = std::move(gids);
  }
  json::object out{{"terminal", p.terminal},
                   {"user", std::move(user)},
                   {"args", strings(p.args)},
                   {"env", strings(p.env)},
                   {"cwd", p.cwd},
                   {"noNewPrivileges", p.no_new_privileges},
                   {"capabilities", capabilities(p.capabilities)}};
  if (p.terminal) out["consoleSize"] = json::object{{"height", p.rows}, {"width", p.columns}};
  if (!p.rlimits.empty()) {
    json::array limits;
    for (const auto& r : p.rlimits) limits.push_back(json::object{{"type", r.type}, {"soft", r.soft}, {"hard", r.hard}});
    out["rlimits"] = std::move(limits);
  }
  return json::value(std::move(out));
}

Result<json::value> to_json(const Config& c) {
  VIRGA_TRY(auto process, to_json(c.process));
  VIRGA_CHECK(check_text(c.rootfs, "the root's path"));
  VIRGA_CHECK(check_text(c.hostname, "the host name"));
  json::array mounts, namespaces;
  for (const auto& m : c.mounts)
    mounts.push_back(
        json::object{{"destination", m.destination}, {"type", m.type}, {"source", m.source}, {"options", strings(m.options)}});
  for (const auto& n : c.namespaces) namespaces.push_back(json::object{{"type", n}});
  json::object lin{{"namespaces", std::move(namespaces)},
                   {"uidMappings", ids(c.ids)},
                   {"gidMappings", ids(c.ids)},
                   {"cgroupsPath", c.cgroups_path},
                   {"resources", resources(c.resources)},
                   {"maskedPaths", strings(c.masked_paths)},
                   {"readonlyPaths", strings(c.readonly_paths)}};
  if (!c.seccomp.empty()) lin["seccomp"] = seccomp(c);
  json::object out{
      {"ociVersion", "1.0.2"},  {"process", std::move(process)}, {"root", json::object{{"path", c.rootfs}, {"readonly", false}}},
      {"hostname", c.hostname}, {"mounts", std::move(mounts)},   {"linux", std::move(lin)}};
  if (!c.annotations.empty()) {
    json::object notes;
    for (const auto& [name, value] : c.annotations) notes[name] = value;
    out["annotations"] = std::move(notes);
  }
  return json::value(std::move(out));
}

}  // namespace virga::oci
