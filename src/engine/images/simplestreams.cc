// Images by simplestreams: an index, lists of products, and files with digests, all over HTTPS.
#include <fmt/format.h>

#include "drivers/image/files.h"
#include "drivers/remote/driver.h"
#include "engine/images/server.h"
#include "engine/images/service.h"
#include "model/streams.h"

namespace virga::engine {
namespace {

class Simplestreams final : public ImageProtocol {
 public:
  Simplestreams(remote::Driver& remotes, image::Files& files, BlockingPool& blocking)
      : remotes_(remotes), files_(files), blocking_(blocking) {}

  Task<Result<RemoteImage>> find(ImageSource source) override {
    VIRGA_CO_TRY(auto base, base_of(source));
    VIRGA_CO_TRY(auto index, co_await get(source, base, streams::index_path));
    VIRGA_CO_TRY(auto paths, streams::decode_index(index));
    const streams::Wanted wanted{source.alias, source.fingerprint, source.type, source.architecture};
    std::optional<streams::Download> best;
    for (const auto& path : paths) {
      VIRGA_CO_TRY(auto text, co_await get(source, base, path));
      // A list may be megabytes.
      auto pick = [&text, &wanted]() -> Result<std::optional<streams::Download>> {
        VIRGA_TRY(auto images, streams::decode_products(text));
        const auto* chosen = streams::choose(images, wanted);
        return chosen == nullptr ? std::optional<streams::Download>() : std::optional(*chosen);
      };
      VIRGA_CO_TRY(auto chosen, co_await blocking_.run(pick));
      if (chosen && (!best || chosen->version > best->version)) best = std::move(chosen);
    }
    if (!best)
      co_return fail(ErrorKind::not_found, fmt::format("'{}' has no image '{}' for this kind of instance and architecture",
                                                       source.server, source.alias.empty() ? source.fingerprint : source.alias));
    co_return describe(base, std::move(*best));
  }

  Task<Result<>> download(ImageSource source, RemoteImage image, ImportImage& into, Progress progress) override {
    VIRGA_CO_TRY(into.metadata_file,
                 co_await save(source, image.metadata, into.metadata_file, image.root ? "metadata" : "image", progress));
    if (!image.root) co_return Result<>{};
    VIRGA_CO_TRY(into.rootfs_file, co_await save(source, *image.root, into.rootfs_file, "rootfs", progress));
    co_return Result<>{};
  }

 private:
  static Result<std::string> base_of(const ImageSource& source) {
    auto base = source.server;
    while (base.ends_with('/')) base.pop_back();
    if (!base.starts_with("https://") || base.size() > 1000 || base.find_first_of("?#@ \t\r\n") != std::string::npos)
      return invalid("source.server", "an image server is named as https://images.example.org: field 'source.server'");
    return base;
  }

  static remote::Request request(const ImageSource& source, std::string url) {
    remote::Request r;
    r.url = std::move(url);
    r.certificate = source.certificate;
    r.reach = source.reach;
    return r;
  }

  Task<Result<std::string>> get(ImageSource source, std::string base, std::string path) {
    auto r = request(source, base + "/" + path);
    r.max_body = streams::max_document;
    VIRGA_CO_TRY(auto answer, co_await remotes_.fetch(std::move(r)));
    if (answer.status != 200)
      co_return fail(answer.status == 404 ? ErrorKind::not_found : ErrorKind::unavailable,
                     fmt::format("the image server answered {} for '{}'", answer.status, path));
    co_return std::move(answer.body);
  }

  static RemoteImage describe(const std::string& base, streams::Download d) {
    const auto file = [&](const streams::File& f) { return RemoteImage::File{base + "/" + f.path, f.sha256, f.size}; };
    RemoteImage out;
    out.fingerprint = std::move(d.fingerprint);
    out.type = d.type;
    out.properties = std::move(d.properties);
    out.aliases = std::move(d.aliases);
    out.metadata = file(d.metadata);
    if (d.root) out.root = file(*d.root);
    return out;
  }

  /// `path` is set before anything is written, so that whoever cleans up knows it.
  Task<Result<std::string>> save(ImageSource source, RemoteImage::File file, std::string& path, std::string what,
                                 Progress progress) {
    path = files_.new_upload_path();
    auto r = request(source, file.url);
    r.progress = [&](std::uint64_t have, std::optional<std::uint64_t>) {
      if (progress) progress(fmt::format("{}: {}%", what, have * 100 / file.size));
    };
    std::function<std::string(std::string_view)> path_for = [&path](std::string_view part) {
      return part.empty() ? path : std::string();
    };
    VIRGA_CO_TRY(auto saved, co_await remotes_.save(std::move(r), file.size, std::move(path_for)));
    if (saved.size() != 1 || saved[0].size != file.size || saved[0].sha256 != file.sha256)
      co_return fail(ErrorKind::invalid, fmt::format("the image server sent another {} than its list says", what));
    co_return path;
  }

  remote::Driver& remotes_;
  image::Files& files_;
  BlockingPool& blocking_;
};

}  // namespace

std::unique_ptr<ImageProtocol> make_simplestreams(remote::Driver& remotes, image::Files& files, BlockingPool& blocking) {
  return std::make_unique<Simplestreams>(remotes, files, blocking);
}

}  // namespace virga::engine
