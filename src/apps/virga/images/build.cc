// image build: images made on this machine from its own packages.
#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "apps/virga/editor.h"
#include "apps/virga/images/images.h"

namespace virga::cli {
namespace {

namespace fs = std::filesystem;

fs::path program_directory() {
  std::error_code ec;
  auto path = fs::read_symlink("/proc/self/exe", ec);
  return path.parent_path();
}

/// The first of these that exists: installed beside the program, or in the source tree of a build directory.
Result<std::string> find_file(std::string_view what, const std::vector<fs::path>& places) {
  std::error_code ec;
  for (const auto& place : places)
    if (fs::is_regular_file(place, ec)) return fs::weakly_canonical(place, ec).string();
  std::string looked;
  for (const auto& place : places) looked += "\n  " + place.string();
  return fail(Error(ErrorKind::not_found, fmt::format("Can't find {}", what))
                  .with_hint("looked for:" + looked + "\nVIRGA_SHARE names the directory of virga's shared files"));
}

Result<std::string> find_script(const std::string& name) {
  const auto here = program_directory();
  std::vector<fs::path> places;
  if (const char* share = std::getenv("VIRGA_SHARE"); share != nullptr && *share != '\0')
    places.push_back(fs::path(share) / "images" / name);
  places.push_back(here / "../share/virga/images" / name);
  places.push_back(here / "../../../share/images" / name);
  return find_file(fmt::format("the script '{}'", name), places);
}

Result<std::string> find_agent(const Args& args) {
  if (auto path = args.text("agent"); !path.empty()) return path;
  const auto here = program_directory();
  return find_file("virga-agent", {here / "virga-agent", here / "../lib/virga/virga-agent", here / "../libexec/virga/virga-agent",
                                   "/usr/lib/virga/virga-agent"});
}

struct ScratchDirectory {
  fs::path path;
  ~ScratchDirectory() {
    std::error_code ec;
    if (!path.empty()) fs::remove_all(path, ec);
  }
};

Result<> import_built(App& app, const std::string& kind, const std::string& file, const std::string& alias) {
  VIRGA_TRY(auto fingerprint, file_fingerprint(file));
  VIRGA_TRY(auto* api, app.api());
  if (!api->object(app.url("/1.0/images").segment(fingerprint))) {
    VIRGA_TRY(fingerprint, import_files(app, {.metadata = file, .rootfs = ""}, {}));
  }
  VIRGA_CHECK(set_alias(app, alias, fingerprint, true));
  app.note(fmt::format("Image {} ({}) imported with fingerprint: {}", alias, kind, fingerprint));
  return {};
}

struct Recipe {
  std::string script;
  std::vector<std::string> arguments;
};

/// "tiny", "debian/12", "debian/sid"
Result<Recipe> find_recipe(const std::string& name, const Args& args) {
  Recipe recipe;
  constexpr std::string_view debian = "debian/";
  if (name == "tiny") {
    recipe.script = "build-tiny";
    for (const char* flag : {"include", "mirror"})
      if (!args.text(flag).empty()) return fail(ErrorKind::invalid, fmt::format("--{} is for images of Debian", flag));
    return recipe;
  }
  const auto suite = name.starts_with(debian) ? name.substr(debian.size()) : std::string();
  if (suite.empty() || suite.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789") != std::string::npos)
    return fail(Error(ErrorKind::not_found, fmt::format("There is no recipe for an image \"{}\"", name))
                    .with_hint("there are: tiny, debian/12, debian/13, debian/sid"));
  recipe.script = "build-debian";
  recipe.arguments = {"--suite", suite};
  for (const char* flag : {"include", "mirror"})
    if (auto value = args.text(flag); !value.empty())
      recipe.arguments.insert(recipe.arguments.end(), {std::string("--") + flag, value});
  return recipe;
}

Result<> build(App& app, const Args& args) {
  VIRGA_TRY(auto recipe, find_recipe(args[0], args));
  VIRGA_TRY(auto script, find_script(recipe.script));
  VIRGA_TRY(auto agent, find_agent(args));
  VIRGA_CHECK(app.api());  // before the work, not after

  ScratchDirectory scratch;
  std::string out = args.text("out");
  if (out.empty()) {
    auto name = (fs::temp_directory_path() / "virga-image-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) return fail_errno(errno, "make a temporary directory");
    scratch.path = out = name;
  }
  std::vector<std::string> argv = {script, "--agent", agent, "--out", out};
  argv.insert(argv.end(), recipe.arguments.begin(), recipe.arguments.end());
  for (const char* flag : {"cache", "kind"})
    if (auto value = args.text(flag); !value.empty()) argv.insert(argv.end(), {std::string("--") + flag, value});
  const auto report = out + "/built";
  VIRGA_TRY(int code, run_program(argv, report));
  if (code != 0) return fail(ErrorKind::internal, fmt::format("building the image failed with exit code {}", code));
  // One line for each image: its kind and its path.
  std::ifstream lines(report);
  int imported = 0;
  for (std::string kind, path; lines >> kind && std::getline(lines >> std::ws, path); ++imported)
    VIRGA_CHECK(import_built(app, kind, path, args.text("alias").empty() ? args[0] : args.text("alias")));
  std::error_code ec;
  fs::remove(report, ec);
  if (imported == 0) return fail(ErrorKind::internal, "the build script made no image");
  return {};
}

}  // namespace

Command image_build_command() {
  return {.use = "build tiny|debian/<release>",
          .summary = "Build an image on this machine",
          .description =
              "Makes two images, one for containers and one for virtual machines, and imports both under one alias.\n"
              "tiny is made of a few packages of this machine in some seconds; debian/12, debian/13 and debian/sid are made\n"
              "from Debian's archive in some minutes, as root, by mmdebstrap.",
          .examples =
              "virga image build tiny\nvirga launch tiny c1\nvirga launch tiny v1 --vm\n\nvirga image build debian/12 --kind "
              "container\nvirga launch debian/12 c2",
          .flags = {{"agent", 0, Flag::text, "Path of the virga-agent program to put into the image"},
                    {"alias", 0, Flag::text, "Alias of the new images; otherwise what is built: debian/12"},
                    {"cache", 0, Flag::text, "Directory for downloaded packages"},
                    {"include", 0, Flag::text, "Further Debian packages, separated by commas"},
                    {"kind", 0, Flag::text, "Build only one of them: container or virtual-machine"},
                    {"mirror", 0, Flag::text, "Another Debian archive than the usual one"},
                    {"out", 0, Flag::text, "Directory that keeps the image files"}},
          .least = 1,
          .most = 1,
          .run = build};
}

}  // namespace virga::cli
