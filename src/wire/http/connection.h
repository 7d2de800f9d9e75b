// One connection of the server, from the handshake to its end. Internal to wire/http.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/task.h"
#include "wire/http/server.h"
#include "wire/http/transport.h"

namespace virga::http {

/// What all connections of a server share; outlives them.
struct ConnectionContext {
  Handler handler;
  ServerOptions options;
  bool closing = false;   ///< every answer is the last one of its connection
  BlockingPool* files();  ///< reads streamed files; made when the first is asked for

 private:
  std::unique_ptr<BlockingPool> files_;
};

/// What the server's sweep sees of a connection.
struct ConnectionState {
  std::unique_ptr<Transport> transport;  ///< null once a WebSocket has taken it
  Peer peer;
  /// Set where a trusted proxy connects: counts the connection as one of this machine from now on. False: that has too many.
  std::function<bool(const std::string& host)> count_as;
  Request request;  ///< that is being served
  bool in_handler = false;
  bool last = false;  ///< the answer that is being made is the connection's last
  bool idle = true;   ///< between requests: nobody loses anything when it is closed
};

/// Serves requests until the connection ends.
Task<> serve_connection(std::shared_ptr<ConnectionContext> context, std::shared_ptr<ConnectionState> connection,
                        std::shared_ptr<boost::asio::ssl::context> tls);

}  // namespace virga::http
