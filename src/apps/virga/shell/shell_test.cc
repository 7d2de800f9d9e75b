// Aliases, completion, and what is made from the tree of commands.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "apps/virga/commands.h"
#include "apps/virga/run.h"
#include "apps/virga/shell/alias.h"
#include "apps/virga/shell/complete.h"
#include "apps/virga/shell/examples.h"
#include "apps/virga/shell/reference.h"

namespace virga::cli {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;
using Words = std::vector<std::string>;

const Command& root() {
  static const Command tree = root_command();
  return tree;
}

Words expanded(const Aliases& aliases, const Words& words) {
  auto out = expand_alias(aliases, words);
  if (!out) return {"error: " + out.error().chain()};
  return *out ? **out : Words{"nothing"};
}

TEST(Alias, RestIsPutAtTheEndOrWhereItIsWanted) {
  const Aliases aliases{
      {"rl", "list -c ns"}, {"root", "exec @ARG1@ -- su -l @ARGS@"}, {"storage ls2", "storage list"}, {"both", "a @ARGS@ b"}};
  EXPECT_THAT(expanded(aliases, {"rl", "c1"}), ElementsAre("list", "-c", "ns", "c1"));
  EXPECT_THAT(expanded(aliases, {"--project", "p", "-q", "rl"}), ElementsAre("--project", "p", "-q", "list", "-c", "ns"));
  EXPECT_THAT(expanded(aliases, {"root", "c1", "-c", "id"}), ElementsAre("exec", "c1", "--", "su", "-l", "-c", "id"));
  EXPECT_THAT(expanded(aliases, {"both", "x", "y"}), ElementsAre("a", "x", "y", "b"));
  EXPECT_THAT(expanded(aliases, {"storage", "ls2"}), ElementsAre("storage", "list"));
  EXPECT_THAT(expanded(aliases, {"storage", "list"}), ElementsAre("nothing"));
  EXPECT_THAT(expanded(aliases, {"list", "rl"}), ElementsAre("nothing"));
  EXPECT_THAT(expanded(aliases, {}), ElementsAre("nothing"));
}

TEST(Alias, MissingArgumentsAndOpenQuotesAreErrors) {
  EXPECT_THAT(expanded({{"root", "exec @ARG2@"}}, {"root", "c1"}), ElementsAre(HasSubstr("needs 2 arguments, 1 given")));
  EXPECT_THAT(expanded({{"bad", "exec 'x"}}, {"bad"}), ElementsAre(HasSubstr("is not closed")));
}

TEST(Alias, QuotesKeepSpaces) {
  EXPECT_THAT(quoted_words("a 'b c' \"d'e\" '' f").value(), ElementsAre("a", "b c", "d'e", "", "f"));
}

TEST(Alias, BuiltInOnesHideNoCommandAndRun) {
  for (const auto& [name, target] : builtin_aliases()) {
    EXPECT_FALSE(find_command(root(), {name})) << name;
    auto words = expand_alias({}, {name, "c1", "c2"});
    ASSERT_TRUE(words && *words) << name;
    EXPECT_TRUE(parse(root(), **words)) << name;
  }
  EXPECT_THAT(expanded({{"ps", "mine"}}, {"ps"}), ElementsAre("mine"));
}

Words texts(const Completion& completion) {
  Words out;
  for (const auto& candidate : completion.candidates) out.push_back(candidate.text);
  return out;
}

/// Names "<kind>1" and "<kind>2" of whatever is asked for.
std::vector<Candidate> two_of_each(const NameRequest& request) {
  return {{std::string(request.kind) + "1"}, {std::string(request.kind) + "2"}};
}

Completion completed(Words words) {
  return complete(root(), {{"rl", "list -c ns"}, {"st", "start"}}, std::move(words), two_of_each);
}

TEST(Complete, CommandsAliasesAndFlags) {
  EXPECT_THAT(texts(completed({"la"})), ElementsAre("launch"));
  EXPECT_THAT(texts(completed({"r"})), testing::IsSupersetOf({"restart", "resume", "rl", "remote"}));
  EXPECT_THAT(texts(completed({""})), Not(Contains("__complete")));
  EXPECT_THAT(texts(completed({"config", "dev"})), ElementsAre("device"));
  EXPECT_THAT(texts(completed({"launch", "--v"})), ElementsAre("--verbose", "--version", "--vm"));
  EXPECT_THAT(texts(completed({"nosuch", ""})), IsEmpty());
  EXPECT_THAT(texts(completed({"help", "conf"})), ElementsAre("config"));
}

TEST(Complete, NamesByTheirPlaceInTheUsageLine) {
  EXPECT_THAT(texts(completed({"start", ""})), ElementsAre("instance1", "instance2", "remote1:", "remote2:"));
  EXPECT_THAT(texts(completed({"start", "instance1", "inst"})), ElementsAre("instance2"));
  EXPECT_THAT(texts(completed({"st", "inst"})), ElementsAre("instance1", "instance2"));
  EXPECT_THAT(texts(completed({"start", "local:in"})), ElementsAre("local:instance1", "local:instance2"));
  EXPECT_THAT(texts(completed({"launch", "im"})), ElementsAre("image1", "image2"));
  EXPECT_THAT(texts(completed({"config", "set", "c1", "k"})), ElementsAre("key1=", "key2="));
  EXPECT_THAT(texts(completed({"config", "get", "k"})), ElementsAre("key1", "key2"));
  EXPECT_THAT(texts(completed({"profile", "device", "add", "profile1", "eth0", ""})), Contains("type1"));
}

TEST(Complete, ValuesOfFlags) {
  EXPECT_THAT(texts(completed({"list", "--format", "c"})), ElementsAre("compact", "csv"));
  EXPECT_THAT(texts(completed({"list", "--format=j"})), ElementsAre("--format=json"));
  EXPECT_THAT(texts(completed({"launch", "img", "-p", ""})), ElementsAre("profile1", "profile2"));
  EXPECT_THAT(texts(completed({"launch", "img", "-n", "network2"})), ElementsAre("network2"));
  EXPECT_THAT(texts(completed({"launch", "img", "-c", ""})), ElementsAre("key1=", "key2="));
  EXPECT_THAT(texts(completed({"list", "--project", "pro"})), ElementsAre("project1", "project2"));
}

TEST(Complete, FilesWhereTheyAreMeant) {
  EXPECT_TRUE(completed({"image", "import", ""}).files);
  EXPECT_FALSE(completed({"start", ""}).files);
}

TEST(Complete, PlaceholdersOfUsageLines) {
  auto image = placeholders("launch [<remote>:]<image> [<remote>:][<name>]");
  ASSERT_THAT(image, SizeIs(2));
  EXPECT_EQ(image[0].kind, "image");
  EXPECT_TRUE(image[0].remote);
  auto many = placeholders("start [<remote>:]<instance> [[<remote>:]<instance>...]");
  ASSERT_THAT(many, SizeIs(2));
  EXPECT_TRUE(many[1].repeats);
  auto set = placeholders("set [<remote>:][<instance>] <key>=<value>...");
  ASSERT_THAT(set, SizeIs(2));
  EXPECT_EQ(set[1].kind, "key");
  EXPECT_TRUE(set[1].assigns && set[1].repeats);
  EXPECT_EQ(placeholders("remove <instance> <device name>...")[1].kind, "device name");
}

TEST(Examples, AreMadeFromTheUsageLine) {
  EXPECT_EQ(example_of({"profile", "get"}, "get [<remote>:]<profile> <key>"), "virga profile get web limits.memory");
  EXPECT_EQ(example_of({"network", "set"}, "set [<remote>:]<network> <key>=<value>..."),
            "virga network set virgabr0 ipv4.nat=true");
  EXPECT_EQ(example_of({"start"}, "start [<remote>:]<instance> [[<remote>:]<instance>...]"), "virga start c1");
  EXPECT_EQ(example_of({"version"}, "version [<remote>:]"), "virga version");
  EXPECT_EQ(example_of({"config", "device", "remove"}, "remove [<remote>:]<instance> <name>..."),
            "virga config device remove c1 lab");
}

/// Every example is a line that this program takes: with quotes, redirections and what comes behind a pipe left to the shell.
void check_examples(const Command& command) {
  if (command.run) {
    EXPECT_FALSE(command.examples.empty()) << command.use;
  }
  std::string text(command.examples);
  for (std::size_t at = 0; at < text.size();) {
    const auto end = std::min(text.find('\n', at), text.size());
    auto line = text.substr(at, end - at);
    at = end + 1;
    if (!line.starts_with("virga ")) continue;
    for (const char* shell : {" < ", " > ", " | ", " && "}) line = line.substr(0, line.find(shell));
    line.erase(0, 6);
    auto words = quoted_words(line);
    ASSERT_TRUE(words) << line;
    auto parsed = parse(root(), *words);
    ASSERT_TRUE(parsed) << line << ": " << parsed.error().text();
    const auto& found = *parsed->path.back();
    if (parsed->help || found.most == any_number || !found.run) continue;
    EXPECT_GE(static_cast<int>(parsed->args.size()), found.least) << line;
    EXPECT_LE(static_cast<int>(parsed->args.size()), found.most) << line;
  }
  for (const auto& child : command.children) check_examples(child);
}

TEST(Examples, EveryCommandHasSomeThatTheProgramTakes) {
  check_examples(root());
}

TEST(Reference, EveryCommandHasAPage) {
  auto man = manual_pages(root(), false);
  EXPECT_TRUE(man.contains("virga.1") && man.contains("virga-config-device-add.1"));
  EXPECT_FALSE(man.contains("virga-__complete.1"));
  EXPECT_TRUE(manual_pages(root(), true).contains("virga-__complete.1"));
  EXPECT_THAT(man["virga-launch.1"], HasSubstr(".SH EXAMPLES\n"));
  EXPECT_THAT(man["virga-launch.1"], HasSubstr("\\fB\\-c\\fR, \\fB\\-\\-config\\fR"));
  auto md = markdown_pages(root(), false);
  EXPECT_THAT(md["README.md"], HasSubstr("| [launch](launch.md) |"));
  EXPECT_THAT(md["config.md"], HasSubstr("### virga config device add\n"));
}

}  // namespace
}  // namespace virga::cli
