// Reading what clients send about instances into the engine's requests. Pure; a field that is not implemented is refused by name.
#pragma once

#include "base/error.h"
#include "base/json.h"
#include "engine/instances/service.h"

namespace virga::api {

Result<engine::CreateInstance> read_create(const json::object& body);
/// PUT (replace) or PATCH.
Result<engine::UpdateInstance> read_update(const json::object& body, bool replace);
/// The snapshot that a PUT wants back; empty: it is no restore. The other fields mean nothing then.
Result<std::string> read_restore(const json::object& body);
Result<engine::StateChange> read_state_change(const json::object& body);
Result<engine::ExecRequest> read_exec(const json::object& body);
/// POST on an instance: a copy that is sent to another server. Nothing where it is something else.
Result<std::optional<engine::MigrateInstance>> read_migrate(const json::object& body);
/// POST on an instance: a new name, another project, or both.
Result<engine::MoveInstance> read_move(const json::object& body);

}  // namespace virga::api
