// Which OCI runtime works here, found by running a container whose only program is virga-shim itself (static, and without arguments
// it returns 2); and which known escapes its version is open to.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <charconv>

#include "base/log.h"
#include "base/random.h"
#include "drivers/compute/oci/core.h"
#include "io/file.h"
#include "io/process.h"

namespace virga::compute::oci_driver {
namespace {

constexpr int code_of_idle_shim = 2;

using Version = std::array<int, 3>;

/// "1.1.5", "1.2.8-rc.1", "1.1.5+ds1": a release candidate counts as the release.
std::optional<Version> parse_version(std::string_view text) {
  Version v{};
  const char* at = text.data();
  const char* const end = text.data() + text.size();
  for (int i = 0; i < 3; ++i) {
    auto [next, ec] = std::from_chars(at, end, v[static_cast<std::size_t>(i)]);
    if (ec != std::errc{}) return i >= 2 ? std::optional(v) : std::nullopt;
    at = next;
    if (i < 2) {
      if (at == end || *at != '.') return i >= 1 ? std::optional(v) : std::nullopt;
      ++at;
    }
  }
  return v;
}

std::string_view word_after(std::string_view text, std::string_view key) {
  const auto at = text.find(key);
  if (at == std::string_view::npos) return {};
  text.remove_prefix(at + key.size());
  return text.substr(0, text.find_first_of(" \n"));
}

/// Fixed in each of these branches from that patch level on, and in all later branches.
struct Escape {
  const char* what;
  std::vector<Version> fixed_in;
  int debian_patch;  ///< of bookworm's 1.1.5+ds1-1+deb12uN; 0: in none we know
};
const std::vector<Escape>& runc_escapes() {
  static const std::vector<Escape> all{
      {"CVE-2024-21626 (leaked descriptor as working directory)", {{1, 1, 12}}, 1},
      {"CVE-2024-45310 (empty files made on the host)", {{1, 1, 14}, {1, 2, 0}}, 0},
      {"CVE-2025-31133, CVE-2025-52565, CVE-2025-52881 (masked paths, console and proc writes redirected)",
       {{1, 2, 8}, {1, 3, 3}, {1, 4, 0}},
       0},
      {"the /dev symbolic link", {{1, 3, 6}, {1, 4, 3}, {1, 5, 0}}, 0},
  };
  return all;
}

bool is_fixed(const Escape& escape, const Version& v) {
  for (const auto& fixed : escape.fixed_in)
    if (v[0] == fixed[0] && v[1] == fixed[1]) return v[2] >= fixed[2];
  return v > escape.fixed_in.back();
}

int debian_patch_level(std::string_view text) {
  const auto digits = word_after(text, "1.1.5+ds1-1+deb12u");
  int level = 0;
  std::from_chars(digits.data(), digits.data() + digits.size(), level);
  return level;
}

Result<> make_root(const std::string& dir, const std::string& program, IdRange ids) {
  VIRGA_CHECK(io::make_directory(dir, 0711));
  for (const char* sub : {"/rootfs", "/rootfs/dev", "/rootfs/proc", "/rootfs/sys"})
    VIRGA_CHECK(io::make_directory(dir + sub, 0755));
  VIRGA_TRY(auto bytes, io::read_file(program));
  VIRGA_CHECK(io::write_file(dir + "/rootfs/init", bytes, 0755));
  for (const char* owned : {"/rootfs", "/rootfs/dev", "/rootfs/proc", "/rootfs/sys", "/rootfs/init"})
    if (::chown((dir + owned).c_str(), ids.base, ids.base) != 0) return fail_errno(errno, "give the probe's root to its container");
  if (::chmod((dir + "/rootfs/init").c_str(), 0755) != 0) return fail_errno(errno, "chmod");
  return {};
}

/// The probe's container, cgroup and directory.
Result<> take_probe_away(const OciOptions& options, const std::string& id) {
  const auto layout = io::CgroupLayout::probe();
  const auto group = layout.group("virga/" + options.cgroup_tag + "/" + id);
  VIRGA_CHECK(group.kill_all());
  VIRGA_CHECK(group.remove());
  layout.group("virga/" + options.cgroup_tag).remove_if_empty();
  return io::remove_tree(options.run_root + "/" + id);
}

/// Of daemons that were killed while they tried.
Result<> take_old_probes_away(const OciOptions& options) {
  VIRGA_TRY(auto names, io::list_directory(options.run_root));
  for (const auto& name : names)
    if (name.starts_with("probe-")) VIRGA_CHECK(take_probe_away(options, name));
  return {};
}

Task<Result<>> run_container(std::string runtime, OciOptions options, HostFacts facts) {
  const auto id = "probe-" + random_hex(6);
  const auto dir = options.run_root + "/" + id;
  GuestSpec spec;
  spec.id = id;
  spec.name = "probe";
  spec.ids = options.probe_ids;
  spec.rootfs = dir + "/rootfs";
  facts.init = {"/init"};
  VIRGA_CO_TRY(auto config, make_config(spec, facts));
  config.process.terminal = false;
  VIRGA_CO_TRY(auto document, virga::oci::to_json(config));
  auto prepare = [&]() -> Result<> {
    VIRGA_CHECK(make_root(dir, options.shim_program, options.probe_ids));
    return io::write_file(dir + "/" + config_name, json::serialize(document));
  };
  auto ready = co_await options.pool.run(prepare);
  Result<> outcome;
  if (ready) {
    io::ProcessSpec run;
    run.argv = {runtime, "--root", dir + "/state", "run", "--bundle", dir, id};
    auto result = co_await io::run_process(std::move(run), {.timeout = Milliseconds(15'000)});
    if (!result) {
      outcome = fail(std::move(result).error());
    } else if (result->status.code != code_of_idle_shim) {
      auto said = result->err.substr(0, 400);
      for (char& c : said)
        if (static_cast<unsigned char>(c) < 0x20) c = ' ';
      outcome = fail(ErrorKind::unavailable, fmt::format("'{}' cannot run a container: {}", runtime, said));
    }
  } else {
    outcome = std::move(ready);
  }
  co_await shield();
  auto clean = [&] { return take_probe_away(options, id); };
  if (auto cleaned = co_await options.pool.run(clean); !cleaned)
    log::warn("the container runtime's probe left something: {}", cleaned.error().text());
  co_return outcome;
}

}  // namespace

std::vector<std::string> known_escapes(std::string_view text) {
  std::vector<std::string> out;
  if (text.starts_with("crun")) {
    auto version = parse_version(word_after(text, "crun version "));
    if (!version || *version < Version{1, 28, 0}) out.emplace_back("the /dev symbolic link (fixed in crun 1.28)");
    return out;
  }
  auto version = parse_version(word_after(text, "runc version "));
  const int debian = debian_patch_level(text);
  for (const auto& escape : runc_escapes()) {
    const bool by_debian = escape.debian_patch > 0 && debian >= escape.debian_patch;
    if (!version || (!is_fixed(escape, *version) && !by_debian)) out.emplace_back(escape.what);
  }
  return out;
}

Task<Probe> probe_runtimes(const OciOptions& options, const HostFacts& facts) {
  if (auto old = co_await options.pool.run([&options] { return take_old_probes_away(options); }); !old)
    log::warn("an earlier probe of the container runtime stays: {}", old.error().text());
  Probe probe;
  probe.runtime.root = options.run_root;
  for (const auto& name : options.runtimes) {
    auto path = io::find_program(name);
    if (!path) continue;
    io::ProcessSpec ask;
    ask.argv = {*path, "--version"};
    auto version = co_await io::check_process(std::move(ask), {.timeout = Milliseconds(5'000)});
    if (!version) {
      probe.warnings.push_back(version.error().text());
      continue;
    }
    auto works = co_await run_container(*path, options, facts);
    if (!works) {
      probe.warnings.push_back(works.error().text());
      continue;
    }
    probe.runtime.path = *path;
    probe.version = version->substr(0, version->find('\n'));
    probe.warnings.clear();  // those of runtimes that are not used
    for (const auto& escape : known_escapes(*version))
      probe.warnings.push_back(fmt::format(
          "{} is open to {}; guests keep a user namespace of their own, which blocks most of it: install a newer runtime",
          probe.version, escape));
    co_return probe;
  }
  if (probe.warnings.empty()) probe.warnings.emplace_back("no OCI runtime is installed: apt-get install runc");
  co_return probe;
}

}  // namespace virga::compute::oci_driver
