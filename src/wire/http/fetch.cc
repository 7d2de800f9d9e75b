#include "wire/http/fetch.h"

#include <fmt/format.h>

#include <algorithm>

namespace virga::http {
namespace {

/// Counts what moves, so that a server that says nothing any more is noticed.
struct Pulse {
  std::uint64_t beats = 0;
};

class CountedBody final : public Body {
 public:
  CountedBody(Body& body, Pulse& pulse) : body_(body), pulse_(pulse) {}
  std::optional<std::uint64_t> length() const noexcept override { return body_.length(); }
  Task<Result<std::size_t>> read_some(std::span<char> into) override {
    ++pulse_.beats;
    auto n = co_await body_.read_some(into);
    ++pulse_.beats;
    co_return n;
  }
  Task<Result<std::string>> read_all(std::size_t limit) override { return body_.read_all(limit); }
  bool too_large() const noexcept override { return body_.too_large(); }

 private:
  Body& body_;
  Pulse& pulse_;
};

bool is_redirect(int status) {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

ClientRequest one_request(const FetchRequest& from, const Url& url, bool first, Pulse& pulse) {
  ClientRequest out;
  out.method = from.method;
  out.target = url.target;
  if (first) out.headers = from.headers;
  out.body = from.body;
  out.max_body = from.max_body;
  out.upload_length = from.length;
  if (from.produce)
    out.produce = [&from, &pulse](std::span<char> into) -> Task<Result<std::size_t>> {
      ++pulse.beats;
      co_return co_await from.produce(into);
    };
  if (from.receive)
    out.receive = [&from, &pulse](const ClientResponse& head, Body& body) -> Task<Result<>> {
      CountedBody counted(body, pulse);
      co_return co_await from.receive(head, counted);
    };
  return out;
}

/// What may follow a redirect. Errors: denied, invalid.
Result<Url> follow(const FetchRequest& request, const Url& from, std::string_view location) {
  auto to = resolve_url(from, location);
  if (!to) return fail(std::move(to).error().wrap(fmt::format("'{}' redirects", from.origin())));
  if (from.secure && !to->secure) return fail(ErrorKind::denied, fmt::format("'{}' redirects from https to http", from.origin()));
  if (!request.server_certificate.empty() && to->origin() != from.origin())
    return fail(ErrorKind::denied, fmt::format("'{}' redirects to another server, whose certificate is not known", from.origin()));
  return to;
}

Task<Result<FetchResponse>> fetch_following(const FetchRequest& request, Pulse& pulse) {
  VIRGA_CO_TRY(auto url, parse_url(request.url));
  const bool may_follow = request.method == "GET" || request.method == "HEAD";
  const auto home = url.origin();
  auto limit = request.reach;
  for (int hop = 0;; ++hop) {
    VIRGA_CO_TRY(auto endpoint, endpoint_for(request, url));
    endpoint.reach = limit;
    if (url.origin() != home) endpoint.identity.reset();
    Client client(std::move(endpoint));
    auto one = one_request(request, url, url.origin() == home, pulse);
    VIRGA_CO_TRY(auto answer, co_await client.request(std::move(one)));
    ++pulse.beats;
    if (!may_follow || !is_redirect(answer.status)) co_return FetchResponse{.answer = std::move(answer), .url = url.text()};
    if (hop == request.max_redirects)
      co_return fail(ErrorKind::unavailable, fmt::format("'{}' redirects more than {} times", home, request.max_redirects));
    VIRGA_CO_TRY(auto next, follow(request, url, answer.header("Location")));
    if (next.origin() != url.origin()) limit = std::min(limit, client.peer_reach());
    url = std::move(next);
  }
}

}  // namespace

Result<Endpoint> endpoint_for(const FetchRequest& request, const Url& url) {
  Endpoint out;
  out.host = url.host;
  out.port = url.port;
  out.plain = !url.secure;
  out.identity = request.identity;
  out.reach = request.reach;
  if (!request.server_certificate.empty()) {
    if (!url.secure) return fail(ErrorKind::invalid, "a certificate was given for a server that is spoken to without TLS");
    VIRGA_TRY(const auto pinned, describe_certificate(request.server_certificate));
    out.server_fingerprint = pinned.fingerprint;
  }
  VIRGA_TRY(const auto proxy, proxy_for(url, request.proxies));
  if (proxy) {
    out.proxy_host = proxy->host;
    out.proxy_port = proxy->port;
  }
  return out;
}

Task<Result<FetchResponse>> fetch(FetchRequest request) {
  // The work is a task of its own, so that the watch can end it wherever it hangs.
  struct Attempt {
    explicit Attempt(Executor e) : group(e), done(e) {}
    TaskGroup group;
    Notification done;
    Pulse pulse;
    std::optional<Result<FetchResponse>> result;
  } attempt(co_await current_executor());
  auto work = [&]() -> Task<> {
    attempt.result.emplace(co_await fetch_following(request, attempt.pulse));
    attempt.done.notify();
  };
  attempt.group.spawn("fetch", work());
  bool stalled = false, cancelled = false;
  while (!attempt.result && !stalled && !cancelled) {
    const auto seen = attempt.pulse.beats;
    const bool woken = co_await attempt.done.wait_for(request.patience);
    cancelled = co_await is_cancelled();
    stalled = !woken && !cancelled && attempt.pulse.beats == seen;
  }
  if (!attempt.result) attempt.group.cancel();
  co_await attempt.group.join();
  if (stalled) {
    // Without path and query: there may be a secret in them.
    const auto url = parse_url(request.url);
    co_return fail(ErrorKind::timeout,
                   fmt::format("'{}' said nothing for {} ms", url ? url->origin() : "?", request.patience.count()));
  }
  if (cancelled || !attempt.result) co_return fail(ErrorKind::cancelled, "the download was cancelled");
  co_return std::move(*attempt.result);
}

}  // namespace virga::http
