#include "wire/sftp/whole_file.h"

#include <fmt/format.h>

#include "wire/sftp/client.h"

namespace virga::sftp {
namespace {

Task<Result<>> make_parents(Client& client, std::string path) {
  for (auto slash = path.find('/', 1); slash != std::string::npos; slash = path.find('/', slash + 1)) {
    auto made = co_await client.make_directory(path.substr(0, slash), 0755);
    if (!made && made.error().kind() != ErrorKind::exists) co_return made;
  }
  co_return Result<>{};
}

Task<Result<>> write_one(Client& client, WholeFile file) {
  auto there = co_await client.stat(file.path);
  if (!there && there.error().kind() != ErrorKind::not_found) co_return fail(std::move(there).error());
  if (there && file.only_if_missing) co_return Result<>{};
  if (!there) VIRGA_CO_CHECK(co_await make_parents(client, file.path));
  Attributes a;
  if (file.uid || file.gid) {
    a.flags |= attr_owner;
    a.uid = file.uid.value_or(there ? there->uid : 0);
    a.gid = file.gid.value_or(there ? there->gid : 0);
  }
  if (file.mode) {
    a.flags |= attr_permissions;
    a.permissions = *file.mode;
  }
  VIRGA_CO_TRY(auto handle,
               co_await client.open_file(file.path, open_write | open_create | open_truncate, file.mode.value_or(0644) & 0777));
  if (a.flags != 0) VIRGA_CO_CHECK(co_await client.set_file(handle, a));
  VIRGA_CO_CHECK(co_await client.write_next(handle, std::move(file.text)));
  VIRGA_CO_CHECK(co_await client.finish_writing());
  co_return co_await client.close(handle);
}

}  // namespace

Task<Result<>> write_whole_files(std::unique_ptr<ByteStream> stream, std::vector<WholeFile> files) {
  VIRGA_CO_TRY(auto client, co_await Client::open(std::move(stream)));
  for (auto& file : files) {
    const auto path = file.path;
    auto written = co_await write_one(*client, std::move(file));
    if (!written) co_return fail(std::move(written).error().wrap(fmt::format("write '{}'", path)));
  }
  co_return Result<>{};
}

}  // namespace virga::sftp
