// What an instance keeps of its image's metadata: a document of its own where there are templates or the user has changed
// something, otherwise what its configuration says of the image.
#include <fmt/format.h>

#include "base/log.h"
#include "drivers/storage/driver.h"
#include "engine/images/service.h"
#include "engine/instances/impl.h"
#include "engine/instances/metadata_document.h"
#include "engine/pools/service.h"

namespace virga::engine {

namespace {

/// An image whose metadata was only ever its properties.
InstanceMetadata plain_metadata(const Instance& instance) {
  InstanceMetadata out;
  out.image.architecture = instance.architecture;
  out.image.creation_date = std::chrono::duration_cast<std::chrono::seconds>(instance.created_at.time_since_epoch()).count();
  for (auto it = instance.config.lower_bound("image."); it != instance.config.end() && it->first.starts_with("image."); ++it)
    out.image.properties[it->first.substr(6)] = it->second;
  return out;
}

}  // namespace

/// Of an instance that is being made; nothing for an image without templates, which is most of them.
Task<Result<>> Instances::Impl::remember_metadata(const Instance& instance, Transaction& t) {
  VIRGA_CO_TRY(auto* storage, storage_of(instance));
  auto* images = storage->images();
  if (images == nullptr) co_return Result<>{};
  InstanceMetadata metadata;
  VIRGA_CO_TRY(metadata.files, images->templates(instance.image));
  if (metadata.files.empty()) co_return Result<>{};
  if (auto fit = check_template_files(metadata.files); !fit) co_return fail(std::move(fit).error().wrap("the image"));
  VIRGA_CO_TRY(metadata.image, co_await parts.images.metadata_of(instance.image));
  t.put(metadata_key(instance.uuid), json::serialize(encode(metadata)));
  co_return Result<>{};
}

Task<Result<std::optional<InstanceMetadata>>> Instances::Impl::kept_metadata(std::string uuid) {
  VIRGA_CO_TRY(auto document, co_await parts.store.get(metadata_key(uuid)));
  if (!document) co_return std::optional<InstanceMetadata>();
  VIRGA_CO_TRY(auto object, parse_json_object(document->value));
  VIRGA_CO_TRY(auto metadata, decode_metadata(object));
  co_return std::optional(std::move(metadata));
}

namespace {

struct Kept {
  InstanceMetadata metadata;
  Revision revision = 0;  ///< 0: there is no document yet
};

Task<Result<Kept>> keep_of(Instances::Impl& self, Instances::Ptr instance) {
  VIRGA_CO_TRY(auto document, co_await self.parts.store.get(metadata_key(instance->uuid)));
  Kept out;
  if (!document) {
    out.metadata = plain_metadata(*instance);
    co_return out;
  }
  VIRGA_CO_TRY(auto object, parse_json_object(document->value));
  VIRGA_CO_TRY(out.metadata, decode_metadata(object));
  out.revision = document->revision;
  co_return out;
}

Task<Result<>> store_kept(Instances::Impl& self, Instances::Ptr instance, Kept kept) {
  Transaction t;
  // An instance that is deleted meanwhile leaves no document behind.
  t.expect(metadata_key(instance->uuid), kept.revision);
  t.put(metadata_key(instance->uuid), json::serialize(encode(kept.metadata)));
  auto claim = co_await self.parts.operations.claim_when_free(instance_url(instance->project, instance->name),
                                                              "Changing its metadata", Milliseconds(30'000));
  if (!claim) co_return fail(std::move(claim).error());
  if (self.by_uuid.count(instance->uuid) == 0)
    co_return fail(ErrorKind::not_found, fmt::format("instance '{}' not found", instance->name));
  auto written = co_await self.parts.store.commit(std::move(t));
  if (!written) co_return fail(std::move(written).error());
  co_return Result<>{};
}

}  // namespace

Task<Result<json::object>> Instances::metadata(std::string project, std::string name) {
  VIRGA_CO_TRY(auto instance, impl_->get(project, name));
  VIRGA_CO_TRY(auto kept, co_await keep_of(*impl_, instance));
  co_return metadata_json(kept.metadata.image);
}

Task<Result<>> Instances::set_metadata(Caller caller, std::string project, std::string name, json::object metadata) {
  VIRGA_CO_TRY(auto instance, impl_->get(project, name));
  VIRGA_CO_TRY(auto next, read_metadata(metadata));
  VIRGA_CO_TRY(auto kept, co_await keep_of(*impl_, instance));
  kept.metadata.image = std::move(next);
  VIRGA_CO_CHECK(co_await store_kept(*impl_, instance, std::move(kept)));
  impl_->lifecycle("instance-metadata-updated", *instance, caller);
  co_return Result<>{};
}

Task<Result<std::vector<std::string>>> Instances::templates(std::string project, std::string name) {
  VIRGA_CO_TRY(auto instance, impl_->get(project, name));
  VIRGA_CO_TRY(auto kept, co_await keep_of(*impl_, instance));
  std::vector<std::string> out;
  for (const auto& [file, text] : kept.metadata.files) out.push_back(file);
  co_return out;
}

Task<Result<std::string>> Instances::read_template(std::string project, std::string name, std::string file) {
  VIRGA_CO_TRY(auto instance, impl_->get(project, name));
  VIRGA_CO_CHECK(check_template_name(file));
  VIRGA_CO_TRY(auto kept, co_await keep_of(*impl_, instance));
  auto found = kept.metadata.files.find(file);
  if (found == kept.metadata.files.end())
    co_return fail(ErrorKind::not_found, fmt::format("instance '{}' has no template '{}'", name, file));
  impl_->lifecycle("instance-metadata-template-retrieved", *instance, internal_caller(), {{"path", file}});
  co_return found->second;
}

Task<Result<>> Instances::write_template(Caller caller, std::string project, std::string name, std::string file, std::string text) {
  VIRGA_CO_TRY(auto instance, impl_->get(project, name));
  VIRGA_CO_CHECK(check_template_name(file));
  if (text.size() > max_template_size) co_return invalid("body", "a template is at most 1 MiB");
  VIRGA_CO_TRY(auto kept, co_await keep_of(*impl_, instance));
  const bool is_new = kept.metadata.files.count(file) == 0;
  kept.metadata.files[file] = std::move(text);
  VIRGA_CO_CHECK(check_template_files(kept.metadata.files));
  VIRGA_CO_CHECK(co_await store_kept(*impl_, instance, std::move(kept)));
  impl_->lifecycle(is_new ? "instance-metadata-template-created" : "instance-metadata-template-updated", *instance, caller,
                   {{"path", file}});
  co_return Result<>{};
}

Task<Result<>> Instances::remove_template(Caller caller, std::string project, std::string name, std::string file) {
  VIRGA_CO_TRY(auto instance, impl_->get(project, name));
  VIRGA_CO_CHECK(check_template_name(file));
  VIRGA_CO_TRY(auto kept, co_await keep_of(*impl_, instance));
  if (kept.metadata.files.erase(file) == 0)
    co_return fail(ErrorKind::not_found, fmt::format("instance '{}' has no template '{}'", name, file));
  VIRGA_CO_CHECK(co_await store_kept(*impl_, instance, std::move(kept)));
  impl_->lifecycle("instance-metadata-template-deleted", *instance, caller, {{"path", file}});
  co_return Result<>{};
}

}  // namespace virga::engine
