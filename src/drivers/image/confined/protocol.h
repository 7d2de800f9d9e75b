// What the worker answers on its standard output: one JSON object. The daemon reads it as a stranger's: a worker that an image has
// taken over can say no more than a valid Inspection or an error.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"
#include "drivers/image/packer.h"
#include "drivers/image/reader.h"

namespace virga::image {

constexpr std::size_t max_answer = 4u << 20;  ///< bytes

struct Answer {
  Inspection inspection;
  bool convert_disk = false;                 ///< unpack: the disk is there as it came and wants converting
  std::optional<BackupContent> backup = {};  ///< of a backup, to be packed or as it was found
};

std::string encode_answer(const Answer& answer);
std::string encode_error(const Error& error);
/// Errors: those that the worker reports (invalid, unavailable, internal; nothing else), internal where the answer is malformed.
Result<Answer> decode_answer(std::string_view text);

/// The bounds that both sides hold metadata to. Errors: invalid, names the field.
Result<> check(const Metadata& metadata);

/// The format of a split image's root, by its first bytes; whatever is neither squashfs nor qcow2 goes to the tarball reader.
enum class RootFormat { none, tarball, squashfs, qcow2 };
RootFormat root_format(std::string_view first_bytes) noexcept;
std::string_view to_string(RootFormat format) noexcept;
Result<RootFormat> parse_root_format(std::string_view text);

}  // namespace virga::image
