// Servers elsewhere, as the engine sees them: requests to a URL, answers in memory or saved into files, and message channels. An
// implementation owns TLS, redirects, proxies and the care not to reach what only this machine can (see model/reach.h).
// Event loop only; nothing here blocks it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/task.h"
#include "base/units.h"
#include "model/reach.h"

namespace virga::remote {

struct Request {
  std::string url;
  std::string method = "GET";
  std::vector<std::pair<std::string, std::string>> headers = {};
  std::string body = {};          ///< JSON, unless the headers say otherwise
  std::string certificate = {};   ///< PEM: the only server certificate that is accepted; empty: the system's authorities decide
  bool show_certificate = false;  ///< whether the server is shown this daemon's own certificate
  Reach reach = Reach::global;
  std::size_t max_body = 16u << 20;  ///< of an answer that is kept in memory
  /// Bytes that have come, and the whole where the server said it. Called often.
  std::function<void(std::uint64_t have, std::optional<std::uint64_t> of)> progress = {};
};

struct Answer {
  int status = 0;
  std::string url;                             ///< after redirects
  std::map<std::string, std::string> headers;  ///< names in lower case
  std::string body;

  std::string header(const std::string& name) const {
    auto it = headers.find(name);
    return it == headers.end() ? std::string() : it->second;
  }
};

struct Saved {
  std::string part;       ///< the name of the part of a multipart answer; empty: the whole body
  std::string file_name;  ///< what the server calls it; for people only
  std::string sha256;     ///< of the bytes
  Bytes size = 0;
};

/// A file that is sent: as it is, or as one part of multipart/form-data.
struct Upload {
  std::string part;  ///< empty: it is the whole body
  std::string file_name;
  std::string path;
};

/// A stream of messages (a WebSocket). One reader and one writer at a time.
class Channel {
 public:
  virtual ~Channel() = default;
  struct Message {
    enum class Kind { text, binary, close };
    Kind kind = Kind::binary;
    std::string data;
  };
  /// Errors: unavailable, cancelled.
  virtual Task<Result<Message>> read() = 0;
  virtual Task<Result<>> write(Message message) = 0;
  virtual Task<> close() = 0;
};

class Driver {
 public:
  virtual ~Driver() = default;
  /// The answer in memory, whatever its status. Errors: invalid (URL, or longer than max_body), denied (an address or a certificate
  /// that is not allowed), unavailable, timeout, cancelled.
  virtual Task<Result<Answer>> fetch(Request request) = 0;
  /// Saves the body of a 2xx answer into a new file (0600), or each part of a multipart/form-data answer into one of its own.
  /// `path_for` gives the file's path for the name of a part (empty: the whole body), or an empty one to refuse it. Digests are of
  /// what was written. Files that were begun are the caller's to remove, also where it fails. Errors: as fetch; those of the server
  /// (not_found, denied, ...); invalid (more than `limit` bytes in all).
  virtual Task<Result<std::vector<Saved>>> save(Request request, Bytes limit,
                                                std::function<std::string(std::string_view part)> path_for) = 0;
  /// Sends files as the body. Errors: as fetch; not_found (a file).
  virtual Task<Result<Answer>> send(Request request, std::vector<Upload> files) = 0;
  /// Errors: as fetch, and the server's refusal.
  virtual Task<Result<std::unique_ptr<Channel>>> channel(Request request) = 0;
};

}  // namespace virga::remote
