// What the tests of services share: a loop, a store in memory, events that are noted.
#pragma once

#include <gtest/gtest.h>

#include <boost/asio/io_context.hpp>
#include <string>
#include <vector>

#include "engine/events/events.h"
#include "store/memory/store.h"

namespace virga::engine {

struct ServiceTest : ::testing::Test {
  boost::asio::io_context io;
  TaskGroup group{io.get_executor()};
  MemoryStore store;
  ManualClock clock;
  Events events{io.get_executor(), clock};
  std::vector<std::string> actions;
  std::unique_ptr<Events::Listener> listener =
      events.listen({.types = static_cast<unsigned>(EventType::lifecycle), .project = "", .also = {}}, [this](const Event& e) {
        actions.push_back(std::string(e.metadata.at("action").as_string()) + " " +
                          std::string(e.metadata.at("source").as_string()));
      });
  const Caller root{.username = "root", .protocol = "unix", .address = "@", .admin = true, .fingerprint = ""};

  template <class F>
  void run(F body) {
    bool finished = false;
    auto wrapped = [&]() -> Task<> {
      co_await body();
      finished = true;
    };
    group.spawn("test", wrapped());
    io.run();
    io.restart();
    EXPECT_TRUE(finished);
    EXPECT_EQ(group.failures(), 0);
  }
};

template <class T>
std::optional<ErrorKind> kind_of(const Result<T>& result) {
  if (result) return std::nullopt;
  return result.error().kind();
}

}  // namespace virga::engine
