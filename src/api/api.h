// The REST API: what comes from wire/http goes through identity, route, access, project and body to one handler, and its result or
// error into an envelope. No business rules here.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "api/services.h"
#include "wire/http/server.h"

namespace virga::api {

class Api {
 public:
  Api(Services services, Executor executor);
  ~Api();
  Api(const Api&) = delete;
  Api& operator=(const Api&) = delete;

  /// Must have ended before the Api is destroyed, unless the event loop is gone.
  Task<> stop();
  /// What http::Server takes as its handler; the Api must outlive the server.
  Task<http::Response> handle(http::Request& request);
  http::Handler handler();
  /// For an address where /1.0/metrics is served and nothing else.
  http::Handler metrics_handler();
  /// Headers of every answer and the shape of early refusals.
  static http::ServerOptions server_options(http::Limits limits = {});
  /// "GET /1.0/instances/{name}" and so on: what is served, without what is refused as not there yet.
  static std::vector<std::string> served_routes();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace virga::api
