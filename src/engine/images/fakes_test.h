// For tests: images' files in memory, and a reader that goes by how their content begins.
#pragma once

#include <map>
#include <set>
#include <string>

#include "base/random.h"
#include "drivers/image/files.h"
#include "drivers/image/reader.h"

namespace virga::engine {

/// Files by name in memory: "content" of an upload decides what the reader says of it.
class FakeFiles final : public image::Files {
 public:
  Task<Result<>> open() override {
    std::erase_if(files, [](const auto& f) { return f.first.starts_with("up-"); });
    co_return Result<>();
  }
  std::string new_upload_path() override { return "up-" + std::to_string(++uploads_); }
  Task<Result<image::Digest>> digest(std::string metadata, std::string rootfs) override {
    std::string all = files.at(metadata) + (rootfs.empty() ? "" : files.at(rootfs));
    co_return image::Digest{sha256_hex(all), all.size()};
  }
  Task<Result<>> keep(std::string metadata, std::string rootfs, std::string fingerprint) override {
    if (fail_keep) co_return fail(ErrorKind::unavailable, "no space");
    move(metadata, metadata_path(fingerprint));
    if (!rootfs.empty()) move(rootfs, rootfs_path(fingerprint));
    if (first_fails && keeps++ == 0) {
      co_await sleep_for(Milliseconds(20));
      co_return fail(ErrorKind::unavailable, "no space");
    }
    if (first_fails) co_await sleep_for(Milliseconds(60));  // the other one has been undone by then
    co_return Result<>();
  }
  Task<Result<>> remove(std::string fingerprint) override {
    files.erase(metadata_path(fingerprint));
    files.erase(rootfs_path(fingerprint));
    co_return Result<>();
  }
  Task<Result<>> discard_upload(std::string path) override {
    files.erase(path);
    co_return Result<>();
  }
  Task<Result<>> sweep(std::set<std::string> known) override {
    std::erase_if(files, [&](const auto& f) { return !known.contains(f.first.substr(0, 64)); });
    co_return Result<>();
  }
  std::string metadata_path(const std::string& fingerprint) const override { return fingerprint; }
  std::string rootfs_path(const std::string& fingerprint) const override { return fingerprint + ".rootfs"; }

  std::string upload(std::string content) {
    auto path = new_upload_path();
    files[path] = std::move(content);
    return path;
  }
  std::map<std::string, std::string> files;
  bool fail_keep = false;
  bool first_fails = false;  ///< a little after its files are in place, those that follow take longer
  int keeps = 0;

 private:
  void move(const std::string& from, const std::string& to) {
    if (auto node = files.extract(from)) {
      node.key() = to;
      files.insert(std::move(node));
    }
  }
  int uploads_ = 0;
};

class FakeReader final : public image::Reader {
 public:
  explicit FakeReader(FakeFiles& files) : files_(files) {}
  Task<Result<image::Inspection>> inspect(std::string metadata, std::string rootfs) override {
    const auto content = files_.files.at(metadata) + (rootfs.empty() ? "" : files_.files.at(rootfs));
    if (content.starts_with("bad")) co_return fail(ErrorKind::invalid, "entry '../x': the name holds '.' or '..'");
    image::Inspection i;
    i.type = content.starts_with("vm") ? image::Type::virtual_machine : image::Type::container;
    i.metadata.architecture = content.find("odd") != std::string::npos ? "pdp11" : "amd64";
    i.metadata.creation_date = 1'700'000'000;
    i.metadata.properties = {{"os", "Tiny"}, {"release", "1"}};
    co_return i;
  }
  Task<Result<image::Inspection>> unpack(image::UnpackRequest request) override {
    ++unpacks;
    if (slow && !co_await sleep_for(Milliseconds(20))) co_return fail(ErrorKind::cancelled, "cancelled");
    if (fail_unpack) co_return fail(ErrorKind::unavailable, "no space");
    co_return co_await inspect(std::move(request.metadata_file), std::move(request.rootfs_file));
  }
  int unpacks = 0;
  bool slow = false;
  bool fail_unpack = false;

 private:
  FakeFiles& files_;
};

}  // namespace virga::engine
