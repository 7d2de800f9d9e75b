// SHA-256 over data that comes in pieces.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

namespace virga {

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;
  void add(std::span<const char> data);
  /// 64 lower-case hexadecimal digits of all that was added; call once.
  std::string hex();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace virga
