// The parts of a preseed that are not objects with an editable configuration: certificates and volumes.
#pragma once

#include "apps/virga/app.h"

namespace virga::cli {

/// Trusts a certificate unless it is trusted already. Errors: invalid, and the server's.
Result<> ensure_certificate(App& app, Api& api, const json::object& wanted);
/// Makes a custom volume unless there is one of its name. Errors: invalid, and the server's.
Result<> ensure_volume(App& app, Api& api, const json::object& wanted);

}  // namespace virga::cli
