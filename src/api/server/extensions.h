// The names of the API extensions that virga serves.
#pragma once

#include "base/json.h"

namespace virga::api {

/// Each name stands for all of what it names. Names of our own begin with "virga_".
const json::array& api_extensions();

}  // namespace virga::api
