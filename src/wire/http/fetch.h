// One request to a URL somewhere: redirects followed, proxies used, and never further into the network than was allowed, whatever
// the server, its redirects or its name's addresses say. The daemon's only way out. Event loop only.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/task.h"
#include "wire/http/client.h"
#include "wire/http/proxy.h"
#include "wire/http/url.h"

namespace virga::http {

struct FetchRequest {
  std::string url;
  std::string method = "GET";
  std::vector<std::pair<std::string, std::string>> headers;  ///< go to the first server only, not where it redirects to
  std::string body;
  std::function<Task<Result<std::size_t>>(std::span<char>)> produce;  ///< a streamed body instead
  std::optional<std::uint64_t> length;                                ///< of the streamed body

  std::string server_certificate;    ///< PEM: the only one that is accepted; empty: the system's authorities decide
  std::optional<Identity> identity;  ///< our own certificate, shown to the first server only
  Reach reach = Reach::global;       ///< how far inside the first server may lie; a redirect never leads further inside than it
  Proxies proxies;
  int max_redirects = 5;          ///< for GET and HEAD
  Milliseconds patience{30'000};  ///< without a byte in either direction

  /// Takes the body of a 2xx answer as it comes.
  std::function<Task<Result<>>(const ClientResponse& head, Body& body)> receive;
  std::size_t max_body = 16u << 20;  ///< of an answer that is kept in memory
};

struct FetchResponse {
  ClientResponse answer;
  std::string url;  ///< after redirects
};

/// Any status that is not a redirect is a success here. Errors: invalid (the URL, a malformed answer, an answer that is too long),
/// denied (an address or redirect that is not allowed, or a certificate that is not trusted), unavailable, timeout, cancelled, and
/// what `receive` or `produce` returned.
Task<Result<FetchResponse>> fetch(FetchRequest request);

/// A client for more than one request, and for WebSockets, to the origin of `request.url`; nothing is followed.
Result<Endpoint> endpoint_for(const FetchRequest& request, const Url& url);

}  // namespace virga::http
