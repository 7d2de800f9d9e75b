// Images that follow their server: refresh, the timers of auto-update, and the end of cached images that nobody has used.
#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "base/random.h"
#include "engine/images/impl.h"

namespace virga::engine {
namespace {

using std::chrono::hours;

constexpr Milliseconds first_update{600'000};    // a daemon that has just started has other things to do
constexpr Milliseconds longest_pause{3600'000};  // settings may have changed

ImageSource source_of(const Image& image) {
  const auto& from = *image.update_source;
  ImageSource source;
  source.server = from.server;
  source.protocol = from.protocol;
  source.alias = from.alias;
  source.certificate = from.certificate;
  source.type = image.type;
  source.architecture = image.architecture;
  // It was allowed when the image was fetched.
  source.reach = from.reach;
  return source;
}

}  // namespace

/// True where there was a newer one, which has taken the old one's place and names.
Task<Result<bool>> Images::Impl::refresh(Operation& operation, Ptr old) {
  if (!old->update_source)
    co_return fail(
        Error(ErrorKind::invalid, "the image was not fetched from a server by an alias: there is nothing to refresh it from"));
  FetchImage request;
  request.source = source_of(*old);
  request.image.project = old->project;
  request.image.is_public = old->is_public;
  request.image.auto_update = old->auto_update;
  request.image.profiles = old->profiles;
  request.image.filename = old->filename;
  request.image.cached = old->cached;
  VIRGA_CO_TRY(auto fingerprint, co_await fetch(operation, std::move(request)));
  if (fingerprint == old->fingerprint) co_return false;
  co_await shield();
  const auto newer = image(old->project, fingerprint);
  if (!newer) co_return fail(ErrorKind::not_found, "the newer image has been deleted meanwhile");
  Transaction t;
  t.expect(key(newer->project, fingerprint), newer->revision);  // no name for an image that goes
  for (const auto& a : aliases.list("/image-aliases/" + old->project + "/")) {
    if (a->target != old->fingerprint) continue;
    ImageAlias next = *a;
    next.target = fingerprint;
    const auto k = alias_key(a->project, a->type, a->name);
    t.expect(k, a->revision).put(k, json::serialize(encode(next)));
  }
  VIRGA_CO_CHECK(co_await commit(std::move(t)));
  if (auto gone = co_await remove_now(operation, old); !gone)
    operation.warn("the old image '{}' stays: {}", old->fingerprint.substr(0, 12), gone.error().text());
  co_return true;
}

Result<OperationPtr> Images::refresh(const Caller& caller, const std::string& project, std::string_view fingerprint) {
  VIRGA_TRY(auto image, find(project, fingerprint));
  OperationSpec spec;
  spec.project = image->project;
  spec.description = "Refreshing image";
  spec.resources = {{"images", {image_url(image->project, image->fingerprint)}}};
  spec.may_cancel = true;
  spec.caller = caller;
  auto body = [impl = impl_.get(), image](Operation& operation) -> Task<Result<>> {
    VIRGA_CO_TRY(const bool refreshed, co_await impl->refresh(operation, image));
    operation.set_metadata("refreshed", refreshed);
    co_return Result<>{};
  };
  return impl_->parts.operations.start(std::move(spec), std::move(body));
}

WallTime Images::Impl::expiry_of(const Image& image) const {
  const auto days = parse_integer(setting("images.remote_cache_expiry", "10"), 0, 36'500).value_or(10);
  if (!image.cached || days == 0) return WallTime::max();
  return std::max(image.last_used_at, image.uploaded_at) + hours(24 * days);
}

/// Removes what is due; when the next will be.
Task<WallTime> Images::Impl::prune() {
  const auto now = parts.clock.now();
  auto next = WallTime::max();
  for (const auto& image : images.list()) {
    const auto due = expiry_of(*image);
    if (due > now) {
      next = std::min(next, due);
      continue;
    }
    log::info("cached image '{}' has not been used for long and is removed", image->fingerprint.substr(0, 12));
    OperationSpec spec;
    spec.project = image->project;
    spec.description = "Pruning expired images";
    spec.resources = {{"images", {image_url(image->project, image->fingerprint)}}};
    spec.caller = internal_caller();
    auto body = [this, image](Operation& operation) { return remove_now(operation, image); };
    if (auto started = parts.operations.start(std::move(spec), std::move(body)))
      (void)co_await parts.operations.wait((*started)->id(), std::nullopt);
  }
  co_return next;
}

Task<> Images::Impl::update_all() {
  for (const auto& image : images.list()) {
    if (!image->auto_update || !image->update_source || !this->image(image->project, image->fingerprint)) continue;
    OperationSpec spec;
    spec.project = image->project;
    spec.description = "Updating images";
    spec.may_cancel = true;
    spec.caller = internal_caller();
    auto body = [this, image](Operation& operation) -> Task<Result<>> {
      auto done = co_await refresh(operation, image);
      co_return done ? Result<>{} : fail(std::move(done).error());
    };
    if (auto started = parts.operations.start(std::move(spec), std::move(body)))
      (void)co_await parts.operations.wait((*started)->id(), std::nullopt);
    if (co_await is_cancelled()) co_return;
  }
}

Task<Milliseconds> Images::tend(std::chrono::steady_clock::time_point now) {
  auto& impl = *impl_;
  if (!impl.next_update) impl.next_update = now + first_update;
  const auto interval = parse_integer(impl.setting("images.auto_update_interval", "6"), 0, 100'000).value_or(6);
  if (interval > 0 && now >= *impl.next_update) {
    co_await impl.update_all();
    impl.next_update = now + hours(interval);
  }
  auto pause = longest_pause;
  if (const auto due = co_await impl.prune(); due != WallTime::max())
    pause = std::min(pause, std::max(Milliseconds(1000), std::chrono::ceil<Milliseconds>(due - impl.parts.clock.now())));
  if (interval > 0) pause = std::min(pause, std::max(Milliseconds(0), std::chrono::ceil<Milliseconds>(*impl.next_update - now)));
  co_return pause;
}

Task<> Images::upkeep() {
  for (;;) {
    const auto pause = co_await tend(std::chrono::steady_clock::now());
    if (co_await is_cancelled() || !co_await sleep_for(pause)) co_return;
  }
}

}  // namespace virga::engine
