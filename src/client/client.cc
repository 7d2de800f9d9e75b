#include "client/client.h"

#include <fmt/format.h>

namespace virga::client {
namespace {

constexpr Milliseconds watch_interval{200};

std::string without_query(std::string_view url) {
  return std::string(url.substr(0, url.find('?')));
}

Result<Answer> open_response(const http::ClientResponse& response) {
  auto answer = open_envelope(response.status, response.body);
  if (answer) {
    answer->etag = response.header("ETag");
    answer->location = response.header("Location");
  }
  return answer;
}

}  // namespace

Task<Result<>> Client::connect() {
  return http_.connect();
}

Task<Result<http::ClientResponse>> Client::raw(std::string method, std::string target, std::string body) {
  http::ClientRequest request;
  request.method = std::move(method);
  request.target = std::move(target);
  request.body = std::move(body);
  co_return co_await http_.request(std::move(request));
}

Task<Result<Answer>> Client::call(Call call) {
  http::ClientRequest request;
  request.method = std::move(call.method);
  request.target = std::move(call.target);
  if (call.body) request.body = json::serialize(*call.body);
  if (!call.if_match.empty()) request.headers.emplace_back("If-Match", std::move(call.if_match));
  VIRGA_CO_TRY(auto response, co_await http_.request(std::move(request)));
  co_return open_response(response);
}

Task<Result<Answer>> Client::upload(Upload upload) {
  http::ClientRequest request;
  request.method = "POST";
  request.target = std::move(upload.target);
  request.headers = std::move(upload.headers);
  request.upload = std::move(upload.read);
  request.upload_length = upload.length;
  VIRGA_CO_TRY(auto response, co_await http_.request(std::move(request)));
  co_return open_response(response);
}

Task<Result<http::ClientResponse>> Client::download(std::string target, std::function<Result<>(std::string_view)> sink) {
  http::ClientRequest request;
  request.target = std::move(target);
  request.download = std::move(sink);
  VIRGA_CO_TRY(auto response, co_await http_.request(std::move(request)));
  if (response.status >= 400) {
    auto answer = open_response(response);
    if (!answer) co_return fail(std::move(answer).error());
  }
  co_return response;
}

Task<Result<std::unique_ptr<http::WebSocket>>> Client::websocket(std::string target) {
  return http_.websocket(std::move(target));
}

Task<Result<std::unique_ptr<ByteStream>>> Client::upgrade(std::string target, std::string protocol) {
  return http_.upgrade(std::move(target), std::move(protocol));
}

Task<> Client::watch(std::string operation, OperationWatcher watcher) {
  http::Client second(endpoint_);
  while (co_await sleep_for(watch_interval)) {
    http::ClientRequest request;
    request.target = operation;
    auto response = co_await second.request(std::move(request));
    if (!response) co_return;
    auto answer = open_response(*response);
    if (!answer || !answer->metadata.is_object()) co_return;
    watcher(answer->metadata.get_object());
  }
}

Task<Result<json::object>> Client::wait(std::string operation, OperationWatcher watcher) {
  operation = without_query(operation);
  TaskGroup group(co_await current_executor());
  if (watcher) group.spawn("watch operation", watch(operation, watcher));
  Call request{.target = operation + "/wait?timeout=-1"};
  auto answer = co_await call(std::move(request));
  group.cancel();
  co_await group.join();
  if (!answer && !co_await is_cancelled()) {
    // Servers may answer with the failure of an operation that fails meanwhile; how it ended, a command's exit code say, is in
    // itself.
    Call again{.target = operation};
    auto ended = co_await call(std::move(again));
    if (ended && ended->metadata.is_object() && has_ended(ended->metadata.get_object()))
      co_return std::move(ended->metadata.get_object());
  }
  if (!answer) co_return fail(std::move(answer).error());
  if (!answer->metadata.is_object()) co_return fail(ErrorKind::invalid, "the server's answer about an operation is malformed");
  co_return std::move(answer->metadata.get_object());
}

Task<Result<>> Client::cancel(std::string operation) {
  // On a connection of its own: the main one may be waiting for the very operation.
  http::Client second(endpoint_);
  http::ClientRequest request;
  request.method = "DELETE";
  request.target = without_query(operation);
  VIRGA_CO_TRY(auto response, co_await second.request(std::move(request)));
  auto answer = open_response(response);
  if (!answer) co_return fail(std::move(answer).error());
  co_return Result<>();
}

}  // namespace virga::client
