#include "api/router.h"

#include <fmt/format.h>

#include <array>
#include <map>
#include <stdexcept>

namespace virga::api {

struct Router::Node {
  std::map<std::string, std::unique_ptr<Node>, std::less<>> children;
  std::unique_ptr<Node> placeholder;
  std::array<Route, 7> routes{};  ///< by method
  bool any = false;
  bool missing = false;
};

Router::Router() : root_(std::make_unique<Node>()) {}
Router::~Router() = default;

Router::Node& Router::place(std::string_view pattern) {
  Node* at = root_.get();
  while (!pattern.empty()) {
    pattern.remove_prefix(1);  // the slash
    const auto segment = pattern.substr(0, pattern.find('/'));
    pattern.remove_prefix(segment.size());
    if (segment.empty()) break;
    auto& next = segment.front() == '{' ? at->placeholder : at->children[std::string(segment)];
    if (!next) next = std::make_unique<Node>();
    at = next.get();
  }
  return *at;
}

void Router::add(http::Method method, std::string_view pattern, Route route) {
  auto& node = place(pattern);
  auto& slot = node.routes[static_cast<std::size_t>(method)];
  if (slot.handler != nullptr) throw std::logic_error(fmt::format("two routes for {} {}", http::to_string(method), pattern));
  slot = route;
  added_.push_back(fmt::format("{} {}", http::to_string(method), pattern));
  node.any = true;
}

void Router::add_missing(std::string_view pattern) {
  place(pattern).missing = true;
}

Router::Match Router::find(http::Method method, const std::vector<std::string>& path, std::vector<std::string>& params) const {
  // A literal segment wins over a placeholder; the table has no pair that would need a step back.
  const Node* at = root_.get();
  bool below_missing = false;
  for (const auto& segment : path) {
    if (auto it = at->children.find(segment); it != at->children.end()) {
      at = it->second.get();
    } else if (at->placeholder) {
      params.push_back(segment);
      at = at->placeholder.get();
    } else {
      return {.missing = below_missing || at->missing, .allowed = {}};
    }
    below_missing = below_missing || at->missing;
  }
  Match match;
  match.missing = below_missing;
  match.known = at->any;
  const auto& route = at->routes[static_cast<std::size_t>(method == http::Method::head ? http::Method::get : method)];
  if (route.handler != nullptr) {
    match.route = &route;
    return match;
  }
  for (std::size_t i = 0; i < at->routes.size(); ++i) {
    if (at->routes[i].handler == nullptr) continue;
    match.allowed += fmt::format("{}{}", match.allowed.empty() ? "" : ", ", http::to_string(static_cast<http::Method>(i)));
  }
  return match;
}

}  // namespace virga::api
