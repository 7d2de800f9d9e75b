#include "wire/http/raw_stream.h"

namespace virga::http {
namespace {

constexpr std::size_t step = 64u << 10;

class TransportStream final : public ByteStream {
 public:
  TransportStream(std::unique_ptr<Transport> transport, std::string early)
      : transport_(std::move(transport)), early_(std::move(early)) {}
  ~TransportStream() override { transport_->abort(); }

  Task<Result<std::string>> read() override {
    if (!early_.empty()) co_return std::exchange(early_, {});
    auto transport = transport_;  // we may be destroyed while it waits
    std::string buffer(step, '\0');
    auto n = co_await transport->read_some(buffer.data(), buffer.size());
    if (!n) co_return fail(std::move(n).error());
    buffer.resize(*n);
    co_return buffer;
  }
  Task<Result<>> write(std::string bytes) override {
    auto transport = transport_;
    co_return co_await transport->write(bytes, {});
  }
  void abort() noexcept override { transport_->abort(); }

 private:
  std::shared_ptr<Transport> transport_;
  std::string early_;
};

}  // namespace

std::unique_ptr<ByteStream> make_transport_stream(std::unique_ptr<Transport> transport, std::string early) {
  return std::make_unique<TransportStream>(std::move(transport), std::move(early));
}

}  // namespace virga::http
