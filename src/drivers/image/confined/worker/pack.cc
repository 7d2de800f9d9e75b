#include "drivers/image/confined/worker/pack.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <string>
#include <vector>

#include "base/units.h"
#include "drivers/image/confined/protocol.h"
#include "drivers/image/confined/worker/entry_name.h"
#include "drivers/image/confined/worker/metadata.h"
#include "drivers/image/confined/worker/tarball.h"
#include "drivers/image/confined/worker/tree.h"
#include "io/fd.h"
#include "io/file.h"
#include "wire/yaml/yaml.h"

namespace virga::image {
namespace {

using io::UniqueFd;

constexpr std::uint32_t nobody = 65534;

Result<std::string> read_all(int fd, std::size_t limit) {
  std::string text;
  char buffer[16384];
  for (;;) {
    const auto n = ::read(fd, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, "read");
    if (n == 0) return text;
    text.append(buffer, static_cast<std::size_t>(n));
    if (text.size() > limit) return fail(ErrorKind::invalid, "a file of the image is too large");
  }
}

/// Which parts of a file hold data. Empty: all; so also where there are too many parts.
std::vector<std::pair<Bytes, Bytes>> data_of(int fd, const struct ::stat& st) {
  constexpr std::size_t most_parts = 20'000;  // readers bound their lists of holes, too
  std::vector<std::pair<Bytes, Bytes>> parts;
  const auto size = static_cast<off_t>(st.st_size);
  if (static_cast<off_t>(st.st_blocks) * 512 >= size) return {};
  for (off_t at = 0; at < size;) {
    const off_t begin = ::lseek(fd, at, SEEK_DATA);
    if (begin < 0 && errno == ENXIO) break;
    const off_t end = begin < 0 ? -1 : ::lseek(fd, begin, SEEK_HOLE);
    if (end <= begin || parts.size() == most_parts) return {};
    parts.emplace_back(static_cast<Bytes>(begin), static_cast<Bytes>(std::min(end, size) - begin));
    at = end;
  }
  // Nothing but a hole: a list with an empty part at its end says so.
  if (parts.empty() && size > 0) parts.emplace_back(static_cast<Bytes>(size), 0);
  return parts;
}

/// Walks a tree, directory by directory, each opened anew beneath the root: neither depth nor symlinks lead anywhere.
class Walk {
 public:
  Walk(const PackJob& job, Tarball& tarball, std::string top) : job_(job), tarball_(tarball), top_(std::move(top)) {}

  Result<> run() {
    struct ::stat st{};
    if (::fstat(job_.tree_fd, &st) != 0) return fail_errno(errno, "read the root");
    VIRGA_CHECK(tarball_.begin(entry_of("", st)));
    return directory("");
  }

 private:
  Result<> directory(const std::string& path) {
    if (++depth_ > max_entry_depth)
      return fail(ErrorKind::invalid, fmt::format("directory '{}' lies too deep for an image", printable(path)));
    std::vector<std::string> names;
    {
      VIRGA_TRY(auto fd, open(path));
      auto collect = [&](const char* name) {
        names.emplace_back(name);
        return names.size() <= job_.limits.max_entries;
      };
      VIRGA_CHECK(io::each_entry(fd.get(), collect));
    }
    std::sort(names.begin(), names.end());
    for (const auto& name : names) {
      if (++entries_ > job_.limits.max_entries) return fail(ErrorKind::invalid, "the root has more entries than an image may have");
      const auto child = path.empty() ? name : path + "/" + name;
      bool is_directory = false;
      {
        VIRGA_TRY(auto fd, open(path));  // closed before we go deeper: descriptors are few
        VIRGA_TRY(is_directory, one(fd.get(), name, child));
      }
      if (is_directory) VIRGA_CHECK(directory(child));
    }
    --depth_;
    return {};
  }

  Result<UniqueFd> open(const std::string& path) const {
    UniqueFd place(open_directory_beneath(job_.tree_fd, path));
    if (!place) return fail_errno(errno, fmt::format("open '{}'", printable(path)));
    UniqueFd fd(::openat(place.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd) return fail_errno(errno, fmt::format("open '{}'", printable(path)));
    return fd;
  }

  /// Packs one entry; whether it is a directory, whose content is the caller's.
  Result<bool> one(int parent, const std::string& name, const std::string& path) {
    struct ::stat st{};
    if (::fstatat(parent, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0)
      return fail_errno(errno, fmt::format("read '{}'", printable(path)));
    auto entry = entry_of(path, st);
    if (S_ISDIR(st.st_mode)) {
      VIRGA_CHECK(tarball_.begin(entry));
      return true;
    }
    VIRGA_CHECK(other(parent, name, path, st, std::move(entry)));
    return false;
  }

  Result<> other(int parent, const std::string& name, const std::string& path, struct ::stat st, Tarball::Entry entry) {
    if (S_ISLNK(st.st_mode)) {
      std::string text(static_cast<std::size_t>(st.st_size) + 1, '\0');
      const auto n = ::readlinkat(parent, name.c_str(), text.data(), text.size());
      if (n < 0) return fail_errno(errno, fmt::format("read '{}'", printable(path)));
      text.resize(static_cast<std::size_t>(n));
      entry.symlink = std::move(text);
      return tarball_.begin(entry);
    }
    if (S_ISFIFO(st.st_mode)) return tarball_.begin(entry);
    // Sockets end with their process, and what is a device for a container its runtime makes.
    if (!S_ISREG(st.st_mode)) return {};
    if (st.st_nlink > 1) {
      auto [first, is_new] = links_.emplace(std::pair(st.st_dev, st.st_ino), entry.path);
      if (!is_new) {
        entry.hardlink = first->second;
        return tarball_.begin(entry);
      }
    }
    UniqueFd file(::openat(parent, name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    if (!file || ::fstat(file.get(), &st) != 0) return fail_errno(errno, fmt::format("open '{}'", printable(path)));
    if (!S_ISREG(st.st_mode)) return fail(ErrorKind::invalid, fmt::format("'{}' changed while it was packed", printable(path)));
    entry.size = static_cast<Bytes>(st.st_size);
    if (entry.size > job_.limits.max_unpacked)
      return fail(ErrorKind::invalid, fmt::format("'{}' is larger than an image may be", printable(path)));
    entry.data = data_of(file.get(), st);
    add_xattrs(file.get(), entry);
    return tarball_.file(entry, file.get());
  }

  Tarball::Entry entry_of(const std::string& path, const struct ::stat& st) const {
    Tarball::Entry entry;
    entry.path = path.empty() ? top_ : top_ + "/" + path;
    entry.mode = st.st_mode;
    entry.uid = id(st.st_uid);
    entry.gid = id(st.st_gid);
    entry.modified = st.st_mtim;
    return entry;
  }

  std::uint32_t id(std::uint32_t shown) const {
    if (job_.id_count == 0) return shown;
    return shown >= job_.id_base && shown - job_.id_base < job_.id_count ? shown - job_.id_base : nobody;
  }

  /// Those that an import keeps. What is unreadable or huge is left out.
  static void add_xattrs(int fd, Tarball::Entry& entry) {
    char names[8192];
    const auto length = ::flistxattr(fd, names, sizeof names);
    for (ssize_t at = 0; at < length;) {
      const std::string name = names + at;
      at += static_cast<ssize_t>(name.size()) + 1;
      char value[4096];
      if (!name.starts_with("user.")) continue;
      const auto size = ::fgetxattr(fd, name.c_str(), value, sizeof value);
      if (size >= 0) entry.xattrs.emplace_back(name, std::string(value, static_cast<std::size_t>(size)));
    }
  }

  const PackJob& job_;
  Tarball& tarball_;
  const std::string top_;
  std::size_t depth_ = 0;
  std::uint64_t entries_ = 0;
  std::map<std::pair<dev_t, ino_t>, std::string> links_;
};

json::object templates_json(const Metadata& m) {
  json::object out;
  for (const auto& [path, t] : m.templates)
    out.emplace(path, json::object{{"when", to_json(t.when)},
                                   {"create_only", t.create_only},
                                   {"template", t.template_file},
                                   {"properties", to_json(t.properties)}});
  for (const auto& [path, t] : m.templates)
    for (const auto& [key, value] : {std::pair("uid", t.uid), std::pair("gid", t.gid), std::pair("mode", t.mode)})
      if (!value.empty()) out[path].get_object()[key] = value;
  return out;
}

constexpr std::size_t most_templates = 80u << 20;
/// created_at: "2026-...Z" without the quotes: readers that are strict about types want a time there, and JSON has none.
std::string document_yaml(const json::object& document) {
  constexpr std::string_view before = "_at: \"", after = "Z\"\n";
  std::string text = yaml::encode(document);
  for (std::size_t at = 0; (at = text.find(before, at)) != std::string::npos;) {
    const auto first = at + before.size() - 1;
    const auto end = text.find('\n', at);
    const auto key = text.rfind('\n', at) + 1;
    const auto name = std::string_view(text).substr(text.find_first_not_of(' ', key), at - text.find_first_not_of(' ', key));
    at = first + 1;
    if ((name != "created" && name != "last_used") || end == std::string::npos || text.compare(end - 2, after.size(), after) != 0)
      continue;
    if (!parse_time(std::string_view(text).substr(first + 1, end - first - 2))) continue;
    text.erase(end - 1, 1);
    text.erase(first, 1);
  }
  return text;
}

class Pack {
 public:
  Pack(const PackJob& job, Tarball& tarball) : job_(job), tarball_(tarball) {}

  Result<> run() {
    VIRGA_TRY(auto text, read_all(job_.metadata_fd, max_answer));
    VIRGA_TRY(auto answer, decode_answer(text));
    metadata_ = std::move(answer.inspection.metadata);
    if (answer.backup) return backup(*answer.backup);
    if (job_.base_fd >= 0 && job_.templates_fd < 0) {
      if (auto fd = io::open_in(job_.base_fd, "metadata.yaml", O_RDONLY)) {
        VIRGA_TRY(auto old, read_all(fd->get(), 1u << 20));
        VIRGA_TRY(auto decoded, decode_metadata(old));
        metadata_.templates = std::move(decoded.templates);
      }
    }
    VIRGA_CHECK(tarball_.text("metadata.yaml", yaml_of(metadata_), metadata_.creation_date));
    VIRGA_CHECK(job_.templates_fd >= 0 ? given_templates() : job_.base_fd >= 0 ? templates() : Result<>{});
    if (job_.tree_fd >= 0) return Walk(job_, tarball_, "rootfs").run();
    if (job_.base_fd >= 0) VIRGA_CHECK(boot(""));
    return copy(job_.disk_fd, "rootfs.img");
  }

 private:
  static std::string yaml_of(const Metadata& m) {
    json::object out{{"architecture", m.architecture}, {"creation_date", m.creation_date}};
    if (m.expiry_date != 0) out["expiry_date"] = m.expiry_date;
    if (!m.properties.empty()) out["properties"] = to_json(m.properties);
    if (!m.templates.empty()) out["templates"] = templates_json(m);
    return yaml::encode(out);
  }

  Result<> templates() {
    auto directory = io::open_in(job_.base_fd, "templates", O_RDONLY | O_DIRECTORY);
    if (!directory) return {};
    VIRGA_CHECK(folder("templates"));
    std::vector<std::string> names;
    auto collect = [&](const char* name) {
      names.emplace_back(name);
      return true;
    };
    VIRGA_CHECK(io::each_entry(directory->get(), collect));
    std::sort(names.begin(), names.end());
    for (const auto& name : names) VIRGA_CHECK(copy_of(directory->get(), name, "templates/" + name));
    return {};
  }

  Result<> given_templates() {
    VIRGA_TRY(const auto all, read_all(job_.templates_fd, most_templates));
    if (all.empty()) return {};
    VIRGA_CHECK(folder("templates"));
    for (std::string_view rest = all; !rest.empty();) {
      const auto blank = rest.find(' '), end = rest.find('\n');
      if (end == std::string_view::npos || blank >= end) return fail(ErrorKind::internal, "the templates are malformed");
      VIRGA_TRY(const auto size, parse_integer(rest.substr(0, blank), 0, static_cast<std::int64_t>(rest.size() - end - 1)));
      const std::string path = "templates/" + std::string(rest.substr(blank + 1, end - blank - 1));
      VIRGA_CHECK(tarball_.text(path, rest.substr(end + 1, static_cast<std::size_t>(size)), metadata_.creation_date));
      rest.remove_prefix(end + 1 + static_cast<std::size_t>(size));
    }
    return {};
  }

  /// The layout of Incus: backup/index.yaml, backup/container/{backup.yaml,metadata.yaml,templates/,rootfs/}, or the same without
  /// a rootfs/ in backup/virtual-machine/ and its disk, raw, in backup/virtual-machine.img. What a machine boots with is ours.
  Result<> backup(const BackupContent& content) {
    const bool container = job_.tree_fd >= 0;
    const std::string place = container ? "backup/container" : "backup/virtual-machine";
    const auto now = metadata_.creation_date;
    VIRGA_CHECK(folder("backup"));
    VIRGA_CHECK(tarball_.text("backup/index.yaml", document_yaml(content.documents.index), now));
    VIRGA_CHECK(folder(place, 0100));
    VIRGA_CHECK(tarball_.text(place + "/backup.yaml", document_yaml(content.documents.instance), now));
    VIRGA_CHECK(tarball_.text(place + "/metadata.yaml", yaml_of(metadata_), now));
    if (!content.templates.empty()) VIRGA_CHECK(folder(place + "/templates"));
    for (const auto& [name, text] : content.templates) VIRGA_CHECK(tarball_.text(place + "/templates/" + name, text, now));
    if (container) return Walk(job_, tarball_, place + "/rootfs").run();
    if (job_.base_fd >= 0) VIRGA_CHECK(boot(place + "/"));
    return copy(job_.disk_fd, place + ".img");
  }

  Result<> boot(const std::string& place) {
    bool any = false;
    for (const char* name : {"kernel", "initrd", "cmdline"}) {
      if (!io::open_in(job_.base_fd, name, O_PATH)) continue;
      if (!any) VIRGA_CHECK(folder(place + "boot"));
      any = true;
      VIRGA_CHECK(copy_of(job_.base_fd, name, place + "boot/" + name));
    }
    return {};
  }

  Result<> folder(std::string path, unsigned mode = 0755) {
    Tarball::Entry entry;
    entry.path = std::move(path);
    entry.mode = S_IFDIR | mode;
    entry.modified.tv_sec = metadata_.creation_date;
    return tarball_.begin(entry);
  }

  Result<> copy_of(int directory, const std::string& name, std::string path) {
    VIRGA_TRY(auto fd, io::open_in(directory, name.c_str(), O_RDONLY));
    return copy(fd.get(), std::move(path));
  }

  Result<> copy(int fd, std::string path) {
    struct ::stat st{};
    if (::fstat(fd, &st) != 0) return fail_errno(errno, "read the image");
    if (!S_ISREG(st.st_mode)) return fail(ErrorKind::invalid, fmt::format("'{}' is not a plain file", printable(path)));
    Tarball::Entry entry;
    entry.path = std::move(path);
    entry.mode = S_IFREG | 0644;
    entry.modified.tv_sec = metadata_.creation_date;
    entry.size = static_cast<Bytes>(st.st_size);
    entry.data = data_of(fd, st);
    return tarball_.file(entry, fd);
  }

  const PackJob& job_;
  Tarball& tarball_;
  Metadata metadata_;
};

}  // namespace

Result<> pack_image(const PackJob& job) {
  VIRGA_TRY(auto tarball, Tarball::create(job.out_fd, job.compression, job.limits.max_unpacked, job.progress));
  VIRGA_CHECK(Pack(job, tarball).run());
  return tarball.finish();
}

}  // namespace virga::image
