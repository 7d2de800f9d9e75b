#include "client/streams.h"

#include <fmt/format.h>

#include "wire/http/fetch.h"

namespace virga::client {
namespace {

Task<Result<std::string>> get(std::string server, std::string certificate, std::string path) {
  http::FetchRequest request;
  request.url = http::join_url(server, path);
  request.server_certificate = std::move(certificate);
  request.reach = Reach::loopback;  // the user has named it
  request.max_body = streams::max_document;
  VIRGA_CO_TRY(auto fetched, co_await http::fetch(std::move(request)));
  if (fetched.answer.status != 200)
    co_return fail(fetched.answer.status == 404 ? ErrorKind::not_found : ErrorKind::unavailable,
                   fmt::format("the image server answered {} for '{}'", fetched.answer.status, path));
  co_return std::move(fetched.answer.body);
}

}  // namespace

Task<Result<std::vector<streams::Download>>> list_streams(std::string server, std::string certificate) {
  VIRGA_CO_TRY(const auto index, co_await get(server, certificate, streams::index_path));
  VIRGA_CO_TRY(const auto paths, streams::decode_index(index));
  std::vector<streams::Download> out;
  for (const auto& path : paths) {
    VIRGA_CO_TRY(const auto text, co_await get(server, certificate, path));
    VIRGA_CO_TRY(auto images, streams::decode_products(text));
    out.insert(out.end(), std::make_move_iterator(images.begin()), std::make_move_iterator(images.end()));
  }
  co_return out;
}

}  // namespace virga::client
