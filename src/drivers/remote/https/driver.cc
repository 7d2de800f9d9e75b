#include "drivers/remote/https/driver.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/hash.h"
#include "base/json.h"
#include "base/random.h"
#include "drivers/remote/https/upload.h"
#include "wire/http/fetch.h"
#include "wire/http/files.h"
#include "wire/http/multipart.h"
#include "wire/http/websocket.h"

namespace virga::remote {
namespace {

constexpr std::size_t step = 256u << 10;

using Source = std::function<Task<Result<std::size_t>>(std::span<char>)>;

/// What a transfer counts: all parts together.
struct Tally {
  std::uint64_t have = 0;
  std::optional<std::uint64_t> of;
  Bytes limit = 0;
  std::function<void(std::uint64_t, std::optional<std::uint64_t>)> progress;
};

Task<Result<Saved>> save_one(const Source& source, std::string path, BlockingPool& files, Tally& tally) {
  VIRGA_CO_TRY(auto file, http::FileWriter::create(path));
  Saved out;
  Sha256 hash;
  std::string buffer(step, '\0');
  for (bool end = false; !end;) {
    std::size_t have = 0;
    while (have < step && !end) {
      VIRGA_CO_TRY(const std::size_t n, co_await source(std::span(buffer).subspan(have)));
      end = n == 0;
      have += n;
    }
    tally.have += have;
    if (tally.have > tally.limit)
      co_return fail(ErrorKind::invalid, fmt::format("the download is longer than the {} bytes that are allowed", tally.limit));
    out.size += have;
    if (have != 0) {
      auto write = [&]() -> Result<> {
        const auto bytes = std::string_view(buffer).substr(0, have);
        hash.add(bytes);
        return file.write(bytes);
      };
      VIRGA_CO_CHECK(co_await files.run(write));
    }
    if (tally.progress) tally.progress(tally.have, tally.of);
  }
  out.sha256 = hash.hex();
  co_return out;
}

/// The server's own words out of {"error": "..."}.
Error refusal(int status, const std::string& body) {
  const auto kind = status == 404                    ? ErrorKind::not_found
                    : status == 401 || status == 403 ? ErrorKind::denied
                    : status == 409                  ? ErrorKind::exists
                    : status == 501                  ? ErrorKind::unsupported
                    : status / 100 == 4              ? ErrorKind::invalid
                                                     : ErrorKind::unavailable;
  std::string words;
  if (auto object = parse_json_object(body)) words = Fields(*object).string("error").value_or("").substr(0, 500);
  return Error(kind, words.empty() ? fmt::format("the server answered {} {}", status, http::reason_phrase(status))
                                   : fmt::format("the server says: {}", words));
}

Answer to_answer(http::FetchResponse response) {
  Answer out;
  out.status = response.answer.status;
  out.url = std::move(response.url);
  out.body = std::move(response.answer.body);
  for (auto& [name, value] : response.answer.headers) {
    std::transform(name.begin(), name.end(), name.begin(),
                   [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
    out.headers.try_emplace(name, std::move(value));
  }
  return out;
}

class SocketChannel final : public Channel {
 public:
  explicit SocketChannel(std::unique_ptr<http::WebSocket> socket) : socket_(std::move(socket)) {}
  Task<Result<Message>> read() override {
    VIRGA_CO_TRY(auto message, co_await socket_->read());
    Message out;
    out.kind = message.kind == http::WebSocket::Kind::text     ? Message::Kind::text
               : message.kind == http::WebSocket::Kind::binary ? Message::Kind::binary
                                                               : Message::Kind::close;
    out.data = std::move(message.data);
    co_return out;
  }
  Task<Result<>> write(Message message) override {
    if (message.kind == Message::Kind::text) co_return co_await socket_->write_text(std::move(message.data));
    if (message.kind == Message::Kind::binary) co_return co_await socket_->write_binary(std::move(message.data));
    co_await socket_->close();
    co_return Result<>{};
  }
  Task<> close() override { return socket_->close(); }

 private:
  std::unique_ptr<http::WebSocket> socket_;
};

class HttpsDriver final : public Driver {
 public:
  explicit HttpsDriver(HttpsOptions options) : options_(std::move(options)) {}

  Task<Result<Answer>> fetch(Request request) override {
    auto wanted = translate(request);
    VIRGA_CO_TRY(auto response, co_await http::fetch(std::move(wanted)));
    co_return to_answer(std::move(response));
  }

  Task<Result<std::vector<Saved>>> save(Request request, Bytes limit,
                                        std::function<std::string(std::string_view)> path_for) override {
    std::vector<Saved> out;
    Tally tally{.have = 0, .of = {}, .limit = limit, .progress = request.progress};
    auto wanted = translate(request);
    wanted.receive = [&](const http::ClientResponse& head, http::Body& body) -> Task<Result<>> {
      tally.of = body.length();
      const auto type = head.header("Content-Type");
      if (type.starts_with("multipart/")) co_return co_await save_parts(std::string(type), body, path_for, tally, out);
      const Source source = [&body](std::span<char> into) { return body.read_some(into); };
      VIRGA_CO_TRY(auto one, co_await save_one(source, path_for(""), options_.files, tally));
      one.file_name = file_name_of(head.header("Content-Disposition"));
      out.push_back(std::move(one));
      co_return Result<>{};
    };
    VIRGA_CO_TRY(auto response, co_await http::fetch(std::move(wanted)));
    if (response.answer.status / 100 != 2) co_return fail(refusal(response.answer.status, response.answer.body));
    co_return out;
  }

  Task<Result<Answer>> send(Request request, std::vector<Upload> files) override {
    auto wanted = translate(request);
    auto opened = co_await options_.files.run([&] { return UploadBody::open(std::move(files)); });
    if (!opened) co_return fail(std::move(opened).error());
    auto& body = *opened;
    if (!body.content_type().empty()) wanted.headers.emplace_back("Content-Type", body.content_type());
    wanted.length = body.length();
    wanted.produce = [&](std::span<char> into) -> Task<Result<std::size_t>> {
      auto read = [&] { return body.read(into); };
      auto n = co_await options_.files.run(read);
      if (n && request.progress) request.progress(body.sent(), body.length());
      co_return n;
    };
    VIRGA_CO_TRY(auto response, co_await http::fetch(std::move(wanted)));
    co_return to_answer(std::move(response));
  }

  Task<Result<std::unique_ptr<Channel>>> channel(Request request) override {
    const auto wanted = translate(request);
    VIRGA_CO_TRY(const auto url, http::parse_url(request.url));
    VIRGA_CO_TRY(auto endpoint, http::endpoint_for(wanted, url));
    http::Client client(std::move(endpoint));
    VIRGA_CO_TRY(auto socket, co_await client.websocket(url.target));
    co_return std::make_unique<SocketChannel>(std::move(socket));
  }

 private:
  http::FetchRequest translate(const Request& request) const {
    http::FetchRequest out;
    out.url = request.url;
    out.method = request.method;
    out.headers = request.headers;
    out.body = request.body;
    out.server_certificate = request.certificate;
    if (request.show_certificate) out.identity = options_.identity();
    out.reach = request.reach;
    out.proxies = options_.proxies();
    out.max_body = request.max_body;
    return out;
  }

  Task<Result<>> save_parts(std::string type, http::Body& body, const std::function<std::string(std::string_view)>& path_for,
                            Tally& tally, std::vector<Saved>& out) {
    VIRGA_CO_TRY(const auto boundary, http::multipart_boundary(type));
    http::MultipartReader reader(body, boundary);
    const Source source = [&reader](std::span<char> into) { return reader.read_some(into); };
    while (true) {
      VIRGA_CO_TRY(auto part, co_await reader.next());
      if (!part) co_return Result<>{};
      auto path = path_for(part->name);
      if (path.empty()) co_return fail(ErrorKind::invalid, fmt::format("the answer has an unexpected part '{}'", part->name));
      VIRGA_CO_TRY(auto one, co_await save_one(source, std::move(path), options_.files, tally));
      one.part = part->name;
      one.file_name = part->file_name;
      out.push_back(std::move(one));
    }
  }

  static std::string file_name_of(std::string_view disposition) {
    const auto at = disposition.find("filename=");
    if (at == std::string_view::npos) return {};
    auto name = disposition.substr(at + 9);
    name = name.substr(0, name.find(';'));
    if (name.size() >= 2 && name.front() == '"' && name.back() == '"') name = name.substr(1, name.size() - 2);
    return std::string(name.substr(0, 200));
  }

  HttpsOptions options_;
};

}  // namespace

std::unique_ptr<Driver> make_https_driver(HttpsOptions options) {
  return std::make_unique<HttpsDriver>(std::move(options));
}

}  // namespace virga::remote
