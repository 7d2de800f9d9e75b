// What the command line shows of certificates.
#pragma once

#include <string_view>

#include "base/error.h"
#include "base/units.h"

namespace virga::client {

/// The end of the first certificate's validity. Errors: invalid.
Result<WallTime> certificate_expiry(std::string_view pem);

}  // namespace virga::client
