#include "wire/yaml/yaml.h"

#include <gtest/gtest.h>

#include <chrono>
#include <limits>
#include <string>

#include "wire/yaml/scalar.h"

namespace virga::yaml {
namespace {

ErrorKind error_of(std::string_view text, DecodeOptions options = {}) {
  auto r = decode(text, options);
  if (r) {
    ADD_FAILURE() << "accepted: " << text.substr(0, 100);
    return ErrorKind::internal;
  }
  return r.error().kind();
}

struct Printed {
  std::string_view value, printed;
};

// What the stock incus client 6.0.4 prints for these values of configuration keys, two levels deep.
const Printed stock[] = {
    {"true", "\"true\""},
    {"yes", "\"yes\""},
    {"no", "\"no\""},
    {"on", "\"on\""},
    {"y", "\"y\""},
    {"n", "\"n\""},
    {"Y", "\"Y\""},
    {"null", "\"null\""},
    {"~", "\"~\""},
    {"", "\"\""},
    {"1", "\"1\""},
    {"1.5", "\"1.5\""},
    {"1e3", "\"1e3\""},
    {"0x1f", "\"0x1f\""},
    {"0o7", "\"0o7\""},
    {"010", "\"010\""},
    {"1_000", "\"1_000\""},
    {".inf", "\".inf\""},
    {".nan", "\".nan\""},
    {"-", "'-'"},
    {"- a", "'- a'"},
    {": x", "': x'"},
    {"a: b", "'a: b'"},
    {"a #b", "'a #b'"},
    {"#c", "'#c'"},
    {"@x", "'@x'"},
    {"`x", "'`x'"},
    {"%x", "'%x'"},
    {"!x", "'!x'"},
    {"&x", "'&x'"},
    {"*x", "'*x'"},
    {"'x", "'''x'"},
    {"\"x", "'\"x'"},
    {"a'b", "a'b"},
    {"a\"b", "a\"b"},
    {"[x", "'[x'"},
    {"{x", "'{x'"},
    {"x]", "x]"},
    {"x,y", "x,y"},
    {"?", "'?'"},
    {"? x", "'? x'"},
    {"|", "'|'"},
    {"> x", "'> x'"},
    {" lead", "' lead'"},
    {"trail ", "'trail '"},
    {"a\tb", "\"a\\tb\""},
    {"line1\nline2", "|-\n    line1\n    line2"},
    {"line1\nline2\n", "|\n    line1\n    line2"},
    {"\nlead nl", "|2-\n\n    lead nl"},
    {"a\n\n", "|+\n    a\n"},
    {"tab\n\tx", "\"tab\\n\\tx\""},
    {"  ind\n x", "|2-\n      ind\n     x"},
    {"\303\251", "\303\251"},
    {"\346\227\245\346\234\254", "\346\227\245\346\234\254"},
    {"\001", "\"\\x01\""},
    {"\177", "\"\\x7F\""},
    {"\302\205", "\"\\N\""},
    {"2001-01-01", "\"2001-01-01\""},
    {"2001-01-01T00:00:00Z", "\"2001-01-01T00:00:00Z\""},
    {"12:30:45", "\"12:30:45\""},
    {"1:20", "\"1:20\""},
    {"<<", "<<"},
    {"=", "="},
    {".", "."},
    {"...", "'...'"},
    {"---", "'---'"},
    {"--- a", "'--- a'"},
    {"a:", "'a:'"},
    {"a:b", "a:b"},
    {"key: value: x", "'key: value: x'"},
    {"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
     "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"},
    {"word word word word word word word word word word word word word word word word word word word word word word word word word "
     "word word word word word word word word word word word word word word word ",
     "'word word word word word word word word word word word word word word word\n    word word word word word word word word "
     "word word word word word word word word\n    word word word word word word word word word '"},
    {"0b11", "\"0b11\""},
    {"+1", "\"+1\""},
    {"-1", "\"-1\""},
    {"1.", "\"1.\""},
    {"0.", "\"0.\""},
    {"-.5", "\"-.5\""},
    {"NULL", "\"NULL\""},
    {"True", "\"True\""},
    {"TRUE", "\"TRUE\""},
    {"0x", "0x"},
    {"1e", "1e"},
    {"user.x\r\ny", "\"user.x\\r\\ny\""},
    {"\r", "\"\\r\""},
    {"a\\b", "a\\b"},
    {"a\\nb", "a\\nb"},
    {"10.0.0.1/24", "10.0.0.1/24"},
    {"fd42::1/64", "fd42::1/64"},
    {"none", "none"},
    {"\360\237\230\200", "\"\\U0001F600\""},
    {"off", "\"off\""},
    {"OFF", "\"OFF\""},
    {"nO", "nO"},
    {"win\r\nx\n", "\"win\\r\\nx\\n\""},
    {"trailing sp \nx", "\"trailing sp \\nx\""},
    {"x\n ", "\"x\\n \""},
    {"0777", "\"0777\""},
    {"08", "\"08\""},
    {"1__2", "\"1__2\""},
    {"+.inf", "\"+.inf\""},
    {"0x_", "0x_"},
    {"-0b1", "\"-0b1\""},
    {"-0x1", "\"-0x1\""},
    {"1e+3", "\"1e+3\""},
    {"12e03", "\"12e03\""},
    {"685_230.15", "\"685_230.15\""},
    {"190:20:30", "\"190:20:30\""},
    {"\302\240x", "\302\240x"},
};

TEST(YamlEncode, PrintsStringsAsTheStockClient) {
  for (const auto& [value, printed] : stock) {
    json::object document{{"config", json::object{{"k000", value}}}};
    auto text = encode(document);
    EXPECT_EQ(text, "config:\n  k000: " + std::string(printed) + "\n");
    auto back = decode(text);
    ASSERT_TRUE(back) << text << back.error().text();
    EXPECT_EQ(*back, json::value(document)) << text;
  }
}

TEST(YamlEncode, KeepsOrderAndPrintsEmptiesListsAndTypes) {
  json::object doc{{"b", 1},
                   {"a", json::array{"x", json::object{{"n", "1"}, {"m", json::array{}}}}},
                   {"empty", json::object{}},
                   {"null", nullptr},
                   {"flag", true},
                   {"big", std::numeric_limits<std::int64_t>::max()},
                   {"half", 0.5}};
  EXPECT_EQ(encode(doc),
            "b: 1\na:\n- x\n- \"n\": \"1\"\n  m: []\nempty: {}\n\"null\": null\nflag: true\nbig: 9223372036854775807\nhalf: 0.5\n");
  EXPECT_EQ(*decode(encode(doc)), json::value(doc));
  EXPECT_EQ(encode(json::array{}), "[]\n");
  EXPECT_EQ(encode(json::value("plain")), "plain\n");
  EXPECT_FALSE(encode(json::object{{"a", "\xff\xfe"}}).empty()) << "bytes that are not UTF-8 must not break the writer";
}

TEST(YamlDecode, TypesPlainScalarsOnly) {
  auto r =
      decode("t: true\nn: 12\nx: 0x1f\nz: ~\ne:\nf: 1.5\ns: '12'\nq: \"true\"\no: 0755\ny: y\nneg: -3\nd: 2026-01-01\nu: 1_0\n");
  ASSERT_TRUE(r) << r.error().text();
  EXPECT_EQ(*r, json::value(json::object{{"t", true},
                                         {"n", 12},
                                         {"x", 31},
                                         {"z", nullptr},
                                         {"e", nullptr},
                                         {"f", 1.5},
                                         {"s", "12"},
                                         {"q", "true"},
                                         {"o", "0755"},
                                         {"y", "y"},
                                         {"neg", -3},
                                         {"d", "2026-01-01"},
                                         {"u", "1_0"}}));
}

TEST(YamlDecode, StringsOnlyKeepsTheText) {
  auto r = decode("a: true\nb: 1_000\nc:\nd: .nan\ne: 99999999999999999999\nf: ~\n", {.strings_only = true});
  ASSERT_TRUE(r) << r.error().text();
  EXPECT_EQ(*r, json::value(json::object{
                    {"a", "true"}, {"b", "1_000"}, {"c", ""}, {"d", ".nan"}, {"e", "99999999999999999999"}, {"f", "~"}}));
}

TEST(YamlDecode, EmptyTextIsAnEmptyMap) {
  for (const char* text : {"", "\n", "# nothing\n", "---\n", "{}\n"}) {
    auto r = decode_object(text);
    ASSERT_TRUE(r) << text;
    EXPECT_TRUE(r->empty());
  }
  EXPECT_EQ(decode_object("- a\n").error().kind(), ErrorKind::invalid);
}

TEST(YamlDecode, S06RefusesLargeText) {
  std::string text = "a: ";
  text.append((1u << 20) + 1, 'x');
  EXPECT_EQ(error_of(text), ErrorKind::invalid);
}

TEST(YamlDecode, S06RefusesAnchorsAliasesMergesAndTags) {
  std::string bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n";
  for (int i = 1; i < 30; ++i) {
    auto before = "*a" + std::to_string(i - 1);
    bomb += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [" + before;
    for (int j = 0; j < 8; ++j) bomb += "," + before;
    bomb += "]\n";
  }
  for (std::string_view text :
       {std::string_view(bomb), std::string_view("a: &x 1\n"), std::string_view("&x a: 1\n"), std::string_view("a: *x\n"),
        std::string_view("<<: {a: b}\n"), std::string_view("a: !!python/object:os.system x\n"),
        std::string_view("a: !!binary aGk=\n"), std::string_view("a: !!int '1'\n"), std::string_view("!x {a: b}\n"),
        std::string_view("%TAG ! tag:x,2000:\n---\na: b\n"), std::string_view("&a [*a]\n")})
    EXPECT_EQ(error_of(text), ErrorKind::invalid) << text.substr(0, 60);
}

TEST(YamlDecode, S06RefusesDepthQuickly) {
  const auto began = std::chrono::steady_clock::now();
  for (std::string_view open : {"[", "{a: ", "- ", "? ", "[{"}) {
    std::string text;
    for (int i = 0; i < 100'000; ++i) text += open;
    EXPECT_EQ(error_of(text), ErrorKind::invalid) << open;
  }
  std::string indented;
  for (int i = 0; i < 1000; ++i) indented += std::string(static_cast<std::size_t>(i), ' ') + "a:\n";
  EXPECT_EQ(error_of(indented), ErrorKind::invalid);
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(5));
  std::string fine(32, '['), close(32, ']');
  EXPECT_TRUE(decode(fine + close));
  EXPECT_EQ(error_of("[" + fine + close + "]"), ErrorKind::invalid);
}

TEST(YamlDecode, S06RefusesDuplicateKeysOddKeysAndDocuments) {
  for (const char* text : {"a: 1\na: 2\n", "{a: 1, 'a': 2}\n", "x:\n  a: 1\n  \"\\x61\": 2\n", "? [a]\n: 1\n", "? {a: b}\n: 1\n",
                           "a: 1\n---\nb: 2\n", "a: b: c\n", "a: [1\n", "\t- a\n", "a: \"x\n"})
    EXPECT_EQ(error_of(text), ErrorKind::invalid) << text;
}

TEST(YamlDecode, S06RefusesNumbersThatDoNotFit) {
  for (const char* text : {"a: .nan\n", "a: .inf\n", "a: -.INF\n", "a: 9223372036854775808\n", "a: -9223372036854775809\n",
                           "a: 0xffffffffffffffff\n", "a: 1e999\n"})
    EXPECT_EQ(error_of(text), ErrorKind::invalid) << text;
}

TEST(YamlDecode, RefusesBytesThatAreNotText) {
  using namespace std::string_view_literals;
  for (auto text : {"a: \0\n"sv, "a: \xff\n"sv, "a: \xc3"sv,
                    "\xff\xfe"sv
                    "a\0"sv,
                    "a: \x01\n"sv, "a: \xed\xa0\x80\n"sv})
    EXPECT_EQ(error_of(text), ErrorKind::invalid);
}

TEST(YamlDecode, BoundsTheNumberOfValues) {
  std::string many = "[";
  for (int i = 0; i < 2000; ++i) many += "a,";
  many += "a]";
  EXPECT_TRUE(decode(many));
  EXPECT_EQ(error_of(many, {.max_nodes = 1000}), ErrorKind::invalid);
}

TEST(YamlDecode, CutsAndFlipsNeverCrash) {
  const std::string text = "config:\n  a: |-\n    x\n    y\n  'b': \"\\u00e9\"\n  c: [1, {d: e}]\n? k\n: v\n# end\n";
  for (std::size_t i = 0; i < text.size(); ++i) {
    (void)decode(text.substr(0, i)).has_value();
    for (int bit = 0; bit < 8; ++bit) {
      auto flipped = text;
      flipped[i] = static_cast<char>(flipped[i] ^ (1 << bit));
      auto r = decode(flipped);
      if (r) {
        auto again = decode(encode(*r));
        ASSERT_TRUE(again) << encode(*r);
        EXPECT_EQ(*again, *r);
      }
    }
  }
}

}  // namespace
}  // namespace virga::yaml
