// What the API is given: references to the engine's services, and facts about host and program that do not change.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"

namespace virga::engine {
class Certificates;
class Events;
class Images;
class ImageTransfers;
class Instances;
class Networks;
class Operations;
class Pools;
class Profiles;
class Projects;
class Sampler;
class Server;
class Warnings;
}  // namespace virga::engine

namespace virga::api {

/// What GET /1.0 and /1.0/resources tell about host and program.
struct About {
  std::string version;      ///< of virga
  std::string server_name;  ///< the host's name
  std::string kernel, kernel_version, kernel_architecture;
  std::string os_name, os_version;
  bool socket_is_shared = false;  ///< the unix socket was given to a group: whoever the kernel lets connect may use the API
  std::string firewall = "nftables";
  std::vector<std::pair<std::string, std::string>> compute_drivers;  ///< name and version: {"qemu", "7.2.22"}
  std::function<std::vector<std::string>()> addresses;               ///< where HTTPS is served, "192.0.2.1:8443"; may be empty
  std::function<void()> end;                                         ///< begins the daemon's end and returns
  std::function<json::object()> resources;  ///< the host's processors, memory and load, as the API shows them
};

struct Services {
  engine::Operations& operations;
  engine::Events& events;
  engine::Projects& projects;
  engine::Profiles& profiles;
  engine::Pools& pools;
  engine::Networks& networks;
  engine::Images& images;
  engine::Instances& instances;
  engine::Certificates& certificates;
  engine::Server& server;
  engine::Sampler& sampler;
  engine::Warnings& warnings;
  engine::ImageTransfers& transfers;
  About about;
};

}  // namespace virga::api
