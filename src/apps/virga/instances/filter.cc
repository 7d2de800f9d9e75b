#include "apps/virga/instances/filter.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <regex.h>

#include <array>

#include "apps/virga/text.h"
#include "apps/virga/values.h"
#include "base/units.h"

namespace virga::cli {
namespace {

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return out;
}

bool any_of_list(const std::string& list, const std::function<bool(const std::string&)>& matches) {
  for (const auto& value : split(list, ','))
    if (matches(value)) return true;
  return false;
}

bool has_address(const json::object& instance, std::string_view family, const std::string& network) {
  for (const auto& [name, interface] : object_of(object_of(instance, "state"), "network")) {
    if (!interface.is_object()) continue;
    for (const auto& address : objects_of(array_of(interface.get_object(), "addresses")))
      if (text_of(address, "family") == family && address_matches(text_of(address, "address"), network)) return true;
  }
  return false;
}

bool matches_pair(const json::object& instance, const std::string& key, const std::string& value) {
  if (key == "type" || key == "status" || key == "architecture" || key == "location")
    return any_of_list(value, [&](const std::string& v) { return lower(text_of(instance, key)) == lower(v); });
  if (key == "ipv4") return any_of_list(value, [&](const std::string& v) { return has_address(instance, "inet", v); });
  if (key == "ipv6") return any_of_list(value, [&](const std::string& v) { return has_address(instance, "inet6", v); });
  for (const auto& [name, text] : object_of(instance, "expanded_config"))
    if (text.is_string() && abbreviates(key, name) && matches_pattern(std::string(text.get_string()), value)) return true;
  return false;
}

}  // namespace

bool matches_pattern(const std::string& text, const std::string& pattern) {
  if (text == pattern) return true;
  std::string anchored = pattern.find_first_of("^$") == std::string::npos ? "^(" + pattern + ")$" : pattern;
  ::regex_t compiled{};
  if (::regcomp(&compiled, anchored.c_str(), REG_EXTENDED | REG_NOSUB) != 0) return false;
  const bool found = ::regexec(&compiled, text.c_str(), 0, nullptr, 0) == 0;
  ::regfree(&compiled);
  return found;
}

bool abbreviates(std::string_view short_key, std::string_view key) {
  auto short_parts = split(short_key, '.'), parts = split(key, '.');
  if (short_parts.size() != parts.size()) return false;
  for (std::size_t i = 0; i < parts.size(); ++i)
    if (!parts[i].starts_with(short_parts[i])) return false;
  return true;
}

bool address_matches(std::string_view address, std::string_view network) {
  auto slash = network.find('/');
  const std::string base(network.substr(0, slash)), text(address);
  const int family = base.find(':') == std::string::npos ? AF_INET : AF_INET6;
  std::array<unsigned char, 16> a{}, b{};
  if (::inet_pton(family, text.c_str(), a.data()) != 1 || ::inet_pton(family, base.c_str(), b.data()) != 1) return false;
  const int all = family == AF_INET ? 32 : 128;
  auto bits = slash == std::string_view::npos ? Result<std::int64_t>(all) : parse_integer(network.substr(slash + 1), 0, all);
  if (!bits) return false;
  for (std::int64_t i = 0; i < *bits; ++i) {
    const auto byte = static_cast<std::size_t>(i / 8);
    const int mask = 0x80 >> (i % 8);
    if ((a[byte] & mask) != (b[byte] & mask)) return false;
  }
  return true;
}

bool filters_need_state(const std::vector<std::string>& filters) {
  for (const auto& filter : filters)
    if (filter.starts_with("ipv4=") || filter.starts_with("ipv6=")) return true;
  return false;
}

bool matches_filters(const json::object& instance, const std::vector<std::string>& filters) {
  const auto name = text_of(instance, "name");
  for (const auto& filter : filters) {
    if (filter.empty() || name.starts_with(filter)) continue;
    auto equals = filter.find('=');
    const bool met = equals == std::string::npos ? matches_pattern(name, filter)
                                                 : matches_pair(instance, filter.substr(0, equals), filter.substr(equals + 1));
    if (!met) return false;
  }
  return true;
}

}  // namespace virga::cli
