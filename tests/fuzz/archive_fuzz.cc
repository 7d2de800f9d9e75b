// Image tarballs, read as an import reads them (nothing is written).
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>

#include "drivers/image/confined/worker/layout.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const int fd = ::memfd_create("image", MFD_CLOEXEC);
  if (fd < 0 || ::write(fd, data, size) != static_cast<ssize_t>(size)) std::abort();
  ::lseek(fd, 0, SEEK_SET);
  virga::image::Job job;
  job.metadata_fd = fd;
  job.limits.max_unpacked = 1u << 20;
  job.limits.max_entries = 1000;
  auto answer = virga::image::read_image(job);
  if (answer && !virga::image::decode_answer(virga::image::encode_answer(*answer))) std::abort();
  ::close(fd);
  return 0;
}
