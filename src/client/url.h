// Builds the targets of requests: every part is percent-encoded, so no name can become a path or a query. Pure.
#pragma once

#include <string>
#include <string_view>
#include <utility>

namespace virga::client {

class Url {
 public:
  /// `base` is a constant of ours: "/1.0/instances".
  explicit Url(std::string_view base) : path_(base) {}
  /// Appends one segment.
  Url segment(std::string_view name) &&;
  /// Appends "key=value"; an empty value is left out.
  Url query(std::string_view key, std::string_view value) &&;
  /// The query for a project by its name; the default one needs none.
  Url project(std::string_view name) && { return std::move(*this).query("project", name == "default" ? "" : name); }
  std::string text() const { return query_.empty() ? path_ : path_ + "?" + query_; }

 private:
  std::string path_;
  std::string query_;
};

/// The parts of a path such as "/1.0/instances/c1?project=x" behind the collection: "c1"; decoded, without the query.
std::string name_in_url(std::string_view url);

}  // namespace virga::client
