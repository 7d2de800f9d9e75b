// How much a project uses of what its limits.* keys count, and whether a change stays below them. Pure: engine/projects gathers the
// numbers, and asks once, where the merged object is committed.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/error.h"
#include "model/instance.h"
#include "model/project.h"

namespace virga {

/// By the name of the limit without "limits.": instances, containers, virtual-machines, cpu, memory, processes, disk,
/// disk.pool.<name>, networks. Bytes or numbers.
using Amounts = std::map<std::string, std::int64_t, std::less<>>;

/// What one instance adds. A key that it lacks adds nothing.
Amounts amounts_of(const Instance& instance);
void add(Amounts& sum, const Amounts& more);
/// For each name the larger of the two: what holds whether a change that is under way succeeds or fails.
void raise(Amounts& to, const Amounts& other);

/// The project's limits. A pool's own is "disk.pool.<name>".
Amounts limits_of(const Project& project);
/// Whether any limit is set: where none is, nothing needs to be counted.
bool is_limited(const Project& project);

/// Each instance of a project that limits cpu, memory, processes or disk must say how much it may use. Errors: invalid, with the
/// key or device option that is missing.
Result<> check_counted(const Project& project, const Instance& instance);
/// Errors: denied, naming project, limit, and the amounts used and asked for. What was above its limit before may stay or shrink.
Result<> check_limits(const Project& project, const Amounts& before, const Amounts& after);
/// Whether the limits of `next` leave room for what is used. Limits that do not change are not looked at. Errors: invalid.
Result<> check_room(const Project& old, const Project& next, const Amounts& used);

}  // namespace virga
