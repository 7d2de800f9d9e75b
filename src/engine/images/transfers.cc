#include "engine/images/transfers.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/json.h"
#include "base/random.h"
#include "engine/images/remote_api.h"
#include "engine/url.h"

namespace virga::engine {
namespace {

constexpr std::size_t most_secrets = 1000;
constexpr std::size_t most_secrets_of_project = 100;  // where its tenants ask for them, not an administrator
constexpr auto secret_lifetime = std::chrono::minutes(10);

bool names_this_machine(std::string_view url) {
  const auto scheme = url.find("://");
  if (scheme == std::string_view::npos) return false;
  auto host = url.substr(scheme + 3);
  host = host.substr(0, host.find_first_of("/?#"));
  if (host.starts_with('[')) {
    host = host.substr(1, host.find(']') - 1);
  } else {
    host = host.substr(0, host.find(':'));
  }
  if (host == "localhost") return true;
  const auto address = parse_ip(host);
  return address && reach_of(*address) == Reach::loopback;
}

/// "42% (12.3MiB)", as clients show it.
void show_progress(Operation& operation, std::string_view key, std::uint64_t have, std::optional<std::uint64_t> of) {
  auto text = of && *of != 0 ? fmt::format("{}% ({})", have * 100 / *of, format_bytes(have)) : format_bytes(have);
  operation.set_progress(key, json::string(text));
}

}  // namespace

Reach reach_of_caller(const Caller& caller, std::string_view url) {
  if (!caller.admin) return Reach::global;
  return names_this_machine(url) ? Reach::loopback : Reach::private_network;
}

ImageTransfers::ImageTransfers(Images& images, Operations& operations, remote::Driver& remotes, Executor executor)
    : images_(images), operations_(operations), remotes_(remotes), changed_(std::move(executor)) {}

// --- secrets ---

Result<OperationPtr> ImageTransfers::hand_out(OperationSpec spec, Secret secret) {
  if (secrets_.size() >= most_secrets)
    return fail(ErrorKind::unavailable, "there are too many image transfers that nobody has begun");
  const auto mine =
      std::count_if(secrets_.begin(), secrets_.end(), [&](const auto& entry) { return entry.second.project == secret.project; });
  if (!spec.caller.admin && static_cast<std::size_t>(mine) >= most_secrets_of_project)
    return fail(ErrorKind::unavailable,
                fmt::format("project '{}' has too many image transfers that nobody has begun", secret.project));
  auto text = random_hex(32);
  auto key = sha256_hex(text);
  spec.op_class = OperationClass::token;
  spec.project = secret.project;
  spec.may_cancel = true;
  spec.metadata = {{"fingerprint", secret.fingerprint}};
  spec.secret_metadata = {{"secret", std::move(text)}};
  secrets_.emplace(key, std::move(secret));
  auto operation = operations_.start(std::move(spec), [this, key](Operation& op) { return watch(key, op); });
  if (!operation) secrets_.erase(key);
  return operation;
}

Task<Result<>> ImageTransfers::watch(std::string key, Operation&) {
  const auto until = std::chrono::steady_clock::now() + secret_lifetime;
  Result<> out;
  while (true) {
    if (auto it = secrets_.find(key); it == secrets_.end() || it->second.used) break;
    const auto left = std::chrono::duration_cast<Milliseconds>(until - std::chrono::steady_clock::now());
    if (co_await is_cancelled()) {
      out = fail(ErrorKind::cancelled, "the image's secret was withdrawn");
      break;
    }
    if (left <= Milliseconds(0)) {
      out = fail(ErrorKind::timeout, "nobody used the image's secret");
      break;
    }
    co_await changed_.wait_for(left);
  }
  secrets_.erase(key);
  co_return out;
}

Result<OperationPtr> ImageTransfers::let_read(Caller caller, std::string project, std::string fingerprint) {
  VIRGA_TRY(const auto image, images_.find(project, fingerprint));
  OperationSpec spec;
  spec.description = "Image download token";
  spec.resources["images"] = {image_url(image->project, image->fingerprint)};
  spec.caller = std::move(caller);
  return hand_out(std::move(spec), {.project = image->project, .fingerprint = image->fingerprint, .expected = {}});
}

bool ImageTransfers::may_read(const Image& image, std::string_view secret) const {
  const auto it = secrets_.find(sha256_hex(secret));
  return it != secrets_.end() && !it->second.used && !it->second.expected && it->second.project == image.project &&
         it->second.fingerprint == image.fingerprint;
}

void ImageTransfers::reading(std::string_view secret) {
  if (auto it = secrets_.find(sha256_hex(secret)); it != secrets_.end()) it->second.used = true;
  changed_.notify();
}

Result<OperationPtr> ImageTransfers::expect(Caller caller, ImportImage image) {
  VIRGA_CHECK(check_fingerprint(image.expected_fingerprint));
  VIRGA_CHECK(images_.check_import(image));
  OperationSpec spec;
  spec.description = "Image upload token";
  spec.caller = caller;
  Secret secret{.project = image.project, .fingerprint = image.expected_fingerprint, .expected = {}};
  secret.expected = Expected{.image = std::move(image), .caller = std::move(caller)};
  return hand_out(std::move(spec), std::move(secret));
}

Result<ImageTransfers::Expected> ImageTransfers::take_expected(std::string_view secret, std::string_view fingerprint) {
  const auto it = secrets_.find(sha256_hex(secret));
  if (it == secrets_.end() || it->second.used || !it->second.expected || it->second.fingerprint != fingerprint)
    return fail(ErrorKind::denied, "not authorized");
  it->second.used = true;
  changed_.notify();
  return *it->second.expected;
}

Result<OperationPtr> ImageTransfers::take_in(Expected expected, ImportImage brought) {
  expected.image.metadata_file = std::move(brought.metadata_file);
  expected.image.rootfs_file = std::move(brought.rootfs_file);
  if (expected.image.filename.empty()) expected.image.filename = std::move(brought.filename);
  OperationSpec spec;
  spec.project = expected.image.project;
  spec.description = "Downloading image";
  spec.may_cancel = true;
  spec.caller = std::move(expected.caller);
  spec.secret_metadata = {{"secret", random_hex(32)}};
  return operations_.start(std::move(spec), [this, image = std::move(expected.image)](Operation& operation) {
    return images_.import_within(operation, image);
  });
}

// --- pull ---

Task<Result<json::object>> ImageTransfers::ask(const PullImage& request, Reach reach, std::string path) const {
  remote::Request one{.url = join_url(request.server, path), .certificate = request.certificate, .reach = reach};
  one.max_body = 1u << 20;
  VIRGA_CO_TRY(const auto answer, co_await remotes_.fetch(std::move(one)));
  co_return open_answer(answer);
}

Result<OperationPtr> ImageTransfers::pull(Caller caller, PullImage request) {
  VIRGA_CHECK(check_server("source.server", request.server));
  if (request.fingerprint.empty() == request.alias.empty())
    return invalid("source.fingerprint", "an image is named by 'source.fingerprint' or by 'source.alias'");
  if (request.fingerprint.size() > 64 || request.fingerprint.find_first_not_of("0123456789abcdef") != std::string::npos)
    return invalid("source.fingerprint", "field 'source.fingerprint' must be up to 64 hexadecimal digits");
  VIRGA_CHECK(images_.check_import(request.image));
  OperationSpec spec;
  spec.project = request.image.project;
  spec.description = "Downloading image";
  spec.may_cancel = true;
  spec.caller = std::move(caller);
  return operations_.start(std::move(spec), [this, request](Operation& operation) { return fetch_image(operation, request); });
}

Task<Result<>> ImageTransfers::fetch_image(Operation& operation, PullImage request) {
  const auto reach = reach_of_caller(operation.spec().caller, request.server);
  if (request.fingerprint.empty()) {
    VIRGA_CO_TRY(const auto alias,
                 co_await ask(request, reach,
                              "/1.0/images/aliases/" + url_encode(request.alias) + query_of({{"project", request.project}})));
    VIRGA_CO_TRY(request.fingerprint, Fields(alias).string("target"));
  }
  const auto at = "/1.0/images/" + url_encode(request.fingerprint);
  const auto with = query_of({{"project", request.project}, {"secret", request.secret}});
  VIRGA_CO_TRY(const auto info, co_await ask(request, reach, at + with));
  const Fields fields(info, "image");
  auto& image = request.image;
  VIRGA_CO_TRY(image.expected_fingerprint, fields.string("fingerprint"));
  VIRGA_CO_CHECK(check_fingerprint(image.expected_fingerprint));
  if (!image.expected_fingerprint.starts_with(request.fingerprint))
    co_return fail(ErrorKind::invalid, "the server offers another image than the one that was asked for");
  VIRGA_CO_TRY(const auto size, fields.integer("size"));
  if (size <= 0) co_return fail(ErrorKind::invalid, "the server does not say how large the image is");
  VIRGA_CO_TRY(auto properties, fields.string_map("properties"));
  for (auto& [key, value] : properties) image.properties.try_emplace(key, std::move(value));
  if (image.filename.empty()) {
    VIRGA_CO_TRY(image.filename, fields.string("filename"));
  }
  if (!image.expires_at) {
    VIRGA_CO_TRY(const auto expires, fields.string("expires_at"));
    if (!expires.empty()) {
      VIRGA_CO_TRY(image.expires_at, parse_time(expires));
    }
  }
  VIRGA_CO_CHECK(images_.check_import(image));
  operation.set_metadata("fingerprint", json::string(image.expected_fingerprint));

  remote::Request whole{.url = join_url(request.server, at + "/export" + with), .certificate = request.certificate, .reach = reach};
  whole.progress = [&operation](std::uint64_t have, std::optional<std::uint64_t> of) {
    show_progress(operation, "download_progress", have, of);
  };
  const auto path_for = [&](std::string_view part) -> std::string {
    const bool root = part == "rootfs" || part == "rootfs.img";
    auto& path = root ? image.rootfs_file : image.metadata_file;
    if ((!root && !part.empty() && part != "metadata") || !path.empty()) return {};
    path = images_.new_upload_path();
    return path;
  };
  auto saved = co_await remotes_.save(std::move(whole), static_cast<Bytes>(size), path_for);
  if (saved && image.metadata_file.empty()) saved = fail(ErrorKind::invalid, "the server sent no metadata of the image");
  if (!saved) {
    co_await shield();
    for (const auto& path : {image.metadata_file, image.rootfs_file})
      if (!path.empty()) co_await images_.discard_upload(path);
    co_return fail(std::move(saved).error().wrap(fmt::format("fetch the image from '{}'", request.server)));
  }
  operation.set_metadata("download_progress", nullptr);
  co_return co_await images_.import_within(operation, std::move(image));
}

// --- push ---

Result<OperationPtr> ImageTransfers::push(Caller caller, std::string project, std::string fingerprint, PushImage request) {
  VIRGA_CHECK(check_server("target", request.target));
  if (request.secret.empty() || request.secret.find_first_not_of("0123456789abcdefABCDEF-") != std::string::npos)
    return invalid("secret", "field 'secret' must be the one that the target gave out");
  VIRGA_TRY(const auto image, images_.find(project, fingerprint));
  OperationSpec spec;
  spec.project = image->project;
  spec.description = "Exporting image";
  spec.resources["images"] = {image_url(image->project, image->fingerprint)};
  spec.may_cancel = true;
  spec.caller = std::move(caller);
  return operations_.start(std::move(spec),
                           [this, image, request](Operation& operation) { return send_image(operation, image, request); });
}

Task<Result<>> ImageTransfers::send_image(Operation& operation, Images::Ptr image, PushImage request) {
  const auto reach = reach_of_caller(operation.spec().caller, request.target);
  remote::Request one{.url = join_url(request.target, "/1.0/images" + query_of({{"project", request.project}})), .method = "POST"};
  one.certificate = request.certificate;
  one.reach = reach;
  one.headers = {{"X-Incus-secret", request.secret}, {"X-Incus-fingerprint", image->fingerprint}};
  std::string profiles;
  for (const auto& profile : request.profiles)
    profiles += fmt::format("{}profile={}", profiles.empty() ? "" : "&", url_encode(profile));
  if (!profiles.empty()) one.headers.emplace_back("X-Incus-profiles", profiles);
  one.progress = [&operation](std::uint64_t have, std::optional<std::uint64_t> of) {
    show_progress(operation, "upload_progress", have, of);
  };
  const auto [metadata, rootfs] = images_.files_of(*image);
  const bool vm = image->type == InstanceType::virtual_machine;
  std::vector<remote::Upload> files;
  if (rootfs.empty()) {
    files.push_back({.part = "", .file_name = "", .path = metadata});
    one.headers.emplace_back("Content-Type", "application/octet-stream");
  } else {
    files.push_back({.part = "metadata", .file_name = "metadata", .path = metadata});
    files.push_back({.part = vm ? "rootfs.img" : "rootfs", .file_name = vm ? "rootfs.img" : "rootfs", .path = rootfs});
  }
  auto sent = co_await remotes_.send(std::move(one), std::move(files));
  if (!sent) co_return fail(std::move(sent).error().wrap(fmt::format("send the image to '{}'", request.target)));
  VIRGA_CO_TRY(const auto theirs, open_answer(*sent));
  const Fields fields(theirs);
  VIRGA_CO_TRY(const auto id, fields.string("id"));
  VIRGA_CO_TRY(const auto metadata_of_theirs, fields.object("metadata"));
  VIRGA_CO_TRY(const auto secret, Fields(metadata_of_theirs).string("secret"));
  // The import over there can fail still.
  const auto path = "/1.0/operations/" + url_encode(id) + "/wait" + query_of({{"secret", secret}, {"timeout", "-1"}});
  remote::Request wait{.url = join_url(request.target, path), .certificate = request.certificate, .reach = reach};
  VIRGA_CO_TRY(const auto waited, co_await remotes_.fetch(std::move(wait)));
  VIRGA_CO_TRY(const auto ended, open_answer(waited));
  VIRGA_CO_TRY(const auto code, Fields(ended).integer("status_code"));
  VIRGA_CO_TRY(const auto problem, Fields(ended).string("err"));
  if (code != 200)
    co_return fail(ErrorKind::unavailable, fmt::format("the target could not take the image: {}", problem.substr(0, 500)));
  co_return Result<>();
}

}  // namespace virga::engine
