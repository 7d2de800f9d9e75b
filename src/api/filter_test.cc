#include "api/filter.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <chrono>

namespace virga::api {
namespace {

const json::object web{{"name", "web1"},
                       {"status", "Running"},
                       {"ephemeral", false},
                       {"status_code", 103},
                       {"profiles", json::array{"default", "big"}},
                       {"config", json::object{{"limits.cpu", "2"}, {"user.tier", "front end"}}}};

bool matches(std::string_view text) {
  auto filter = Filter::parse(text);
  EXPECT_TRUE(filter) << text;
  auto result = filter->matches(web);
  EXPECT_TRUE(result) << text << ": " << (result ? "" : result.error().text());
  return result && *result;
}

TEST(Filter, ComparesAsIncusDoes) {
  for (auto yes : {"", "name eq web1", "name eq WEB1", "name eq web.*", "name ne web", "name eq ^web", "name eq (^db|^web)",
                   "status eq running", "ephemeral eq false", "status_code eq 103", "profiles eq big", "config.limits.cpu eq 2",
                   "config.user.tier eq \"front end\"", "not name eq db", "name eq db or status eq running",
                   "name eq web1 and not ephemeral eq true", "config.user.none eq \"\"", "name ne db and config.user.none ne x"})
    EXPECT_TRUE(matches(yes)) << yes;
  for (auto no :
       {"name eq web", "name eq eb1", "name ne web1", "status eq run", "ephemeral ne false", "profiles eq small",
        "config.limits.cpu eq 20", "name eq db and status eq running", "name eq web1 and status eq stopped", "name eq web["})
    EXPECT_FALSE(matches(no)) << no;
}

TEST(Filter, ReadsFromLeftToRight) {
  EXPECT_FALSE(matches("name eq web1 or name eq x and name eq y"));
}

TEST(Filter, RefusesWhatIsMalformed) {
  for (auto text :
       {"name", "name eq", "name is web", "name=web", "name eq web also x eq y", "name eq \"web", "not", "name eq a and"})
    EXPECT_FALSE(Filter::parse(text)) << text;
  EXPECT_FALSE(Filter::parse(std::string(5000, 'a')));
  for (auto text : {"colour eq red", "ephemeral eq no", "config eq x"}) {
    auto filter = Filter::parse(text);
    ASSERT_TRUE(filter);
    EXPECT_FALSE(filter->matches(web)) << text;
  }
}

bool search(std::string_view pattern, std::string_view text) {
  auto regex = Regex::parse(pattern);
  EXPECT_TRUE(regex) << pattern;
  std::size_t work = 100'000'000;
  return regex && regex->search(text, work);
}

TEST(Regex, Syntax) {
  EXPECT_TRUE(search("", ""));
  EXPECT_TRUE(search("b", "abc"));
  EXPECT_TRUE(search("^a.c$", "abc"));
  EXPECT_FALSE(search("^b", "abc"));
  EXPECT_FALSE(search("b$", "abc"));
  EXPECT_TRUE(search("^(a|bc)*$", "abcbca"));
  EXPECT_FALSE(search("^(a|bc)*$", "abcb"));
  EXPECT_TRUE(search("^a+b?c{2,3}$", "aaccc"));
  EXPECT_FALSE(search("^c{2,3}$", "cccc"));
  EXPECT_TRUE(search("^c{2,}$", "ccccc"));
  EXPECT_TRUE(search("^[a-c0-9_]+$", "b9_"));
  EXPECT_FALSE(search("^[^a-c]+$", "xb"));
  EXPECT_TRUE(search("^\\d+\\.\\w\\s$", "10.x "));
  EXPECT_TRUE(search("^(?:ab)+?$", "ABab"));
  EXPECT_TRUE(search("^[]]$", "]"));
  EXPECT_TRUE(search("(^db|^web)", "web1"));
}

TEST(Regex, RefusesMalformedPatterns) {
  for (auto pattern : {"(", ")", "a)", "[a", "*a", "a{2", "a{3,2}", "a{999}", "\\", "\\q", "(?=a)", "[z-a]"})
    EXPECT_FALSE(Regex::parse(pattern)) << pattern;
  EXPECT_FALSE(Regex::parse(std::string(600, 'a')));
  EXPECT_FALSE(Regex::parse("(((a{200}){200}){200})"));
  EXPECT_FALSE(Regex::parse(std::string(100, '(') + "a" + std::string(100, ')')));
}

TEST(Regex, HostilePatternsStayLinear) {
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_FALSE(search("^(a|a)*(a|a)*(a|a)*(a*)*(a*)*b$", std::string(20'000, 'a')));
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(5));
}

TEST(Filter, AllClausesAndObjectsShareABound) {
  const auto began = std::chrono::steady_clock::now();
  for (const auto* pattern : {"(.?.?.?){250}", "((a|b|c){200}|d)*x", "(|||||||||||||||||||||||||||||||||||){50}x"}) {
    std::string text = fmt::format("config.user.x eq {}", pattern);
    for (int i = 0; i < 40; ++i) text += fmt::format(" or config.user.x eq {}", pattern);
    auto filter = Filter::parse(text);
    ASSERT_TRUE(filter) << filter.error().text();
    const json::object object{{"config", json::object{{"user.x", std::string(65'536, 'a')}}}};
    Result<bool> answer = false;
    for (int i = 0; i < 100 && answer; ++i) answer = filter->matches(object);
    ASSERT_FALSE(answer) << pattern;
    EXPECT_EQ(answer.error().kind(), ErrorKind::invalid);
  }
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(30));
}

}  // namespace
}  // namespace virga::api
