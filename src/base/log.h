// Logging: error = what the user asked for did not happen, warn = odd but survived, info = rare state change, debug = for us.
// No secret is ever logged. Thread-safe.
#pragma once

#include <fmt/format.h>

#include <functional>
#include <string>
#include <string_view>
#include <utility>

namespace virga::log {

enum class Level { debug, info, warn, error };

struct Line {
  Level level;
  std::string message;
};

/// Writes to standard error, with time and level; called once by main().
void configure(Level lowest);
Level lowest() noexcept;
/// Also hands each line that is written to `sink` (the API's logging events); an empty function takes it back. The sink is called
/// on whichever thread logs.
void set_sink(std::function<void(const Line&)> sink);
void write(Level level, std::string message);
std::string_view to_string(Level level) noexcept;

template <class... A>
void debug(fmt::format_string<A...> f, A&&... a) {
  if (lowest() <= Level::debug) write(Level::debug, fmt::format(f, std::forward<A>(a)...));
}
template <class... A>
void info(fmt::format_string<A...> f, A&&... a) {
  if (lowest() <= Level::info) write(Level::info, fmt::format(f, std::forward<A>(a)...));
}
template <class... A>
void warn(fmt::format_string<A...> f, A&&... a) {
  write(Level::warn, fmt::format(f, std::forward<A>(a)...));
}
template <class... A>
void error(fmt::format_string<A...> f, A&&... a) {
  write(Level::error, fmt::format(f, std::forward<A>(a)...));
}

}  // namespace virga::log
