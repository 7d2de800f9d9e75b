// Images of other servers that speak this API: public ones, or private ones whose secret the client was given there.
#include <fmt/format.h>

#include <algorithm>

#include "drivers/image/files.h"
#include "drivers/remote/driver.h"
#include "engine/images/remote_api.h"
#include "engine/images/server.h"
#include "engine/images/service.h"
#include "engine/url.h"
#include "model/image.h"

namespace virga::engine {
namespace {

class IncusProtocol final : public ImageProtocol {
 public:
  IncusProtocol(remote::Driver& remotes, image::Files& files) : remotes_(remotes), files_(files) {}

  Task<Result<RemoteImage>> find(ImageSource source) override {
    VIRGA_CO_CHECK(check_server("source.server", source.server));
    if (source.alias.empty()) co_return co_await image(source, source.fingerprint);
    auto found = co_await by_alias(source, source.alias);
    if (found || found.error().kind() != ErrorKind::not_found || !source.type) co_return found;
    // The alias may stand for an image of the other kind too.
    auto twin = co_await by_alias(source, fmt::format("{}/{}", source.alias, to_string(*source.type)));
    co_return twin ? std::move(twin) : std::move(found);
  }

  Task<Result<>> download(ImageSource source, RemoteImage image, ImportImage& into, Progress progress) override {
    auto whole = request(source, image.metadata.url);
    whole.progress = [&](std::uint64_t have, std::optional<std::uint64_t>) {
      if (progress) progress(fmt::format("image: {}%", std::min<std::uint64_t>(have * 100 / image.metadata.size, 100)));
    };
    std::function<std::string(std::string_view)> path_for = [&](std::string_view part) -> std::string {
      const bool root = part == "rootfs" || part == "rootfs.img";
      auto& path = root ? into.rootfs_file : into.metadata_file;
      if ((!root && !part.empty() && part != "metadata") || !path.empty()) return {};
      return path = files_.new_upload_path();
    };
    VIRGA_CO_CHECK(co_await remotes_.save(std::move(whole), image.metadata.size, std::move(path_for)));
    if (into.metadata_file.empty()) co_return fail(ErrorKind::invalid, "the server sent no metadata of the image");
    co_return Result<>{};
  }

 private:
  static remote::Request request(const ImageSource& source, std::string url) {
    remote::Request r;
    r.url = std::move(url);
    r.certificate = source.certificate;
    r.reach = source.reach;
    r.max_body = 1u << 20;
    return r;
  }

  Task<Result<RemoteImage>> by_alias(ImageSource source, std::string name) {
    VIRGA_CO_TRY(const auto alias, co_await get(source, "/1.0/images/aliases/" + url_encode(name)));
    VIRGA_CO_TRY(const auto target, Fields(alias, "alias").string("target"));
    VIRGA_CO_CHECK(check_fingerprint(target));
    co_return co_await image(std::move(source), target);
  }

  Task<Result<RemoteImage>> image(ImageSource source, std::string wanted) {
    const auto path = "/1.0/images/" + url_encode(wanted), secret = query_of({{"secret", source.secret}});
    VIRGA_CO_TRY(const auto info, co_await get(source, path + secret));
    const Fields fields(info, "image");
    RemoteImage out;
    VIRGA_CO_TRY(out.fingerprint, fields.string("fingerprint"));
    VIRGA_CO_CHECK(check_fingerprint(out.fingerprint));
    if (!out.fingerprint.starts_with(wanted))
      co_return fail(ErrorKind::invalid, "the server offers another image than the one that was asked for");
    VIRGA_CO_TRY(const auto type, fields.string("type"));
    VIRGA_CO_TRY(out.type, parse_instance_type(type));
    if (source.type && *source.type != out.type)
      co_return fail(ErrorKind::not_found,
                     fmt::format("the image is for a {}, not for a {}", to_string(out.type), to_string(*source.type)));
    VIRGA_CO_TRY(out.properties, fields.string_map("properties"));
    VIRGA_CO_TRY(const auto size, fields.integer("size"));
    if (size <= 0) co_return fail(ErrorKind::invalid, "the server does not say how large the image is");
    // Unified or in two parts: the answer to the download tells.
    out.metadata = {.url = join_url(source.server, path + "/export" + secret), .sha256 = {}, .size = static_cast<Bytes>(size)};
    co_return out;
  }

  Task<Result<json::object>> get(ImageSource source, std::string path) {
    VIRGA_CO_TRY(const auto answer, co_await remotes_.fetch(request(source, join_url(source.server, path))));
    co_return open_answer(answer);
  }

  remote::Driver& remotes_;
  image::Files& files_;
};

}  // namespace

std::unique_ptr<ImageProtocol> make_incus_protocol(remote::Driver& remotes, image::Files& files) {
  return std::make_unique<IncusProtocol>(remotes, files);
}

}  // namespace virga::engine
