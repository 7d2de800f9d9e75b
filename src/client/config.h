// What the command line remembers between runs: remote servers, the default one, aliases. config.yml in $VIRGA_CONF,
// $XDG_CONFIG_HOME/virga or ~/.config/virga, with the keys of the incus command's file, so that one can be copied to the other;
// what is not understood is kept. Beside it client.crt and client.key, and servercerts/<remote>.crt of servers no authority vouches
// for.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/json.h"
#include "client/endpoint.h"
#include "wire/http/tls.h"

namespace virga::client {

struct Remote {
  std::string address;   ///< "https://host:8443", "unix:///path"; of "local" only where it differs from this machine's daemon
  std::string protocol;  ///< "incus" (also where it is empty), "simplestreams" or "oci"
  std::string auth_type;
  std::string project;  ///< empty: "default"
  bool is_public = false;
  bool is_static = false;
  json::object other;  ///< keys of ours that other programs have written

  bool is_unix() const { return address.starts_with("unix:"); }
  bool speaks_api() const { return protocol.empty() || protocol == "incus"; }
};

class Config {
 public:
  /// Reads the files of this user. A file that is not there is an empty one. Errors: invalid (names the file), denied.
  static Result<Config> load(const Environment& environment);
  /// Writes the file anew, durably. Errors: unavailable, denied.
  Result<> save() const;

  const std::string& directory() const noexcept { return directory_; }
  std::map<std::string, Remote> remotes;
  std::string default_remote = "local";
  std::map<std::string, std::string> aliases;  ///< "rl" -> "list -c ns"

  /// Errors: not_found, with what there is.
  Result<const Remote*> find(std::string_view name) const;
  /// How to connect: with our certificate where there is one, and only to the server whose certificate was pinned.
  /// Errors: not_found, unsupported (the remote does not speak the API), invalid (its address).
  Result<http::Endpoint> endpoint(std::string_view name) const;

  /// The certificate a remote's server must show, PEM; empty: authorities decide.
  std::string server_certificate(std::string_view remote) const;
  Result<> pin_server_certificate(std::string_view remote, std::string_view pem) const;
  /// Takes a remote's files along. An empty new name removes them.
  void rename_files(const std::string& remote, const std::string& new_name) const;

  /// Our own; absent where none was made yet.
  Result<http::Identity> identity() const;
  /// Makes one where there is none; `made` tells. Errors: unavailable.
  Result<http::Identity> ensure_identity(bool& made) const;

 private:
  Environment environment_;
  std::string directory_;
  json::object document_;  ///< as it was read: what we do not know stays
};

/// A remote's name: no colon, slash or blank. Errors: invalid.
Result<> check_remote_name(std::string_view name);
/// "db1:c1" is ("db1", "c1"); "c1" is ("", "c1"). What stands before the colon must look like the name of a remote, else there is
/// none.
std::pair<std::string, std::string> split_remote(std::string_view argument);

}  // namespace virga::client
