#include "apps/virga/settings.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "wire/yaml/yaml.h"

namespace virga::cli {
namespace {

std::filesystem::path settings_path() {
  const char* xdg = std::getenv("XDG_CONFIG_HOME");
  if (xdg != nullptr && *xdg != '\0') return std::filesystem::path(xdg) / "virga/config.yml";
  const char* home = std::getenv("HOME");
  return std::filesystem::path(home != nullptr ? home : "/root") / ".config/virga/config.yml";
}

}  // namespace

Settings load_settings() {
  Settings settings;
  std::ifstream file(settings_path());
  std::ostringstream text;
  text << file.rdbuf();
  auto object = yaml::decode_object(text.str());
  if (object) settings.project = Fields(*object).string("project").value_or("");
  return settings;
}

Result<> save_settings(const Settings& settings) {
  const auto path = settings_path();
  std::error_code ec;
  std::filesystem::create_directories(path.parent_path(), ec);
  std::ofstream file(path, std::ios::trunc);
  file << yaml::encode(json::object{{"project", settings.project}});
  file.close();
  if (!file) return fail(ErrorKind::unavailable, "cannot write " + path.string());
  return {};
}

}  // namespace virga::cli
