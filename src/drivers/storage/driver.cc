#include "drivers/storage/driver.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace virga::storage {
namespace {

constexpr std::array folders = {"containers", "virtual-machines", "images", "custom"};

}  // namespace

std::string_view folder_of(VolumeKind kind) noexcept {
  return folders[static_cast<std::size_t>(kind)];
}

std::string to_string(const VolumeId& id) {
  static constexpr std::array kinds = {"container", "virtual machine", "image", "custom volume"};
  const auto* kind = kinds[static_cast<std::size_t>(id.kind)];
  if (id.kind == VolumeKind::image || id.project.empty() || id.project == "default") return fmt::format("{} '{}'", kind, id.name);
  return fmt::format("{} '{}' of project '{}'", kind, id.name, id.project);
}

std::string relative_path(const VolumeId& id) {
  const auto folder = folder_of(id.kind);
  if (id.kind == VolumeKind::image) return fmt::format("{}/{}", folder, id.name);
  const bool plain = id.kind != VolumeKind::custom && (id.project.empty() || id.project == "default");
  return plain ? fmt::format("{}/{}", folder, id.name)
               : fmt::format("{}/{}_{}", folder, id.project.empty() ? "default" : id.project, id.name);
}

std::optional<VolumeId> parse_entry(VolumeKind kind, std::string_view entry) {
  VolumeId id{.kind = kind, .project = "default", .name = std::string(entry)};
  if (kind == VolumeKind::image) {
    id.project.clear();
  } else if (const auto bar = entry.find('_'); bar != std::string_view::npos) {
    id.project = entry.substr(0, bar);
    id.name = entry.substr(bar + 1);
  } else if (kind == VolumeKind::custom) {
    return std::nullopt;
  }
  if (!check_id(id) || relative_path(id) != fmt::format("{}/{}", folder_of(kind), entry)) return std::nullopt;
  return id;
}

Result<> check_id(const VolumeId& id) {
  auto bad = [](std::string_view part) {
    return part.empty() || part.size() > 128 || part.front() == '.' || part.front() == '-' ||
           part.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") != std::string_view::npos;
  };
  const bool in_project = id.kind != VolumeKind::image;
  // A project's name holds no '_', so that PROJECT_NAME can be taken apart again; an instance's name holds none either.
  const bool bar = in_project && (id.project.find('_') != std::string::npos ||
                                  (id.kind != VolumeKind::custom && id.name.find('_') != std::string::npos));
  if (bad(id.name) || (in_project && !id.project.empty() && bad(id.project)) || bar)
    return fail(ErrorKind::invalid, fmt::format("{}: not a name of a volume", to_string(id)));
  return {};
}

Result<> check_snapshot_name(std::string_view name) {
  const bool bad = name.empty() || name.size() > 128 || name.front() == '.' || std::any_of(name.begin(), name.end(), [](char c) {
                     return c == '/' || static_cast<unsigned char>(c) <= 0x20 || c == 0x7f;
                   });
  if (bad) return fail(ErrorKind::invalid, fmt::format("'{}': not a name of a snapshot", name.substr(0, 40)));
  return {};
}

}  // namespace virga::storage
