#include "engine/metrics/metrics.h"

#include <algorithm>
#include <set>

#include "engine/metrics/exposition.h"

namespace virga::engine {
namespace {

using Stats = compute::GuestStats;
using Row = GuestRow;
constexpr auto gauge = MetricType::gauge;
constexpr auto counter = MetricType::counter;

double seconds(std::uint64_t nanoseconds) {
  return static_cast<double>(nanoseconds) / 1e9;
}

void write_cpu(Exposition& out, const std::vector<Row>& rows) {
  out.family("incus_cpu_effective_total", gauge, "The total number of effective CPUs.");
  for (const auto& r : rows)
    if (r.sample->stats.cpus != 0)
      out.add({{"name", r.name}, {"project", r.project}, {"type", r.type}}, std::uint64_t{r.sample->stats.cpus});
  out.family("incus_cpu_seconds_total", counter, "The total number of CPU time used in seconds.");
  for (const auto& r : rows) {
    const auto& s = r.sample->stats;
    auto add = [&](std::string_view mode, std::uint64_t ns) {
      out.add({{"cpu", "0"}, {"mode", mode}, {"name", r.name}, {"project", r.project}, {"type", r.type}}, seconds(ns));
    };
    if (s.cpu_user_ns + s.cpu_system_ns > 0) {
      add("system", s.cpu_system_ns);
      add("user", s.cpu_user_ns);
    } else {
      add("user", s.cpu_ns);  // who cannot tell the modes apart
    }
  }
}

struct DiskRule {
  std::string_view name, help;
  std::uint64_t Stats::Disk::* value;
};
constexpr DiskRule disk_rules[] = {
    {"incus_disk_read_bytes_total", "The total number of bytes read.", &Stats::Disk::read_bytes},
    {"incus_disk_reads_completed_total", "The total number of completed reads.", &Stats::Disk::reads},
    {"incus_disk_written_bytes_total", "The total number of bytes written.", &Stats::Disk::written_bytes},
    {"incus_disk_writes_completed_total", "The total number of completed writes.", &Stats::Disk::writes}};

void write_disks(Exposition& out, const std::vector<Row>& rows) {
  for (const auto& rule : disk_rules) {
    out.family(rule.name, counter, rule.help);
    for (const auto& r : rows)
      for (const auto& d : r.sample->stats.disks)
        out.add({{"device", d.device}, {"name", r.name}, {"project", r.project}, {"type", r.type}}, d.*rule.value);
  }
}

struct FilesystemRule {
  std::string_view name, help;
  Bytes Stats::Filesystem::* value;
};
constexpr FilesystemRule filesystem_rules[] = {
    {"incus_filesystem_avail_bytes", "The number of available space in bytes.", &Stats::Filesystem::available},
    {"incus_filesystem_free_bytes", "The number of free space in bytes.", &Stats::Filesystem::free},
    {"incus_filesystem_size_bytes", "The size of the filesystem in bytes.", &Stats::Filesystem::size}};

void write_filesystems(Exposition& out, const std::vector<Row>& rows) {
  for (const auto& rule : filesystem_rules) {
    out.family(rule.name, gauge, rule.help);
    for (const auto& r : rows)
      for (const auto& f : r.sample->stats.filesystems)
        out.add({{"device", f.device},
                 {"fstype", f.type},
                 {"mountpoint", f.mountpoint},
                 {"name", r.name},
                 {"project", r.project},
                 {"type", r.type}},
                f.*rule.value);
  }
}

struct MemoryRule {
  std::string_view part, name, help;
};
constexpr MemoryRule memory_rules[] = {
    {"Active_anon", "incus_memory_Active_anon_bytes", "The amount of anonymous memory on active LRU list."},
    {"Active", "incus_memory_Active_bytes", "The amount of memory on active LRU list."},
    {"Active_file", "incus_memory_Active_file_bytes", "The amount of file-backed memory on active LRU list."},
    {"Cached", "incus_memory_Cached_bytes", "The amount of cached memory."},
    {"Dirty", "incus_memory_Dirty_bytes", "The amount of memory waiting to get written back to the disk."},
    {"Inactive_anon", "incus_memory_Inactive_anon_bytes", "The amount of anonymous memory on inactive LRU list."},
    {"Inactive", "incus_memory_Inactive_bytes", "The amount of memory on inactive LRU list."},
    {"Inactive_file", "incus_memory_Inactive_file_bytes", "The amount of file-backed memory on inactive LRU list."},
    {"Mapped", "incus_memory_Mapped_bytes", "The amount of mapped memory."},
    {"RSS", "incus_memory_RSS_bytes", "The amount of anonymous and swap cache memory."},
    {"Shmem", "incus_memory_Shmem_bytes", "The amount of cached filesystem data that is swap-backed."},
    {"Unevictable", "incus_memory_Unevictable_bytes", "The amount of unevictable memory."},
    {"Writeback", "incus_memory_Writeback_bytes", "The amount of memory queued for syncing to disk."}};

void write_memory(Exposition& out, const std::vector<Row>& rows) {
  for (const auto& rule : memory_rules) {
    out.family(rule.name, gauge, rule.help);
    for (const auto& r : rows)
      for (const auto& [part, bytes] : r.sample->stats.memory_parts)
        if (part == rule.part) out.add({{"name", r.name}, {"project", r.project}, {"type", r.type}}, bytes);
  }
  auto each = [&](std::string_view name, std::string_view help, MetricType type, auto value) {
    out.family(name, type, help);
    for (const auto& r : rows)
      out.add({{"name", r.name}, {"project", r.project}, {"type", r.type}}, std::uint64_t{value(r.sample->stats)});
  };
  auto free = [](const Stats& s) { return s.memory_total - std::min(s.memory_total, s.memory_used); };
  each("incus_memory_MemAvailable_bytes", "The amount of available memory.", gauge, free);
  each("incus_memory_MemFree_bytes", "The amount of free memory.", gauge, free);
  each("incus_memory_MemTotal_bytes", "The amount of used memory.", gauge, [](const Stats& s) { return s.memory_total; });
  each("incus_memory_OOM_kills_total", "The number of out of memory kills.", counter, [](const Stats& s) { return s.oom_kills; });
  each("incus_memory_Swap_bytes", "The amount of used swap memory.", gauge, [](const Stats& s) { return s.swap_used; });
}

struct NetworkRule {
  std::string_view name, help;
  std::uint64_t Stats::Interface::* value;
};
constexpr NetworkRule network_rules[] = {
    {"incus_network_receive_bytes_total", "The amount of received bytes on a given interface.", &Stats::Interface::bytes_in},
    {"incus_network_receive_drop_total", "The amount of received dropped bytes on a given interface.",
     &Stats::Interface::dropped_in},
    {"incus_network_receive_errs_total", "The amount of received errors on a given interface.", &Stats::Interface::errors_in},
    {"incus_network_receive_packets_total", "The amount of received packets on a given interface.", &Stats::Interface::packets_in},
    {"incus_network_transmit_bytes_total", "The amount of transmitted bytes on a given interface.", &Stats::Interface::bytes_out},
    {"incus_network_transmit_drop_total", "The amount of transmitted dropped bytes on a given interface.",
     &Stats::Interface::dropped_out},
    {"incus_network_transmit_errs_total", "The amount of transmitted errors on a given interface.", &Stats::Interface::errors_out},
    {"incus_network_transmit_packets_total", "The amount of transmitted packets on a given interface.",
     &Stats::Interface::packets_out}};

void write_network(Exposition& out, const std::vector<Row>& rows) {
  for (const auto& rule : network_rules) {
    out.family(rule.name, counter, rule.help);
    for (const auto& r : rows)
      for (const auto& i : r.sample->stats.interfaces)
        out.add({{"device", i.name}, {"name", r.name}, {"project", r.project}, {"type", r.type}}, i.*rule.value);
  }
}

void write_processes(Exposition& out, const std::vector<Row>& rows) {
  out.family("incus_procs_total", gauge, "The number of running processes.");
  for (const auto& r : rows)
    if (r.sample->stats.processes >= 0)
      out.add({{"name", r.name}, {"project", r.project}, {"type", r.type}}, static_cast<std::uint64_t>(r.sample->stats.processes));
}

void write_server(Exposition& out, const ServerCounts& counts) {
  out.family("incus_operations_total", gauge, "The number of running operations.");
  out.add({}, counts.operations);
  out.family("incus_uptime_seconds", gauge, "The daemon uptime in seconds.");
  out.add({}, counts.uptime_seconds);
  out.family("incus_warnings_total", gauge, "The number of active warnings.");
  out.add({}, counts.warnings);
}

/// A guest may give its interfaces any names, even one name twice: a series must be there once.
SamplePtr without_doubles(SamplePtr sample) {
  std::set<std::string_view> names;
  for (const auto& i : sample->stats.interfaces) names.insert(i.name);
  if (names.size() == sample->stats.interfaces.size()) return sample;
  auto copy = std::make_shared<Sample>(*sample);
  std::erase_if(copy->stats.interfaces, [&](const auto& i) { return names.erase(i.name) == 0; });
  return copy;
}

std::vector<Row> usable(const std::vector<Row>& rows) {
  std::vector<Row> out;
  for (const auto& row : rows)
    if (row.sample) out.push_back({row.name, row.project, row.type, without_doubles(row.sample)});
  return out;
}

}  // namespace

std::string render_metrics(const std::vector<GuestRow>& guests, const ServerCounts* server) {
  const auto rows = usable(guests);
  Exposition out;
  write_cpu(out, rows);
  write_disks(out, rows);
  write_filesystems(out, rows);
  write_memory(out, rows);
  write_network(out, rows);
  write_processes(out, rows);
  if (server != nullptr) write_server(out, *server);
  return out.take();
}

}  // namespace virga::engine
