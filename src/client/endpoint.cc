#include "client/endpoint.h"

namespace virga::client {

http::Endpoint local_endpoint(const Environment& environment) {
  http::Endpoint endpoint;
  const char* socket = environment("VIRGA_SOCKET");
  const char* directory = environment("VIRGA_DIR");
  if (socket != nullptr && *socket != '\0') {
    endpoint.unix_path = socket;
    if (endpoint.unix_path.starts_with("unix://")) endpoint.unix_path.erase(0, 7);
  } else if (directory != nullptr && *directory != '\0') {
    endpoint.unix_path = std::string(directory) + "/unix.socket";
  } else {
    endpoint.unix_path = "/var/lib/virga/unix.socket";
  }
  return endpoint;
}

}  // namespace virga::client
