#include "apps/virgad/daemon.h"

#include <fmt/format.h>
#include <grp.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <filesystem>

#include "api/api.h"
#include "apps/virgad/about.h"
#include "apps/virgad/https.h"
#include "apps/virgad/warnings.h"
#include "base/clock.h"
#include "base/log.h"
#include "drivers/compute/fake/fake.h"
#include "drivers/compute/oci/driver.h"
#include "drivers/compute/qemu/driver.h"
#include "drivers/image/confined/confined.h"
#include "drivers/network/bridge/driver.h"
#include "drivers/network/fake/fake.h"
#include "drivers/remote/https/driver.h"
#include "drivers/storage/dir/dir.h"
#include "drivers/storage/fake/fake.h"
#include "engine/certificates/service.h"
#include "engine/events/events.h"
#include "engine/images/service.h"
#include "engine/images/transfers.h"
#include "engine/instances/service.h"
#include "engine/journal/journal.h"
#include "engine/networks/service.h"
#include "engine/operations/log.h"
#include "engine/operations/operations.h"
#include "engine/pools/service.h"
#include "engine/profiles/service.h"
#include "engine/projects/service.h"
#include "engine/sampler/sampler.h"
#include "engine/server/service.h"
#include "engine/url.h"
#include "engine/warnings/service.h"
#include "io/process.h"
#include "model/expiry.h"
#include "store/sqlite/store.h"
#include "wire/http/server.h"

namespace virga::virgad {

/// In the order in which they are made; destroyed the other way round. What has not been reached yet is null.
struct Daemon::Parts {
  Parts(Options o, Executor ex)
      : options(std::move(o)), executor(std::move(ex)), blocking("blocking", 4), image_files("image-files", 2) {}

  Options options;
  Executor executor;
  SystemClock clock;
  BlockingPool blocking;     ///< quick calls only: guests' starts and stops wait for them
  BlockingPool image_files;  ///< hashing and writing of whole images, decoding of long lists

  std::unique_ptr<Store> store;
  std::unique_ptr<compute::Driver> containers, vms;
  std::unique_ptr<network::Driver> network;
  std::unique_ptr<image::Reader> reader;
  std::unique_ptr<image::Files> files;
  std::unique_ptr<remote::Driver> remotes;
  std::unique_ptr<image::Packer> packer;

  std::unique_ptr<engine::Events> events;
  std::unique_ptr<engine::Journal> journal;
  std::unique_ptr<engine::OperationLog> operation_log;
  std::unique_ptr<engine::Operations> operations;
  std::unique_ptr<engine::Server> server;
  std::unique_ptr<engine::Warnings> warnings;
  std::unique_ptr<engine::Certificates> certificates;
  std::unique_ptr<engine::Projects> projects;
  std::unique_ptr<engine::Profiles> profiles;
  std::unique_ptr<engine::Pools> pools;
  std::unique_ptr<engine::Networks> networks;
  std::unique_ptr<engine::Images> images;
  std::unique_ptr<engine::ImageTransfers> transfers;
  std::unique_ptr<engine::Instances> instances;
  std::unique_ptr<engine::Sampler> sampler;

  std::unique_ptr<api::Api> api;
  std::unique_ptr<http::Server> http;
  std::unique_ptr<HttpsAddress> https, metrics;

  std::string libexec(const char* program) const { return options.libexec_dir + "/" + program; }
  Task<Result<>> open_store();
  Task<Result<>> make_drivers();
  void make_services();
  void connect_services();
  std::vector<engine::Sampler::Guest> running_guests() const;
  Task<Result<>> load();
  Task<Result<>> listen();
  Result<> listen_https(const engine::ServerConfig& before, const engine::ServerConfig& after);
  std::string wanted_https(const engine::ServerConfig& config) const;
};

namespace {

/// Members of the group may use the socket; without one only root may.
Result<> give_to_group(const std::string& socket, const std::string& group) {
  if (group.empty()) return {};
  errno = 0;
  const auto* entry = ::getgrnam(group.c_str());
  if (entry == nullptr)
    return fail(Error(ErrorKind::invalid, fmt::format("group '{}' does not exist", group))
                    .with_field("group")
                    .with_hint(fmt::format("groupadd --system {}", group)));
  if (::chown(socket.c_str(), 0, entry->gr_gid) != 0)
    return fail_errno(errno, fmt::format("give '{}' to group '{}'", socket, group));
  return {};
}

http::Proxies proxies_of(const engine::ServerConfig& config) {
  return {.http = config.setting("core.proxy_http"),
          .https = config.setting("core.proxy_https"),
          .ignore_hosts = config.setting("core.proxy_ignore_hosts")};
}

/// As Server::listen_tls takes it; empty: nowhere.
std::string bindable(const std::optional<engine::ListenAddress>& address) {
  if (!address) return {};
  const bool v6 = address->host.find(':') != std::string::npos;
  return fmt::format("{}:{}", address->host.empty() ? "[::]" : v6 ? "[" + address->host + "]" : address->host, address->port);
}

/// What a client elsewhere can connect to: a wildcard becomes this host's name.
std::vector<std::string> reachable_addresses(const std::string& bound) {
  const auto colon = bound.rfind(':');
  auto host = bound.substr(0, colon);
  const auto port = bound.substr(colon + 1);
  if (host == "0.0.0.0" || host == "[::]") {
    char name[256] = "localhost";
    (void)::gethostname(name, sizeof name - 1);
    host = name;
  }
  return {host + ":" + port};
}

}  // namespace

Daemon::Daemon(Options options, Executor executor) : parts_(std::make_unique<Parts>(std::move(options), std::move(executor))) {}
Daemon::~Daemon() = default;

Task<Result<>> Daemon::Parts::open_store() {
  VIRGA_CO_TRY(store, co_await open_sqlite_store(options.state_dir + "/store.db"));
  events = std::make_unique<engine::Events>(executor, clock);
  server = std::make_unique<engine::Server>(*store, *events, clock);
  co_return co_await server->start();
}

Task<Result<>> Daemon::Parts::make_drivers() {
  if (options.fake_drivers) {
    containers = std::make_unique<compute::FakeDriver>(compute::Kind::container);
    vms = std::make_unique<compute::FakeDriver>(compute::Kind::virtual_machine);
    network = std::make_unique<network::FakeDriver>();
  } else {
    // Names of shared things of the host (control groups, rules) carry the daemon's own tag, so that two daemons never meet.
    const std::string tag = server->identity().uuid.substr(0, 8);
    compute::OciOptions oci{.shim_program = libexec("virga-shim"),
                            .files_program = libexec("virga-files"),
                            .run_root = options.state_dir + "/oci",
                            .cgroup_tag = tag,
                            .pool = blocking,
                            .executor = executor};
    VIRGA_CO_TRY(containers, co_await compute::open_oci_driver(std::move(oci)));
    compute::QemuOptions qemu{.shim_program = libexec("virga-shim"), .cgroup_tag = tag, .pool = blocking, .executor = executor};
    VIRGA_CO_TRY(vms, co_await compute::open_qemu_driver(std::move(qemu)));
    VIRGA_CO_TRY(network, network::BridgeDriver::create(executor, {.tag = tag}));
  }
  reader = image::make_confined_reader(libexec("virga-worker"));
  packer = image::make_confined_packer(libexec("virga-worker"), image_files);
  files = image::make_directory_files(options.state_dir + "/images", image_files);
  auto own_identity = [this] { return http::Identity{server->identity().certificate, server->identity().key}; };
  remotes = remote::make_https_driver(
      {.files = image_files, .identity = own_identity, .proxies = [this] { return proxies_of(*server->config()); }});
  co_return co_await files->open();
}

void Daemon::Parts::make_services() {
  journal = std::make_unique<engine::Journal>(*store);
  operation_log = std::make_unique<engine::OperationLog>(executor, *store);
  operations = std::make_unique<engine::Operations>(executor, *events, clock,
                                                    engine::Operations::Limits{.retention = std::chrono::hours(1)});
  operations->set_log(*operation_log);
  journal->on_recovered(
      [this](const std::string& id, const std::string& kind, bool finished) { operations->recovered(id, kind, finished); });
  warnings = std::make_unique<engine::Warnings>(executor, *store, *events, clock);
  certificates = std::make_unique<engine::Certificates>(executor, *store, *events, *operations, clock);
  projects = std::make_unique<engine::Projects>(*store, *events);
  profiles = std::make_unique<engine::Profiles>(*store, *events);
  std::map<std::string, engine::Pools::MakeDriver> storage_drivers;
  if (options.fake_drivers) {
    storage_drivers["dir"] = [](std::string source) {
      std::error_code ec;
      std::filesystem::create_directories(source, ec);  // images are unpacked for real, into it
      return std::make_unique<storage::FakeDriver>(std::move(source));
    };
  } else {
    storage_drivers["dir"] = [this](std::string source) {
      return storage::make_dir_driver(std::move(source), blocking, libexec("virga-worker"));
    };
  }
  pools = std::make_unique<engine::Pools>(
      engine::Pools::Parts{*store, *journal, *operations, *events, std::move(storage_drivers), options.state_dir}, executor);
  networks = std::make_unique<engine::Networks>(
      engine::Networks::Parts{*store, *journal, *operations, *events, *network, options.state_dir}, executor);
  images = std::make_unique<engine::Images>(
      engine::Images::Parts{*store, *journal, *operations, *events, *reader, *files, clock,
                            [this](const std::string& project) { return projects->images_of(project).value_or(project); },
                            [this] { return pools->open_drivers(); }, image::Limits{}, packer.get(), remotes.get(), &image_files,
                            [this](std::string_view key) { return server->config()->setting(key); }},
      executor);
  transfers = std::make_unique<engine::ImageTransfers>(*images, *operations, *remotes, executor);
  instances = std::make_unique<engine::Instances>(
      engine::Instances::Parts{*store, *journal, *operations, *events, *projects, *profiles, *pools, *networks, *images,
                               *containers, *vms, clock, options.state_dir, io::boot_id(), remotes.get()},
      executor);
  sampler = std::make_unique<engine::Sampler>(executor, clock, [this] { return running_guests(); });
}

std::vector<engine::Sampler::Guest> Daemon::Parts::running_guests() const {
  std::vector<engine::Sampler::Guest> out;
  for (const auto& i : instances->list(std::nullopt))
    if (i->status == InstanceStatus::running || i->status == InstanceStatus::frozen)
      out.push_back({i->uuid, i->type == InstanceType::container ? containers.get() : vms.get()});
  return out;
}

/// Who uses what: services ask each other only through these.
void Daemon::Parts::connect_services() {
  connect_warnings(*warnings, *pools, *networks, *instances, *network);
  projects->set_companions({[this](const Project& p, Transaction& t) { profiles->project_made(p, t); },
                            [this](const Project& p, Transaction& t) { profiles->project_gone(p, t); },
                            [this](const std::string& name, const std::string& new_name, Transaction& t) {
                              certificates->project_moved(name, new_name, t);
                            }});
  projects->set_usage([this](std::string_view project) {
    auto urls = instances->users_of_project(std::string(project));
    for (const auto& image : images->list(std::string(project)))
      if (image->project == project) urls.push_back(engine::image_url(image->project, image->fingerprint));
    for (const auto& profile : profiles->list(project))
      if (profile->name != "default") urls.push_back(engine::profile_url(profile->project, profile->name));
    return urls;
  });
  projects->policy().set_instances([this](const std::string& project) { return instances->counted(project); });
  projects->policy().add_contents([this](const std::string& project, Amounts& sum) {
    for (const auto& image : images->list(project))
      if (image->project == project) sum["disk"] += static_cast<std::int64_t>(image->size);
    if (project == "default") sum["networks"] += static_cast<std::int64_t>(networks->list().size());
  });
  networks->set_room([this] { return projects->policy().check("default", {{"networks", 1}}); });
  images->set_room([this](const std::string& project, Bytes size) {
    return projects->policy().check(project, {{"disk", static_cast<std::int64_t>(size)}});
  });
  profiles->set_usage([this](std::string_view project, std::string_view name) {
    return instances->users_of_profile(std::string(project), std::string(name));
  });
  profiles->set_policy([this](const Profile& next) { return instances->check_profile(next); });
  profiles->on_change([this](const std::string& project, const std::string& name) { instances->profile_changed(project, name); });
  profiles->on_rename([this](const Profile& old, const std::string& new_name, Transaction& t) {
    return instances->rename_profile(old, new_name, t);
  });
  auto profiles_with = [this](const char* type, const char* option, const std::string& value) {
    std::vector<std::string> urls;
    for (const auto& profile : profiles->list())
      for (const auto& [name, device] : profile->devices) {
        auto t = device.find("type");
        auto o = device.find(option);
        if (t == device.end() || t->second != type || o == device.end() || o->second != value) continue;
        urls.push_back(engine::profile_url(profile->project, profile->name));
        break;
      }
    return urls;
  };
  networks->add_users([this](const std::string& name) { return instances->users_of_network(name); });
  networks->add_users([profiles_with](const std::string& name) { return profiles_with("nic", "network", name); });
  pools->add_users([this](const std::string& name) { return instances->users_of_pool(name); });
  pools->add_users([profiles_with](const std::string& name) { return profiles_with("disk", "pool", name); });
}

Task<Result<>> Daemon::Parts::load() {
  VIRGA_CO_CHECK(co_await operations->restore());
  VIRGA_CO_CHECK(co_await warnings->start());
  if (!options.fake_drivers) report_host(*warnings, containers->info(), vms->info());
  VIRGA_CO_CHECK(co_await certificates->start());
  VIRGA_CO_CHECK(co_await projects->start());
  VIRGA_CO_CHECK(co_await profiles->start());
  VIRGA_CO_CHECK(co_await pools->load());
  co_await pools->start();
  VIRGA_CO_CHECK(co_await networks->load());
  VIRGA_CO_CHECK(co_await images->load());
  VIRGA_CO_CHECK(co_await instances->load());
  // What is half done is finished or undone before anybody can see it.
  for (const auto& problem : co_await journal->recover()) log::error("recovery: {}", problem.text());
  co_await networks->start();
  VIRGA_CO_CHECK(co_await images->resume());
  co_return co_await instances->resume();
}

Task<Result<>> Daemon::Parts::listen() {
  auto about = describe_host({{containers->info().name, containers->info().version}, {vms->info().name, vms->info().version}});
  about.socket_is_shared = !options.group.empty();
  about.end = [] { ::kill(::getpid(), SIGTERM); };
  about.addresses = [this] { return https->bound().empty() ? std::vector<std::string>() : reachable_addresses(https->bound()); };
  api = std::make_unique<api::Api>(api::Services{*operations, *events, *projects, *profiles, *pools, *networks, *images, *instances,
                                                 *certificates, *server, *sampler, *warnings, *transfers, std::move(about)},
                                   executor);
  http = std::make_unique<http::Server>(executor, api->handler(), api::Api::server_options());
  auto identity = [this] { return http::Identity{server->identity().certificate, server->identity().key}; };
  auto over_tcp = api::Api::server_options();
  over_tcp.trusts_proxy = [this](const std::string& host) {
    const auto trusted = engine::listed(server->config()->setting("core.https_trusted_proxy"));
    return std::find(trusted.begin(), trusted.end(), host) != trusted.end();
  };
  https = std::make_unique<HttpsAddress>(executor, "HTTPS", api->handler(), over_tcp, identity);
  metrics = std::make_unique<HttpsAddress>(executor, "metrics", api->metrics_handler(), over_tcp, identity);
  VIRGA_CO_CHECK(http->listen_unix(options.socket, 0660));
  VIRGA_CO_CHECK(give_to_group(options.socket, options.group));
  server->set_apply(
      [this](engine::ServerConfig before, engine::ServerConfig after) -> Task<Result<>> { co_return listen_https(before, after); });
  certificates->on_removed([this](const std::string& fingerprint) {
    https->close_certificate(fingerprint);
    metrics->close_certificate(fingerprint);
  });
  certificates->set_token_expiry([this](WallTime now) {
    return parse_expiry(server->config()->setting("core.remote_token_expiry"), now).value_or(now + std::chrono::hours(24));
  });
  certificates->set_server_info([this] {
    engine::Certificates::ServerInfo info{server->identity().fingerprint, {}};
    if (!https->bound().empty()) info.addresses = reachable_addresses(https->bound());
    return info;
  });
  const auto config = server->config();
  auto listening = https->change(wanted_https(*config));
  if (!listening && !options.https.empty()) co_return listening;
  // Addresses may be corrected over the unix socket: they must not keep the daemon from starting.
  if (!listening) log::error("{}", listening.error().text());
  if (auto other = metrics->change(bindable(config->metrics_address())); !other) log::error("{}", other.error().text());
  co_return Result<>{};
}

/// The option wins over the configuration.
std::string Daemon::Parts::wanted_https(const engine::ServerConfig& config) const {
  return options.https.empty() ? bindable(config.https_address()) : options.https;
}

Result<> Daemon::Parts::listen_https(const engine::ServerConfig& before, const engine::ServerConfig& after) {
  VIRGA_CHECK(https->change(wanted_https(after)));
  auto done = metrics->change(bindable(after.metrics_address()));
  if (done) return {};
  if (auto back = https->change(wanted_https(before)); !back) log::error("{}", back.error().text());
  return done;
}

Task<Result<>> Daemon::start() {
  auto& p = *parts_;
  VIRGA_CO_CHECK(co_await p.open_store());
  VIRGA_CO_CHECK(co_await p.make_drivers());
  p.make_services();
  p.connect_services();
  p.events->attach_log();
  VIRGA_CO_CHECK(co_await p.load());
  VIRGA_CO_CHECK(co_await p.listen());
  log::info("ready; the API's socket is '{}'", p.options.socket);
  co_return Result<>{};
}

Task<> Daemon::stop() {
  auto& p = *parts_;
  if (p.http) co_await p.http->stop();
  if (p.https) co_await p.https->stop();
  if (p.metrics) co_await p.metrics->stop();
  if (p.api) co_await p.api->stop();
  if (p.operations) co_await p.operations->stop();
  if (p.sampler) co_await p.sampler->stop();
  if (p.instances) co_await p.instances->shut_down();
  if (p.images) co_await p.images->stop();
  if (p.networks) co_await p.networks->shut_down();
  if (p.pools) co_await p.pools->shut_down();
  if (p.containers) co_await p.containers->shut_down();
  if (p.vms) co_await p.vms->shut_down();
  if (p.network) co_await p.network->shut_down();
  if (p.operation_log) co_await p.operation_log->stop();
  if (p.warnings) co_await p.warnings->stop();
  if (p.events) p.events->stop();
  if (p.store) co_await p.store->close();
  log::info("stopped; guests run on");
}

}  // namespace virga::virgad
