// What `virga top` shows: one row a running instance, made of two looks at the server. Pure.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"

namespace virga::cli {

struct TopRow {
  std::string name, project;
  std::int64_t cpu_ns = 0, memory = 0, memory_total = 0, disk = 0, processes = 0;
  std::optional<double> percent;  ///< of one processor; absent until two samples are there
  std::optional<double> age;      ///< of the sample, in seconds
};

enum class TopOrder { name, cpu, time, memory, disk };

class TopTable {
 public:
  using Time = std::chrono::steady_clock::time_point;
  /// `instances`: of a list with recursion=2 that came at `now`.
  void update(const json::array& instances, Time now);
  std::vector<TopRow> rows(TopOrder order) const;

 private:
  struct Seen {
    TopRow row;
    Time taken{};
  };
  std::map<std::pair<std::string, std::string>, Seen> seen_;  ///< by project and name
};

}  // namespace virga::cli
