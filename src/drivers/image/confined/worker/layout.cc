#include "drivers/image/confined/worker/layout.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <set>

#include "drivers/image/confined/worker/disk_header.h"
#include "drivers/image/confined/worker/entry_name.h"
#include "drivers/image/confined/worker/metadata.h"
#include "drivers/image/confined/worker/tree.h"
#include "io/fd.h"
#include "wire/yaml/yaml.h"

namespace virga::image {
namespace {

using io::UniqueFd;

constexpr Bytes max_metadata = 1u << 20;
constexpr Bytes max_template = 1u << 20;
constexpr std::size_t max_templates = 64;             // an instance keeps them in one document
constexpr Bytes max_templates_size = Bytes(4) << 20;  // together
constexpr Bytes max_kernel = Bytes(64) << 20;
constexpr Bytes max_initrd = Bytes(512) << 20;
constexpr Bytes max_cmdline = 2048;

tl::unexpected<Error> refuse(std::string_view path, std::string_view why) {
  return fail(ErrorKind::invalid, fmt::format("entry '{}': {}", printable(path), why));
}

constexpr mode_t for_all =
    0644;  ///< QEMU opens kernels again as the guest's user; nobody else comes as far as the pool's directory

/// A file of ours beside the root: written whole, owned by root.
class PlainFile {
 public:
  static Result<PlainFile> create(int directory, const std::string& name, mode_t mode = 0600) {
    PlainFile f;
    if (directory < 0) return f;
    f.fd_.reset(::openat(directory, name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (!f.fd_ || ::fchmod(f.fd_.get(), mode) != 0) return fail_errno(errno, fmt::format("create '{}'", name));
    return f;
  }
  Result<> write(Bytes offset, std::span<const char> data) {
    while (fd_ && !data.empty()) {
      const auto n = ::pwrite(fd_.get(), data.data(), data.size(), static_cast<off_t>(offset));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return fail_errno(errno, "write the image");
      offset += static_cast<Bytes>(n);
      data = data.subspan(static_cast<std::size_t>(n));
    }
    return {};
  }
  Result<> end(Bytes size) {
    if (fd_ && ::ftruncate(fd_.get(), static_cast<off_t>(size)) != 0) return fail_errno(errno, "write the image");
    return {};
  }

 private:
  UniqueFd fd_;
};

class ImageParts {
 public:
  explicit ImageParts(const Job& job) : job_(job), budget_(job.limits) {
    if (job.backup) answer_.backup.emplace();
  }

  Result<Answer> read() {
    VIRGA_TRY(auto metadata_archive, Archive::open(job_.metadata_fd, budget_, dropped_));
    for (;;) {
      VIRGA_TRY(auto node, metadata_archive->next());
      if (!node) break;
      VIRGA_CHECK(job_.backup ? backup_entry(*metadata_archive, std::move(*node)) : top_level(*metadata_archive, *node));
      if (job_.backup && job_.into_fd < 0 && tops_.contains("index.yaml") && tops_.contains("backup.yaml")) return documents();
    }
    metadata_archive.reset();
    if (job_.backup) VIRGA_CHECK(complete_backup());
    if (answer_.inspection.metadata.architecture.empty()) return fail(ErrorKind::invalid, "the image has no metadata.yaml");
    if (split()) VIRGA_CHECK(read_root());
    if (tree_) {
      VIRGA_CHECK(tree_->finish());
      answer_.inspection.type = Type::container;
    } else if (disk_) {
      answer_.inspection.type = Type::virtual_machine;
      answer_.convert_disk = job_.into_fd >= 0;
    } else {
      return fail(ErrorKind::invalid, "the image has neither rootfs/ nor rootfs.img");
    }
    for (const auto& [path, t] : answer_.inspection.metadata.templates)
      if (!templates_.contains(t.template_file))
        return invalid("templates",
                       fmt::format("metadata.yaml: template file '{}' is not in the image", printable(t.template_file)));
    return std::move(answer_);
  }

 private:
  bool split() const { return job_.rootfs_format != RootFormat::none; }

  /// One entry of the unified or metadata tarball. Names at the top are unique and of the kind they must be.
  Result<> top_level(Archive& archive, const Node& node) {
    if (node.path.empty()) return {};
    const auto slash = node.path.find('/');
    const std::string top = node.path.substr(0, slash);
    const bool is_top = slash == std::string::npos;
    if (is_top && !tops_.insert(top).second) return refuse(node.path, "the name appears twice");
    constexpr std::size_t max_tops = 1000;
    if (tops_.size() > max_tops) return fail(ErrorKind::invalid, "the image has too many entries beside its root");
    if (top == "metadata.yaml") return metadata(archive, node, is_top);
    if (top == "rootfs") return root_entry(archive, node, is_top);
    if (top == "rootfs.img") return disk(archive, node, is_top);
    if (top == "templates" || top == "boot") return flat_directory(archive, node, top, is_top);
    return skip(archive, node);
  }

  // --- backups

  /// "backup/container/NAME" and "backup/virtual-machine/NAME" are what is NAME at the top of an image.
  Result<> backup_entry(Archive& archive, Node node) {
    if (node.path.empty()) return {};
    if (node.path != "backup" && !node.path.starts_with("backup/"))
      return refuse(node.path, "a backup holds nothing but 'backup/'");
    const bool is_root = node.path == "backup";
    const auto rest = is_root ? std::string() : node.path.substr(7);
    if (is_root || rest == "container" || rest == "virtual-machine") {
      if (node.kind != NodeKind::directory) return refuse(node.path, "it must be a directory");
      if (!tops_.insert(node.path).second) return refuse(node.path, "the name appears twice");
      return {};
    }
    if (rest == "index.yaml") return document(archive, node, "index.yaml", answer_.backup->documents.index);
    if (rest == "virtual-machine.img") return raw_disk(archive, node);
    for (const std::string kind : {"container/", "virtual-machine/"})
      if (rest.starts_with(kind)) return instance_entry(archive, std::move(node), "backup/" + kind);
    if (rest.find("snapshots") != std::string::npos)
      return fail(ErrorKind::unsupported,
                  "the backup holds snapshots, which cannot be imported yet: export it with --instance-only");
    if (rest.ends_with(".bin"))
      return fail(ErrorKind::unsupported,
                  "the backup is in the form of another storage driver: export it without --optimized-storage");
    return refuse(node.path, "a backup has no such entry");
  }

  Result<> instance_entry(Archive& archive, Node node, const std::string& place) {
    if (!place_.empty() && place_ != place)
      return fail(ErrorKind::invalid, "the backup is of a container and of a virtual machine");
    place_ = place;
    node.path.erase(0, place.size());
    if (node.path == "backup.yaml") return document(archive, node, "backup.yaml", answer_.backup->documents.instance);
    const auto top = node.path.substr(0, node.path.find('/'));
    // What else lies in a virtual machine's directory the other daemon makes anew at each start.
    if (top != "metadata.yaml" && top != "rootfs" && top != "templates" && top != "boot") return skip(archive, node);
    if (top == "rootfs" && place == "backup/virtual-machine/") return refuse(node.path, "a virtual machine has no file tree");
    if (node.kind == NodeKind::hardlink) {
      if (!node.target.starts_with(place)) return refuse(node.path, "a hard link that leads out of the root");
      node.target.erase(0, place.size());
    }
    return top_level(archive, node);
  }

  Result<> document(Archive& archive, const Node& node, const std::string& name, json::object& into) {
    if (node.kind != NodeKind::file) return refuse(node.path, "it must be a plain file");
    if (!tops_.insert(name).second) return refuse(node.path, "the name appears twice");
    if (node.size > max_metadata) return refuse(node.path, fmt::format("it is larger than {} bytes", max_metadata));
    std::string text(node.size, '\0');
    VIRGA_CHECK(archive.data([&](Bytes offset, std::span<const char> piece) -> Result<> {
      std::copy(piece.begin(), piece.end(), text.begin() + static_cast<std::ptrdiff_t>(offset));
      return {};
    }));
    auto decoded = yaml::decode_object(text, {.max_nodes = 50'000, .strings_only = true});
    if (!decoded) return fail(std::move(decoded).error().wrap(name));
    into = std::move(*decoded);
    return {};
  }

  /// Whatever it holds it is raw: bytes that look like another format's header are a guest's.
  Result<> raw_disk(Archive& archive, const Node& node) {
    if (node.kind != NodeKind::file) return refuse(node.path, "it must be a plain file");
    if (disk_) return refuse(node.path, "the name appears twice");
    if (node.size == 0 || node.size % 512 != 0) return refuse(node.path, "it is no disk of whole sectors");
    disk_ = true;
    VIRGA_TRY(auto file, PlainFile::create(job_.into_fd, "rootfs.img"));
    VIRGA_CHECK(archive.data([&](Bytes offset, std::span<const char> piece) -> Result<> {
      // Other writers spell out the zeros of empty space.
      if (std::all_of(piece.begin(), piece.end(), [](char c) { return c == 0; })) return {};
      return file.write(offset, piece);
    }));
    return file.end(node.size);
  }

  Result<> complete_backup() {
    for (const char* name : {"index.yaml", "backup.yaml"})
      if (!tops_.contains(name)) return fail(ErrorKind::invalid, fmt::format("the backup has no {}", name));
    const bool vm = place_ == "backup/virtual-machine/";
    if (vm != disk_)
      return fail(ErrorKind::invalid, vm ? "the backup has no virtual-machine.img" : "the backup has a disk too many");
    if (answer_.inspection.metadata.architecture.empty()) no_metadata();
    return {};
  }

  /// All that an inspection is after.
  Result<Answer> documents() {
    answer_.inspection.type = place_ == "backup/virtual-machine/" ? Type::virtual_machine : Type::container;
    no_metadata();
    return std::move(answer_);
  }

  void no_metadata() {
    answer_.inspection.metadata = {};
    answer_.inspection.metadata.architecture = "x86_64";
    answer_.inspection.metadata.creation_date = 1;
  }

  static Result<> skip(Archive& archive, const Node&) {
    return archive.data([](Bytes, std::span<const char>) -> Result<> { return {}; });
  }

  Result<> metadata(Archive& archive, const Node& node, bool is_top) {
    if (!is_top || node.kind != NodeKind::file) return refuse(node.path, "it must be a plain file");
    if (node.size > max_metadata) return refuse(node.path, fmt::format("it is larger than {} bytes", max_metadata));
    std::string text(node.size, '\0');
    VIRGA_CHECK(archive.data([&](Bytes offset, std::span<const char> piece) -> Result<> {
      std::copy(piece.begin(), piece.end(), text.begin() + static_cast<std::ptrdiff_t>(offset));
      return {};
    }));
    VIRGA_TRY(answer_.inspection.metadata, decode_metadata(text));
    VIRGA_TRY(auto file, PlainFile::create(job_.into_fd, "metadata.yaml"));
    return file.write(0, text);
  }

  Result<> start_tree() {
    if (disk_) return fail(ErrorKind::invalid, "the image has a rootfs/ and a rootfs.img");
    if (tree_) return {};
    if (job_.into_fd < 0) {
      tree_ = make_tree_checker();
      return {};
    }
    if (::mkdirat(job_.into_fd, "rootfs", 0755) != 0) return fail_errno(errno, "make 'rootfs'");
    root_.reset(::openat(job_.into_fd, "rootfs", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!root_) return fail_errno(errno, "open 'rootfs'");
    tree_ = make_tree_writer(root_.get());
    return {};
  }

  /// "rootfs/..." of a unified tarball: the same below the root.
  Result<> root_entry(Archive& archive, Node node, bool is_top) {
    if (split()) return refuse(node.path, "the root of a split image lies in its other file");
    if (is_top && node.kind != NodeKind::directory) return refuse(node.path, "it must be a directory");
    node.path = is_top ? std::string() : node.path.substr(7);
    if (node.kind == NodeKind::hardlink) {
      if (!node.target.starts_with("rootfs/")) return refuse(node.path, "a hard link that leads out of the root");
      node.target.erase(0, 7);
    }
    VIRGA_CHECK(start_tree());
    node.uid = id(node.uid);
    node.gid = id(node.gid);
    return add(archive, node);
  }

  std::uint32_t id(std::uint32_t packed) const {
    constexpr std::uint32_t nobody = 65534;
    if (job_.id_count == 0) return packed;
    return packed >= job_.id_base && packed - job_.id_base < job_.id_count ? packed - job_.id_base : nobody;
  }

  Result<> add(Archive& archive, const Node& node) {
    VIRGA_CHECK(tree_->add(node));
    if (node.kind != NodeKind::file) return {};
    VIRGA_CHECK(archive.data([&](Bytes offset, std::span<const char> piece) { return tree_->write(offset, piece); }));
    return tree_->end_file();
  }

  Result<> disk(Archive& archive, const Node& node, bool is_top) {
    if (split()) return refuse(node.path, "the root of a split image lies in its other file");
    if (!is_top || node.kind != NodeKind::file) return refuse(node.path, "it must be a plain file");
    if (tree_) return fail(ErrorKind::invalid, "the image has a rootfs/ and a rootfs.img");
    disk_ = true;
    std::string head;
    VIRGA_TRY(auto file, PlainFile::create(job_.into_fd, "rootfs.img"));
    VIRGA_CHECK(archive.data([&](Bytes offset, std::span<const char> piece) -> Result<> {
      if (offset < disk_head) {
        const auto n = std::min<std::size_t>(piece.size(), disk_head - offset);
        head.resize(std::max<std::size_t>(head.size(), offset + n));
        std::copy_n(piece.begin(), n, head.begin() + static_cast<std::ptrdiff_t>(offset));
      }
      return file.write(offset, piece);
    }));
    VIRGA_CHECK(file.end(node.size));
    VIRGA_CHECK(inspect_qcow2(head, node.size));
    return {};
  }

  /// templates/ and boot/ hold plain files only.
  Result<> flat_directory(Archive& archive, const Node& node, const std::string& top, bool is_top) {
    if (is_top) {
      if (node.kind != NodeKind::directory) return refuse(node.path, "it must be a directory");
      return {};
    }
    const std::string name = node.path.substr(top.size() + 1);
    if (node.kind != NodeKind::file || name.find('/') != std::string::npos)
      return refuse(node.path, "only plain files may lie there");
    if (top == "boot") return boot_file(archive, node, name);
    if (!templates_.insert(name).second) return refuse(node.path, "the name appears twice");
    if (templates_.size() > max_templates) return fail(ErrorKind::invalid, "the image has too many templates");
    if (node.size > max_template) return refuse(node.path, "a template is too large");
    if ((templates_size_ += node.size) > max_templates_size) return fail(ErrorKind::invalid, "the image's templates are too large");
    if (job_.into_fd >= 0 && !templates_fd_) {
      if (::mkdirat(job_.into_fd, "templates", 0700) != 0) return fail_errno(errno, "make 'templates'");
      templates_fd_.reset(::openat(job_.into_fd, "templates", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
      if (!templates_fd_) return fail_errno(errno, "open 'templates'");
    }
    return copy(archive, node, templates_fd_.get(), name);
  }

  Result<> boot_file(Archive& archive, const Node& node, const std::string& name) {
    const Bytes limit = name == "kernel" ? max_kernel : name == "initrd" ? max_initrd : name == "cmdline" ? max_cmdline : 0;
    if (limit == 0) return skip(archive, node);
    if (!boot_.insert(name).second) return refuse(node.path, "the name appears twice");
    if (node.size == 0 || node.size > limit) return refuse(node.path, fmt::format("it is empty or larger than {} bytes", limit));
    if (name != "cmdline") return copy(archive, node, job_.into_fd, name, for_all);
    std::string text(node.size, '\0');
    VIRGA_CHECK(archive.data([&](Bytes offset, std::span<const char> piece) -> Result<> {
      std::copy(piece.begin(), piece.end(), text.begin() + static_cast<std::ptrdiff_t>(offset));
      return {};
    }));
    while (text.ends_with('\n')) text.pop_back();
    if (std::any_of(text.begin(), text.end(), [](char c) { return c < 0x20 || c == 0x7f; }))
      return refuse(node.path, "it must be one line of plain text");
    VIRGA_TRY(auto file, PlainFile::create(job_.into_fd, "cmdline", for_all));
    return file.write(0, text);
  }

  Result<> copy(Archive& archive, const Node& node, int directory, const std::string& name, mode_t mode = 0600) {
    VIRGA_TRY(auto file, PlainFile::create(job_.into_fd < 0 ? -1 : directory, name, mode));
    VIRGA_CHECK(archive.data([&](Bytes offset, std::span<const char> piece) { return file.write(offset, piece); }));
    return file.end(node.size);
  }

  /// The root of a split image.
  Result<> read_root() {
    if (job_.rootfs_format == RootFormat::qcow2) {
      struct ::stat st{};
      if (::fstat(job_.rootfs_fd, &st) != 0) return fail_errno(errno, "stat the disk");
      std::string head(disk_head, '\0');
      const auto n = ::pread(job_.rootfs_fd, head.data(), head.size(), 0);
      if (n < 0) return fail_errno(errno, "read the disk");
      head.resize(static_cast<std::size_t>(n));
      VIRGA_CHECK(inspect_qcow2(head, static_cast<Bytes>(st.st_size)));
      disk_ = true;
      return {};
    }
    const bool piped = job_.rootfs_format == RootFormat::squashfs;
    VIRGA_TRY(auto archive, Archive::open(job_.rootfs_fd, budget_, dropped_, piped));
    VIRGA_CHECK(start_tree());
    bool any = false;
    for (;;) {
      VIRGA_TRY(auto node, archive->next());
      if (!node) break;
      any = true;
      VIRGA_CHECK(add(*archive, *node));
    }
    if (!any) return fail(ErrorKind::invalid, "the image's root is empty");
    return {};
  }

  const Job& job_;
  Budget budget_;
  Dropped dropped_;
  Answer answer_;
  std::unique_ptr<Tree> tree_;
  UniqueFd root_, templates_fd_;
  bool disk_ = false;
  Bytes templates_size_ = 0;
  std::set<std::string> tops_, templates_, boot_;
  std::string place_;  ///< of a backup: "backup/container/" or "backup/virtual-machine/"
};

}  // namespace

Result<Answer> read_image(const Job& job) {
  ImageParts parts(job);
  return parts.read();
}

}  // namespace virga::image
