#include "api/router.h"

#include <gtest/gtest.h>

namespace virga::api {
namespace {

Task<Result<http::Response>> one(Context&) {
  co_return http::Response{};
}
Task<Result<http::Response>> two(Context&) {
  co_return http::Response{};
}

struct RouterTest : ::testing::Test {
  RouterTest() {
    router.add(http::Method::get, "/1.0/images/{fingerprint}", {one});
    router.add(http::Method::put, "/1.0/images/{fingerprint}", {one});
    router.add(http::Method::get, "/1.0/images/aliases", {two});
    router.add(http::Method::get, "/1.0/images/aliases/{name}", {two});
    router.add(http::Method::get, "/", {one});
    router.add_missing("/1.0/images/{fingerprint}/secret");
    router.add_missing("/1.0/cluster");
  }
  Router::Match find(http::Method method, std::vector<std::string> path) {
    params.clear();
    return router.find(method, path, params);
  }
  Router router;
  std::vector<std::string> params;
};

TEST_F(RouterTest, FindsRoutesAndTheirParameters) {
  auto match = find(http::Method::get, {"1.0", "images", "abc"});
  ASSERT_NE(match.route, nullptr);
  EXPECT_EQ(match.route->handler, one);
  EXPECT_EQ(params, std::vector<std::string>{"abc"});
  EXPECT_EQ(find(http::Method::get, {"1.0", "images", "aliases"}).route->handler, two);
  EXPECT_EQ(find(http::Method::get, {"1.0", "images", "aliases", "x"}).route->handler, two);
  EXPECT_EQ(find(http::Method::get, {}).route->handler, one);
  EXPECT_NE(find(http::Method::head, {}).route, nullptr) << "HEAD is GET without a body";
}

TEST_F(RouterTest, TellsUnknownFromNotAllowedFromMissing) {
  auto unknown = find(http::Method::get, {"1.0", "nope"});
  EXPECT_FALSE(unknown.known);
  EXPECT_FALSE(unknown.missing);
  auto wrong = find(http::Method::del, {"1.0", "images", "abc"});
  EXPECT_TRUE(wrong.known);
  EXPECT_EQ(wrong.route, nullptr);
  EXPECT_EQ(wrong.allowed, "GET, PUT");
  EXPECT_TRUE(find(http::Method::post, {"1.0", "images", "abc", "secret"}).missing);
  EXPECT_TRUE(find(http::Method::get, {"1.0", "cluster", "members", "x"}).missing);
}

TEST_F(RouterTest, ASecondRouteForTheSamePlaceIsABug) {
  EXPECT_THROW(router.add(http::Method::get, "/1.0/images/{other}", {two}), std::logic_error);
}

}  // namespace
}  // namespace virga::api
