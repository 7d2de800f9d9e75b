// Who asks: a local user by the kernel's word, or a client certificate by its fingerprint; and whether a page of another site made
// the browser ask.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "engine/caller.h"
#include "wire/http/message.h"

namespace virga::engine {
class Certificates;
}

namespace virga::api {

struct Identity {
  engine::Caller caller;
  bool trusted = false;
  bool metrics = false;               ///< a certificate that may read /1.0/metrics and nothing else
  bool restricted = false;            ///< a certificate that may use the named projects only
  std::vector<std::string> projects;  ///< of a restricted certificate
  /// Decides for every object that belongs to a project: the only place that does.
  bool may_use(std::string_view project) const;
  /// Those of the URLs (of used_by and its kin) that are in projects the caller may use.
  std::vector<std::string> visible(std::vector<std::string> urls) const;
};

/// Unix: root and the daemon's own user are trusted, others only where the socket was given to a group. TLS: a certificate that is
/// in the trust store and valid today is trusted; others are guests. Errors: denied.
/// A bearer token that the certificate's key has signed does as well as the certificate itself.
Result<Identity> identify(const http::Request& request, const engine::Certificates& certificates, bool socket_is_shared);

/// Refuses what a page of another site makes a browser send (S43). Errors: denied.
Result<> check_same_site(const http::Request& request);
/// A body must say that it is JSON; over a unix socket, where no browser is, it may say nothing. Errors: invalid.
Result<> check_json_type(const http::Request& request);

}  // namespace virga::api
