// The lines of QMP: pure parsing and writing, so that they can be fuzzed.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>

#include "base/error.h"
#include "base/json.h"

namespace virga::qmp {

struct Greeting {
  std::string version;  ///< major.minor.micro
};
struct Reply {
  std::uint64_t id = 0;
  Result<json::value> result;
};
struct EventMessage {
  std::string name;
  json::object data;
};
using Message = std::variant<Greeting, Reply, EventMessage>;

/// One line without its line feed. Errors: invalid.
Result<Message> parse_message(std::string_view line);
/// One command with its line feed.
std::string format_command(std::string_view command, const json::object& arguments, std::uint64_t id);

}  // namespace virga::qmp
