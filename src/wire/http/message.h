// What an HTTP handler sees: a Request whose head is parsed, decoded once and bounded, and the Response it gives back. Views in a
// request live until the handler has returned. Event loop only.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/byte_stream.h"
#include "base/error.h"
#include "base/task.h"
#include "base/units.h"
#include "io/fd.h"

namespace virga::http {

class WebSocket;

enum class Method { get, head, post, put, patch, del, options };
std::string_view to_string(Method method) noexcept;

/// A client's certificate as it was shown in the handshake. The handshake accepts any; whether it is trusted is decided above.
struct PeerCertificate {
  std::string fingerprint;  ///< SHA-256 of the whole certificate, 64 hexadecimal digits
  std::string pem;
  WallTime not_before;
  WallTime not_after;
};

/// Who is on the other side of a connection.
struct Peer {
  bool local = false;  ///< a unix socket: uid, gid and pid are the kernel's word
  uid_t uid = static_cast<uid_t>(-1);
  gid_t gid = static_cast<gid_t>(-1);
  pid_t pid = -1;
  std::string address;  ///< "192.0.2.1:4711", "[::1]:4711"; "@" for a unix socket
  std::optional<PeerCertificate> certificate;
};

/// Header fields in the order they came; names compare without case.
class Headers {
 public:
  void clear() noexcept { fields_.clear(); }
  void add(std::string_view name, std::string_view value) { fields_.emplace_back(name, value); }
  /// The first value of that name, empty where there is none.
  std::string_view get(std::string_view name) const noexcept;
  bool has(std::string_view name) const noexcept;
  std::size_t count(std::string_view name) const noexcept;
  auto begin() const noexcept { return fields_.begin(); }
  auto end() const noexcept { return fields_.end(); }
  std::size_t size() const noexcept { return fields_.size(); }

 private:
  std::vector<std::pair<std::string_view, std::string_view>> fields_;
};

/// The decoded query; a key that comes twice was refused.
class Query {
 public:
  void clear() noexcept { items_.clear(); }
  void add(std::string key, std::string value) { items_.emplace_back(std::move(key), std::move(value)); }
  /// Empty where absent.
  std::string_view get(std::string_view key) const noexcept;
  bool has(std::string_view key) const noexcept;
  auto begin() const noexcept { return items_.begin(); }
  auto end() const noexcept { return items_.end(); }

 private:
  std::vector<std::pair<std::string, std::string>> items_;
};

/// The body of a request, read from the connection as it is asked for: who does not read stops the sender.
class Body {
 public:
  virtual ~Body() = default;
  /// Bytes announced; absent when the body is chunked.
  virtual std::optional<std::uint64_t> length() const noexcept = 0;
  /// Reads what is there, at least one byte; 0 is the end. Errors: invalid (malformed chunk), timeout, unavailable (the peer is
  /// gone), cancelled.
  virtual Task<Result<std::size_t>> read_some(std::span<char> into) = 0;
  /// All of it. Errors: those of read_some; invalid with too_large() set when it is longer than `limit`.
  virtual Task<Result<std::string>> read_all(std::size_t limit) = 0;
  virtual bool too_large() const noexcept = 0;
};

struct Request {
  Method method = Method::get;
  std::string_view target;        ///< as it came: "/1.0/instances?recursion=1"
  std::vector<std::string> path;  ///< decoded segments: {"1.0", "instances"}; "/" has none; never empty ones, "." or ".."
  bool slash_in_segment = false;  ///< a segment came as "debian%2F12": only for what takes such names
  bool trailing_slash = false;    ///< "/1.0/": path is {"1.0"}
  Query query;
  Headers headers;
  const Peer* peer = nullptr;
  Body* body = nullptr;
  bool websocket = false;  ///< the client asks for a well-formed upgrade to WebSocket
  /// Set by a handler that waits for long: it is then cancelled within about a second after the client went away.
  bool cancel_on_hangup = false;
  /// Set by the handler: the fingerprint of a certificate that stands behind this request though the connection did not show it.
  /// Server::close_certificate() ends what the request became (a WebSocket) along with the certificate's own connections.
  std::string vouched_by;
};

struct FileBody {
  io::UniqueFd fd;
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
};
/// Texts and files one after the other, with the sum of their lengths as Content-Length.
using PartsBody = std::vector<std::variant<std::string, FileBody>>;
/// Bytes as they are made: `next` gives the following piece. Where it fails or ends early the connection is closed, which is how
/// the client sees it. At most `length` bytes are sent.
struct StreamBody {
  std::uint64_t length = 0;
  std::function<Task<Result<std::string>>()> next;
};
/// The connection becomes a plain stream of bytes of that protocol, which the client has named in its Upgrade header.
struct RawUpgradeBody {
  std::string_view protocol;  ///< a constant
  std::function<Task<>(std::unique_ptr<ByteStream>)> serve;
};
/// Runs after the 101 answer was written; it may keep the socket beyond its own end.
using UpgradeBody = std::function<Task<>(std::unique_ptr<WebSocket>)>;

struct Response {
  int status = 200;
  std::string_view content_type = "application/json";  ///< a constant; empty: no such header
  std::vector<std::pair<std::string, std::string>> headers;
  /// A string, a string that others share, a file's bytes, several of these, bytes that are made, or the handler of what the
  /// connection becomes.
  std::variant<std::string, std::shared_ptr<const std::string>, FileBody, PartsBody, StreamBody, UpgradeBody, RawUpgradeBody> body;
  bool close = false;  ///< close the connection afterwards
};

using Handler = std::function<Task<Response>(Request&)>;

std::string_view reason_phrase(int status) noexcept;
/// Percent-encodes everything that is not unreserved, for use as one path segment or query value.
std::string encode_segment(std::string_view text);
bool equals_ignoring_case(std::string_view a, std::string_view b) noexcept;

}  // namespace virga::http
