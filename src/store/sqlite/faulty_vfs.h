// For tests: a SQLite VFS whose k-th write, fsync or truncate fails, as a disk does that is full or breaks.
#pragma once

#include <sqlite3.h>

#include <cstring>
#include <string>

namespace virga::sqlite {

class FaultyVfs {
 public:
  enum class Failure { disk_full, write_error, sync_error };

  static FaultyVfs& instance() {
    static FaultyVfs vfs;
    return vfs;
  }
  std::string name() const { return "virga-faulty"; }
  /// The k-th call (from 1) of that sort fails, and `times - 1` after it; 0 disarms.
  void arm(Failure failure, int k, int times = 1) {
    failure_ = failure;
    countdown_ = k;
    times_ = k > 0 ? times : 0;
  }
  bool fired() const { return countdown_ <= 0 && armed_once_; }
  bool take_fired() { return std::exchange(armed_once_, false); }

 private:
  struct File {
    sqlite3_file base;
    sqlite3_file* real;
  };
  static sqlite3_file* real(sqlite3_file* f) { return reinterpret_cast<File*>(f)->real; }

  FaultyVfs() {
    base_ = sqlite3_vfs_find(nullptr);
    vfs_ = *base_;
    vfs_.zName = "virga-faulty";
    vfs_.szOsFile = static_cast<int>(sizeof(File)) + base_->szOsFile;
    vfs_.xOpen = [](sqlite3_vfs*, const char* path, sqlite3_file* file, int flags, int* out) {
      auto* f = reinterpret_cast<File*>(file);
      f->real = reinterpret_cast<sqlite3_file*>(f + 1);
      f->real->pMethods = nullptr;
      const int code = instance().base_->xOpen(instance().base_, path, f->real, flags, out);
      file->pMethods = f->real->pMethods != nullptr ? instance().methods() : nullptr;
      return code;
    };
    sqlite3_vfs_register(&vfs_, 0);
  }

  int failing(Failure kind) {
    const bool same = kind == failure_ || (kind == Failure::write_error && failure_ == Failure::disk_full);
    if (!same || times_ == 0) return SQLITE_OK;
    if (countdown_ > 1) {
      --countdown_;
      return SQLITE_OK;
    }
    countdown_ = 0;
    --times_;
    armed_once_ = true;
    if (failure_ == Failure::disk_full) return SQLITE_FULL;
    return kind == Failure::sync_error ? SQLITE_IOERR_FSYNC : SQLITE_IOERR_WRITE;
  }

  sqlite3_io_methods* methods() {
    static sqlite3_io_methods m = [] {
      sqlite3_io_methods t{};
      t.iVersion = 1;  // no shared memory, no mmap: the store needs neither
      t.xClose = [](sqlite3_file* f) { return real(f)->pMethods->xClose(real(f)); };
      t.xRead = [](sqlite3_file* f, void* p, int n, sqlite3_int64 at) { return real(f)->pMethods->xRead(real(f), p, n, at); };
      t.xWrite = [](sqlite3_file* f, const void* p, int n, sqlite3_int64 at) {
        if (int code = instance().failing(Failure::write_error)) {
          // A torn write: half of it arrives.
          (void)real(f)->pMethods->xWrite(real(f), p, n / 2, at);
          return code;
        }
        return real(f)->pMethods->xWrite(real(f), p, n, at);
      };
      t.xTruncate = [](sqlite3_file* f, sqlite3_int64 size) { return real(f)->pMethods->xTruncate(real(f), size); };
      t.xSync = [](sqlite3_file* f, int flags) {
        if (int code = instance().failing(Failure::sync_error)) return code;
        return real(f)->pMethods->xSync(real(f), flags);
      };
      t.xFileSize = [](sqlite3_file* f, sqlite3_int64* size) { return real(f)->pMethods->xFileSize(real(f), size); };
      t.xLock = [](sqlite3_file* f, int level) { return real(f)->pMethods->xLock(real(f), level); };
      t.xUnlock = [](sqlite3_file* f, int level) { return real(f)->pMethods->xUnlock(real(f), level); };
      t.xCheckReservedLock = [](sqlite3_file* f, int* out) { return real(f)->pMethods->xCheckReservedLock(real(f), out); };
      t.xFileControl = [](sqlite3_file* f, int op, void* arg) { return real(f)->pMethods->xFileControl(real(f), op, arg); };
      t.xSectorSize = [](sqlite3_file* f) { return real(f)->pMethods->xSectorSize(real(f)); };
      t.xDeviceCharacteristics = [](sqlite3_file* f) { return real(f)->pMethods->xDeviceCharacteristics(real(f)); };
      return t;
    }();
    return &m;
  }

  sqlite3_vfs* base_ = nullptr;
  sqlite3_vfs vfs_{};
  Failure failure_ = Failure::disk_full;
  int countdown_ = 0;
  int times_ = 0;
  bool armed_once_ = false;
};

}  // namespace virga::sqlite
