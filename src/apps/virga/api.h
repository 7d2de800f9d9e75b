// The daemon as the verbs see it: calls that wait for their answer. It runs the event loop inside each call, which suits a program
// that does one thing and ends.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/error.h"
#include "base/json.h"
#include "base/task.h"
#include "client/client.h"
#include "client/url.h"

namespace virga::cli {

class Progress;
using client::Url;

class Api {
 public:
  explicit Api(http::Endpoint endpoint);
  ~Api();
  Api(const Api&) = delete;
  Api& operator=(const Api&) = delete;

  Result<> connect();
  /// The metadata of an answer. Errors: the server's.
  Result<json::value> get(const Url& url);
  Result<json::object> object(const Url& url, std::string* etag = nullptr);
  Result<json::array> array(const Url& url);
  /// For calls that answer at once; one that starts an operation is waited for all the same.
  Result<client::Answer> send(std::string method, const Url& url, std::optional<json::value> body = {}, std::string if_match = {});
  Result<client::Answer> start(std::string method, const Url& url, std::optional<json::value> body = {}, std::string if_match = {});
  /// Waits for an operation to end well and returns it. An interrupt (Ctrl-C) asks the server to cancel it; a second one leaves it
  /// running.
  Result<json::object> wait(const std::string& operation, Progress* progress = nullptr);
  /// start() and wait().
  Result<json::object> run(std::string method, const Url& url, std::optional<json::value> body = {}, Progress* progress = nullptr);

  /// Runs a task to its end.
  template <class T>
  Result<T> await(Task<Result<T>> task) {
    Result<T> out = fail(ErrorKind::internal, "the task did not run");
    run_loop(keep(std::move(task), out));
    return out;
  }
  client::Client& client() noexcept;

 private:
  template <class T>
  static Task<> keep(Task<Result<T>> task, Result<T>& out) {
    out = co_await std::move(task);
  }
  void run_loop(Task<> task);
  struct Loop;
  std::unique_ptr<Loop> loop_;
};

}  // namespace virga::cli
