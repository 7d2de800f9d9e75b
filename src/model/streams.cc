#include "model/streams.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "base/json.h"
#include "model/image.h"

namespace virga::streams {
namespace {

constexpr std::size_t max_products = 50'000, max_versions = 1'000, max_aliases = 100;
constexpr Bytes max_metadata = Bytes(64) << 20;

/// Plain parts with '/' between them, of characters that need no escape in a URL.
bool plain_path(std::string_view path) {
  if (path.empty() || path.size() > 1024) return false;
  for (std::size_t at = 0; at <= path.size();) {
    const auto end = std::min(path.find('/', at), path.size());
    const auto part = path.substr(at, end - at);
    if (part.empty() || part == "." || part == "..") return false;
    at = end + 1;
  }
  return std::all_of(path.begin(), path.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("/-_.~:+@").find(c) != std::string_view::npos;
  });
}

std::vector<std::string> split(std::string_view text, char by) {
  std::vector<std::string> out;
  while (!text.empty() && out.size() < max_aliases) {
    const auto end = std::min(text.find(by), text.size());
    auto part = text.substr(0, end);
    while (part.starts_with(' ')) part.remove_prefix(1);
    if (!part.empty() && part.size() <= 200) out.emplace_back(part);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return out;
}

/// Text for people, of a stranger's making.
std::string shown(const Fields& fields, std::string_view name) {
  auto text = fields.string(name).value_or("");
  if (text.size() > 200) text.resize(200);
  std::erase_if(text, [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
  return text;
}

std::optional<File> read_file(const json::object& item, Bytes limit) {
  const Fields f(item);
  File file;
  file.path = f.string("path").value_or("");
  file.sha256 = f.string("sha256").value_or("");
  const auto size = f.integer("size").value_or(-1);
  if (!plain_path(file.path) || !check_fingerprint(file.sha256) || size <= 0 || static_cast<Bytes>(size) > limit) return {};
  file.size = static_cast<Bytes>(size);
  return file;
}

struct RootKind {
  std::string_view ftype;
  std::array<std::string_view, 2> digests;  ///< keys of the metadata's item that hold the fingerprint
  InstanceType type;
};
// The first that is there is taken.
constexpr std::array root_kinds{
    RootKind{"squashfs", {"combined_squashfs_sha256", ""}, InstanceType::container},
    RootKind{"root.tar.xz", {"combined_rootxz_sha256", "combined_sha256"}, InstanceType::container},
    RootKind{"disk-kvm.img", {"combined_disk-kvm-img_sha256", ""}, InstanceType::virtual_machine},
    RootKind{"uefi1.img", {"combined_uefi1-img_sha256", ""}, InstanceType::virtual_machine},
    RootKind{"disk1.img", {"combined_disk1-img_sha256", ""}, InstanceType::virtual_machine},
};
constexpr std::array metadata_types{"incus.tar.xz", "lxd.tar.xz"};
constexpr std::array unified_types{"incus_combined.tar.gz", "lxd_combined.tar.gz"};

const json::object* item_of_type(const json::object& items, std::string_view ftype) {
  for (const auto& [name, value] : items) {
    if (!value.is_object()) continue;
    const auto* type = value.get_object().if_contains("ftype");
    if (type != nullptr && type->is_string() && std::string_view(type->get_string()) == ftype) return &value.get_object();
  }
  return nullptr;
}

template <std::size_t N>
const json::object* first_of(const json::object& items, const std::array<const char*, N>& ftypes) {
  for (const auto* ftype : ftypes)
    if (const auto* item = item_of_type(items, ftype)) return item;
  return nullptr;
}

class Products {
 public:
  void product(std::string_view name, const json::object& product) {
    const Fields f(product);
    auto architecture = canonical_architecture(f.string("arch").value_or(""));
    const auto* versions = product.if_contains("versions");
    if (!architecture || versions == nullptr || !versions->is_object() || name.size() > 200) return;
    Download base;
    base.product = name;
    base.architecture = *architecture;
    base.aliases = split(f.string("aliases").value_or(""), ',');
    base.properties["architecture"] = shown(f, "arch");
    for (const char* key : {"os", "release", "variant"})
      if (auto text = shown(f, key); !text.empty()) base.properties[key] = text;
    if (auto title = shown(f, "release_title"); !title.empty() && title != base.properties["release"])
      base.properties["version"] = title;
    if (auto requirements = f.string_map("requirements"))
      for (const auto& [key, value] : *requirements)
        if (key.size() <= 100 && value.size() <= 100) base.properties["requirements." + key] = value;
    std::size_t count = 0;
    for (const auto& [version, value] : versions->get_object()) {
      if (++count > max_versions) break;
      if (!value.is_object() || version.size() > 100) continue;
      const auto* items = value.get_object().if_contains("items");
      if (items != nullptr && items->is_object()) this->version(base, version, items->get_object());
    }
  }

  std::vector<Download> take() { return std::move(out_); }

 private:
  void version(Download base, std::string_view version, const json::object& items) {
    base.version = version;
    base.properties["serial"] = base.version;
    base.properties["description"] = fmt::format("{} {} {} ({})", base.properties["os"], base.properties["release"],
                                                 base.properties["architecture"], base.version);
    std::array<bool, 2> have{};
    if (const auto* metadata = first_of(items, metadata_types)) {
      const auto file = read_file(*metadata, max_metadata);
      for (const auto& kind : root_kinds) {
        auto& done = have[static_cast<std::size_t>(kind.type)];
        if (file && !done) done = split_image(base, *file, *metadata, kind, items);
      }
    }
    if (have[static_cast<std::size_t>(InstanceType::container)]) return;
    if (const auto* unified = first_of(items, unified_types)) {
      auto file = read_file(*unified, max_image);
      if (!file) return;
      base.fingerprint = file->sha256;
      base.metadata = std::move(*file);
      out_.push_back(std::move(base));
    }
  }

  bool split_image(Download image, const File& metadata, const json::object& metadata_item, const RootKind& kind,
                   const json::object& items) {
    const auto* root = item_of_type(items, kind.ftype);
    if (root == nullptr) return false;
    for (auto key : kind.digests) {
      if (key.empty()) continue;
      auto digest = Fields(metadata_item).string(key).value_or("");
      if (check_fingerprint(digest)) image.fingerprint = std::move(digest);
      if (!image.fingerprint.empty()) break;
    }
    image.root = read_file(*root, max_image);
    if (image.fingerprint.empty() || !image.root) return false;
    image.type = kind.type;
    image.metadata = metadata;
    image.properties["type"] = kind.ftype;
    out_.push_back(std::move(image));
    return true;
  }

  static constexpr Bytes max_image = Bytes(64) << 30;
  std::vector<Download> out_;
};

Result<json::object> decode(std::string_view text, std::string_view what) {
  if (text.size() > max_document) return fail(ErrorKind::invalid, fmt::format("{} is larger than allowed", what));
  auto object = parse_json_object(text);
  if (!object) return fail(std::move(object).error().wrap(std::string(what)));
  return object;
}

/// "debian/12/arm64" of the alias "debian/12" means that architecture.
bool fits(const Download& image, const Wanted& wanted) {
  for (const auto& alias : image.aliases) {
    if (alias == wanted.alias) return image.architecture == wanted.architecture;
    if (wanted.alias.size() <= alias.size() + 1 || !wanted.alias.starts_with(alias) || wanted.alias[alias.size()] != '/') continue;
    auto architecture = canonical_architecture(std::string_view(wanted.alias).substr(alias.size() + 1));
    if (architecture && *architecture == image.architecture) return true;
  }
  return false;
}

}  // namespace

Result<std::vector<std::string>> decode_index(std::string_view text) {
  VIRGA_TRY(auto document, decode(text, "the image server's index"));
  VIRGA_TRY(auto index, Fields(document).object("index"));
  std::vector<std::string> out;
  for (const auto& [name, value] : index) {
    if (!value.is_object()) continue;
    const Fields f(value.get_object());
    auto path = f.string("path").value_or("");
    if (f.string("datatype").value_or("") == "image-downloads" && plain_path(path) && out.size() < 16)
      out.push_back(std::move(path));
  }
  if (out.empty()) return fail(ErrorKind::invalid, "the image server's index names no list of images");
  return out;
}

Result<std::vector<Download>> decode_products(std::string_view text) {
  VIRGA_TRY(auto document, decode(text, "the image server's list"));
  const auto* products = document.if_contains("products");
  if (products == nullptr || !products->is_object()) return fail(ErrorKind::invalid, "the image server's list holds no 'products'");
  if (products->get_object().size() > max_products)
    return fail(ErrorKind::invalid, "the image server's list has too many products");
  Products reader;
  for (const auto& [name, value] : products->get_object())
    if (value.is_object()) reader.product(name, value.get_object());
  return reader.take();
}

const Download* choose(const std::vector<Download>& images, const Wanted& wanted) {
  const Download* best = nullptr;
  for (const auto& image : images) {
    if (wanted.type && image.type != *wanted.type) continue;
    if (wanted.fingerprint.empty() ? !fits(image, wanted) : !image.fingerprint.starts_with(wanted.fingerprint)) continue;
    const auto rank = [](const Download& d) { return std::pair(d.type == InstanceType::container, std::string_view(d.version)); };
    if (best == nullptr || rank(image) > rank(*best)) best = &image;
  }
  return best;
}

}  // namespace virga::streams
