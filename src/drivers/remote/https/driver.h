// drivers/remote/driver.h over wire/http. Files are written and read in a thread pool.
#pragma once

#include <functional>
#include <memory>

#include "drivers/remote/driver.h"
#include "wire/http/proxy.h"
#include "wire/http/tls.h"

namespace virga::remote {

struct HttpsOptions {
  BlockingPool& files;
  std::function<http::Identity()> identity;  ///< this daemon's own
  std::function<http::Proxies()> proxies;    ///< as the configuration says now
};
std::unique_ptr<Driver> make_https_driver(HttpsOptions options);

}  // namespace virga::remote
