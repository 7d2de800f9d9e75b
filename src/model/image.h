// An image: a packed root of a container or a VM, named by the SHA-256 of its files, and the aliases people call it by. Services
// hand out immutable snapshots (std::shared_ptr<const Image>).
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/units.h"
#include "model/config.h"
#include "model/reach.h"

namespace virga {

/// Where an image came from, and newer ones come from.
struct UpdateSource {
  std::string server;
  std::string protocol;
  std::string alias;
  std::string certificate;      ///< PEM, empty: authorities decide
  std::string image_type;       ///< as it was asked for; empty: whatever there was
  Reach reach = Reach::global;  ///< how far inside the server might lie
};

struct Image {
  std::string project;
  std::string fingerprint;  ///< 64 lower-case hexadecimal digits: of the metadata file's bytes followed by the root file's
  InstanceType type = InstanceType::container;
  std::string architecture;  ///< "x86_64", as the kernel says it
  std::string filename;      ///< what the uploader called it; for people only
  Bytes size = 0;            ///< of the file, or of both files
  bool split = false;        ///< the root lies in a file of its own
  bool is_public = false;
  bool auto_update = false;
  bool cached = false;  ///< fetched for an instance: goes when it has not been used for long
  std::optional<UpdateSource> update_source = {};
  Config properties;
  std::vector<std::string> profiles;  ///< for instances made from it that name none
  WallTime created_at{};              ///< by its builder
  WallTime expires_at{};
  WallTime uploaded_at{};
  WallTime last_used_at{};
  std::int64_t revision = 0;  ///< of the document; not part of its text
};

/// One alias name may stand for a container image and for a VM image at once.
struct ImageAlias {
  std::string project;
  std::string name;
  InstanceType type = InstanceType::container;
  std::string target;  ///< fingerprint
  std::string description;
  std::int64_t revision = 0;
};

/// The documents as the store keeps them.
json::object encode(const Image& image);
Result<Image> decode_image(const json::object& document);
json::object encode(const ImageAlias& alias);
Result<ImageAlias> decode_image_alias(const json::object& document);

/// What a client may set: properties, profiles, filename. Errors: invalid, with the field.
Result<> check(const Image& image);
/// Exactly 64 lower-case hexadecimal digits. Errors: invalid, field "fingerprint".
Result<> check_fingerprint(std::string_view fingerprint);
/// "amd64" and "x86_64" are "x86_64". Errors: invalid, field "architecture".
Result<std::string> canonical_architecture(std::string_view name);

}  // namespace virga
