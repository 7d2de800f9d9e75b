// POST /1.0/instances with a backup as its body.
#pragma once

#include "api/context.h"
#include "base/task.h"
#include "engine/operations/operations.h"

namespace virga::api {

/// Takes the upload in and starts the import. Errors: unavailable (disk), and what Instances::import_backup() says.
Task<Result<engine::OperationPtr>> instance_from_upload(Context& context);

}  // namespace virga::api
