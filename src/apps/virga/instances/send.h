// A copy of an instance from one server to another.
#pragma once

#include <string>

#include "apps/virga/app.h"

namespace virga::cli {

struct Sending {
  App& app;
  std::string from, to;  ///< remotes
  Api* source = nullptr;
  Api* target = nullptr;
  Url source_url;        ///< of the instance
  Url target_url;        ///< of the target's instances
  json::object request;  ///< what the copy is to be; its source is filled in here
  bool instance_only = false;
};

/// mode: "pull", "push" or "relay".
Result<> send_instance(const Sending& sending, const std::string& mode);

}  // namespace virga::cli
