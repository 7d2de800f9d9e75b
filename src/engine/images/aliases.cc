#include <fmt/format.h>

#include "engine/images/impl.h"
#include "model/name.h"

namespace virga::engine {

Task<Result<>> Images::create_alias(Caller caller, std::string project, std::string name, std::string target,
                                    std::string description) {
  VIRGA_CO_CHECK(check_alias_name(name));
  VIRGA_CO_CHECK(check_description(description));
  auto image = find(project, target);
  if (!image) co_return fail(std::move(image).error().with_field("target"));
  const auto& i = **image;
  const ImageAlias alias{.project = i.project, .name = name, .type = i.type, .target = i.fingerprint, .description = description};
  const auto k = Impl::alias_key(alias.project, alias.type, name);
  const auto taken = [&] {
    return fail(ErrorKind::exists, fmt::format("image alias '{}' exists already for a {}", name, to_string(alias.type)));
  };
  if (impl_->aliases.find(k)) co_return taken();
  Transaction t;
  t.expect(Impl::key(i.project, i.fingerprint), i.revision).expect(k, 0).put(k, json::serialize(encode(alias)));
  if (auto done = co_await impl_->commit(std::move(t)); !done) {
    if (impl_->aliases.find(k)) co_return taken();
    co_return fail(std::move(done).error());
  }
  impl_->parts.events.lifecycle("image-alias-created", alias.project, Impl::alias_url(alias.project, name), caller,
                                {{"target", alias.target}});
  co_return Result<>();
}

Task<Result<>> Images::update_alias(Caller caller, std::string project, std::string name, std::optional<std::string> target,
                                    std::optional<std::string> description, std::optional<InstanceType> type,
                                    std::optional<std::int64_t> expected) {
  VIRGA_CO_TRY(const auto old, find_alias(project, name, type));
  ImageAlias next = *old;
  Transaction t;
  if (description) {
    VIRGA_CO_CHECK(check_description(*description));
    next.description = std::move(*description);
  }
  if (target && *target != old->target) {
    auto image = find(project, *target);
    if (!image) co_return fail(std::move(image).error().with_field("target"));
    next.target = (*image)->fingerprint;
    next.type = (*image)->type;
    t.expect(Impl::key((*image)->project, next.target), (*image)->revision);
  }
  const auto old_key = Impl::alias_key(old->project, old->type, name), new_key = Impl::alias_key(next.project, next.type, name);
  t.expect(old_key, expected.value_or(old->revision));
  if (new_key != old_key) {
    if (impl_->aliases.find(new_key))
      co_return fail(ErrorKind::exists, fmt::format("image alias '{}' exists already for a {}", name, to_string(next.type)));
    t.expect(new_key, 0).erase(old_key);
  }
  t.put(new_key, json::serialize(encode(next)));
  VIRGA_CO_CHECK(co_await impl_->commit(std::move(t)));
  impl_->parts.events.lifecycle("image-alias-updated", next.project, Impl::alias_url(next.project, name), caller,
                                {{"target", next.target}});
  co_return Result<>();
}

Task<Result<>> Images::rename_alias(Caller caller, std::string project, std::string name, std::string new_name,
                                    std::optional<InstanceType> type) {
  VIRGA_CO_CHECK(check_alias_name(new_name));
  VIRGA_CO_TRY(auto real, impl_->parts.project_of(project));
  const auto found = impl_->named(real, name, type);
  if (found.empty()) co_return fail(ErrorKind::not_found, fmt::format("no image alias '{}'", name.substr(0, 200)));
  Transaction t;
  for (const auto& old : found) {
    const auto old_key = Impl::alias_key(real, old->type, name), new_key = Impl::alias_key(real, old->type, new_name);
    if (impl_->aliases.find(new_key)) co_return fail(ErrorKind::exists, fmt::format("image alias '{}' exists already", new_name));
    ImageAlias next = *old;
    next.name = new_name;
    t.expect(old_key, old->revision).expect(new_key, 0).erase(old_key).put(new_key, json::serialize(encode(next)));
  }
  VIRGA_CO_CHECK(co_await impl_->commit(std::move(t)));
  impl_->parts.events.lifecycle("image-alias-renamed", real, Impl::alias_url(real, new_name), caller, {{"old_name", name}});
  co_return Result<>();
}

Task<Result<>> Images::remove_alias(Caller caller, std::string project, std::string name, std::optional<InstanceType> type) {
  VIRGA_CO_TRY(auto real, impl_->parts.project_of(project));
  const auto found = impl_->named(real, name, type);
  if (found.empty()) co_return fail(ErrorKind::not_found, fmt::format("no image alias '{}'", name.substr(0, 200)));
  Transaction t;
  for (const auto& old : found) {
    const auto k = Impl::alias_key(real, old->type, name);
    t.expect(k, old->revision).erase(k);
  }
  VIRGA_CO_CHECK(co_await impl_->commit(std::move(t)));
  impl_->parts.events.lifecycle("image-alias-deleted", real, Impl::alias_url(real, name), caller);
  co_return Result<>();
}

}  // namespace virga::engine
