// Taking in an image: digest, inspection in the confined reader, then files and document, journalled.
#include <fmt/format.h>

#include "base/log.h"
#include "base/unix_time.h"
#include "engine/images/impl.h"
#include "model/name.h"

namespace virga::engine {
namespace {

/// Uploads go whatever becomes of the import; what was kept has been moved away by then.
Task<> discard(image::Files& files, ImportImage request) {
  co_await shield();
  for (const auto& path : {request.metadata_file, request.rootfs_file}) {
    if (path.empty()) continue;
    if (auto r = co_await files.discard_upload(path); !r) log::warn("remove an upload: {}", r.error().text());
  }
}

/// A name in a set for as long as this lives.
class Entered {
 public:
  Entered(std::multiset<std::string>& all, const std::string& name) : all_(all), at_(all.insert(name)) {}
  ~Entered() { all_.erase(at_); }
  Entered(const Entered&) = delete;
  Entered& operator=(const Entered&) = delete;

 private:
  std::multiset<std::string>& all_;
  const std::multiset<std::string>::iterator at_;
};

}  // namespace

std::string Images::new_upload_path() {
  return impl_->parts.files.new_upload_path();
}

Result<> Images::check_room(const std::string& project, Bytes size) const {
  VIRGA_TRY(auto real, impl_->parts.project_of(project));
  if (impl_->room) VIRGA_CHECK(impl_->room(real, size));
  return {};
}

Task<> Images::discard_upload(std::string path) {
  ImportImage only;
  only.metadata_file = std::move(path);
  co_await discard(impl_->parts.files, std::move(only));
}

Result<image::Packer*> Images::packer() const {
  if (impl_->parts.packer == nullptr) return fail(ErrorKind::unsupported, "instances cannot be made into images here");
  return impl_->parts.packer;
}

Task<Result<>> Images::append_upload(std::string path, std::string bytes) {
  return impl_->parts.files.append(std::move(path), std::move(bytes));
}

Task<Result<Bytes>> Images::file_size(std::string path) {
  return impl_->parts.files.size_of(std::move(path));
}

Task<Result<std::string>> Images::read_file(std::string path, Bytes offset, std::size_t most) {
  return impl_->parts.files.read(std::move(path), offset, most);
}

image::Reader& Images::reader() const noexcept {
  return impl_->parts.reader;
}

Result<> Images::check_import(const ImportImage& request) const {
  VIRGA_CHECK(impl_->parts.project_of(request.project));
  for (const auto& [name, description] : request.aliases) {
    if (auto r = check_alias_name(name); !r) return fail(std::move(r).error().with_field("aliases"));
    if (auto r = check_description(description); !r) return fail(std::move(r).error().with_field("aliases"));
  }
  if (!request.expected_fingerprint.empty()) VIRGA_CHECK(check_fingerprint(request.expected_fingerprint));
  Image wanted;
  wanted.properties = request.properties;
  wanted.profiles = request.profiles;
  wanted.filename = request.filename;
  return check(wanted);
}

Task<Result<>> Images::import_within(Operation& operation, ImportImage request) {
  auto real = impl_->parts.project_of(request.project);
  Result<> done = real ? Result<>() : fail(real.error());
  if (real) {
    request.project = *real;
    done = co_await impl_->import(operation, request);
  }
  co_await discard(impl_->parts.files, std::move(request));
  co_return done;
}

Result<OperationPtr> Images::import(Caller caller, ImportImage request) {
  auto refuse = [&](Error error) {
    impl_->tasks.spawn("remove a refused upload", discard(impl_->parts.files, request));
    return fail(std::move(error));
  };
  if (auto r = check_import(request); !r) return refuse(std::move(r).error());
  const auto real = impl_->parts.project_of(request.project);

  OperationSpec spec;
  spec.project = *real;
  spec.description = "Downloading image";
  spec.may_cancel = true;
  spec.caller = caller;
  request.project = *real;
  auto body = [impl = impl_.get(), request](Operation& operation) -> Task<Result<>> {
    auto done = co_await impl->import(operation, request);
    co_await discard(impl->parts.files, request);
    co_return done;
  };
  auto operation = impl_->parts.operations.start(std::move(spec), std::move(body));
  if (!operation) return refuse(std::move(operation).error());
  return operation;
}

Task<Result<>> Images::Impl::import(Operation& operation, const ImportImage& request) {
  auto digested = co_await parts.files.digest(request.metadata_file, request.rootfs_file);
  if (!digested) co_return fail(std::move(digested).error());
  const auto& digest = *digested;
  if (!request.expected_fingerprint.empty() && request.expected_fingerprint != digest.fingerprint)
    co_return invalid("fingerprint",
                      fmt::format("the upload is '{}', not '{}' as expected", digest.fingerprint, request.expected_fingerprint));
  const auto resource = image_url(request.project, digest.fingerprint);
  VIRGA_CO_TRY(auto claim, parts.operations.claim(resource, operation));
  operation.set_metadata("fingerprint", json::string(digest.fingerprint));
  operation.set_metadata("size", static_cast<std::int64_t>(digest.size));
  if (image(request.project, digest.fingerprint))
    co_return fail(ErrorKind::exists, "an image with the same fingerprint exists already");
  if (removing.contains(digest.fingerprint)) co_return fail(ErrorKind::busy, "the same image is being removed");
  // Another project may import the same one at the same time: whose import fails must not take the other's files along.
  const Entered entered(importing, digest.fingerprint);

  auto inspection = co_await parts.reader.inspect(request.metadata_file, request.rootfs_file);
  if (!inspection) co_return fail(std::move(inspection).error());
  VIRGA_CO_TRY(auto made, compose(request, digest, *inspection));
  std::shared_ptr<void> held;
  if (room) {
    VIRGA_CO_TRY(held, room(made.project, made.size));
  }
  std::vector<ImageAlias> new_aliases;
  for (const auto& [name, description] : request.aliases) {
    if (aliases.find(alias_key(request.project, made.type, name)))
      co_return fail(ErrorKind::exists, fmt::format("image alias '{}' exists already", name));
    new_aliases.push_back(
        {.project = request.project, .name = name, .type = made.type, .target = made.fingerprint, .description = description});
  }
  auto procedure = import_procedure(operation.id(), made, new_aliases, request.metadata_file, request.rootfs_file);
  auto done = co_await parts.journal.execute(std::move(procedure));
  if (!done) co_return fail(std::move(done).error());
  operation.add_resource("images", resource);
  parts.events.lifecycle("image-created", request.project, resource, operation.spec().caller, {{"type", to_string(made.type)}});
  for (const auto& a : new_aliases)
    parts.events.lifecycle("image-alias-created", a.project, alias_url(a.project, a.name), operation.spec().caller,
                           {{"target", a.target}});
  co_return Result<>();
}

Result<Image> Images::Impl::compose(const ImportImage& request, const image::Digest& digest,
                                    const image::Inspection& inspection) const {
  const auto at = [](std::int64_t seconds) { return seconds == 0 ? WallTime{} : time_of_unix(seconds); };
  Image i;
  i.project = request.project;
  i.fingerprint = digest.fingerprint;
  i.type = inspection.type == image::Type::container ? InstanceType::container : InstanceType::virtual_machine;
  VIRGA_TRY(i.architecture, canonical_architecture(inspection.metadata.architecture));
  i.filename = request.filename;
  i.size = digest.size;
  i.split = !request.rootfs_file.empty();
  i.is_public = request.is_public;
  i.auto_update = request.auto_update;
  i.cached = request.cached;
  i.update_source = request.update_source;
  i.properties = inspection.metadata.properties;
  for (const auto& [key, value] : request.properties) i.properties[key] = value;
  i.profiles = request.profiles;
  i.created_at = at(inspection.metadata.creation_date);
  i.expires_at = request.expires_at.value_or(at(inspection.metadata.expiry_date));
  i.uploaded_at = parts.clock.now();
  VIRGA_CHECK(check(i));
  return i;
}

Procedure Images::Impl::import_procedure(std::string id, Image made, std::vector<ImageAlias> new_aliases, std::string metadata,
                                         std::string rootfs) {
  const auto project = made.project, fingerprint = made.fingerprint;
  Procedure p;
  p.kind = "image-import";
  p.id = std::move(id);
  p.arguments = {{"project", project}, {"fingerprint", fingerprint}};
  p.on_recovery = OnRecovery::undo;
  p.intent.expect(key(project, fingerprint), 0);
  auto keep = [this, metadata, rootfs, fingerprint]() -> Task<Result<>> {
    co_return co_await parts.files.keep(metadata, rootfs, fingerprint);
  };
  auto let_go = [this, fingerprint]() -> Task<Result<>> {
    // Another project has it, or brings it just now; both stay out while the files go.
    if (any(fingerprint) || importing.count(fingerprint) > 1) co_return Result<>();
    removing.insert(fingerprint);
    auto removed = co_await parts.files.remove(fingerprint);
    removing.erase(fingerprint);
    co_return removed;
  };
  p.steps.push_back({.name = "keep-files", .run = std::move(keep), .undo = std::move(let_go)});
  p.outcome = [made = std::move(made), new_aliases = std::move(new_aliases)]() -> Result<Transaction> {
    Transaction t;
    t.expect(key(made.project, made.fingerprint), 0).put(key(made.project, made.fingerprint), json::serialize(encode(made)));
    for (const auto& a : new_aliases) {
      const auto k = alias_key(a.project, a.type, a.name);
      t.expect(k, 0).put(k, json::serialize(encode(a)));
    }
    return t;
  };
  return p;
}

void Images::Impl::register_kinds() {
  parts.journal.register_kind("image-import", [this](std::string id, json::object arguments) -> Task<Result<Procedure>> {
    Image half;  // undone, so that no more than its name is needed
    VIRGA_CO_TRY(half.project, Fields(arguments).string("project"));
    VIRGA_CO_TRY(half.fingerprint, Fields(arguments).string("fingerprint"));
    VIRGA_CO_CHECK(check_fingerprint(half.fingerprint));
    co_return import_procedure(std::move(id), std::move(half), {}, {}, {});
  });
  parts.journal.register_kind("image-delete", [this](std::string id, json::object arguments) -> Task<Result<Procedure>> {
    VIRGA_CO_TRY(auto project, Fields(arguments).string("project"));
    VIRGA_CO_TRY(auto fingerprint, Fields(arguments).string("fingerprint"));
    VIRGA_CO_CHECK(check_fingerprint(fingerprint));
    co_return remove_procedure(std::move(id), std::move(project), std::move(fingerprint));
  });
}

}  // namespace virga::engine
