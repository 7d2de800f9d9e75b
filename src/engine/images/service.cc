#include "engine/images/service.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "engine/images/impl.h"

namespace virga::engine {

Images::Images(Parts parts, Executor executor) : impl_(std::make_unique<Impl>(std::move(parts), executor)) {}

void Images::set_room(Room room) {
  impl_->room = std::move(room);
}
Images::~Images() = default;

std::string Images::backup_compression() const {
  return impl_->setting("backups.compression_algorithm", "gzip");
}

std::string Images::default_compression() const {
  return impl_->setting("images.compression_algorithm", "gzip");
}

Images::Ptr Images::Impl::any(std::string_view fingerprint) const {
  for (const auto& i : images.list())
    if (i->fingerprint == fingerprint) return i;
  return nullptr;
}

bool Images::Impl::shared(std::string_view project, std::string_view fingerprint) const {
  for (const auto& i : images.list())
    if (i->fingerprint == fingerprint && i->project != project) return true;
  return false;
}

std::vector<Images::AliasPtr> Images::Impl::named(std::string_view project, std::string_view name,
                                                  std::optional<InstanceType> type) const {
  std::vector<AliasPtr> out;
  for (auto t : {InstanceType::container, InstanceType::virtual_machine}) {
    if (type && *type != t) continue;
    if (auto a = aliases.find(alias_key(project, t, name))) out.push_back(std::move(a));
  }
  return out;
}

std::vector<Images::AliasPtr> Images::Impl::meant(std::string_view project, std::string_view name,
                                                  std::optional<InstanceType> type) const {
  auto out = named(project, name, type);
  const auto slash = name.rfind('/');
  if (!out.empty() || slash == std::string_view::npos) return out;
  const auto suffix = name.substr(slash + 1);
  for (auto t : {InstanceType::container, InstanceType::virtual_machine})
    if (suffix == to_string(t) || (t == InstanceType::virtual_machine && suffix == "vm"))
      if (!type || *type == t) return named(project, name.substr(0, slash), t);
  return out;
}

Task<Result<>> Images::Impl::commit(Transaction transaction) {
  auto revision = co_await parts.store.commit(std::move(transaction));
  if (!revision) co_return fail(std::move(revision).error());
  co_return Result<>();
}

std::vector<Images::Ptr> Images::list(const std::optional<std::string>& project) const {
  if (!project) return impl_->images.list();
  auto real = impl_->parts.project_of(*project);
  return real ? impl_->images.list(Impl::key(*real, "")) : std::vector<Ptr>();
}

Result<Images::Ptr> Images::find(const std::string& project, std::string_view fingerprint) const {
  const auto not_found = [&] { return fail(ErrorKind::not_found, fmt::format("no image '{}'", fingerprint.substr(0, 64))); };
  const bool hex =
      !fingerprint.empty() && fingerprint.size() <= 64 &&
      std::all_of(fingerprint.begin(), fingerprint.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
  if (!hex) return not_found();
  VIRGA_TRY(auto real, impl_->parts.project_of(project));
  auto found = impl_->images.list(Impl::key(real, fingerprint));
  if (found.empty()) return not_found();
  if (found.size() > 1) return invalid("fingerprint", fmt::format("several images begin with '{}'", fingerprint));
  return found.front();
}

std::vector<Images::AliasPtr> Images::aliases(const std::optional<std::string>& project) const {
  std::vector<AliasPtr> out;
  if (project) {
    auto real = impl_->parts.project_of(*project);
    if (!real) return out;
    out = impl_->aliases.list("/image-aliases/" + *real + "/");
  } else {
    out = impl_->aliases.list();
  }
  std::sort(out.begin(), out.end(), [](const AliasPtr& a, const AliasPtr& b) {
    return std::tie(a->project, a->name, a->type) < std::tie(b->project, b->name, b->type);
  });
  return out;
}

std::vector<Images::AliasPtr> Images::aliases_of(const Image& image) const {
  auto out = impl_->aliases.list("/image-aliases/" + image.project + "/" + std::string(to_string(image.type)) + "/");
  std::erase_if(out, [&](const AliasPtr& a) { return a->target != image.fingerprint; });
  return out;
}

Result<Images::AliasPtr> Images::find_alias(const std::string& project, std::string_view name,
                                            std::optional<InstanceType> type) const {
  VIRGA_TRY(auto real, impl_->parts.project_of(project));
  auto found = impl_->meant(real, name, type);
  if (found.empty()) return fail(ErrorKind::not_found, fmt::format("no image alias '{}'", name.substr(0, 200)));
  return found.front();
}

Result<Images::Ptr> Images::resolve(const std::string& project, std::string_view alias, std::string_view fingerprint,
                                    InstanceType type) const {
  if (alias.empty() == fingerprint.empty()) return invalid("source", "name an image by its alias or by its fingerprint");
  if (!alias.empty()) {
    VIRGA_TRY(auto real, impl_->parts.project_of(project));
    auto found = impl_->meant(real, alias, type);
    if (found.empty() && !impl_->meant(real, alias, {}).empty())
      return fail(Error(ErrorKind::invalid, fmt::format("image '{}' is not for a {}", alias, to_string(type)))
                      .with_field("source.alias")
                      .with_hint(type == InstanceType::container ? "it is for virtual machines: --vm asks for one"
                                                                 : "it is for containers: leave --vm out"));
    if (!found.empty()) return find(project, found.front()->target);
    auto image = find(project, alias);  // a fingerprint is taken where an alias is expected, as Incus does
    if (!image)
      return fail(Error(ErrorKind::not_found, fmt::format("no image alias '{}'", alias.substr(0, 200))).with_field("source.alias"));
    fingerprint = alias;
  }
  VIRGA_TRY(auto image, find(project, fingerprint));
  if (image->type == type) return image;
  for (const auto& a : aliases_of(*image))
    if (auto twin = impl_->aliases.find(Impl::alias_key(image->project, type, a->name)))
      if (auto other = impl_->image(image->project, twin->target)) return other;
  return invalid("source.fingerprint", fmt::format("image '{}' is for a {}, not for a {}", image->fingerprint.substr(0, 12),
                                                   to_string(image->type), to_string(type)));
}

std::pair<std::string, std::string> Images::files_of(const Image& image) const {
  return {impl_->parts.files.metadata_path(image.fingerprint),
          image.split ? impl_->parts.files.rootfs_path(image.fingerprint) : std::string()};
}

void Images::used(const std::string& project, const std::string& fingerprint) {
  auto real = impl_->parts.project_of(project);
  auto image = real ? impl_->image(*real, fingerprint) : nullptr;
  const auto now = impl_->parts.clock.now();
  if (!image || now - image->last_used_at < std::chrono::minutes(1)) return;
  auto write = [](Impl& impl, Ptr old, WallTime at) -> Task<> {
    Image next = *old;
    next.last_used_at = at;
    Transaction t;
    const auto k = Impl::key(next.project, next.fingerprint);
    t.expect(k, old->revision).put(k, json::serialize(encode(next)));
    (void)co_await impl.commit(std::move(t));  // somebody else's change matters more
  };
  impl_->tasks.spawn("note the use of an image", write(*impl_, image, now));
}

Task<Result<>> Images::load() {
  VIRGA_CO_CHECK(co_await impl_->parts.files.open());
  VIRGA_CO_CHECK(co_await impl_->images.load());
  VIRGA_CO_CHECK(co_await impl_->aliases.load());
  impl_->register_kinds();
  if (auto& p = impl_->parts; p.remotes != nullptr && p.blocking != nullptr) {
    impl_->protocols["simplestreams"] = make_simplestreams(*p.remotes, p.files, *p.blocking);
    impl_->protocols["incus"] = make_incus_protocol(*p.remotes, p.files);
  }
  co_return Result<>();
}

Task<Result<>> Images::resume() {
  std::set<std::string> known;
  for (const auto& i : impl_->images.list()) known.insert(i->fingerprint);
  VIRGA_CO_CHECK(co_await impl_->parts.files.sweep(std::move(known)));
  if (!impl_->protocols.empty()) impl_->tasks.spawn("images that follow their servers", upkeep());
  co_return Result<>();
}

Task<> Images::stop() {
  impl_->tasks.cancel();
  co_await impl_->tasks.join();
}

}  // namespace virga::engine
