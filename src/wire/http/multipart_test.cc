#include "wire/http/multipart.h"

#include <gtest/gtest.h>

#include <boost/asio/io_context.hpp>
#include <map>

namespace virga::http {
namespace {

/// Hands out a text in steps of a given size.
class TextBody final : public Body {
 public:
  TextBody(std::string text, std::size_t step) : text_(std::move(text)), step_(step) {}
  std::optional<std::uint64_t> length() const noexcept override { return text_.size(); }
  Task<Result<std::size_t>> read_some(std::span<char> into) override {
    const auto n = std::min({step_, into.size(), text_.size() - position_});
    text_.copy(into.data(), n, position_);
    position_ += n;
    co_return n;
  }
  Task<Result<std::string>> read_all(std::size_t) override { co_return text_; }
  bool too_large() const noexcept override { return false; }

 private:
  std::string text_;
  std::size_t step_, position_ = 0;
};

struct Outcome {
  std::vector<std::pair<std::string, std::string>> parts;
  std::optional<Error> error;
};

Outcome read(const std::string& text, std::size_t step) {
  boost::asio::io_context io;
  TaskGroup group(io.get_executor());
  Outcome out;
  TextBody body(text, step);
  auto run = [&]() -> Task<> {
    MultipartReader reader(body, "B");
    while (true) {
      auto part = co_await reader.next();
      if (!part) {
        out.error = std::move(part).error();
        break;
      }
      if (!*part) break;
      std::string content, buffer(7, '\0');
      while (true) {
        auto n = co_await reader.read_some(buffer);
        if (!n) {
          out.error = std::move(n).error();
          co_return;
        }
        if (*n == 0) break;
        content.append(buffer, 0, *n);
      }
      out.parts.emplace_back((*part)->name + "/" + (*part)->file_name, content);
    }
  };
  group.spawn("read", run());
  io.run();
  return out;
}

const std::string ambiguous =
    "--B\r\nContent-Disposition: form-data; name=\"metadata\"; filename=\"a;\\\"b.tar\"\r\nContent-Type: "
    "application/octet-stream\r\n\r\n"
    "one\r\n--\r\n-B\r\n--Bx no, this is data\r\n"
    "\r\n--B\r\ncontent-disposition: form-data; name=rootfs\r\n\r\ntwo\r\n--B--\r\n";

TEST(Multipart, ReadsPartsWhateverTheSteps) {
  for (std::size_t step : {1u, 2u, 3u, 10u, 1000u}) {
    // "--Bx" after a line end looks like the boundary: RFC 2046 forbids it in a part, so it is refused rather than guessed.
    auto out = read(
        "--B\r\nContent-Disposition: form-data; name=\"metadata\"; filename=\"a;\\\"b.tar\"\r\n\r\none\r\n--\r\n-B\r\r\n"
        "\r\n--B\r\ncontent-disposition: form-data; name=rootfs\r\n\r\ntwo\r\n--B--\r\n",
        step);
    ASSERT_FALSE(out.error) << step << out.error->text();
    ASSERT_EQ(out.parts.size(), 2u);
    EXPECT_EQ(out.parts[0], std::pair(std::string("metadata/a;\"b.tar"), std::string("one\r\n--\r\n-B\r\r\n")));
    EXPECT_EQ(out.parts[1], std::pair(std::string("rootfs/"), std::string("two")));
    EXPECT_TRUE(read(ambiguous, step).error);
  }
}

TEST(Multipart, RefusesWhatIsMalformed) {
  for (const auto& text :
       std::vector<std::string>{"", "--B", "--B\r\n", "preamble\r\n--B--", "--B\r\n\r\nx\r\n--B--", "--B\r\nX: y\r\n\r\nx\r\n--B--",
                                "--B\r\nContent-Disposition: form-data\r\n\r\nx\r\n--B--",
                                "--B\r\nContent-Disposition: form-data; name=\"a\r\n\r\nx\r\n--B--",
                                "--B\r\nContent-Disposition: form-data; name=a\r\n\r\nx", "--B\r\nX: " + std::string(100'000, 'y')})
    for (std::size_t step : {1u, 1000u}) EXPECT_TRUE(read(text, step).error) << text.substr(0, 60);
}

TEST(Multipart, Boundary) {
  EXPECT_EQ(multipart_boundary("multipart/form-data; boundary=abc").value(), "abc");
  EXPECT_EQ(multipart_boundary("Multipart/Form-Data; charset=x; boundary=\"a b\"").value(), "a b");
  for (auto bad : {"", "multipart/form-data", "text/plain; boundary=x", "multipart/form-data; boundary="})
    EXPECT_FALSE(multipart_boundary(bad)) << bad;
}

}  // namespace
}  // namespace virga::http
