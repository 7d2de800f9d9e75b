#include "base/error.h"

#include <cerrno>
#include <cstring>

namespace virga {

std::string_view to_string(ErrorKind kind) noexcept {
  switch (kind) {
    case ErrorKind::invalid:
      return "invalid";
    case ErrorKind::not_found:
      return "not found";
    case ErrorKind::exists:
      return "exists";
    case ErrorKind::busy:
      return "busy";
    case ErrorKind::unsupported:
      return "unsupported";
    case ErrorKind::denied:
      return "denied";
    case ErrorKind::unavailable:
      return "unavailable";
    case ErrorKind::timeout:
      return "timeout";
    case ErrorKind::cancelled:
      return "cancelled";
    case ErrorKind::conflict:
      return "conflict";
    case ErrorKind::internal:
      return "internal";
  }
  return "internal";
}

Error::Error(ErrorKind kind, std::string message) : rep_(new Rep{kind, std::move(message), {}, {}, nullptr}) {}

std::unique_ptr<Error::Rep> Error::clone(const Rep& rep) {
  std::unique_ptr<Rep> copy(new Rep{rep.kind, rep.message, rep.field, rep.hint, nullptr});
  if (rep.cause) copy->cause = clone(*rep.cause);
  return copy;
}

Error::Error(const Error& other) : rep_(clone(*other.rep_)) {}
Error& Error::operator=(const Error& other) {
  if (this != &other) rep_ = clone(*other.rep_);
  return *this;
}

std::string_view Error::field() const noexcept {
  for (const Rep* r = rep_.get(); r != nullptr; r = r->cause.get())
    if (!r->field.empty()) return r->field;
  return {};
}

std::string_view Error::hint() const noexcept {
  for (const Rep* r = rep_.get(); r != nullptr; r = r->cause.get())
    if (!r->hint.empty()) return r->hint;
  return {};
}

Error Error::with_field(std::string field) && {
  rep_->field = std::move(field);
  return std::move(*this);
}

Error Error::with_hint(std::string hint) && {
  rep_->hint = std::move(hint);
  return std::move(*this);
}

Error Error::wrap(std::string message) && {
  Error outer(rep_->kind, std::move(message));
  outer.rep_->cause = std::move(rep_);
  return outer;
}

std::string Error::chain() const {
  std::string out;
  for (const Rep* r = rep_.get(); r != nullptr; r = r->cause.get()) {
    if (!out.empty()) out += ": ";
    out += r->message;
  }
  return out;
}

std::string Error::text() const {
  std::string out = chain();
  if (auto h = hint(); !h.empty()) {
    out += " (";
    out += h;
    out += ")";
  }
  return out;
}

tl::unexpected<Error> invalid(std::string field, std::string message) {
  return fail(Error(ErrorKind::invalid, std::move(message)).with_field(std::move(field)));
}

ErrorKind kind_of_errno(int e) noexcept {
  switch (e) {
    case ENOENT:
    case ESRCH:
    case ENODEV:
    case ENXIO:
      return ErrorKind::not_found;
    case EEXIST:
    case ENOTEMPTY:
    case EADDRINUSE:
      return ErrorKind::exists;
    case EACCES:
    case EPERM:
    case EXDEV:
    case ELOOP:
      return ErrorKind::denied;
    case EBUSY:
    case ETXTBSY:
    case EAGAIN:
      return ErrorKind::busy;
    case EINVAL:
    case ENAMETOOLONG:
    case ENOTDIR:
    case EISDIR:
      return ErrorKind::invalid;
    case ENOSYS:
    case EOPNOTSUPP:
      return ErrorKind::unsupported;
    case ETIMEDOUT:
      return ErrorKind::timeout;
    case ECANCELED:
      return ErrorKind::cancelled;
    case ENOSPC:
    case ENOMEM:
    case EMFILE:
    case ENFILE:
    case EDQUOT:
    case ECONNREFUSED:
    case ECONNRESET:
    case EPIPE:
      return ErrorKind::unavailable;
    default:
      return ErrorKind::internal;
  }
}

tl::unexpected<Error> fail_errno(int error_number, std::string message) {
  message += ": ";
  message += std::strerror(error_number);
  return fail(kind_of_errno(error_number), std::move(message));
}

}  // namespace virga
