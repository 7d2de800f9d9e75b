// image export: one tarball, or the two files of a split image.
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>

#include "apps/virga/images/images.h"
#include "apps/virga/images/multipart.h"
#include "apps/virga/new_file.h"
#include "apps/virga/text.h"
#include "apps/virga/values.h"

namespace virga::cli {
namespace {

bool is_directory(const std::string& path) {
  struct ::stat st{};
  return ::stat(path.c_str(), &st) == 0 && S_ISDIR(st.st_mode);
}

std::string extension(std::string_view name) {
  for (std::string_view known :
       {".tar.gz", ".tar.xz", ".tar.zst", ".tar.bz2", ".tar.lzma", ".tar", ".squashfs", ".qcow2", ".img", ".root"})
    if (name.ends_with(known)) return std::string(known);
  return {};
}

/// Where a file goes: by the server's name into the working or target directory, or to the target's own name with this ending.
std::string destination(const std::string& target, const std::string& server_name, std::string_view ending) {
  const std::string name = server_name.empty() ? "image" + std::string(ending) : server_name;
  if (target.empty()) return name;
  if (is_directory(target)) return target + "/" + name;
  return target + std::string(ending);
}

Result<> split_parts(NewFile& whole, std::string_view content_type, const std::string& target) {
  struct ::stat st{};
  if (::fstat(whole.fd(), &st) != 0 || st.st_size == 0) return fail(ErrorKind::invalid, "the server sent an empty image");
  const auto size = static_cast<std::size_t>(st.st_size);
  void* memory = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, whole.fd(), 0);
  if (memory == MAP_FAILED) return fail_errno(errno, "map the image");
  struct Unmap {
    void* memory;
    std::size_t size;
    ~Unmap() { ::munmap(memory, size); }
  } unmap{memory, size};
  VIRGA_TRY(auto parts, parse_multipart({static_cast<const char*>(memory), size}, content_type));
  for (const auto& part : parts) {
    const auto path = destination(target, part.file_name, part.name == "metadata" ? "" : ".root");
    VIRGA_TRY(auto file, NewFile::create(path + ".part"));
    VIRGA_CHECK(file.write(part.content));
    VIRGA_CHECK(file.finish(path));
  }
  return {};
}

Result<> export_image(App& app, const Args& args) {
  VIRGA_TRY(auto name, local_name(args[0]));
  VIRGA_TRY(auto fingerprint, resolve_image(app, name, args.has("vm")));
  VIRGA_TRY(auto* api, app.api());
  VIRGA_TRY(auto image, api->object(app.url("/1.0/images").segment(fingerprint)));
  fingerprint = text_of(image, "fingerprint");
  const auto target = args.word(1);
  const std::string directory = target.empty() ? "."
                                : is_directory(target)
                                    ? target
                                    : target.substr(0, target.rfind('/') == std::string::npos ? 0 : target.rfind('/') + 1);
  VIRGA_TRY(auto whole, NewFile::create((directory.empty() ? "." : directory) + "/" + base_name(fingerprint) + ".part"));
  auto progress = app.progress("Exporting the image");
  const auto total = integer_of(image, "size");
  std::int64_t received = 0;
  VIRGA_TRY(auto response,
            api->await(api->client().download(
                app.url("/1.0/images").segment(fingerprint).segment("export").text(), [&](std::string_view bytes) -> Result<> {
                  received += static_cast<std::int64_t>(bytes.size());
                  if (total > 0) progress.show(fmt::format("{}%", std::min<std::int64_t>(100, received * 100 / total)));
                  return whole.write(bytes);
                })));
  progress.clear();
  const auto content_type = response.header("Content-Type");
  if (content_type.starts_with("multipart/")) {
    VIRGA_CHECK(split_parts(whole, content_type, target));
  } else {
    const auto file_name = disposition_file_name(response.header("Content-Disposition"));
    VIRGA_CHECK(whole.finish(destination(target, file_name, extension(file_name))));
  }
  app.note("Image exported successfully!");
  return {};
}

}  // namespace

Command image_export_command() {
  return {.use = "export [<remote>:]<image> [<target>]",
          .summary = "Export and download images",
          .description = "The output target is optional and defaults to the working directory.",
          .flags = {{"vm", 0, Flag::boolean, "Query virtual machine images"}},
          .least = 1,
          .most = 2,
          .run = export_image};
}

}  // namespace virga::cli
