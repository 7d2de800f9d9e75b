#include "wire/http/files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "io/file.h"

namespace virga::http {

Result<FileBody> open_file(const std::string& path) {
  FileBody file;
  VIRGA_TRY(file.fd, io::open_path(path, O_RDONLY));
  struct stat status{};
  if (::fstat(file.fd.get(), &status) != 0) return fail_errno(errno, "look at a file");
  if (!S_ISREG(status.st_mode)) return fail(ErrorKind::invalid, "not a regular file");
  file.length = static_cast<std::uint64_t>(status.st_size);
  return file;
}

Result<std::string> read_small_file(const std::string& path) {
  return io::read_file(path);
}

std::vector<std::string> list_files(const std::string& directory) {
  std::vector<std::string> out;
  for (auto& name : io::list_directory(directory).value_or(std::vector<std::string>()))
    if (open_file(directory + "/" + name)) out.push_back(std::move(name));
  return out;
}

Result<FileWriter> FileWriter::create(const std::string& path) {
  VIRGA_TRY(auto fd, io::open_path(path, O_WRONLY | O_CREAT | O_EXCL, 0600));
  return FileWriter(std::move(fd));
}

Result<> FileWriter::write(std::string_view bytes) {
  while (!bytes.empty()) {
    const auto n = ::write(fd_.get(), bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, "write an upload");
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
  return {};
}

}  // namespace virga::http
