// What a control group counted: processor time by mode, memory by kind, disk transfers by device.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <map>

#include "io/cgroup.h"
#include "io/file.h"

namespace virga::io {
namespace {

std::uint64_t number(std::string_view text) {
  std::uint64_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

/// Cuts the first word off.
std::string_view word(std::string_view& line) {
  const auto end = std::min(line.find(' '), line.size());
  const auto out = line.substr(0, end);
  line.remove_prefix(std::min(end + 1, line.size()));
  return out;
}

template <class F>
void each_line(std::string_view text, F call) {
  while (!text.empty()) {
    const auto end = std::min(text.find('\n'), text.size());
    if (end > 0) call(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
}

struct Part {
  std::string_view v2, v1, name;
};
// v1 counts what is below the group under "total_".
constexpr Part parts[] = {{"active_anon", "total_active_anon", "Active_anon"},
                          {"active_file", "total_active_file", "Active_file"},
                          {"inactive_anon", "total_inactive_anon", "Inactive_anon"},
                          {"inactive_file", "total_inactive_file", "Inactive_file"},
                          {"file", "total_cache", "Cached"},
                          {"file_dirty", "total_dirty", "Dirty"},
                          {"file_mapped", "total_mapped_file", "Mapped"},
                          {"file_writeback", "total_writeback", "Writeback"},
                          {"anon", "total_rss", "RSS"},
                          {"shmem", "total_shmem", "Shmem"},
                          {"unevictable", "total_unevictable", "Unevictable"}};

std::vector<std::pair<std::string_view, Bytes>> memory_parts(std::string_view stat, bool v2) {
  std::vector<std::pair<std::string_view, Bytes>> out;
  std::map<std::string_view, Bytes> found;
  each_line(stat, [&](std::string_view line) {
    const auto key = word(line);
    for (const auto& part : parts)
      if (key == (v2 ? part.v2 : part.v1)) found[part.name] = number(line);
  });
  for (const auto& [name, bytes] : found) out.emplace_back(name, bytes);
  for (std::string_view kind : {"Active", "Inactive"}) {
    const auto anon = found.find(fmt::format("{}_anon", kind)), file = found.find(fmt::format("{}_file", kind));
    if (anon != found.end() && file != found.end()) out.emplace_back(kind, anon->second + file->second);
  }
  return out;
}

/// "8:0" to "sda".
std::string device_name(std::string_view numbers) {
  std::string name;
  each_line(read_file(fmt::format("/sys/dev/block/{}/uevent", numbers)).value_or(""), [&](std::string_view line) {
    if (line.starts_with("DEVNAME=")) name = line.substr(8);
  });
  return name;
}

class Disks {
 public:
  CgroupDetail::Disk& at(std::string_view numbers) { return by_number_[std::string(numbers)]; }
  std::vector<CgroupDetail::Disk> take() {
    std::vector<CgroupDetail::Disk> out;
    for (auto& [numbers, disk] : by_number_) {
      disk.device = device_name(numbers);
      if (!disk.device.empty()) out.push_back(std::move(disk));
    }
    return out;
  }

 private:
  std::map<std::string, CgroupDetail::Disk> by_number_;
};

/// "8:0 rbytes=1 wbytes=2 rios=3 wios=4 ..."
void read_v2(std::string_view text, Disks& disks) {
  each_line(text, [&](std::string_view line) {
    const auto numbers = word(line);
    if (line.empty()) return;
    auto& disk = disks.at(numbers);
    while (!line.empty()) {
      const auto item = word(line);
      if (item.starts_with("rbytes=")) disk.read_bytes = number(item.substr(7));
      if (item.starts_with("wbytes=")) disk.written_bytes = number(item.substr(7));
      if (item.starts_with("rios=")) disk.reads = number(item.substr(5));
      if (item.starts_with("wios=")) disk.writes = number(item.substr(5));
    }
  });
}

/// "8:0 Read 4096"
void read_v1(std::string_view text, Disks& disks, std::uint64_t CgroupDetail::Disk::* reads,
             std::uint64_t CgroupDetail::Disk::* writes) {
  each_line(text, [&](std::string_view line) {
    const auto numbers = word(line), kind = word(line);
    if (kind == "Read") disks.at(numbers).*reads = number(line);
    if (kind == "Write") disks.at(numbers).*writes = number(line);
  });
}

}  // namespace

CgroupDetail Cgroup::detail() const {
  CgroupDetail out;
  Disks disks;
  const bool v2 = layout_.kind_ == CgroupLayout::Kind::v2;
  const auto group = directory("memory");
  out.memory = memory_parts(read_file(group + "/memory.stat").value_or(""), v2);
  if (v2) {
    each_line(read_file(group + "/cpu.stat").value_or(""), [&](std::string_view line) {
      const auto key = word(line);
      if (key == "user_usec") out.cpu_user_ns = number(line) * 1000;
      if (key == "system_usec") out.cpu_system_ns = number(line) * 1000;
    });
    read_v2(read_file(group + "/io.stat").value_or(""), disks);
  } else {
    const auto tick = 1'000'000'000ull / static_cast<std::uint64_t>(::sysconf(_SC_CLK_TCK));
    each_line(read_file(directory("cpuacct") + "/cpuacct.stat").value_or(""), [&](std::string_view line) {
      const auto key = word(line);
      if (key == "user") out.cpu_user_ns = number(line) * tick;
      if (key == "system") out.cpu_system_ns = number(line) * tick;
    });
    const auto blkio = directory("blkio");
    using Disk = CgroupDetail::Disk;
    read_v1(read_file(blkio + "/blkio.throttle.io_service_bytes_recursive").value_or(""), disks, &Disk::read_bytes,
            &Disk::written_bytes);
    read_v1(read_file(blkio + "/blkio.throttle.io_serviced_recursive").value_or(""), disks, &Disk::reads, &Disk::writes);
  }
  out.disks = disks.take();
  return out;
}

}  // namespace virga::io
