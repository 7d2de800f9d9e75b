#include "engine/operations/operation.h"

#include "base/random.h"
#include "engine/url.h"

namespace virga::engine {

std::string_view to_string(OperationClass c) noexcept {
  switch (c) {
    case OperationClass::task:
      return "task";
    case OperationClass::websocket:
      return "websocket";
    case OperationClass::token:
      return "token";
  }
  return "task";
}

std::string_view to_string(OperationStatus status) noexcept {
  switch (status) {
    case OperationStatus::pending:
      return "Pending";
    case OperationStatus::running:
      return "Running";
    case OperationStatus::cancelling:
      return "Cancelling";
    case OperationStatus::success:
      return "Success";
    case OperationStatus::failure:
      return "Failure";
    case OperationStatus::cancelled:
      return "Cancelled";
  }
  return "Failure";
}

Operation::Operation(std::unique_ptr<State> state) : state_(std::move(state)) {}
Operation::~Operation() = default;

const std::string& Operation::id() const noexcept {
  return state_->id;
}
const OperationSpec& Operation::spec() const noexcept {
  return state_->spec;
}
OperationStatus Operation::status() const noexcept {
  return state_->status;
}
const std::optional<Error>& Operation::error() const noexcept {
  return state_->error;
}
const json::object& Operation::metadata() const noexcept {
  return state_->metadata;
}
std::string Operation::url() const {
  return operation_url(state_->id);
}
bool Operation::cancel_requested() const noexcept {
  return state_->cancel_requested;
}

bool Operation::done() const noexcept {
  return state_->status == OperationStatus::success || state_->status == OperationStatus::failure ||
         state_->status == OperationStatus::cancelled;
}

json::object Operation::to_json() const {
  const State& s = *state_;
  json::object resources;
  for (const auto& [noun, urls] : s.spec.resources) resources[noun] = virga::to_json(urls);
  json::object out{{"id", s.id},
                   {"class", to_string(s.spec.op_class)},
                   {"description", s.spec.description},
                   {"created_at", format_time(s.created)},
                   {"updated_at", format_time(s.updated)},
                   {"status", to_string(s.status)},
                   {"status_code", static_cast<int>(s.status)},
                   {"resources", std::move(resources)},
                   {"metadata", nullptr},
                   {"may_cancel", s.spec.may_cancel && !done()},
                   {"err", s.error ? valid_utf8(s.error->text()) : std::string()},  // tools and guests have their words in it
                   {"location", "none"}};
  if (!s.metadata.empty()) out["metadata"] = s.metadata;
  return out;
}

json::object Operation::to_json_for_creator() const {
  json::object out = to_json();
  json::object metadata = state_->metadata;
  for (const auto& field : state_->spec.secret_metadata) metadata[field.key()] = field.value();
  json::object fds;
  for (const auto& [name, slot] : state_->channels)
    if (!slot.secret.empty()) (state_->spec.bearer ? metadata : fds)[name] = slot.secret;
  if (!fds.empty()) metadata["fds"] = std::move(fds);
  if (!metadata.empty()) out["metadata"] = std::move(metadata);
  return out;
}

void Operation::publish() {
  state_->updated = state_->clock.now();
  if (state_->events.wanted(EventType::operation)) state_->events.publish(EventType::operation, state_->spec.project, to_json());
}

void Operation::set_metadata(std::string_view key, json::value value) {
  if (value.is_null()) {
    state_->metadata.erase(key);
  } else {
    state_->metadata[key] = std::move(value);
  }
  publish();
}

void Operation::set_progress(std::string_view key, json::value value) {
  state_->metadata[key] = std::move(value);
  const auto now = std::chrono::steady_clock::now();
  if (now - state_->last_progress < Milliseconds(200)) return;
  state_->last_progress = now;
  publish();
}

void Operation::add_resource(std::string noun, std::string url) {
  auto& urls = state_->spec.resources[std::move(noun)];
  if (std::find(urls.begin(), urls.end(), url) == urls.end()) urls.push_back(std::move(url));
}

void Operation::set_may_cancel(bool may) {
  state_->spec.may_cancel = may;
}

std::string Operation::add_channel(std::string name) {
  auto& slot = state_->channels[std::move(name)];
  slot.secret = random_hex(32);
  slot.expires = std::chrono::steady_clock::now() + state_->secret_lifetime;
  return slot.secret;
}

bool Operation::channel_connected(std::string_view name) const noexcept {
  auto it = state_->channels.find(name);
  return it != state_->channels.end() && it->second.connected;
}

Task<Result<std::unique_ptr<Channel>>> Operation::wait_channel(std::string name, Milliseconds timeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  while (true) {
    auto it = state_->channels.find(name);
    if (it == state_->channels.end()) co_return fail(ErrorKind::not_found, "operation has no channel '" + name + "'");
    if (!it->second.waiting.empty()) {
      auto channel = std::move(it->second.waiting.front());
      it->second.waiting.pop_front();
      co_return channel;
    }
    const auto left = std::chrono::duration_cast<Milliseconds>(deadline - std::chrono::steady_clock::now());
    if (left <= Milliseconds(0)) co_return fail(ErrorKind::timeout, "no client connected to channel '" + name + "' in time");
    co_await state_->channels_changed.wait_for(left);
    if (co_await is_cancelled()) co_return fail(ErrorKind::cancelled, "cancelled while waiting for channel '" + name + "'");
  }
}

}  // namespace virga::engine
