#include "wire/http/parse.h"

#include <gtest/gtest.h>

#include "wire/http/address.h"

namespace virga::http {
namespace {

struct Parsed {
  std::optional<Refusal> refusal;
  Request request;
  Framing framing;
  std::string storage;
};

void parse(Parsed& p, std::string head) {
  p.storage = std::move(head);
  p.refusal = parse_head(p.storage, 128, p.request, p.framing);
}

int status_of_target(std::string_view target) {
  Parsed p;
  parse(p, "GET " + std::string(target) + " HTTP/1.1\r\nHost: x\r\n\r\n");
  return p.refusal ? p.refusal->status : 200;
}

int status_of_headers(std::string_view headers) {
  Parsed p;
  parse(p, "POST / HTTP/1.1\r\nHost: x\r\n" + std::string(headers) + "\r\n");
  return p.refusal ? p.refusal->status : 200;
}

TEST(Address, PeersAreCountedByTheNetworkThatIsTheirs) {
  auto network = [](const std::string& text) { return network_of(host_of(parse_address(text)->get())); };
  EXPECT_EQ(network("192.0.2.1:1"), "192.0.2.1");
  EXPECT_EQ(network("[::ffff:192.0.2.1]:1"), "192.0.2.1");
  EXPECT_EQ(network("[2001:db8:0:1::1]:1"), network("[2001:db8:0:1:ffff::2]:2"));
  EXPECT_NE(network("[2001:db8:0:1::1]:1"), network("[2001:db8:0:2::1]:1"));
}

TEST(ParseHead, DecodesPathAndQueryOnce) {
  Parsed p;
  parse(p, "GET /1.0/images/aliases/a%20b%252f?filter=name+eq+%22x%22&recursion=1&all HTTP/1.1\r\nHost: x\r\nX-A:  v \r\n\r\n");
  ASSERT_FALSE(p.refusal) << p.refusal->reason;
  EXPECT_EQ(p.request.path, (std::vector<std::string>{"1.0", "images", "aliases", "a b%2f"}));
  EXPECT_EQ(p.request.query.get("filter"), "name eq \"x\"");
  EXPECT_EQ(p.request.query.get("recursion"), "1");
  EXPECT_TRUE(p.request.query.has("all"));
  EXPECT_EQ(p.request.headers.get("x-a"), "v");
  EXPECT_TRUE(p.framing.keep_alive);
}

TEST(ParseHead, TellsOfNamesWithSlashes) {
  Parsed plain, escaped;
  parse(plain, "GET /a/b HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_FALSE(plain.request.slash_in_segment);
  parse(escaped, "GET /aliases/debian%2F12 HTTP/1.1\r\nHost: x\r\n\r\n");
  ASSERT_FALSE(escaped.refusal) << escaped.refusal->reason;
  EXPECT_TRUE(escaped.request.slash_in_segment);
  EXPECT_EQ(escaped.request.path, (std::vector<std::string>{"aliases", "debian/12"}));
}

TEST(ParseHead, RefusesWhatTwoReadersCouldReadDifferently) {
  for (auto target :
       {"//",        "/a//b",  "/a/../b", "/a/./b",    "/a/%2e%2e/b", "/a/..;/b", "/a%2f",  "/%2Fb",        "/a%2f..%2fb",
        "/a%2f%2fb", "/a%00b", "/a%5cb",  "/a\\b",     "/%zz",        "/%4",      "/a%ff",  "http://h/1.0", "*",
        "1.0",       "/a#b",   "/a%0ab",  "/?a=1&a=2", "/?a=%00",     "/?a=%zz",  "/?%0a=1"})
    EXPECT_EQ(status_of_target(target), 400) << target;
  for (auto target : {"/", "/1.0", "/1.0/", "/a%20b", "/?x=a%2fb", "/?x=a//b", "/a..b", "/...", "/?a&b=1&"})
    EXPECT_EQ(status_of_target(target), 200) << target;
}

TEST(ParseHead, RefusesAmbiguousHeaders) {
  for (auto headers : {"Content-Length: 1\r\nContent-Length: 1\r\n",
                       "Content-Length: 1\r\nContent-Length: 2\r\n",
                       "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
                       "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n",
                       "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                       "Transfer-Encoding: gzip, chunked\r\n",
                       "Transfer-Encoding: xchunked\r\n",
                       "Content-Length: +1\r\n",
                       "Content-Length: 1,1\r\n",
                       "Content-Length: 0x1\r\n",
                       "Content-Length: \r\n",
                       "Content-Length: 9999999999999999999\r\n",
                       "X: a\r\n b\r\n",
                       "X: a\r\n\tb\r\n",
                       "X : a\r\n",
                       ": a\r\n",
                       "X\r\n",
                       "X: a\x01\r\n",
                       "X Y: a\r\n",
                       "Host: y\r\n",
                       "Content-Type: a\r\nContent-Type: b\r\n"})
    EXPECT_EQ(status_of_headers(headers), 400) << headers;
  EXPECT_EQ(status_of_headers("Content-Length: 0\r\n"), 200);
  EXPECT_EQ(status_of_headers("Transfer-Encoding: Chunked\r\n"), 200);
}

TEST(ParseHead, RefusesOtherVersionsAndMethods) {
  Parsed p;
  parse(p, "GET / HTTP/1.0\r\nHost: x\r\n\r\n");
  EXPECT_EQ(p.refusal.value().status, 505);
  Parsed q;
  parse(q, "BREW / HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(q.refusal.value().status, 501);
  for (auto line : {"GET  / HTTP/1.1", "GET / HTTP/1.1 x", "GET /", " GET / HTTP/1.1", "GET / FTP/1.1", "G\tT / HTTP/1.1", ""}) {
    Parsed r;
    parse(r, std::string(line) + "\r\nHost: x\r\n\r\n");
    EXPECT_EQ(r.refusal.value().status, 400) << line;
  }
  Parsed no_host;
  parse(no_host, "GET / HTTP/1.1\r\n\r\n");
  EXPECT_EQ(no_host.refusal.value().status, 400);
}

TEST(ParseHead, LimitsTheNumberOfFields) {
  std::string many;
  for (int i = 0; i < 200; ++i) many += "X: y\r\n";
  EXPECT_EQ(status_of_headers(many), 431);
}

TEST(ParseHead, KnowsAWebSocketHandshake) {
  Parsed p;
  parse(p,
        "GET /1.0/events HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Version: "
        "13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
  ASSERT_FALSE(p.refusal);
  EXPECT_TRUE(p.request.websocket);
}

TEST(HeadScanner, FindsTheEndPieceByPiece) {
  const std::string head = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
  const std::string bytes = head + "rest";
  HeadScanner scanner;
  for (std::size_t n = 0; n < head.size(); ++n)
    EXPECT_EQ(scanner.scan(std::string_view(bytes).substr(0, n)), HeadScanner::State::more) << n;
  EXPECT_EQ(scanner.scan(bytes), HeadScanner::State::complete);
  EXPECT_EQ(scanner.length(), head.size());
}

TEST(HeadScanner, RefusesBareLineEndsAndNul) {
  for (std::string_view bytes :
       {std::string_view("GET / HTTP/1.1\nHost: x\n\n"), std::string_view("GET / HTTP/1.1\r\nHost: x\n"),
        std::string_view("GET /\rx"), std::string_view("\r\nGET"), std::string_view("\n"), std::string_view("G\0T", 3)}) {
    HeadScanner scanner;
    EXPECT_EQ(scanner.scan(bytes), HeadScanner::State::malformed) << bytes;
  }
}

std::optional<std::string> decode_chunks(std::string_view bytes, std::string& rest) {
  ChunkDecoder decoder;
  std::string out;
  while (true) {
    std::size_t available = 0;
    switch (decoder.feed(bytes, available)) {
      case ChunkDecoder::State::data:
        out.append(bytes.substr(0, available));
        decoder.take(available);
        bytes.remove_prefix(available);
        break;
      case ChunkDecoder::State::more:
        return std::nullopt;
      case ChunkDecoder::State::malformed:
        rest = "malformed";
        return std::nullopt;
      case ChunkDecoder::State::done:
        rest = bytes;
        return out;
    }
  }
}

TEST(ChunkDecoder, DecodesAndStopsAtTheEnd) {
  std::string rest;
  EXPECT_EQ(decode_chunks("3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\nGET", rest), "abc0123456789");
  EXPECT_EQ(rest, "GET");
}

TEST(ChunkDecoder, RefusesExtensionsOverflowAndTrailers) {
  for (auto bytes : {"3;x=y\r\nabc\r\n0\r\n\r\n", "3 \r\nabc\r\n", " 3\r\nabc\r\n", "0x3\r\n", "-1\r\n", "+1\r\n", "\r\n",
                     "3\nabc\r\n", "3\r\nabcd\r\n", "3\r\nabc\n", "fffffffffffffffff\r\n", "0000000000000000001\r\na\r\n",
                     "10000000000000000\r\n", "0\r\nX: y\r\n\r\n", "0\r\n\n"}) {
    std::string rest;
    EXPECT_FALSE(decode_chunks(bytes, rest)) << bytes;
    EXPECT_EQ(rest, "malformed") << bytes;
  }
}

TEST(Text, Utf8AndEscapes) {
  EXPECT_TRUE(valid_utf8("aé€😀"));
  for (auto bad : {"\xff", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82", "\x80"}) EXPECT_FALSE(valid_utf8(bad));
  EXPECT_EQ(encode_segment("a b/ü\r\n"), "a%20b%2F%C3%BC%0D%0A");
}

}  // namespace
}  // namespace virga::http
