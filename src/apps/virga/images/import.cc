// image import: files on their way to the server, streamed.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "apps/virga/document.h"
#include "apps/virga/images/images.h"
#include "apps/virga/text.h"
#include "apps/virga/values.h"
#include "base/hash.h"
#include "base/random.h"

namespace virga::cli {
namespace {

/// One piece of an upload: text of ours, or a file.
class Source {
 public:
  explicit Source(std::string text) : text_(std::move(text)), size_(text_.size()) {}
  static Result<Source> file(const std::string& path) {
    Source source{std::string()};
    source.fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (source.fd_ < 0) return fail_errno(errno, fmt::format("open '{}'", path));
    struct ::stat st{};
    if (::fstat(source.fd_, &st) != 0 || !S_ISREG(st.st_mode))
      return fail(ErrorKind::invalid, fmt::format("'{}' is not a file", path));
    source.size_ = static_cast<std::uint64_t>(st.st_size);
    return source;
  }
  Source(Source&& other) noexcept
      : text_(std::move(other.text_)), size_(other.size_), offset_(other.offset_), fd_(std::exchange(other.fd_, -1)) {}
  Source& operator=(Source&&) = delete;
  ~Source() {
    if (fd_ >= 0) ::close(fd_);
  }
  std::uint64_t size() const noexcept { return size_; }
  Result<std::size_t> read(std::span<char> into) {
    if (fd_ < 0) {
      const auto n = std::min<std::size_t>(into.size(), text_.size() - offset_);
      std::memcpy(into.data(), text_.data() + offset_, n);
      offset_ += n;
      return n;
    }
    const auto n = ::read(fd_, into.data(), into.size());
    if (n < 0) return fail_errno(errno, "read the image");
    return static_cast<std::size_t>(n);
  }

 private:
  std::string text_;
  std::uint64_t size_ = 0;
  std::size_t offset_ = 0;
  int fd_ = -1;
};

/// Pieces one after the other, and how far it is.
class Stream {
 public:
  explicit Stream(Progress& progress) : progress_(progress) {}
  void add(Source source) {
    total_ += source.size();
    sources_.push_back(std::move(source));
  }
  std::uint64_t total() const noexcept { return total_; }
  Result<std::size_t> read(std::span<char> into) {
    while (at_ < sources_.size()) {
      VIRGA_TRY(auto n, sources_[at_].read(into));
      if (n > 0) {
        sent_ += n;
        show();
        return n;
      }
      ++at_;
    }
    return std::size_t{0};
  }

 private:
  void show() {
    if (!progress_.enabled() || total_ == 0) return;
    const auto seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
    const auto rate = static_cast<std::int64_t>(static_cast<double>(sent_) / std::max(seconds, 0.001));
    progress_.show(fmt::format("{}% ({}/s)", sent_ * 100 / total_, decimal_size(rate)));
  }

  Progress& progress_;
  std::vector<Source> sources_;
  std::size_t at_ = 0;
  std::uint64_t total_ = 0, sent_ = 0;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

std::string file_name(const std::string& path) {
  return path.substr(path.rfind('/') == std::string::npos ? 0 : path.rfind('/') + 1);
}

/// For a header or a quoted parameter: what could end it is replaced.
std::string header_safe(std::string text) {
  for (char& c : text)
    if (static_cast<unsigned char>(c) < 0x20 || c == '"' || c == '\\' || c == 0x7f) c = '_';
  return text;
}

Result<bool> is_disk_image(const std::string& path) {
  VIRGA_TRY(auto source, Source::file(path));
  std::array<char, 4> magic{};
  VIRGA_TRY(auto n, source.read(magic));
  return n == 4 && std::memcmp(magic.data(), "QFI\xfb", 4) == 0;
}

std::string part_head(const std::string& boundary, std::string_view name, const std::string& path) {
  return fmt::format(
      "--{}\r\nContent-Disposition: form-data; name=\"{}\"; filename=\"{}\"\r\nContent-Type: application/octet-stream\r\n\r\n",
      boundary, name, header_safe(file_name(path)));
}

Result<> fill_split(Stream& stream, const ImportFiles& files, const std::string& boundary) {
  VIRGA_TRY(bool disk, is_disk_image(files.rootfs));
  VIRGA_TRY(auto metadata, Source::file(files.metadata));
  VIRGA_TRY(auto rootfs, Source::file(files.rootfs));
  stream.add(Source(part_head(boundary, "metadata", files.metadata)));
  stream.add(std::move(metadata));
  stream.add(Source("\r\n" + part_head(boundary, disk ? "rootfs.img" : "rootfs", files.rootfs)));
  stream.add(std::move(rootfs));
  stream.add(Source(fmt::format("\r\n--{}--\r\n", boundary)));
  return {};
}

std::string properties_query(const std::vector<std::pair<std::string, std::string>>& properties) {
  Url url("");
  for (const auto& [key, value] : properties) url = std::move(url).query(key, value);
  auto text = url.text();
  return text.empty() ? text : text.substr(1);
}

bool is_directory(const std::string& path) {
  struct ::stat st{};
  return ::stat(path.c_str(), &st) == 0 && S_ISDIR(st.st_mode);
}

Result<> run_import(App& app, const Args& args) {
  ImportFiles files;
  ImportOptions options;
  options.is_public = args.has("public");
  for (const auto& word : args.words) {
    const bool is_file = ::access(word.c_str(), F_OK) == 0;
    if (!is_file && !files.metadata.empty() && word.find('=') != std::string::npos) {
      VIRGA_TRY(auto pair, parse_key_values({word}));
      options.properties.push_back(std::move(pair[0]));
    } else if (word.starts_with("http://") || word.starts_with("https://")) {
      return fail(Error(ErrorKind::unsupported, "Importing from a URL is not supported")
                      .with_hint("download the image, then import the file"));
    } else if (!is_file && word.ends_with(':')) {
      VIRGA_CHECK(local_name(word));
    } else if (files.metadata.empty()) {
      files.metadata = word;
    } else if (files.rootfs.empty()) {
      files.rootfs = word;
    } else {
      return fail(ErrorKind::invalid, fmt::format("Bad property: {}", word));
    }
  }
  if (is_directory(files.metadata))
    return fail(Error(ErrorKind::unsupported, "Importing a directory is not supported")
                    .with_hint(fmt::format("pack it first: tar -C {} -cJf image.tar.xz .", files.metadata)));
  VIRGA_TRY(auto fingerprint, import_files(app, files, options));
  app.note(fmt::format("Image imported with fingerprint: {}", fingerprint));
  for (const auto& alias : args.list("alias")) {
    VIRGA_CHECK(set_alias(app, alias, fingerprint, args.has("reuse")));
  }
  return {};
}

}  // namespace

Result<std::string> import_files(App& app, const ImportFiles& files, const ImportOptions& options) {
  VIRGA_TRY(auto* api, app.api());
  auto progress = app.progress("Transferring image");
  Stream stream(progress);
  client::Upload upload;
  upload.target = app.url("/1.0/images").text();
  upload.headers = {{"X-Incus-filename", header_safe(file_name(files.rootfs.empty() ? files.metadata : files.rootfs))},
                    {"X-Incus-public", options.is_public ? "true" : "false"}};
  if (!options.properties.empty()) upload.headers.emplace_back("X-Incus-properties", properties_query(options.properties));
  if (files.rootfs.empty()) {
    VIRGA_TRY(auto source, Source::file(files.metadata));
    stream.add(std::move(source));
    upload.headers.emplace_back("Content-Type", "application/octet-stream");
  } else {
    const auto boundary = random_hex(16);
    VIRGA_CHECK(fill_split(stream, files, boundary));
    upload.headers.emplace_back("Content-Type", "multipart/form-data; boundary=" + boundary);
  }
  upload.length = stream.total();
  upload.read = [&stream](std::span<char> into) { return stream.read(into); };
  VIRGA_TRY(auto answer, api->await(api->client().upload(std::move(upload))));
  progress.clear();
  VIRGA_TRY(auto operation, api->wait(answer.operation, &progress));
  auto fingerprint = text_of(object_of(operation, "metadata"), "fingerprint");
  if (fingerprint.empty()) return fail(ErrorKind::internal, "the server did not say the image's fingerprint");
  return fingerprint;
}

Result<> set_alias(App& app, const std::string& alias, const std::string& fingerprint, bool reuse) {
  VIRGA_TRY(auto* api, app.api());
  VIRGA_TRY(auto image, api->object(app.url("/1.0/images").segment(fingerprint)));
  VIRGA_TRY(auto aliases, api->array(app.url("/1.0/images/aliases").query("recursion", "1")));
  const auto type = text_of(image, "type");
  for (const auto& existing : objects_of(aliases)) {
    if (text_of(existing, "name") != alias || (!text_of(existing, "type").empty() && text_of(existing, "type") != type)) continue;
    if (text_of(existing, "target") == fingerprint) return {};
    if (!reuse)
      return fail(Error(ErrorKind::exists, fmt::format("Image alias \"{}\" exists already", alias))
                      .with_hint("--reuse lets it stand for the new image"));
    VIRGA_CHECK(
        api->send("PUT", app.url("/1.0/images/aliases").segment(alias).query("type", type),
                  json::object{{"target", fingerprint}, {"description", text_of(existing, "description")}, {"type", type}}));
    return {};
  }
  VIRGA_CHECK(api->send("POST", app.url("/1.0/images/aliases"),
                        json::object{{"name", alias}, {"target", fingerprint}, {"description", ""}, {"type", type}}));
  return {};
}

Result<std::string> file_fingerprint(const std::string& path) {
  VIRGA_TRY(auto source, Source::file(path));
  Sha256 hash;
  std::vector<char> buffer(1u << 20);
  for (;;) {
    VIRGA_TRY(auto n, source.read(buffer));
    if (n == 0) return hash.hex();
    hash.add({buffer.data(), n});
  }
}

Command image_import_command() {
  return {.use = "import <tarball> [<rootfs>] [<remote>:] [key=value...]",
          .summary = "Import image into the image store",
          .description =
              "An image is one tarball (metadata.yaml and rootfs), or two files: a tarball with\n"
              "metadata.yaml, and a root file system (tarball, squashfs) or disk (qcow2).",
          .examples = "virga image import tiny.tar.xz --alias tiny\n\nvirga image import incus.tar.xz disk.qcow2 --alias debian/12",
          .flags = {{"alias", 0, Flag::list, "New aliases to add to the image"},
                    {"public", 0, Flag::boolean, "Make image public"},
                    {"reuse", 0, Flag::boolean, "If the image alias already exists, delete and create a new one"}},
          .least = 1,
          .most = any_number,
          .run = run_import};
}

}  // namespace virga::cli
