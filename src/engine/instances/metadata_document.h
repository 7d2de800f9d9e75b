// What an instance keeps of its image's metadata: the document, its check, and the API's form of it. Pure.
#pragma once

#include <map>
#include <string>

#include "base/error.h"
#include "base/json.h"
#include "drivers/image/reader.h"

namespace virga::engine {

struct InstanceMetadata {
  image::Metadata image;
  std::map<std::string, std::string> files;  ///< of templates: name to text
};

/// As the API shows and takes it: without the templates' texts. Errors: invalid, naming the field.
json::object metadata_json(const image::Metadata& metadata);
Result<image::Metadata> read_metadata(const json::object& object);
/// Whether the templates' texts are few and short enough to be kept. Errors: invalid, naming the field "path".
Result<> check_template_files(const std::map<std::string, std::string>& files);
/// A plain name below templates/. Errors: invalid, field "path".
Result<> check_template_name(const std::string& name);
inline constexpr std::size_t max_template_size = 1u << 20;
inline constexpr std::size_t max_templates = 64;
/// All of an instance together: they lie in one document, which is read and written whole.
inline constexpr std::size_t max_templates_size = 4u << 20;

std::string metadata_key(const std::string& uuid);
json::object encode(const InstanceMetadata& metadata);
Result<InstanceMetadata> decode_metadata(const json::object& document);

struct TemplatePermissions {
  std::optional<std::uint32_t> uid, gid, mode;
};
/// Errors: invalid (not a number that a file can have).
Result<TemplatePermissions> permissions_of(const image::Template& one);

}  // namespace virga::engine
