// Tables and the text in them. The expected layouts were taken from the incus command.
#include "apps/virga/table.h"

#include <gtest/gtest.h>

#include <clocale>

#include "apps/virga/app.h"
#include "apps/virga/listing.h"
#include "apps/virga/progress.h"
#include "apps/virga/text.h"

namespace virga::cli {
namespace {

class Tables : public testing::Test {
 protected:
  void SetUp() override { std::setlocale(LC_CTYPE, "C.UTF-8"); }
  std::string render(std::string_view format, const std::vector<Row>& rows) {
    return render_table(*parse_format(format), {"NAME", "STATE"}, rows);
  }
};

TEST_F(Tables, Boxed) {
  EXPECT_EQ(render("table", {{"c1", "RUNNING"}}),
            "+------+---------+\n"
            "| NAME |  STATE  |\n"
            "+------+---------+\n"
            "| c1   | RUNNING |\n"
            "+------+---------+\n");
  EXPECT_EQ(render("table", {}), "+------+-------+\n| NAME | STATE |\n+------+-------+\n");
  EXPECT_EQ(render("table,noheader", {{"c1", ""}}), "+----+--+\n| c1 |  |\n+----+--+\n");
}

TEST_F(Tables, CellsOfSeveralLines) {
  EXPECT_EQ(render("table,noheader", {{"c1", "a\nbb"}}), "+----+----+\n| c1 | a  |\n|    | bb |\n+----+----+\n");
}

TEST_F(Tables, Compact) {
  EXPECT_EQ(render("compact", {{"c1", "RUNNING"}}), "  NAME   STATE   \n  c1    RUNNING  \n");
}

TEST_F(Tables, Csv) {
  EXPECT_EQ(render("csv", {{"a,b", "say \"x\""}, {" c", ""}}), "\"a,b\",\"say \"\"x\"\"\"\n\" c\",\n");
  EXPECT_EQ(render("csv,header", {}), "NAME,STATE\n");
}

TEST_F(Tables, WideCharactersKeepTheColumnsStraight) {
  EXPECT_EQ(render("table,noheader", {{"日本", "x"}, {"abcd", "y"}}),
            "+------+---+\n| 日本 | x |\n+------+---+\n| abcd | y |\n+------+---+\n");
}

TEST_F(Tables, ControlCharactersAreShownNotObeyed) {
  auto text = render("table", {{"\x1b]0;title\x07", "\x1b[2J"}});
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
  EXPECT_EQ(text.find('\x07'), std::string::npos);
  EXPECT_NE(text.find("\\x1b]0;title\\x07"), std::string::npos);
}

TEST_F(Tables, WrapOrCutAtTheTerminalsWidth) {
  OutputFormat table{.width = 30};
  EXPECT_EQ(render_table(table, {"A", "TEXT"}, {{"one", "some words that are too long"}}),
            "+-----+----------------------+\n|  A  |         TEXT         |\n+-----+----------------------+\n"
            "| one | some words that are  |\n|     | too long             |\n+-----+----------------------+\n");
  OutputFormat compact{.format = Format::compact, .header = false, .width = 20};
  EXPECT_EQ(render_table(compact, {"A", "B"}, {{"one", "0123456789abcdef"}}), "  one  0123456789…  \n");
  EXPECT_EQ(wrapped("äöüäöü", 4), (std::vector<std::string>{"äöüä", "öü"}));
}

TEST_F(Tables, StatesAreColouredOnRequestOnly) {
  OutputFormat format{.format = Format::compact, .header = false, .colour = true};
  EXPECT_EQ(render_table(format, {"NAME", "STATE"}, {{"RUNNING", "RUNNING"}}), "  RUNNING  \x1b[32mRUNNING\x1b[0m  \n");
  format.colour = false;
  EXPECT_EQ(render_table(format, {"NAME", "STATE"}, {{"a", "RUNNING"}}), "  a  RUNNING  \n");
}

TEST_F(Tables, FormatsAreChecked) {
  for (auto bad : {"", "tabel", "csv,", "csv,header,x", "json,maybe"}) EXPECT_FALSE(parse_format(bad)) << bad;
}

TEST_F(Tables, NumbersSortByValueAndEmptyCellsLast) {
  std::vector<Row> rows = {{"c10"}, {"c9"}, {""}, {"b"}, {"c009x"}};
  sort_naturally(rows);
  EXPECT_EQ(rows, (std::vector<Row>{{"b"}, {"c9"}, {"c009x"}, {"c10"}, {""}}));
}

TEST(Escape, WhatMovesTheCursorOrHidesText) {
  EXPECT_EQ(escaped("a\nb\tc"), "a\nb\tc");
  EXPECT_EQ(escaped_line("a\nb\tc\r"), "a\\nb\\tc\\r");
  EXPECT_EQ(escaped(std::string("\0", 1)), "\\x00");
  EXPECT_EQ(escaped("\x7f\xc2\x9b\xe2\x80\xae"), "\\x7f\\u009b\\u202e");
  EXPECT_EQ(escaped("gr\xc3\xbc\xc3\x9f"), "gr\xc3\xbc\xc3\x9f");
  EXPECT_EQ(escaped("\xff\xc3"), "\\xff\\xc3");
  EXPECT_EQ(escaped("\xed\xa0\x80\xc0\x80"), "\\xed\\xa0\\x80\\xc0\\x80");
}

TEST(Json, PrintsLikeTheOriginalAndEscapesC1) {
  auto value = json::value{{"a", json::array{1, "x"}}, {"b", json::object()}, {"c", nullptr}};
  EXPECT_EQ(pretty_json(value), "{\n\t\"a\": [\n\t\t1,\n\t\t\"x\"\n\t],\n\t\"b\": {},\n\t\"c\": null\n}");
  EXPECT_EQ(compact_json(value), R"({"a":[1,"x"],"b":{},"c":null})");
  EXPECT_EQ(compact_json(json::string("\x1b\x7f\xc2\x9b\xc3\x9b")), "\"\\u001b\\u007f\\u009b\xc3\x9b\"");
}

TEST(Json, InvisibleMarksAreEscapedAndTheTextReadsBack) {
  for (std::string text : {"\xe2\x80\xae", "\xf3\xa0\x81\x81", "a\"\\\n\t\r", "\xf0\x9f\x98\x80"}) {
    EXPECT_EQ(json::parse(json_quoted(text)).as_string(), text);
  }
  EXPECT_EQ(json_quoted("\xe2\x80\xae\xf3\xa0\x81\x81"), R"("\u202e\udb40\udc41")");
}

TEST(Yaml, TimesStandPlain) {
  EXPECT_EQ(as_yaml(json::object{{"created_at", "2026-01-31T12:00:00.5Z"}, {"name", "2026-01-31T12:00:00Z"}, {"used_at", "no"}}),
            "created_at: 2026-01-31T12:00:00.5Z\nname: \"2026-01-31T12:00:00Z\"\nused_at: \"no\"\n");
}

TEST(Columns, ArePickedByLetter) {
  const std::vector<Column> all = {{'n', "NAME", field("name")}, {'s', "STATE", field("status")}};
  EXPECT_EQ((*pick_columns(all, "s,n")).size(), 2u);
  EXPECT_EQ(pick_columns(all, "nZ").error().message(), "Unknown column shorthand char 'Z' in 'nZ'");
  EXPECT_FALSE(pick_columns(all, "n,,s"));
  EXPECT_EQ(pick_columns(all, "L").error().message(), "Can't specify column L when not clustered");
}

TEST(Sizes, BinaryAndDecimal) {
  EXPECT_EQ(binary_size(766), "766B");
  EXPECT_EQ(binary_size(752 * 1024), "752.00KiB");
  EXPECT_EQ(decimal_size(1722), "1.72kB");
}

TEST(Times, ZeroTimesAreNever) {
  EXPECT_EQ(local_time("0001-01-01T00:00:00Z", "never"), "never");
  EXPECT_EQ(local_time("1970-01-01T00:00:00Z", "never"), "never");
  EXPECT_EQ(local_time("garbage", ""), "");
}

TEST(Progress, ComesFromTheOperationsMetadata) {
  EXPECT_EQ(progress_text(*parse_json_object(R"({"metadata":{"x":1,"download_progress":"rootfs: 12%"}})")), "rootfs: 12%");
  EXPECT_EQ(progress_text(*parse_json_object(R"({"metadata":null})")), "");
}

}  // namespace
}  // namespace virga::cli
