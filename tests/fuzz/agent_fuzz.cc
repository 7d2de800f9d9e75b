// What an agent sends, and what it is sent: frames, and the messages that have structure.
#include "wire/agent/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return virga::agent::fuzz_agent_stream(data, size);
}
