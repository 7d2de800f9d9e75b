// YAML from strangers to JSON values, and JSON values to the YAML that Incus tools print. Decoding is strict: one document, UTF-8,
// no aliases, no tags of one's own, no merge keys, no duplicate keys, bounded in size, depth and nodes. Any thread.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/json.h"

namespace virga::yaml {

struct DecodeOptions {
  std::size_t max_size = 1u << 20;  ///< bytes of text
  std::size_t max_depth = 32;       ///< nested maps and lists
  std::size_t max_nodes = 100'000;  ///< scalars, maps and lists together
  /// Every scalar becomes a string (nothing written becomes ""). Otherwise plain true, false, null and numbers become typed, as
  /// YAML 1.1 writers quote what they mean as text.
  bool strings_only = false;
};

/// An empty text is null. Errors: invalid (says the line).
Result<json::value> decode(std::string_view text, const DecodeOptions& options = {});
/// The same, and the value must be a map; an empty text is an empty map.
Result<json::object> decode_object(std::string_view text, const DecodeOptions& options = {});

/// Block style with two blanks, keys in the object's order, lists not indented below their key, strings quoted where a reader of
/// YAML 1.1 would take them for something else, text of several lines as a block. Ends with a newline.
std::string encode(const json::value& value);

}  // namespace virga::yaml
