// The table of routes: method and path pattern to handler. A pattern is a path with {placeholders}.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/context.h"
#include "wire/http/message.h"

namespace virga::api {

/// Who may come to a route. Restricted certificates are members of their projects and of nothing else.
enum class Access {
  anyone,  ///< also without a trusted certificate: the handler decides what is shown
  member,  ///< trusted; acts within the request's project
  admin,   ///< trusted and unrestricted: what concerns the whole server
};

enum class BodyKind {
  json,            ///< at most 1 MiB, read before the handler runs
  stream,          ///< the handler reads it
  json_or_stream,  ///< the handler reads application/octet-stream; all else is as json
};

struct Route {
  RouteHandler handler = nullptr;
  Access access = Access::member;
  BodyKind body = BodyKind::json;
  bool slashes = false;  ///< its placeholder is a name that may hold slashes, which come as %2F
  bool spans = false;    ///< a list that all-projects widens; each entry is held against the caller by the handler
};

class Router {
 public:
  Router();
  ~Router();
  /// The pattern must be new for this method: a second one is a bug and throws.
  void add(http::Method method, std::string_view pattern, Route route);
  /// What Incus has at this path and virga does not have yet.
  void add_missing(std::string_view pattern);

  /// "GET /1.0/instances/{name}", in the order they were added.
  const std::vector<std::string>& added() const noexcept { return added_; }

  struct Match {
    const Route* route = nullptr;  ///< null: see below
    bool known = false;            ///< the path exists
    bool missing = false;          ///< it is refused as not implemented yet
    std::string allowed;           ///< methods of a path that exists: "GET, PUT"
  };
  /// Fills `params` with what stands for the placeholders.
  Match find(http::Method method, const std::vector<std::string>& path, std::vector<std::string>& params) const;

 private:
  struct Node;
  Node& place(std::string_view pattern);
  std::unique_ptr<Node> root_;
  std::vector<std::string> added_;
};

}  // namespace virga::api
