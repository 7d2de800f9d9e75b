#include <utility>

#include "engine/images/impl.h"

namespace virga::engine {

Task<Result<>> Images::update(Caller caller, std::string project, std::string fingerprint, UpdateImage request,
                              std::optional<std::int64_t> expected) {
  VIRGA_CO_TRY(const auto old, find(project, fingerprint));
  Image next = *old;
  if (request.is_public || request.replace) next.is_public = request.is_public.value_or(false);
  if (request.auto_update || request.replace) next.auto_update = request.auto_update.value_or(false);
  if (request.profiles || request.replace) next.profiles = std::move(request.profiles).value_or(std::vector<std::string>());
  if (request.expires_at) next.expires_at = *request.expires_at;
  if (request.replace) next.properties.clear();
  if (request.properties)
    for (auto& [key, value] : *request.properties) {
      if (value.empty() && !request.replace)
        next.properties.erase(key);
      else
        next.properties[key] = std::move(value);
    }
  VIRGA_CO_CHECK(check(next));
  const auto k = Impl::key(next.project, next.fingerprint);
  Transaction t;
  t.expect(k, expected.value_or(old->revision)).put(k, json::serialize(encode(next)));
  VIRGA_CO_CHECK(co_await impl_->commit(std::move(t)));
  impl_->parts.events.lifecycle("image-updated", next.project, image_url(next.project, next.fingerprint), caller);
  co_return Result<>();
}

}  // namespace virga::engine
