// Speaking with another server of the same API: addresses, queries, and the envelopes of its answers. Pure.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "base/json.h"
#include "drivers/remote/driver.h"

namespace virga::engine {

/// "https://host:8443" without what could lead elsewhere. Errors: invalid.
Result<> check_server(std::string_view field, std::string_view url);
std::string join_url(std::string_view server, std::string_view path);
/// "?a=b&c=d"; what is empty is left out.
std::string query_of(std::initializer_list<std::pair<std::string_view, std::string_view>> items);
/// The envelope's metadata. Errors: the server's, by its status; invalid.
Result<json::object> open_answer(const remote::Answer& answer);

}  // namespace virga::engine
