// Servers that images come from. A protocol knows how to find an image on one and how to fetch its files; what was fetched is then
// imported as an upload is, and must be what its fingerprint says. Event loop only.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/task.h"
#include "base/units.h"
#include "model/config.h"
#include "model/reach.h"

namespace virga {
class BlockingPool;
namespace remote {
class Driver;
}
namespace image {
class Files;
}
}  // namespace virga

namespace virga::engine {

struct ImportImage;

/// Which image of which server; as clients say it.
struct ImageSource {
  std::string server;       ///< "https://images.example.org"
  std::string protocol;     ///< "simplestreams", "incus"
  std::string alias;        ///< or fingerprint
  std::string fingerprint;  ///< or the beginning of one
  std::string certificate;  ///< PEM: the only one that is accepted; empty: the system's authorities decide
  std::string secret;       ///< of a private image
  std::optional<InstanceType> type;
  std::string architecture;  ///< empty: this machine's
  Reach reach = Reach::global;
};

/// What a server has under that name.
struct RemoteImage {
  struct File {
    std::string url;
    std::string sha256;
    Bytes size = 0;
  };
  std::string fingerprint;
  InstanceType type = InstanceType::container;
  Config properties;
  std::vector<std::string> aliases;
  File metadata;             ///< or the unified tarball
  std::optional<File> root;  ///< of a split image
};

class ImageProtocol {
 public:
  /// Told how far it is: "rootfs: 45%".
  using Progress = std::function<void(std::string)>;
  virtual ~ImageProtocol() = default;
  /// Errors: not_found (no such image), invalid (the answer), denied, unavailable, timeout, cancelled.
  virtual Task<Result<RemoteImage>> find(ImageSource source) = 0;
  /// Saves the files and puts their paths into `into`, whose files are the caller's to remove also where it fails. Errors: as find.
  virtual Task<Result<>> download(ImageSource source, RemoteImage image, ImportImage& into, Progress progress) = 0;
};

/// All must outlive it.
std::unique_ptr<ImageProtocol> make_simplestreams(remote::Driver& remotes, image::Files& files, BlockingPool& blocking);
std::unique_ptr<ImageProtocol> make_incus_protocol(remote::Driver& remotes, image::Files& files);

}  // namespace virga::engine
