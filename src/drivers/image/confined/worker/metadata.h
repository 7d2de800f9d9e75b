// metadata.yaml: decoded within limits, checked. Pure.
#pragma once

#include <string_view>

#include "base/error.h"
#include "drivers/image/reader.h"

namespace virga::image {

/// Fields that we do not know are left aside: builders add their own. Errors: invalid, says what is wrong.
Result<Metadata> decode_metadata(std::string_view yaml);

}  // namespace virga::image
