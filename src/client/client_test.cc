// The pure parts of the client.
#include <gtest/gtest.h>

#include "client/answer.h"
#include "client/endpoint.h"
#include "client/exec.h"
#include "client/url.h"

namespace virga::client {
namespace {

TEST(Url, NamesCannotLeaveTheirSegment) {
  EXPECT_EQ(Url("/1.0/instances").segment("../x?y#z").query("project", "a&b").query("none", "").text(),
            "/1.0/instances/..%2Fx%3Fy%23z?project=a%26b");
  EXPECT_EQ(name_in_url("/1.0/instances/c1?project=p"), "c1");
  EXPECT_EQ(name_in_url("/1.0/profiles/a%20b"), "a b");
  EXPECT_EQ(name_in_url("/1.0/profiles/a%2"), "a%2");
}

TEST(Endpoint, SocketIsLookedUpInOrder) {
  auto with = [](const char* socket, const char* directory) {
    return local_endpoint([=](const char* name) { return std::string_view(name) == "VIRGA_SOCKET" ? socket : directory; })
        .unix_path;
  };
  EXPECT_EQ(with("/a/s", "/b"), "/a/s");
  EXPECT_EQ(with("unix:///a/s", nullptr), "/a/s");
  EXPECT_EQ(with("", "/b"), "/b/unix.socket");
  EXPECT_EQ(with(nullptr, nullptr), "/var/lib/virga/unix.socket");
}

TEST(Answer, EnvelopesOpen) {
  auto sync = open_envelope(200, R"({"type":"sync","status":"Success","status_code":200,"metadata":["/1.0"]})");
  ASSERT_TRUE(sync);
  EXPECT_EQ(sync->metadata.as_array().size(), 1u);
  auto async = open_envelope(202, R"({"type":"async","operation":"/1.0/operations/x","metadata":{"id":"x"}})");
  ASSERT_TRUE(async);
  EXPECT_EQ(async->operation, "/1.0/operations/x");
}

TEST(Answer, ErrorsKeepTheirTextAndKind) {
  auto error = open_envelope(404, R"({"type":"error","error":"Instance not found","error_code":404,"metadata":null})");
  ASSERT_FALSE(error);
  EXPECT_EQ(error.error().kind(), ErrorKind::not_found);
  EXPECT_EQ(error.error().message(), "Instance not found");
  EXPECT_EQ(open_envelope(412, R"({"type":"error","error":"x","error_code":412})").error().kind(), ErrorKind::conflict);
  EXPECT_EQ(open_envelope(503, "<html>").error().kind(), ErrorKind::unavailable);
}

TEST(Answer, GarbageIsAnError) {
  for (auto text : {"", "null", "[]", "{}", R"({"type":7})", R"({"type":"other"})"}) EXPECT_FALSE(open_envelope(200, text)) << text;
}

TEST(Operation, OutcomeFollowsTheStatusCode) {
  auto operation = [](const char* text) { return *parse_json_object(text); };
  EXPECT_FALSE(has_ended(operation(R"({"status_code":103})")));
  EXPECT_TRUE(has_ended(operation(R"({"status_code":400})")));
  EXPECT_TRUE(outcome(operation(R"({"status_code":200,"err":""})")));
  EXPECT_EQ(outcome(operation(R"({"status_code":400,"err":"no space"})")).error().message(), "no space");
  EXPECT_EQ(outcome(operation(R"({"status_code":401,"err":""})")).error().kind(), ErrorKind::cancelled);
}

TEST(Exec, ControlMessages) {
  EXPECT_EQ(resize_message(80, 24), R"({"command":"window-resize","args":{"width":"80","height":"24"}})");
  EXPECT_EQ(signal_message(15), R"({"command":"signal","signal":15})");
}

}  // namespace
}  // namespace virga::client
