// The text form of metrics: OpenMetrics 1.0. Pure.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

namespace virga::engine {

enum class MetricType { gauge, counter };

class Exposition {
 public:
  using Labels = std::initializer_list<std::pair<std::string_view, std::string_view>>;

  /// Begins a family; its samples follow at once. A counter's name ends in "_total". Nothing is written before its first sample.
  void family(std::string_view name, MetricType type, std::string_view help);
  /// Labels with an empty value are left out.
  void add(Labels labels, std::uint64_t value);
  void add(Labels labels, double value);
  /// The whole text, with its end mark.
  std::string take();

 private:
  void begin(Labels labels);
  std::string text_;
  std::string name_;
  MetricType type_ = MetricType::gauge;
  std::string help_;
  bool announced_ = false;
};

}  // namespace virga::engine
