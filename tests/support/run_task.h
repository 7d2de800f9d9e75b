// Runs a coroutine to its end on a loop of its own.
#pragma once

#include <gtest/gtest.h>

#include <boost/asio/io_context.hpp>
#include <functional>
#include <optional>

#include "base/task.h"

namespace virga::test {

template <class T>
T run(std::function<Task<T>()> body) {
  boost::asio::io_context io;
  TaskGroup group(io.get_executor());
  std::optional<T> out;
  auto outer = [](std::function<Task<T>()> f, std::optional<T>& into) -> Task<> { into.emplace(co_await f()); };
  group.spawn("test", outer(body, out));
  io.run();
  EXPECT_EQ(group.failures(), 0);
  return std::move(*out);
}

}  // namespace virga::test
