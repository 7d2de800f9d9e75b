#include "apps/virgad/options.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>

#include "api/api.h"
#include "base/version.h"

namespace virga::virgad {

Result<std::optional<Options>> parse_options(int argc, char** argv) {
  Options o;
  bool list_routes = false;
  CLI::App app{
      "virgad runs virtual machines and containers and serves the REST API that virga and incus speak.\n"
      "Everything it writes lies below the state directory, so that several run side by side.\n"
      "Guests run on when it ends, and are found again when it starts.",
      "virgad"};
  app.add_option("--state-dir", o.state_dir, "Directory for everything: store, images, pools, sockets, logs")
      ->capture_default_str();
  app.add_option("--socket", o.socket, "Path of the API's unix socket (default: unix.socket in the state directory)");
  app.add_option("--https", o.https, "Also serve the API on ADDRESS:PORT with TLS 1.3, for clients in the trust store");
  app.add_option("--group", o.group, "Group whose members may use the unix socket (default: root only)");
  app.add_option("--libexec-dir", o.libexec_dir, "Directory of virga-shim and virga-worker (default: beside virgad)");
  app.add_flag("--fake-drivers", o.fake_drivers, "Guests, volumes and networks in memory only: for benchmarks of the API");
  app.add_flag("--list-routes", list_routes, "Print method and path of all that is served, and end");
  app.add_flag("-v,--verbose", o.verbose, "Log rare state changes too");
  app.add_flag("-d,--debug", o.debug, "Log everything");
  app.set_version_flag("--version", std::string("virgad ") + version);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) {
      app.exit(e);
      return std::optional<Options>();
    }
    return fail(Error(ErrorKind::invalid, e.what()).with_hint("virgad --help explains the options"));
  }
  if (list_routes) {
    for (const auto& route : api::Api::served_routes()) std::puts(route.c_str());
    return std::optional<Options>();
  }
  std::error_code ec;
  o.state_dir = std::filesystem::absolute(o.state_dir, ec).lexically_normal().string();
  while (o.state_dir.size() > 1 && o.state_dir.back() == '/') o.state_dir.pop_back();
  if (o.socket.empty()) o.socket = o.state_dir + "/unix.socket";
  if (o.libexec_dir.empty()) o.libexec_dir = std::filesystem::read_symlink("/proc/self/exe", ec).parent_path().string();
  return std::optional<Options>(std::move(o));
}

}  // namespace virga::virgad
