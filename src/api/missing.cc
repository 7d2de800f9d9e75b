// What Incus serves and virga does not yet: refused with 501 and a clear text instead of a 404 that looks like a typing error.
#include <fmt/format.h>

#include "api/router.h"
#include "api/routes.h"

namespace virga::api {
namespace {

Task<Result<http::Response>> not_yet(Context& c) {
  co_return fail(ErrorKind::unsupported, fmt::format("{} {} is not implemented yet", http::to_string(c.request.method),
                                                     c.request.target.substr(0, c.request.target.find('?'))));
}

}  // namespace

void add_missing_routes(Router& router) {
  for (const auto* pattern : {"/1.0/cluster",
                              "/1.0/network-acls",
                              "/1.0/network-address-sets",
                              "/1.0/network-allocations",
                              "/1.0/network-integrations",
                              "/1.0/network-zones",
                              "/1.0/instances/{name}/access",
                              "/1.0/instances/{name}/bitmaps",
                              "/1.0/instances/{name}/debug",
                              "/1.0/instances/{name}/nbd",
                              "/1.0/instances/{name}/nvram",
                              "/1.0/instances/{name}/port-forward",
                              "/1.0/instances/{name}/rebuild",
                              "/1.0/networks/{name}/forwards",
                              "/1.0/networks/{name}/load-balancers",
                              "/1.0/networks/{name}/peers",
                              "/1.0/projects/{name}/access",
                              "/1.0/storage-pools/{name}/buckets",
                              "/1.0/storage-pools/{name}/volumes/{type}/{volume}/backups",
                              "/1.0/storage-pools/{name}/volumes/{type}/{volume}/bitmaps",
                              "/1.0/storage-pools/{name}/volumes/{type}/{volume}/files",
                              "/1.0/storage-pools/{name}/volumes/{type}/{volume}/nbd",
                              "/1.0/storage-pools/{name}/volumes/{type}/{volume}/rebuild",
                              "/1.0/storage-pools/{name}/volumes/{type}/{volume}/sftp",
                              "/1.0/storage-pools/{name}/volumes/{type}/{volume}/snapshots",
                              "/1.0/storage-pools/{name}/volumes/{type}/{volume}/state"})
    router.add_missing(pattern);
  // Methods of paths that are there.
  using http::Method;
  router.add(Method::put, "/1.0/instances", {not_yet});
  router.add(Method::del, "/1.0/instances/{name}/logs/{file}", {not_yet});
  router.add(Method::post, "/1.0/storage-pools/{name}/volumes", {not_yet});
  router.add(Method::post, "/1.0/storage-pools/{name}/volumes/{type}", {not_yet});
  for (auto method : {Method::post, Method::put, Method::patch, Method::del})
    router.add(method, "/1.0/storage-pools/{name}/volumes/{type}/{volume}", {not_yet});
}

}  // namespace virga::api
