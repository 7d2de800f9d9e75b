// The entry for fuzzers: everything the daemon decodes of what an agent sends. Returns 0, as libFuzzer wants it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "wire/agent/session.h"

namespace virga::agent {

inline int fuzz_agent_stream(const std::uint8_t* data, std::size_t size) {
  auto decoder = std::make_unique<Decoder>();
  decoder->feed(data, size, [](const Frame& frame) {
    Reader r(frame.payload, frame.size);
    Hello hello;
    (void)read_hello(r, hello);
    (void)parse_state(frame.payload, frame.size);
    return true;
  });
  (void)parse_state(data, size);
  return 0;
}

}  // namespace virga::agent
