#include "client/url.h"

#include <charconv>

#include "wire/http/message.h"

namespace virga::client {

Url Url::segment(std::string_view name) && {
  path_ += '/';
  path_ += http::encode_segment(name);
  return std::move(*this);
}

Url Url::query(std::string_view key, std::string_view value) && {
  if (value.empty()) return std::move(*this);
  if (!query_.empty()) query_ += '&';
  query_ += http::encode_segment(key);
  query_ += '=';
  query_ += http::encode_segment(value);
  return std::move(*this);
}

std::string name_in_url(std::string_view url) {
  url = url.substr(0, url.find('?'));
  if (auto slash = url.rfind('/'); slash != std::string_view::npos) url.remove_prefix(slash + 1);
  std::string out;
  for (std::size_t i = 0; i < url.size(); ++i) {
    unsigned char c = 0;
    if (url[i] == '%' && i + 2 < url.size() &&
        std::from_chars(url.data() + i + 1, url.data() + i + 3, c, 16).ptr == url.data() + i + 3) {
      out += static_cast<char>(c);
      i += 2;
    } else {
      out += url[i];
    }
  }
  return out;
}

}  // namespace virga::client
