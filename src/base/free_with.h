// A deleter for what a C library hands out: `std::unique_ptr<BIO, FreeWith<BIO_free_all>>`.
#pragma once

namespace virga {

template <auto F>
struct FreeWith {
  template <class T>
  void operator()(T* p) const noexcept {
    F(p);
  }
};

}  // namespace virga
