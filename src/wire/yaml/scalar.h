// What a plain scalar means to a reader of YAML 1.1: the decoder types it by this, the encoder quotes by it.
#pragma once

#include <string_view>

#include "base/error.h"
#include "base/json.h"

namespace virga::yaml {

enum class Meaning { text, null, boolean, number, not_finite, time };

/// YAML 1.1 as Incus' reader takes it: 0x, 0b and leading-zero numbers, digits with '_', yes/no/on/off. Dates are `time`.
Meaning meaning_of(std::string_view plain) noexcept;
/// "1:30": a number to older readers of YAML 1.1 only, so writers quote it.
bool looks_like_base60(std::string_view plain) noexcept;
/// The typed value of a plain scalar: true, 12, null, or its text. Numbers are decimal or 0x; others stay text. Errors: invalid
/// (not finite, does not fit 64 bits).
Result<json::value> typed(std::string_view plain);

}  // namespace virga::yaml
