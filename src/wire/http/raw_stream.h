// A connection that has become a plain stream of bytes. Internal to wire/http.
#pragma once

#include <memory>
#include <string>

#include "base/byte_stream.h"
#include "wire/http/transport.h"

namespace virga::http {

/// `early` are bytes that were read behind the head already.
std::unique_ptr<ByteStream> make_transport_stream(std::unique_ptr<Transport> transport, std::string early);

}  // namespace virga::http
