// The image verbs, and what they share.
#pragma once

#include <string>
#include <vector>

#include "apps/virga/app.h"
#include "apps/virga/command.h"

namespace virga::cli {

Command image_copy_command();
Command image_list_command();
Command image_info_command();
Command image_import_command();
Command image_export_command();
Command image_build_command();
Command image_alias_command();

/// The fingerprint that an alias or (the start of) a fingerprint stands for; with `vm`, the alias of the virtual machine image.
/// Errors: those of the server.
Result<std::string> resolve_image(App& app, const std::string& name, bool vm);
/// The image itself, also of a server that only publishes images. Errors: not_found, those of the server.
Result<json::object> find_image(App& app, const std::string& name, bool vm);

struct ImportFiles {
  std::string metadata;  ///< the unified tarball, or the metadata of a split image
  std::string rootfs;    ///< empty: unified
};
struct ImportOptions {
  std::vector<std::pair<std::string, std::string>> properties;
  bool is_public = false;
};
/// Uploads and returns the fingerprint.
Result<std::string> import_files(App& app, const ImportFiles& files, const ImportOptions& options);
/// Lets the alias stand for the image, taking it from another one of the same kind where `reuse`. Errors: exists.
Result<> set_alias(App& app, const std::string& alias, const std::string& fingerprint, bool reuse);
/// The fingerprint that a unified image file will have. Errors: not_found.
Result<std::string> file_fingerprint(const std::string& path);

}  // namespace virga::cli
