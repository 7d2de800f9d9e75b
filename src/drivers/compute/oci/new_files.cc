// Files that are written into the root of a container before it starts: through virga-files, as everything that touches a root.
#include "drivers/compute/oci/core.h"
#include "wire/sftp/whole_file.h"

namespace virga::compute::oci_driver {

Task<Result<>> write_new_files(CorePtr core, std::string rootfs, IdRange ids, std::vector<NewFile> files) {
  VIRGA_CO_TRY(auto stream, co_await serve_stopped(core, std::move(rootfs), ids));
  std::vector<sftp::WholeFile> whole;
  for (auto& f : files) whole.push_back({std::move(f.path), std::move(f.text), f.uid, f.gid, f.mode, f.only_if_missing});
  co_return co_await sftp::write_whole_files(std::move(stream), std::move(whole));
}

}  // namespace virga::compute::oci_driver
