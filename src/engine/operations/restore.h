// Operations as the log keeps them. Private to this folder.
#pragma once

#include <string>
#include <string_view>

#include "base/json.h"
#include "engine/operations/operations.h"

namespace virga::engine {

/// What the log holds of an operation: what listings show, who asked for it, and no secret.
json::object encode_for_log(const Operation& operation);

struct LoggedOperation {
  std::string id;
  OperationSpec spec;
  json::object metadata;
  OperationStatus status = OperationStatus::failure;
  std::optional<Error> error;
  WallTime created{}, updated{};
};
/// One that had not ended is a failure now. Errors: invalid.
Result<LoggedOperation> decode_from_log(const json::object& document);
/// "Creating instance" for "instance-create": what an operation is called of which only the journal's row is left.
std::string describe_kind(std::string_view kind);

}  // namespace virga::engine
