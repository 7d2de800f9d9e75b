#include "apps/virga/server/questions.h"

#include <gtest/gtest.h>

namespace virga::cli {
namespace {

struct Person {
  std::vector<std::string> answers;
  std::vector<std::string> questions = {}, told = {};

  Prompt prompt() {
    return {[this](const std::string& question) -> Result<std::string> {
              questions.push_back(question);
              if (questions.size() > answers.size()) return fail(ErrorKind::cancelled, "no answer");
              return answers[questions.size() - 1];
            },
            [this](const std::string& text) { told.push_back(text); }};
  }
};

TEST(Questions, DefaultsMakeWhatAutoMakes) {
  Person person{std::vector<std::string>(20)};
  auto answers = ask_everything(person.prompt(), {});
  ASSERT_TRUE(answers);
  EXPECT_FALSE(answers->print);
  EXPECT_EQ(json::serialize(answers->preseed.at("storage_pools")), R"([{"name":"default","driver":"dir","config":{}}])");
  EXPECT_EQ(json::serialize(answers->preseed.at("networks")),
            R"([{"name":"virgabr0","type":"bridge","config":{"ipv4.address":"auto","ipv6.address":"auto"}}])");
  EXPECT_EQ(json::serialize(answers->preseed.at("profiles").get_array()[0].at("devices").at("eth0")),
            R"({"type":"nic","name":"eth0","network":"virgabr0"})");
  EXPECT_FALSE(answers->preseed.contains("config"));
}

TEST(Questions, WrongAnswersAreAskedAgain) {
  Person person{{"maybe", "yes", "old", "new", "zfs", "dir", "", "no", "yes", "::1", "0", "9000", "y"}};
  auto answers = ask_everything(person.prompt(), {.pools = {"old"}, .networks = {"br0"}});
  ASSERT_TRUE(answers) << answers.error().text();
  EXPECT_EQ(person.told.size(), 4u);
  EXPECT_EQ(person.told[1], "Invalid input: The storage pool 'old' exists already");
  EXPECT_EQ(answers->preseed.at("storage_pools").get_array()[0].at("name"), "new");
  EXPECT_EQ(answers->preseed.at("config").at("core.https_address"), "[::1]:9000");
  // What is there is used.
  EXPECT_EQ(answers->preseed.at("profiles").get_array()[0].at("devices").at("eth0").at("network"), "br0");
  EXPECT_TRUE(answers->print);
}

TEST(Questions, AnAddressIsFollowedByAQuestionAboutNat) {
  Person person{{"no", "yes", "br1", "10.1.2.3", "10.1.2.1/24", "no", "none", "no", "no"}};
  auto answers = ask_everything(person.prompt(), {});
  ASSERT_TRUE(answers);
  EXPECT_EQ(json::serialize(answers->preseed.at("networks").get_array()[0].at("config")),
            R"({"ipv4.address":"10.1.2.1/24","ipv4.nat":"false","ipv6.address":"none"})");
  EXPECT_FALSE(answers->preseed.at("profiles").get_array()[0].at("devices").get_object().contains("root"));
}

TEST(Questions, TheEndOfInputEndsIt) {
  Person person{{"yes"}};
  EXPECT_EQ(ask_everything(person.prompt(), {}).error().kind(), ErrorKind::cancelled);
}

}  // namespace
}  // namespace virga::cli
