#include "apps/virga/instances/top.h"

#include <gtest/gtest.h>

namespace virga::cli {
namespace {

using namespace std::chrono_literals;

json::object guest(std::string name, std::int64_t cpu_seconds, std::int64_t memory, double age) {
  return {{"name", name},
          {"project", "default"},
          {"status", "Running"},
          {"state", json::object{{"cpu", json::object{{"usage", cpu_seconds * 1'000'000'000}}},
                                 {"memory", json::object{{"usage", memory}, {"total", 1000}}},
                                 {"disk", json::object{{"root", json::object{{"usage", 7}}}}},
                                 {"processes", 3},
                                 {"virga_state_age", age}}}};
}

TEST(Top, PercentsComeOfTwoSamples) {
  TopTable table;
  const TopTable::Time start{100s};
  table.update({guest("a", 10, 5, 0.0)}, start);
  EXPECT_FALSE(table.rows(TopOrder::cpu).at(0).percent);
  table.update({guest("a", 10, 5, 2.0)}, start + 2s);
  EXPECT_FALSE(table.rows(TopOrder::cpu).at(0).percent) << "the same sample, two seconds older";
  table.update({guest("a", 15, 5, 0.0)}, start + 10s);
  EXPECT_NEAR(table.rows(TopOrder::cpu).at(0).percent.value(), 50.0, 0.1);
  table.update({guest("a", 15, 5, 3.0)}, start + 13s);
  EXPECT_NEAR(table.rows(TopOrder::cpu).at(0).percent.value(), 50.0, 0.1) << "kept until the next one";
  table.update({guest("a", 1, 5, 0.0)}, start + 20s);
  EXPECT_FALSE(table.rows(TopOrder::cpu).at(0).percent) << "it was started again";
}

TEST(Top, SortsAndForgets) {
  TopTable table;
  auto stopped = guest("c", 99, 99, 0);
  stopped["status"] = "Stopped";
  table.update({guest("a", 1, 9, 0), guest("b", 2, 3, 0), stopped}, TopTable::Time{1s});
  EXPECT_EQ(table.rows(TopOrder::memory).at(0).name, "a");
  EXPECT_EQ(table.rows(TopOrder::time).at(0).name, "b");
  EXPECT_EQ(table.rows(TopOrder::name).size(), 2u);
  table.update({guest("b", 2, 3, 0)}, TopTable::Time{2s});
  EXPECT_EQ(table.rows(TopOrder::name).size(), 1u);
  table.update({json::value(1), json::object{{"status", "Running"}}}, TopTable::Time{3s});
  EXPECT_EQ(table.rows(TopOrder::name).size(), 1u) << "odd answers break nothing";
}

}  // namespace
}  // namespace virga::cli
