// Errors are values. An Error is a kind that callers match and a chain of messages that people read:
//   "start instance 'db1': attach root volume: device node missing".
// Messages are lower-case fragments with the object in quotes and no full stop; hint() says what a person can do.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <utility>

namespace virga {

enum class ErrorKind {
  invalid,      ///< the request is wrong; field() names the part where it is known
  not_found,    ///< the object does not exist, or the caller may not know that it does
  exists,       ///< an object of that name is there already
  busy,         ///< another operation holds the object, or it is in use
  unsupported,  ///< this host, driver or version cannot do it
  denied,       ///< the caller may not do it
  unavailable,  ///< a part that is needed is down or missing
  timeout,      ///< it took longer than allowed
  cancelled,    ///< somebody cancelled it
  conflict,     ///< the object changed meanwhile (ETag, compare-and-set)
  internal,     ///< a bug or a host that misbehaves
};

std::string_view to_string(ErrorKind kind) noexcept;

class [[nodiscard]] Error {
 public:
  Error(ErrorKind kind, std::string message);
  Error(Error&&) noexcept = default;
  Error& operator=(Error&&) noexcept = default;
  Error(const Error& other);
  Error& operator=(const Error& other);
  ~Error() = default;

  ErrorKind kind() const noexcept { return rep_->kind; }
  const std::string& message() const noexcept { return rep_->message; }
  /// The name of the field that is at fault, as the API spells it; empty where unknown. Looks down the chain.
  std::string_view field() const noexcept;
  /// What a person can do about it; empty where unknown. Looks down the chain.
  std::string_view hint() const noexcept;

  Error with_field(std::string field) &&;
  Error with_hint(std::string hint) &&;
  /// Puts context in front: the new message becomes the head of the chain, the kind stays.
  Error wrap(std::string message) &&;
  /// All messages, outermost first, joined by ": ".
  std::string chain() const;
  /// chain(), and the hint in parentheses where there is one: what is shown to people.
  std::string text() const;

 private:
  struct Rep {
    ErrorKind kind;
    std::string message;
    std::string field;
    std::string hint;
    std::unique_ptr<Rep> cause;
  };
  static std::unique_ptr<Rep> clone(const Rep& rep);
  std::unique_ptr<Rep> rep_;
};

template <class T = void>
using Result = tl::expected<T, Error>;

/// `return fail(ErrorKind::invalid, "...")` in any function that returns a Result.
inline tl::unexpected<Error> fail(ErrorKind kind, std::string message) {
  return tl::unexpected<Error>(Error(kind, std::move(message)));
}
inline tl::unexpected<Error> fail(Error error) {
  return tl::unexpected<Error>(std::move(error));
}
/// An `invalid` error that names the field.
tl::unexpected<Error> invalid(std::string field, std::string message);
/// An error from errno: not_found, denied, exists, busy, ... or internal, with the system's words behind `message`.
tl::unexpected<Error> fail_errno(int error_number, std::string message);
ErrorKind kind_of_errno(int error_number) noexcept;

}  // namespace virga

#define VIRGA_CAT2(a, b) a##b
#define VIRGA_CAT(a, b) VIRGA_CAT2(a, b)
#define VIRGA_TRY_IMPL(ret, tmp, decl, ...)            \
  auto tmp = (__VA_ARGS__);                            \
  if (!tmp) ret ::virga::fail(std::move(tmp).error()); \
  decl = std::move(*tmp)
#define VIRGA_CHECK_IMPL(ret, tmp, ...) \
  if (auto tmp = (__VA_ARGS__); !tmp) ret ::virga::fail(std::move(tmp).error())

/// VIRGA_TRY(auto x, f()): x is the value, or the function returns f's error. The CO_ forms are for coroutines.
#define VIRGA_TRY(decl, ...) VIRGA_TRY_IMPL(return, VIRGA_CAT(try_, __COUNTER__), decl, __VA_ARGS__)
#define VIRGA_CHECK(...) VIRGA_CHECK_IMPL(return, VIRGA_CAT(check_, __COUNTER__), __VA_ARGS__)
#define VIRGA_CO_TRY(decl, ...) VIRGA_TRY_IMPL(co_return, VIRGA_CAT(try_, __COUNTER__), decl, __VA_ARGS__)
#define VIRGA_CO_CHECK(...) VIRGA_CHECK_IMPL(co_return, VIRGA_CAT(check_, __COUNTER__), __VA_ARGS__)
