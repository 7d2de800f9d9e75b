// Images that go from one server to another: fetched from one (pull), sent to one (push), and the secrets with which two servers
// that do not trust each other do so: one for reading a private image, one for bringing an image here. Each secret stands behind an
// operation of class token, is good for one transfer and some minutes, and dies with the daemon. Event loop only.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/task.h"
#include "drivers/remote/driver.h"
#include "engine/caller.h"
#include "engine/images/service.h"
#include "engine/operations/operations.h"

namespace virga::engine {

/// How far inside a URL that this caller gave may lead: this machine only where an administrator names it, private networks for
/// administrators, public addresses for everybody.
Reach reach_of_caller(const Caller& caller, std::string_view url);

struct PullImage {
  ImportImage image;        ///< project, aliases, profiles, ...; files and fingerprint are filled in
  std::string server;       ///< "https://host:8443"
  std::string certificate;  ///< PEM; empty: authorities decide
  std::string fingerprint;  ///< or
  std::string alias;
  std::string secret;   ///< of a private image
  std::string project;  ///< on the server
};

struct PushImage {
  std::string target;  ///< "https://host:8443"
  std::string certificate;
  std::string secret;
  std::string project;  ///< on the target
  std::vector<std::string> profiles;
};

class ImageTransfers {
 public:
  ImageTransfers(Images& images, Operations& operations, remote::Driver& remotes, Executor executor);

  /// Errors: invalid; the operation's are those of the server, of fetching and of importing.
  Result<OperationPtr> pull(Caller caller, PullImage request);
  /// Sends an image to a server that expects it. Errors: not_found, invalid.
  Result<OperationPtr> push(Caller caller, std::string project, std::string fingerprint, PushImage request);

  /// A secret for reading a private image once; in the operation's metadata for who asked. Errors: not_found, unavailable.
  Result<OperationPtr> let_read(Caller caller, std::string project, std::string fingerprint);
  bool may_read(const Image& image, std::string_view secret) const;
  /// The secret is used up: its image is being read.
  void reading(std::string_view secret);

  /// Expects that another server brings the image of this fingerprint. Errors: invalid, unavailable.
  Result<OperationPtr> expect(Caller caller, ImportImage image);
  struct Expected {
    ImportImage image;
    Caller caller;
  };
  /// Uses the secret up. Errors: denied (whatever is wrong with it).
  Result<Expected> take_expected(std::string_view secret, std::string_view fingerprint);
  /// Imports what was brought. The operation's own secret, in its metadata for who brought it, lets him wait for the end.
  Result<OperationPtr> take_in(Expected expected, ImportImage brought);

 private:
  struct Secret {
    std::string project, fingerprint;
    std::optional<Expected> expected;  ///< absent: it is for reading
    bool used = false;
  };
  Result<OperationPtr> hand_out(OperationSpec spec, Secret secret);
  Task<Result<>> watch(std::string key, Operation& operation);
  Task<Result<>> fetch_image(Operation& operation, PullImage request);
  Task<Result<>> send_image(Operation& operation, Images::Ptr image, PushImage request);
  Task<Result<json::object>> ask(const PullImage& request, Reach reach, std::string path) const;

  Images& images_;
  Operations& operations_;
  remote::Driver& remotes_;
  std::map<std::string, Secret, std::less<>> secrets_;  ///< by the secret's digest: comparing takes no time that tells anything
  Notification changed_;
};

}  // namespace virga::engine
