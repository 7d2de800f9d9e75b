// Parsing of command lines, help, suggestions.
#include "apps/virga/command.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "apps/virga/run.h"
#include "apps/virga/suggest.h"

namespace virga::cli {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

Result<Parsed> parse_words(const std::vector<std::string>& words) {
  static const Command root = root_command();
  return parse(root, words);
}

TEST(Parse, FlagsStandAnywhereBehindTheVerb) {
  auto parsed = parse_words({"launch", "tiny", "v1", "--vm", "-c", "limits.cpu=2", "-d", "root,size=2GiB", "-p", "a", "-p=b",
                             "-nvirgabr0", "--storage=pool", "-q"});
  ASSERT_TRUE(parsed) << parsed.error().text();
  EXPECT_EQ(full_name(parsed->path), "virga launch");
  EXPECT_THAT(parsed->args.words, ElementsAre("tiny", "v1"));
  EXPECT_TRUE(parsed->args.has("vm"));
  EXPECT_TRUE(parsed->args.has("quiet"));
  EXPECT_THAT(parsed->args.list("config"), ElementsAre("limits.cpu=2"));
  EXPECT_THAT(parsed->args.list("profile"), ElementsAre("a", "b"));
  EXPECT_EQ(parsed->args.text("network"), "virgabr0");
  EXPECT_EQ(parsed->args.text("storage"), "pool");
  EXPECT_FALSE(parsed->args.has("empty"));
}

TEST(Parse, TwoDashesEndTheFlags) {
  auto parsed = parse_words({"exec", "c1", "--user", "5", "--", "ls", "-l", "--", "--help"});
  ASSERT_TRUE(parsed);
  EXPECT_THAT(parsed->args.words, ElementsAre("c1", "ls", "-l", "--", "--help"));
  EXPECT_EQ(parsed->args.integer("user"), 5);
  EXPECT_FALSE(parsed->help);
}

TEST(Parse, ValuesMayLookLikeFlagsAndBeEmpty) {
  auto parsed = parse_words({"stop", "c1", "--timeout", "-1", "-f"});
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->args.integer("timeout"), -1);
  EXPECT_TRUE(parsed->args.has("force"));
  auto assign = parse_words({"profile", "assign", "c1", ""});
  ASSERT_TRUE(assign);
  EXPECT_THAT(assign->args.words, ElementsAre("c1", ""));
}

TEST(Parse, DefaultsAndShortFlagsInOneWord) {
  auto parsed = parse_words({"list", "-fcsv", "-c", "n"});
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->args.text("format"), "csv");
  EXPECT_EQ(parse_words({"list"})->args.text("format"), "table");
  auto both = parse_words({"delete", "-fi", "c1"});
  ASSERT_TRUE(both);
  EXPECT_TRUE(both->args.has("force") && both->args.has("interactive"));
  EXPECT_FALSE(parse_words({"list", "--fast=false"})->args.has("fast"));
}

TEST(Parse, ErrorsAreThoseOfTheOriginal) {
  EXPECT_EQ(parse_words({"list", "--bad"}).error().message(), "unknown flag: --bad");
  EXPECT_EQ(parse_words({"list", "-l"}).error().message(), "unknown shorthand flag: 'l' in -l");
  EXPECT_EQ(parse_words({"list", "-c"}).error().message(), "flag needs an argument: 'c' in -c");
  EXPECT_EQ(parse_words({"list", "--format"}).error().message(), "flag needs an argument: --format");
  EXPECT_FALSE(parse_words({"stop", "--timeout", "soon", "c1"}));
  auto unknown = parse_words({"lisst"});
  EXPECT_EQ(unknown.error().message(), "unknown command \"lisst\" for \"virga\"");
  EXPECT_EQ(unknown.error().hint(), "Did you mean this?\n\tlist");
  EXPECT_EQ(parse_words({"config", "devise"}).error().hint(), "Did you mean this?\n\tdevice");
}

TEST(Parse, WordsOfOtherCommandLinesAreTranslated) {
  EXPECT_THAT(parse_words({"run", "tiny"}).error().hint(), HasSubstr("virga launch"));
  EXPECT_THAT(parse_words({"cluster", "list"}).error().hint(), HasSubstr("virga not yet"));
  EXPECT_THAT(parse_words({"admin", "sql", "local"}).error().hint(), HasSubstr("virga query"));
  EXPECT_EQ(parse_words({"config", "run"}).error().hint(), "virga config --help shows what there is");
}

TEST(Parse, UnknownFlagsSayWhereToLook) {
  EXPECT_EQ(parse_words({"list", "--wrongest"}).error().hint(), "virga list --help shows the flags there are");
  EXPECT_THAT(parse_words({"exec", "c1", "ls", "-l"}).error().hint(), HasSubstr("virga exec c1 -- ls -l"));
}

TEST(Parse, AliasesAndInstancesNamedLikeVerbs) {
  EXPECT_EQ(parse_words({"ls"})->path.back()->name(), "list");
  EXPECT_EQ(parse_words({"init", "tiny"})->path.back()->name(), "create");
  EXPECT_EQ(parse_words({"config", "device", "rm", "a", "b"})->path.back()->name(), "remove");
  EXPECT_THAT(parse_words({"start", "list"})->args.words, ElementsAre("list"));
}

TEST(Help, ShowsUsageFlagsAndChildren) {
  auto launch = parse_words({"launch", "--help"});
  ASSERT_TRUE(launch);
  EXPECT_TRUE(launch->help);
  auto text = help_text(launch->path);
  EXPECT_THAT(text, HasSubstr("Usage:\n  virga launch [<remote>:]<image> [<remote>:][<name>] [flags]\n"));
  EXPECT_THAT(text, HasSubstr("  -c, --config             Config key/value to apply to the new instance\n"));
  EXPECT_THAT(text, HasSubstr("Global Flags:\n"));
  auto group = help_text(parse_words({"config"})->path);
  EXPECT_THAT(group, HasSubstr("Available Commands:\n  device      Manage devices\n"));
}

/// Whatever is in the tree has what its help needs, and no letter or name is given twice.
void check_tree(const Command& command, const std::string& path) {
  const auto name = path + " " + std::string(command.name());
  EXPECT_FALSE(command.summary.empty()) << name;
  EXPECT_NE(command.children.empty(), !command.run) << name << " must have either children or something to do";
  std::set<std::string_view> names;
  std::set<char> letters;
  for (const auto* flags : {&command.flags, &global_flags()}) {
    for (const auto& flag : *flags) {
      EXPECT_TRUE(names.insert(flag.name).second) << name << " --" << flag.name;
      if (flag.letter != 0) {
        EXPECT_TRUE(letters.insert(flag.letter).second) << name << " -" << flag.letter;
      }
    }
  }
  std::set<std::string_view> children;
  for (const auto& child : command.children) {
    EXPECT_TRUE(children.insert(child.name()).second) << name << " " << child.name();
    check_tree(child, name);
  }
}

TEST(Tree, IsWellFormed) {
  check_tree(root_command(), "");
}

TEST(Suggest, NearestWord) {
  EXPECT_EQ(nearest("lanuch", {"launch", "list"}), "launch");
  EXPECT_EQ(nearest("prof", {"profile", "project"}), "profile");
  EXPECT_EQ(nearest("xyzzy", {"launch", "list"}), "");
  EXPECT_EQ(nearest(std::string(1000, 'a'), {"launch"}), "");
}

TEST(Report, HintsStandApartAndControlCharactersAreEscaped) {
  EXPECT_EQ(error_report(Error(ErrorKind::invalid, "bad \x1b[31mname").with_hint("do this")),
            "Error: bad \\x1b[31mname\n\ndo this\n");
}

}  // namespace
}  // namespace virga::cli
