// The index and the product lists of image servers that publish by simplestreams: from strangers' JSON to what can be downloaded.
// Only what is well formed comes out: entries with a digest, a size and a plain relative path; the rest is passed over. Pure; a
// list may be megabytes, so decoding belongs on a BlockingPool.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/units.h"
#include "model/config.h"

namespace virga::streams {

constexpr std::size_t max_document = 16u << 20;  ///< bytes of an index or a list
constexpr const char* index_path = "streams/v1/index.json";

struct File {
  std::string path;    ///< relative to the server's URL
  std::string sha256;  ///< of its bytes
  Bytes size = 0;
};

/// One image: a version of a product, for one kind of instance.
struct Download {
  std::string product;      ///< "debian:bookworm:amd64:default"
  std::string version;      ///< "20260101_05:24"; a later one sorts behind
  std::string fingerprint;  ///< of metadata and root together
  InstanceType type = InstanceType::container;
  std::string architecture;  ///< as the kernel says it
  std::vector<std::string> aliases;
  Config properties;
  File metadata;             ///< or the unified tarball
  std::optional<File> root;  ///< of a split image
};

/// The paths of the lists that hold images. Errors: invalid.
Result<std::vector<std::string>> decode_index(std::string_view text);
/// Every image of the list. Errors: invalid (not such a list).
Result<std::vector<Download>> decode_products(std::string_view text);

struct Wanted {
  std::string alias;        ///< "debian/12", also with an architecture behind: "debian/12/arm64"
  std::string fingerprint;  ///< or its beginning
  std::optional<InstanceType> type;
  std::string architecture;  ///< as the kernel says it; not asked of a fingerprint
};
/// The newest that fits; without a type a container's is preferred. Null where none does.
const Download* choose(const std::vector<Download>& images, const Wanted& wanted);

}  // namespace virga::streams
