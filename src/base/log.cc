#include "base/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <memory>
#include <mutex>

namespace virga::log {
namespace {

std::atomic<Level> g_lowest{Level::warn};
std::mutex g_sink_mutex;
std::shared_ptr<std::function<void(const Line&)>> g_sink;

spdlog::logger& logger() {
  static std::shared_ptr<spdlog::logger> instance = [] {
    auto l = spdlog::stderr_logger_mt("virga");
    l->set_pattern("%Y-%m-%dT%H:%M:%S.%eZ %L %v", spdlog::pattern_time_type::utc);
    l->set_level(spdlog::level::trace);
    l->flush_on(spdlog::level::info);
    return l;
  }();
  return *instance;
}

/// A log line is one line: what a guest or client put into a name must not forge another.
std::string one_line(std::string text) {
  for (char& c : text)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  return text;
}

spdlog::level::level_enum map(Level level) {
  switch (level) {
    case Level::debug:
      return spdlog::level::debug;
    case Level::info:
      return spdlog::level::info;
    case Level::warn:
      return spdlog::level::warn;
    case Level::error:
      return spdlog::level::err;
  }
  return spdlog::level::err;
}

}  // namespace

void configure(Level lowest) {
  g_lowest = lowest;
}
Level lowest() noexcept {
  return g_lowest;
}

void set_sink(std::function<void(const Line&)> sink) {
  std::lock_guard lock(g_sink_mutex);
  g_sink = sink ? std::make_shared<std::function<void(const Line&)>>(std::move(sink)) : nullptr;
}

std::string_view to_string(Level level) noexcept {
  switch (level) {
    case Level::debug:
      return "debug";
    case Level::info:
      return "info";
    case Level::warn:
      return "warning";
    case Level::error:
      return "error";
  }
  return "error";
}

void write(Level level, std::string message) {
  if (level < g_lowest) return;
  Line line{level, one_line(std::move(message))};
  logger().log(map(level), line.message);
  std::shared_ptr<std::function<void(const Line&)>> sink;
  {
    std::lock_guard lock(g_sink_mutex);
    sink = g_sink;
  }
  if (sink) (*sink)(line);
}

}  // namespace virga::log
