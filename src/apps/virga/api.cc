#include "apps/virga/api.h"

#include <fmt/format.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <csignal>
#include <cstdio>

#include "apps/virga/progress.h"
#include "base/log.h"

namespace virga::cli {
namespace {

/// Ctrl-C while an operation runs: first cancel it, then let go of it.
class Interrupts {
 public:
  Interrupts(client::Client& client, std::string operation, TaskGroup& waiting, TaskGroup::Id& waiter)
      : client_(client), operation_(std::move(operation)), waiting_(waiting), waiter_(waiter) {}

  Task<> run() {
    boost::asio::signal_set signals(co_await current_executor(), SIGINT, SIGTERM);
    for (int count = 1;; ++count) {
      auto [error, signal] = co_await signals.async_wait(boost::asio::as_tuple(boost::asio::use_awaitable));
      if (error) co_return;
      if (count > 1) {
        left_ = true;
        waiting_.cancel(waiter_);
        co_return;
      }
      auto cancelled = co_await client_.cancel(operation_);
      if (co_await is_cancelled()) co_return;  // the operation ended meanwhile, and nobody would wake us again
      if (!cancelled)
        fmt::print(stderr, "\nThis operation cannot be cancelled ({}). Interrupt again to let it go on without waiting for it.\n",
                   cancelled.error().chain());
    }
  }
  bool left() const noexcept { return left_; }

 private:
  client::Client& client_;
  std::string operation_;
  TaskGroup& waiting_;
  TaskGroup::Id& waiter_;
  bool left_ = false;
};

Task<> wait_into(client::Client& client, std::string operation, client::OperationWatcher watcher, Result<json::object>& out) {
  out = co_await client.wait(std::move(operation), std::move(watcher));
}

Task<Result<json::object>> wait_with_interrupts(client::Client& client, std::string operation, client::OperationWatcher watcher) {
  Result<json::object> out = fail(ErrorKind::cancelled, "waiting was cancelled");
  auto executor = co_await current_executor();
  TaskGroup waiting(executor), listening(executor);
  TaskGroup::Id waiter = 0;
  Interrupts interrupts(client, operation, waiting, waiter);
  waiter = waiting.spawn("wait for operation", wait_into(client, operation, std::move(watcher), out));
  listening.spawn("interrupts", interrupts.run());
  co_await waiting.join();
  listening.cancel();
  co_await listening.join();
  if (interrupts.left())
    co_return fail(ErrorKind::cancelled, fmt::format("operation {} goes on in the background", client::name_in_url(operation)));
  if (!out) co_return fail(std::move(out).error());
  auto ok = client::outcome(*out);
  if (!ok) co_return fail(std::move(ok).error());
  co_return std::move(*out);
}

}  // namespace

struct Api::Loop {
  explicit Loop(http::Endpoint endpoint) : client(std::move(endpoint)) {}
  boost::asio::io_context io{1};
  client::Client client;
};

Api::Api(http::Endpoint endpoint) : loop_(std::make_unique<Loop>(std::move(endpoint))) {}
Api::~Api() = default;

client::Client& Api::client() noexcept {
  return loop_->client;
}

void Api::run_loop(Task<> task) {
  TaskGroup group(loop_->io.get_executor());
  group.spawn("command", std::move(task));
  loop_->io.restart();
  while (group.size() > 0 && loop_->io.run_one() > 0) {
  }
}

Result<> Api::connect() {
  return await(loop_->client.connect());
}

Result<client::Answer> Api::start(std::string method, const Url& url, std::optional<json::value> body, std::string if_match) {
  log::debug("{} {}", method, url.text());
  client::Call call{.method = std::move(method), .target = url.text(), .body = std::move(body), .if_match = std::move(if_match)};
  return await(loop_->client.call(std::move(call)));
}

Result<client::Answer> Api::send(std::string method, const Url& url, std::optional<json::value> body, std::string if_match) {
  VIRGA_TRY(auto answer, start(std::move(method), url, std::move(body), std::move(if_match)));
  if (!answer.operation.empty()) {
    VIRGA_TRY(auto operation, wait(answer.operation));
    answer.metadata = std::move(operation);
  }
  return answer;
}

Result<json::value> Api::get(const Url& url) {
  VIRGA_TRY(auto answer, start("GET", url));
  return std::move(answer.metadata);
}

Result<json::object> Api::object(const Url& url, std::string* etag) {
  VIRGA_TRY(auto answer, start("GET", url));
  if (!answer.metadata.is_object())
    return fail(ErrorKind::invalid, fmt::format("the server's answer to {} is not an object", url.text()));
  if (etag != nullptr) *etag = answer.etag;
  return std::move(answer.metadata.get_object());
}

Result<json::array> Api::array(const Url& url) {
  VIRGA_TRY(auto value, get(url));
  if (value.is_null()) return json::array();
  if (!value.is_array()) return fail(ErrorKind::invalid, fmt::format("the server's answer to {} is not a list", url.text()));
  return std::move(value.get_array());
}

Result<json::object> Api::wait(const std::string& operation, Progress* progress) {
  client::OperationWatcher watcher;
  if (progress != nullptr && progress->enabled()) watcher = [progress](const json::object& o) { progress->show(o); };
  auto out = await(wait_with_interrupts(loop_->client, operation, std::move(watcher)));
  if (progress != nullptr) progress->clear();
  return out;
}

Result<json::object> Api::run(std::string method, const Url& url, std::optional<json::value> body, Progress* progress) {
  VIRGA_TRY(auto answer, start(std::move(method), url, std::move(body)));
  if (answer.operation.empty()) return json::object();
  return wait(answer.operation, progress);
}

}  // namespace virga::cli
