// What an Operation and Operations keep inside; private to this folder.
#pragma once

#include <chrono>
#include <deque>
#include <memory>
#include <string>

#include "engine/operations/operations.h"

namespace virga::engine {

/// Shared by a channel that was lent to an operation's body and the client's task that waits for its end.
struct Loan {
  explicit Loan(Executor executor) : changed(std::move(executor)) {}
  bool ended = false;
  Notification changed;
};

/// One named WebSocket of an operation.
struct ChannelSlot {
  std::string secret;  ///< empty once it was used
  std::chrono::steady_clock::time_point expires;
  bool connected = false;
  std::deque<std::unique_ptr<Channel>> waiting;  ///< connected, and the body has not taken them yet: one, or some
};

struct Operation::State {
  State(Executor e, Events& ev, const Clock& c, Milliseconds lifetime)
      : executor(e), events(ev), clock(c), secret_lifetime(lifetime), finished(e), channels_changed(e) {}
  Executor executor;
  Events& events;
  const Clock& clock;
  Milliseconds secret_lifetime;

  std::string id;
  OperationSpec spec;
  json::object metadata;
  OperationStatus status = OperationStatus::pending;
  std::optional<Error> error;
  WallTime created{};
  WallTime updated{};
  std::uint64_t sequence = 0;
  std::chrono::steady_clock::time_point last_progress{};

  bool restored = false;  ///< of an earlier daemon
  bool body_entered = false;
  bool cancel_requested = false;
  std::function<void()> cancel_task;
  Notification finished;

  std::map<std::string, ChannelSlot, std::less<>> channels;
  Notification channels_changed;

  /// Lets go of every channel that the body has not taken: their clients are disconnected.
  void drop_channels() {
    for (auto& [name, slot] : channels) {
      slot.secret.clear();
      slot.waiting.clear();
    }
    channels_changed.notify();
  }
};

/// What the body gets: forwards to the client's channel, and tells the client's task when it is destroyed.
class LentChannel final : public Channel {
 public:
  LentChannel(std::unique_ptr<Channel> channel, std::shared_ptr<Loan> loan)
      : channel_(std::move(channel)), loan_(std::move(loan)) {}
  ~LentChannel() override {
    channel_.reset();
    loan_->ended = true;
    loan_->changed.notify();
  }
  LentChannel(const LentChannel&) = delete;
  LentChannel& operator=(const LentChannel&) = delete;
  Task<Result<Message>> read() override { return channel_->read(); }
  Task<Result<>> write(Message message) override { return channel_->write(std::move(message)); }
  Task<> close() override { return channel_->close(); }

 private:
  std::unique_ptr<Channel> channel_;
  std::shared_ptr<Loan> loan_;
};

}  // namespace virga::engine
