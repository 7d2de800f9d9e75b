// One HTTPS address that can be changed while connections are open: the API's, or the one of the metrics. Event loop only.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/task.h"
#include "wire/http/server.h"

namespace virga::virgad {

class HttpsAddress {
 public:
  /// `what` is for people: "HTTPS", "metrics".
  HttpsAddress(Executor executor, std::string what, http::Handler handler, http::ServerOptions options,
               std::function<http::Identity()> identity);

  /// Listens there instead of where it did; empty: nowhere. Connections of the old address end in their own time, since the request
  /// that changes it may have come over one of them. Errors: as Server::listen_tls; the old address stays.
  Result<> change(const std::string& address);
  /// As bound; empty when it listens nowhere.
  const std::string& bound() const noexcept { return bound_; }
  void close_certificate(std::string_view fingerprint);
  Task<> stop();

 private:
  Executor executor_;
  std::string what_;
  http::Handler handler_;
  http::ServerOptions options_;
  std::function<http::Identity()> identity_;
  std::string wanted_, bound_;
  std::unique_ptr<http::Server> server_;
  std::vector<std::unique_ptr<http::Server>> old_;
  TaskGroup tasks_;
};

}  // namespace virga::virgad
