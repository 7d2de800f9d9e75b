// What the API tells about host and program.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "api/services.h"

namespace virga::virgad {

/// Everything but `addresses`. `drivers`: name and version of each compute driver.
api::About describe_host(std::vector<std::pair<std::string, std::string>> drivers);

}  // namespace virga::virgad
