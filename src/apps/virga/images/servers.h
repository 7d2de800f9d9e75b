// Images of other servers: of those that only publish images (simplestreams), shown as the API would show them; and what a daemon
// must be told to fetch one from wherever it lies.
#pragma once

#include <string>
#include <vector>

#include "apps/virga/app.h"
#include "base/json.h"

namespace virga::cli {

/// Whether the remote publishes images and nothing else. Errors: not_found (no such remote), unsupported (OCI registries, which
/// are known, and whose images nothing can be made of yet).
Result<bool> publishes_images(App& app, const std::string& remote);
/// The newest version of each image, in the order of the server's list.
Result<json::array> published_images(App& app, const std::string& remote);
/// By an alias or the beginning of a fingerprint; with `vm`, for virtual machines. Errors: not_found.
Result<json::object> published_image(App& app, const std::string& remote, const std::string& name, bool vm);

/// Where a server can be reached by another one, and the certificate that it shows.
struct Meeting {
  std::vector<std::string> addresses;
  std::string certificate;
};
/// Errors: unavailable (it does not listen on the network).
Result<Meeting> meeting_of(App& app, const std::string& remote, Api& api);

/// Sources (of an instance or an image) that name this image of another server, to be tried in this order.
Result<std::vector<json::object>> remote_sources(App& app, const std::string& remote, const std::string& image, bool vm);

}  // namespace virga::cli
