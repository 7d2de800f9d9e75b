// Images of servers: found, downloaded once however many ask at the same time, and imported as an upload is.
#include <fmt/format.h>

#include "base/log.h"
#include "engine/images/impl.h"

namespace virga::engine {
namespace {

/// The machine's own, for images that are named without one.
std::string host_architecture() {
#if defined(__aarch64__)
  return "aarch64";
#else
  return "x86_64";
#endif
}

bool same_source(const UpdateSource& a, const ImageSource& b) {
  return a.server == b.server && a.protocol == b.protocol && a.alias == b.alias;
}

}  // namespace

std::string Images::Impl::setting(std::string_view key, std::string_view fallback) const {
  auto value = parts.setting ? parts.setting(key) : std::string();
  return value.empty() ? std::string(fallback) : value;
}

Result<ImageProtocol*> Images::Impl::protocol(const ImageSource& source) const {
  auto it = protocols.find(source.protocol);
  if (it == protocols.end())
    return fail(
        Error(ErrorKind::unsupported, fmt::format("images cannot be fetched by the protocol '{}' yet: field 'source.protocol'",
                                                  source.protocol.substr(0, 40)))
            .with_field("source.protocol"));
  if (source.alias.empty() == source.fingerprint.empty())
    return invalid("source.alias", "name the image by its alias or its fingerprint: field 'source.alias' or 'source.fingerprint'");
  return it->second.get();
}

/// What was fetched from the same place earlier.
Images::Ptr Images::Impl::fetched_before(std::string_view project, const ImageSource& source) const {
  for (const auto& i : images.list(key(project, "")))
    if (i->update_source && same_source(*i->update_source, source) && (!source.type || *source.type == i->type)) return i;
  return nullptr;
}

/// An image that is here: cached ones become one's own where one asks for it by name.
Task<Result<>> Images::Impl::adopt(Operation& operation, Ptr old, FetchImage request) {
  operation.set_metadata("fingerprint", json::string(old->fingerprint));
  if (request.image.cached) co_return Result<>{};
  Image next = *old;
  next.cached = false;
  next.is_public = next.is_public || request.image.is_public;
  next.auto_update = next.auto_update || request.image.auto_update;
  if (!request.image.profiles.empty()) next.profiles = request.image.profiles;
  for (const auto& [k, v] : request.image.properties) next.properties[k] = v;
  Transaction t;
  t.expect(key(next.project, next.fingerprint), old->revision)
      .put(key(next.project, next.fingerprint), json::serialize(encode(next)));
  for (const auto& [name, description] : request.image.aliases) {
    const auto k = alias_key(next.project, next.type, name);
    if (aliases.find(k)) co_return fail(ErrorKind::exists, fmt::format("image alias '{}' exists already", name));
    t.expect(k, 0).put(
        k, json::serialize(encode(ImageAlias{
               .project = next.project, .name = name, .type = next.type, .target = next.fingerprint, .description = description})));
  }
  co_return co_await commit(std::move(t));
}

Task<Result<std::string>> Images::Impl::fetch(Operation& operation, FetchImage request) {
  VIRGA_CO_TRY(auto* server, protocol(request.source));
  if (request.source.architecture.empty())
    request.source.architecture = setting("images.default_architecture", host_architecture());
  const auto& source = request.source;
  const auto& name = source.alias.empty() ? source.fingerprint : source.alias;
  auto found = co_await server->find(source);
  if (!found) {
    const auto kind = found.error().kind();
    auto before = request.image.cached ? fetched_before(request.image.project, source) : nullptr;
    if (!before || (kind != ErrorKind::unavailable && kind != ErrorKind::timeout))
      co_return fail(std::move(found).error().wrap(fmt::format("find image '{}' on '{}'", name, source.server)));
    operation.warn("image server '{}' cannot be asked, the image that was fetched before is used: {}", source.server,
                   found.error().text());
    co_return before->fingerprint;
  }
  const auto fingerprint = found->fingerprint;
  // Whoever wants the same image waits for whoever began.
  const auto resource = image_url(request.image.project, fingerprint);
  constexpr Milliseconds patience{4 * 3600 * 1000};
  VIRGA_CO_TRY(auto turn, co_await parts.operations.claim_when_free(resource + "/download", "Downloading image", patience));
  if (auto here = image(request.image.project, fingerprint)) {
    VIRGA_CO_CHECK(co_await adopt(operation, here, std::move(request)));
    co_return fingerprint;
  }
  // Not only once it is here and has taken the space.
  if (room) VIRGA_CO_CHECK(room(request.image.project, found->metadata.size + (found->root ? found->root->size : 0)));
  auto& wanted = request.image;
  wanted.expected_fingerprint = fingerprint;
  for (const auto& [k, v] : found->properties) wanted.properties.emplace(k, v);
  wanted.update_source = UpdateSource{source.server,
                                      source.protocol,
                                      source.alias,
                                      source.certificate,
                                      source.type ? std::string(to_string(*source.type)) : std::string(),
                                      source.reach};
  if (source.alias.empty()) wanted.update_source.reset();  // a fingerprint never becomes another
  auto progress = [&operation](std::string text) { operation.set_progress("download_progress", json::string(text)); };
  auto downloaded = co_await server->download(source, *found, wanted, progress);
  if (!downloaded) {
    co_await discard_files(wanted);
    co_return fail(std::move(downloaded).error().wrap(fmt::format("download image '{}' of '{}'", name, source.server)));
  }
  operation.set_metadata("download_progress", nullptr);
  auto imported = co_await import(operation, wanted);
  co_await discard_files(wanted);
  if (!imported) co_return fail(std::move(imported).error().wrap(fmt::format("image '{}' of '{}'", name, source.server)));
  co_return fingerprint;
}

Task<> Images::Impl::discard_files(ImportImage request) {
  co_await shield();
  for (const auto& path : {request.metadata_file, request.rootfs_file}) {
    if (path.empty()) continue;
    if (auto r = co_await parts.files.discard_upload(path); !r) log::warn("remove an upload: {}", r.error().text());
  }
}

Task<Result<std::string>> Images::fetch_within(Operation& operation, FetchImage request) {
  VIRGA_CO_TRY(request.image.project, impl_->parts.project_of(request.image.project));
  if (request.image.cached)
    request.image.auto_update = parse_bool(impl_->setting("images.auto_update_cached", "true")).value_or(true);
  co_return co_await impl_->fetch(operation, std::move(request));
}

Result<> Images::check_fetch(const FetchImage& request) const {
  VIRGA_CHECK(impl_->protocol(request.source));
  return check_import(request.image);
}

Result<OperationPtr> Images::fetch(Caller caller, FetchImage request) {
  VIRGA_CHECK(check_fetch(request));
  VIRGA_TRY(request.image.project, impl_->parts.project_of(request.image.project));
  OperationSpec spec;
  spec.project = request.image.project;
  spec.description = "Downloading image";
  spec.may_cancel = true;
  spec.caller = std::move(caller);
  auto body = [impl = impl_.get(), request = std::move(request)](Operation& operation) -> Task<Result<>> {
    VIRGA_CO_CHECK(co_await impl->fetch(operation, request));
    co_return Result<>{};
  };
  return impl_->parts.operations.start(std::move(spec), std::move(body));
}

}  // namespace virga::engine
