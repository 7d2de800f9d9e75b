#include "wire/agent/frames.h"

#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "wire/agent/fuzz.h"
#include "wire/agent/session.h"

namespace virga::agent {
namespace {

struct Got {
  int type;
  std::uint32_t stream;
  std::string payload;
  bool operator==(const Got&) const = default;
};

std::string encode(std::uint8_t type, std::uint32_t stream, const std::string& payload) {
  std::vector<Byte> out(max_encoded);
  const auto n = encode_frame(type, stream, payload.data(), payload.size(), out.data());
  return std::string(reinterpret_cast<char*>(out.data()), n);
}

std::vector<Got> decode(Decoder& decoder, const std::string& bytes, std::size_t step) {
  std::vector<Got> got;
  for (std::size_t at = 0; at < bytes.size(); at += step)
    decoder.feed(reinterpret_cast<const Byte*>(bytes.data()) + at, std::min(step, bytes.size() - at), [&](const Frame& f) {
      got.push_back({f.type, f.stream, std::string(reinterpret_cast<const char*>(f.payload), f.size)});
      return true;
    });
  return got;
}

TEST(Frames, SurviveEveryPayloadAndEveryCut) {
  std::vector<std::string> payloads = {"", std::string(1, '\0'), "x", std::string(5, '\0'), std::string("a\0b", 3)};
  for (std::size_t n : {245u, 246u, 247u, 253u, 254u, 255u, 508u, 509u}) {
    payloads.push_back(std::string(n, 'x'));
    payloads.push_back(std::string(n, 'x') + '\0');
    payloads.push_back('\0' + std::string(n, 'x') + '\0' + 'y');
  }
  payloads.push_back(std::string(max_payload, '\0'));
  payloads.push_back(std::string(max_payload, '\xff'));
  std::mt19937 random(7);
  for (int i = 0; i < 50; ++i) {
    std::string p(random() % max_payload, 0);
    for (auto& c : p) c = static_cast<char>(random() % (i % 5 == 0 ? 2 : 256));
    payloads.push_back(p);
  }
  std::string bytes;
  std::vector<Got> expected;
  for (std::uint32_t i = 0; i < payloads.size(); ++i) {
    const auto one = encode(static_cast<std::uint8_t>(i), i << 24 | i, payloads[i]);
    ASSERT_LE(one.size(), max_encoded);
    ASSERT_EQ(one.find('\0'), one.size() - 1) << "the only 00 is the last byte";
    bytes += one;
    expected.push_back({static_cast<int>(i & 0xff), i << 24 | i, payloads[i]});
  }
  for (std::size_t step : {1u, 2u, 7u, 255u, 4096u, 1u << 24}) {
    auto decoder = std::make_unique<Decoder>();
    EXPECT_EQ(decode(*decoder, bytes, step), expected) << step;
    EXPECT_EQ(decoder->damaged(), 0u);
  }
}

TEST(Frames, AFrameThatWasCutIsDroppedAndTheNextIsFound) {
  const auto whole = encode(12, 3, std::string("some\0data", 9) + std::string(600, 'z'));
  const auto next = encode(1, 0, "hello");
  for (std::size_t cut = 1; cut < whole.size() - 1; ++cut) {
    for (const bool head : {true, false}) {
      auto decoder = std::make_unique<Decoder>();
      const auto part = head ? whole.substr(0, cut) + '\0' : whole.substr(cut);
      auto got = decode(*decoder, part + next, 64);
      ASSERT_FALSE(got.empty());
      EXPECT_EQ(got.back(), (Got{1, 0, "hello"}));
      if (head) EXPECT_EQ(got.size(), 1u) << "cut at " << cut;
    }
  }
}

TEST(Frames, EndlessFramesAreSkippedInBoundedMemory) {
  auto decoder = std::make_unique<Decoder>();
  EXPECT_TRUE(decode(*decoder, std::string(1u << 20, '\x01'), 4096).empty());
  EXPECT_TRUE(decode(*decoder, std::string(1u << 20, '\xff'), 4096).empty());
  auto got = decode(*decoder, '\0' + encode(5, 6, "after"), 4096);
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(got[0].payload, "after");
  EXPECT_EQ(decoder->damaged(), 1u);
}

TEST(Reader, NeverReadsPastTheEnd) {
  const Byte bytes[] = {5, 0, 'a', 'b'};
  Reader r(bytes, sizeof bytes);
  std::size_t size = 0;
  EXPECT_EQ(r.text(size), nullptr);
  EXPECT_FALSE(r.ok());
  EXPECT_EQ(r.u32(), 0u) << "a failure stays";
}

TEST(State, RefusesNonsenseAndCleansText) {
  std::vector<Byte> buffer(max_payload);
  auto write = [&](const char* address, unsigned prefix, unsigned count) {
    Writer w(buffer.data(), buffer.size());
    for (int i = 0; i < 4; ++i) w.u64(i);
    w.text("Ev\x1b[31mil\xff\xc2\x9b OS \xc3\xa9");
    for (int i = 0; i < 3; ++i) w.text("x");
    w.u16(1);
    for (auto* s : {"eth0", "00:16:3e:00:00:01", "up", "broadcast"}) w.text(s);
    w.u32(1500);
    for (int i = 0; i < 8; ++i) w.u64(100 + i);
    w.u16(count);
    w.u8(4);
    w.u8(prefix);
    w.u8(0);
    w.text(address);
    return w.size();
  };
  auto n = write("10.0.0.1", 24, 1);
  auto state = parse_state(buffer.data(), n);
  ASSERT_TRUE(state.has_value());
  EXPECT_EQ(state->os_name, "Ev?[31mil??? OS \xc3\xa9");
  EXPECT_EQ(state->interfaces.at(0).addresses.at(0).address, "10.0.0.1");
  EXPECT_EQ(state->interfaces.at(0).bytes_out, 101u);
  for (std::size_t cut = 0; cut < n; ++cut) EXPECT_FALSE(parse_state(buffer.data(), cut).has_value()) << cut;
  EXPECT_FALSE(parse_state(buffer.data(), write("10.0.0.1/24", 24, 1)).has_value());
  EXPECT_FALSE(parse_state(buffer.data(), write("<img onerror=x>", 24, 1)).has_value());
  EXPECT_FALSE(parse_state(buffer.data(), write("10.0.0.1", 33, 1)).has_value());
  EXPECT_FALSE(parse_state(buffer.data(), write("10.0.0.1", 24, 60000)).has_value());
}

TEST(State, NumbersAndNamesAreOnesThatEveryReaderTakes) {
  std::vector<Byte> buffer(max_payload);
  Writer w(buffer.data(), buffer.size());
  for (int i = 0; i < 4; ++i) w.u64(~0ull);
  for (int i = 0; i < 4; ++i) w.text("x");
  w.u16(2);
  for (int n = 0; n < 2; ++n) {
    for (auto* s : {"eth0", "00:16:3e:00:00:01", "up", "broadcast"}) w.text(s);
    w.u32(~0u);
    for (int i = 0; i < 8; ++i) w.u64(~0ull);
    w.u16(0);
  }
  auto state = parse_state(buffer.data(), w.size());
  ASSERT_TRUE(state.has_value());
  constexpr std::uint64_t most = 1ull << 53;
  EXPECT_LE(state->processes, most);
  EXPECT_LE(state->memory_used, most);
  ASSERT_EQ(state->interfaces.size(), 1u) << "a name is a key";
  const auto& i = state->interfaces.front();
  for (auto n : {i.bytes_in, i.bytes_out, i.packets_in, i.packets_out, i.errors_in, i.errors_out, i.dropped_in, i.dropped_out})
    EXPECT_LE(n, most);
}

TEST(Fuzz, RandomBytesAndMutatedFramesAreSurvived) {
  std::mt19937 random(11);
  std::string seed =
      encode(31, 1, std::string(300, 'a')) + encode(2, 0, std::string("\xc3\xf7\x41v", 4)) + encode(12, 9, "\x01out");
  for (int i = 0; i < 3000; ++i) {
    std::string input = i % 2 ? seed : std::string(random() % 2000, 0);
    for (auto& c : input)
      if (i % 2 == 0 || random() % 50 == 0) c = static_cast<char>(random());
    EXPECT_EQ(fuzz_agent_stream(reinterpret_cast<const std::uint8_t*>(input.data()), input.size()), 0);
  }
}

}  // namespace
}  // namespace virga::agent
