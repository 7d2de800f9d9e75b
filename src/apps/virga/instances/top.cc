// top: what running instances use, again and again. The server is asked once an interval, and answers from its samples.
#include "apps/virga/instances/top.h"

#include <fmt/format.h>
#include <poll.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <tuple>

#include "apps/virga/instances/instances.h"
#include "apps/virga/listing.h"
#include "apps/virga/text.h"
#include "apps/virga/values.h"

namespace virga::cli {

void TopTable::update(const json::array& instances, Time now) {
  std::map<std::pair<std::string, std::string>, Seen> next;
  for (const auto& instance : objects_of(instances)) {
    const auto status = text_of(instance, "status");
    if (status != "Running" && status != "Frozen") continue;
    const auto& state = object_of(instance, "state");
    Seen now_seen;
    auto& row = now_seen.row;
    row.name = text_of(instance, "name");
    row.project = text_of(instance, "project");
    row.cpu_ns = integer_of(object_of(state, "cpu"), "usage");
    row.memory = integer_of(object_of(state, "memory"), "usage");
    row.memory_total = integer_of(object_of(state, "memory"), "total");
    row.processes = integer_of(state, "processes");
    for (const auto& [device, disk] : object_of(state, "disk"))
      if (disk.is_object()) row.disk += integer_of(disk.get_object(), "usage");
    const auto* age = state.if_contains("virga_state_age");
    if (age != nullptr && age->is_number()) row.age = age->to_number<double>();
    now_seen.taken = now - std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::duration<double>(row.age.value_or(0)));
    const auto key = std::pair(row.project, row.name);
    if (const auto before = seen_.find(key); before != seen_.end()) {
      // The same sample tells nothing new; one of a guest that was started again cannot be compared.
      const double seconds = std::chrono::duration<double>(now_seen.taken - before->second.taken).count();
      row.percent = before->second.row.percent;
      if (seconds > 0.5)
        row.percent = row.cpu_ns >= before->second.row.cpu_ns
                          ? std::optional(static_cast<double>(row.cpu_ns - before->second.row.cpu_ns) / 1e7 / seconds)
                          : std::nullopt;
      else
        now_seen.taken = before->second.taken;
    }
    next[key] = std::move(now_seen);
  }
  seen_ = std::move(next);
}

std::vector<TopRow> TopTable::rows(TopOrder order) const {
  std::vector<TopRow> out;
  for (const auto& [key, seen] : seen_) out.push_back(seen.row);
  // The larger first; equal ones by name.
  auto sort_by = [&](auto value) {
    std::sort(out.begin(), out.end(), [&](const TopRow& a, const TopRow& b) {
      const auto x = value(a), y = value(b);
      return x != y ? x > y : std::tie(a.name, a.project) < std::tie(b.name, b.project);
    });
  };
  switch (order) {
    case TopOrder::name:
      sort_by([](const TopRow&) { return 0; });
      break;
    case TopOrder::cpu:
      sort_by([](const TopRow& r) { return r.percent.value_or(-1); });
      break;
    case TopOrder::time:
      sort_by([](const TopRow& r) { return r.cpu_ns; });
      break;
    case TopOrder::memory:
      sort_by([](const TopRow& r) { return r.memory; });
      break;
    case TopOrder::disk:
      sort_by([](const TopRow& r) { return r.disk; });
      break;
  }
  return out;
}

namespace {

constexpr std::string_view default_columns = "ncumD";

Result<TopOrder> parse_order(std::string_view text) {
  for (const auto& [name, order] : {std::pair<std::string_view, TopOrder>{"name", TopOrder::name},
                                    {"cpu", TopOrder::cpu},
                                    {"time", TopOrder::time},
                                    {"memory", TopOrder::memory},
                                    {"disk", TopOrder::disk}})
    if (text == name) return order;
  return fail(ErrorKind::invalid, fmt::format("Invalid sort order: {} (there are name, cpu, time, memory and disk)", text));
}

std::string percent_text(std::optional<double> value) {
  return value ? fmt::format("{:.1f}%", *value) : std::string();
}

/// A row as an object, for the columns of lists.
json::object cells(const TopRow& r) {
  auto size = [](std::int64_t bytes) { return bytes > 0 ? binary_size(bytes) : std::string(); };
  return {
      {"name", r.name},
      {"project", r.project},
      {"time", fmt::format("{:.2f}", static_cast<double>(r.cpu_ns) / 1e9)},
      {"percent", percent_text(r.percent)},
      {"memory", size(r.memory)},
      {"share",
       r.memory_total > 0 ? fmt::format("{:.1f}%", static_cast<double>(r.memory) * 100 / static_cast<double>(r.memory_total)) : ""},
      {"disk", size(r.disk)},
      {"processes", r.processes > 0 ? fmt::format("{}", r.processes) : ""},
      {"age", r.age ? fmt::format("{:.1f}s", *r.age) : ""}};
}

const std::vector<Column>& columns() {
  static const std::vector<Column> all = {
      {'n', "INSTANCE NAME", field("name")}, {'e', "PROJECT", field("project")},     {'u', "CPU TIME(S)", field("time")},
      {'c', "CPU%", field("percent")},       {'m', "MEMORY", field("memory")},       {'M', "MEMORY%", field("share")},
      {'D', "DISK", field("disk")},          {'N', "PROCESSES", field("processes")}, {'g', "STATE AGE", field("age")}};
  return all;
}

/// Keys as they are pressed; the terminal is as it was when this goes.
class Keys {
 public:
  Keys() {
    if (::isatty(STDIN_FILENO) == 0 || ::isatty(STDOUT_FILENO) == 0 || ::tcgetattr(STDIN_FILENO, &before_) != 0) return;
    termios raw = before_;
    raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO | ISIG);
    on_ = ::tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
  }
  ~Keys() {
    if (on_) ::tcsetattr(STDIN_FILENO, TCSANOW, &before_);
  }
  Keys(const Keys&) = delete;
  Keys& operator=(const Keys&) = delete;
  bool on() const noexcept { return on_; }
  /// 0 when the time is over.
  char next(std::chrono::milliseconds timeout) const {
    pollfd p{on_ ? STDIN_FILENO : -1, POLLIN, 0};
    char key = 0;
    if (::poll(&p, 1, static_cast<int>(timeout.count())) <= 0) return 0;
    return ::read(STDIN_FILENO, &key, 1) == 1 ? key : 'q';
  }

 private:
  termios before_{};
  bool on_ = false;
};

struct View {
  OutputFormat format;
  std::vector<const Column*> shown;
  TopOrder order = TopOrder::cpu;
};

void show(App& app, const View& view, const TopTable& table, bool screen) {
  std::vector<std::string> headers;
  for (const auto* c : view.shown) headers.push_back(c->header);
  std::vector<Row> rows;
  for (const auto& r : table.rows(view.order)) {
    const auto object = cells(r);
    Row row;
    for (const auto* c : view.shown) row.push_back(c->cell(object));
    rows.push_back(std::move(row));
  }
  if (screen) app.write("\033[H\033[J");
  app.write(render_table(view.format, headers, rows));
  if (screen) app.write("\nc, t, m, d, n: sort by CPU, CPU time, memory, disk, name   q: quit\n");
  std::fflush(stdout);
}

/// Whether to go on after a key; changes the order.
bool obey(char key, TopOrder& order) {
  switch (key) {
    case 'q':
    case 3:  // Ctrl-C
    case 4:
      return false;
    case 'c':
      order = TopOrder::cpu;
      break;
    case 't':
      order = TopOrder::time;
      break;
    case 'm':
      order = TopOrder::memory;
      break;
    case 'd':
      order = TopOrder::disk;
      break;
    case 'n':
      order = TopOrder::name;
      break;
    default:
      break;
  }
  return true;
}

Result<> top(App& app, const Args& args) {
  View view;
  VIRGA_TRY(view.format, parse_format(args.text("format")));
  if (view.format.format == Format::json || view.format.format == Format::yaml)
    return fail(ErrorKind::invalid, "Invalid format: use table, compact or csv");
  auto spec = args.text("columns");
  if (args.has("all-projects") && !args.has("columns")) spec.insert(0, "e");
  VIRGA_TRY(view.shown, pick_columns(columns(), spec));
  VIRGA_TRY(view.order, parse_order(args.text("sort")));
  const auto seconds = args.integer("refresh"), count = args.integer("count");
  if (seconds < 1 || seconds > 86'400) return fail(ErrorKind::invalid, "Invalid refresh delay: it is 1 to 86400 seconds");
  if (count < 0) return fail(ErrorKind::invalid, "Invalid count: it is a number of tables, or 0 for no end");
  VIRGA_TRY(auto* api, app.api());
  const Keys keys;
  TopTable table;
  for (std::int64_t n = 1;; ++n) {
    auto url = args.has("all-projects") ? Url("/1.0/instances").query("all-projects", "true") : app.url("/1.0/instances");
    VIRGA_TRY(auto instances, api->array(std::move(url).query("recursion", "2")));
    const auto asked = std::chrono::steady_clock::now();
    table.update(instances, asked);
    show(app, view, table, keys.on());
    if (n == count) return {};
    const auto next = asked + std::chrono::seconds(seconds);
    for (auto left = next - asked; left.count() > 0; left = next - std::chrono::steady_clock::now()) {
      const char key = keys.next(std::chrono::duration_cast<std::chrono::milliseconds>(left) + std::chrono::milliseconds(1));
      if (key == 0) continue;
      if (!obey(key, view.order)) return {};
      show(app, view, table, keys.on());
    }
  }
}

}  // namespace

Command top_command() {
  return {
      .use = "top [<remote>:]",
      .summary = "Display what running instances use",
      .description =
          "Shows CPU, memory and disk usage of each running instance, again and again.\n\nDefault column layout: "
          "ncumD\n\nColumn shorthand chars:\n  n - Instance name\n  e - Project name\n  c - CPU usage since the last "
          "sample, in percent of one processor\n  u - CPU time (in seconds)\n  m - Memory usage\n  M - Memory usage (%)\n  "
          "D - disk usage\n  N - Number of processes\n  g - Age of the sample\n\nOn a terminal the keys c, t, m, d and n "
          "sort, and q quits. The server samples its guests every ten seconds while somebody asks; asking more often "
          "shows the same samples.",
      .examples =
          "virga top --sort memory\n    The hungriest first\n\nvirga top --count 1 --format csv -c nm\n    One table for a script",
      .flags = {{"all-projects", 0, Flag::boolean, "Display instances from all projects"},
                columns_flag(default_columns),
                {"format", 'f', Flag::text, "Format (table|compact|csv)", "table"},
                {"refresh", 0, Flag::integer, "Configure the refresh delay in seconds", "10"},
                {"sort", 's', Flag::text, "Order of the rows (name|cpu|time|memory|disk)", "cpu"},
                {"count", 0, Flag::integer, "End after so many tables; 0: go on", "0"}},
      .most = 1,
      .run = top};
}

}  // namespace virga::cli
