#include "wire/sftp/server/server.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <initializer_list>
#include <new>

#include "wire/sftp/packet.h"
#include "wire/sftp/server/tree.h"

namespace virga::sftp {
namespace {

constexpr std::size_t max_handles = 256;
constexpr std::size_t names_in_reply = 128;

struct Handle {
  int fd = -1;
  DIR* directory = nullptr;
  bool append = false;
  std::uint32_t serial = 0;
  bool used() const { return fd >= 0 || directory != nullptr; }
};

/// The state of one connection; large, so it lives in memory of its own.
struct Server {
  Server(int in_fd, int out_fd, int root, bool fall_back) : in(in_fd), out(out_fd), tree(root, fall_back) {}
  int in;
  int out;
  Tree tree;
  Handle handles[max_handles];
  std::uint32_t serial = 0;
  char path[max_path], other[max_path];
  unsigned char request[max_packet];
  unsigned char reply_buffer[max_packet + 64];
  Out reply{reply_buffer, sizeof reply_buffer};

  void status(std::uint32_t id, Code code, const char* words, int error = 0) {
    char tag[24] = "";
    if (error != 0) snprintf(tag, sizeof tag, "%s%d", errno_tag, error);
    reply.start(Type::status, id);
    reply.u32(static_cast<std::uint32_t>(code));
    reply.text(words);
    reply.text(tag);
  }
  void outcome(std::uint32_t id, int error) {
    if (error == 0) return status(id, Code::ok, "Success");
    const Code code = error == ENOENT                                       ? Code::no_such_file
                      : error == EACCES || error == EPERM || error == EROFS ? Code::permission_denied
                                                                            : Code::failure;
    status(id, code, strerror(error), error);
  }

  Handle* find(In& r) {
    std::size_t size = 0;
    const char* text = r.bytes(size);
    std::uint32_t index = 0, number = 0;
    if (text == nullptr || size != 8) return nullptr;
    memcpy(&index, text, 4);
    memcpy(&number, text + 4, 4);
    if (index >= max_handles || !handles[index].used() || handles[index].serial != number) return nullptr;
    return &handles[index];
  }
  Handle* free_handle() {
    for (auto& h : handles)
      if (!h.used()) return &h;
    return nullptr;
  }
  void give_handle(std::uint32_t id, Handle& h) {
    h.serial = ++serial;
    const std::uint32_t index = static_cast<std::uint32_t>(&h - handles);
    char text[8];
    memcpy(text, &index, 4);
    memcpy(text + 4, &h.serial, 4);
    reply.start(Type::handle, id);
    reply.text(text, sizeof text);
  }
  static int release(Handle& h) {
    int error = 0;
    if (h.directory != nullptr) closedir(h.directory);
    if (h.fd >= 0 && close(h.fd) != 0) error = errno;
    h = Handle();
    return error;
  }

  bool take_path(In& r, std::uint32_t id, char* to) {
    if (r.text(to, max_path)) return true;
    status(id, Code::bad_message, "a path is missing, longer than 4095 bytes, or holds a NUL", EINVAL);
    return false;
  }

  void open(In& r, std::uint32_t id);
  void read(In& r, std::uint32_t id);
  void write(In& r, std::uint32_t id);
  void read_directory(In& r, std::uint32_t id);
  void attributes(std::uint32_t id, int error, const struct ::stat& st);
  void extended(In& r, std::uint32_t id);
  void space(std::uint32_t id, int error, const struct ::statvfs& st);
  void real_path(std::uint32_t id);
  void one_name(std::uint32_t id, const char* name);
  void handle_request(Type type, std::uint32_t id, In& r);
  bool run();
  bool receive(unsigned char* to, std::size_t size) const;
  bool send();
};

void Server::open(In& r, std::uint32_t id) {
  if (!take_path(r, id, path)) return;
  const std::uint32_t flags = r.u32();
  const Attributes a = r.attributes();
  Handle* h = free_handle();
  if (!r.ok()) return status(id, Code::bad_message, "malformed request");
  if (h == nullptr) return outcome(id, EMFILE);
  int fd = -1;
  const mode_t mode = (a.flags & attr_permissions) != 0 ? a.permissions & 07777 : 0644;
  const int error = tree.open_file(path, flags, mode, fd);
  if (error != 0) return outcome(id, error);
  h->fd = fd;
  h->append = (flags & open_append) != 0;
  give_handle(id, *h);
}

void Server::read(In& r, std::uint32_t id) {
  const Handle* h = find(r);
  const std::uint64_t offset = r.u64();
  std::size_t size = r.u32();
  if (!r.ok() || h == nullptr || h->fd < 0) return outcome(id, EBADF);
  if (size > max_data) size = max_data;
  reply.start(Type::data, id);
  const std::size_t at = reply.size();
  reply.u32(0);
  ssize_t n = -1;
  do n = pread(h->fd, reply.end(), size, static_cast<off_t>(offset));
  while (n < 0 && errno == EINTR);
  if (n < 0) return outcome(id, errno);
  if (n == 0) return status(id, Code::end_of_file, "End of file");
  reply.patch_u32(at, static_cast<std::uint32_t>(n));
  reply.grow(static_cast<std::size_t>(n));
}

void Server::write(In& r, std::uint32_t id) {
  const Handle* h = find(r);
  std::uint64_t offset = r.u64();
  std::size_t size = 0;
  const char* data = r.bytes(size);
  if (!r.ok() || h == nullptr || h->fd < 0) return outcome(id, EBADF);
  while (size > 0) {
    const ssize_t n = h->append ? ::write(h->fd, data, size) : pwrite(h->fd, data, size, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return outcome(id, n < 0 ? errno : EIO);
    data += n;
    size -= static_cast<std::size_t>(n);
    offset += static_cast<std::uint64_t>(n);
  }
  outcome(id, 0);
}

/// A line as `ls -l` shows it: some clients print it.
void long_name(char* to, std::size_t room, const char* name, const struct ::stat& st) {
  static constexpr char kinds[] = "?pc?d?b?-?l?s???";
  char mode[11];
  mode[0] = kinds[(st.st_mode >> 12) & 15];
  for (unsigned i = 0; i < 9; ++i) mode[i + 1] = (st.st_mode >> (8 - i) & 1) != 0 ? "rwxrwxrwx"[i] : '-';
  mode[10] = 0;
  snprintf(to, room, "%s %lu %u %u %lld %lld %s", mode, static_cast<unsigned long>(st.st_nlink), st.st_uid, st.st_gid,
           static_cast<long long>(st.st_size), static_cast<long long>(st.st_mtim.tv_sec), name);
}

void Server::read_directory(In& r, std::uint32_t id) {
  Handle* h = find(r);
  if (h == nullptr || h->directory == nullptr) return outcome(id, EBADF);
  reply.start(Type::name, id);
  const std::size_t count_at = reply.size();
  reply.u32(0);
  std::uint32_t count = 0;
  // One more name of the longest kind must fit.
  while (count < names_in_reply && reply.size() + 2048 < max_packet) {
    errno = 0;
    const struct dirent* entry = readdir(h->directory);
    if (entry == nullptr) {
      if (errno != 0 && count == 0) return outcome(id, errno);
      break;
    }
    struct ::stat st;
    if (fstatat(dirfd(h->directory), entry->d_name, &st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) != 0) continue;
    char line[512];
    long_name(line, sizeof line, entry->d_name, st);
    reply.text(entry->d_name);
    reply.text(line);
    reply.attributes(attributes_of(st));
    ++count;
  }
  if (count == 0) return status(id, Code::end_of_file, "End of directory");
  reply.patch_u32(count_at, count);
}

void Server::attributes(std::uint32_t id, int error, const struct ::stat& st) {
  if (error != 0) return outcome(id, error);
  reply.start(Type::attrs, id);
  reply.attributes(attributes_of(st));
}

void Server::one_name(std::uint32_t id, const char* name) {
  reply.start(Type::name, id);
  reply.u32(1);
  reply.text(name);
  reply.text(name);
  reply.u32(0);  // no attributes
}

/// Only text: nothing is looked at, and links stay as they are. A client asks for "." to learn where it is.
void Server::real_path(std::uint32_t id) {
  std::size_t size = 0;
  for (const char* at = path; *at != 0;) {
    while (*at == '/') ++at;
    const char* end = at;
    while (*end != 0 && *end != '/') ++end;
    const std::size_t n = static_cast<std::size_t>(end - at);
    if (n == 2 && at[0] == '.' && at[1] == '.') {
      while (size > 0 && other[--size] != '/') {
      }
    } else if (n > 0 && !(n == 1 && at[0] == '.') && size + n + 2 < sizeof other) {
      other[size++] = '/';
      memcpy(other + size, at, n);
      size += n;
    }
    at = end;
  }
  if (size == 0) other[size++] = '/';
  other[size] = 0;
  one_name(id, other);
}

void Server::space(std::uint32_t id, int error, const struct ::statvfs& st) {
  if (error != 0) return outcome(id, error);
  reply.start(Type::extended_reply, id);
  for (std::uint64_t v :
       {std::uint64_t(st.f_bsize), std::uint64_t(st.f_frsize), std::uint64_t(st.f_blocks), std::uint64_t(st.f_bfree),
        std::uint64_t(st.f_bavail), std::uint64_t(st.f_files), std::uint64_t(st.f_ffree), std::uint64_t(st.f_favail),
        std::uint64_t(st.f_fsid), std::uint64_t(st.f_flag & 3), std::uint64_t(st.f_namemax)})
    reply.u64(v);
}

void Server::extended(In& r, std::uint32_t id) {
  char name[64];
  if (!r.text(name, sizeof name)) return status(id, Code::unsupported, "unknown extension");
  const bool is_rename = strcmp(name, "posix-rename@openssh.com") == 0, is_link = strcmp(name, "hardlink@openssh.com") == 0;
  struct ::statvfs st = {};
  if (is_rename || is_link) {
    if (!take_path(r, id, path) || !take_path(r, id, other)) return;
    return outcome(id, is_rename ? tree.rename(path, other, true) : tree.make_hard_link(path, other));
  }
  if (strcmp(name, "statvfs@openssh.com") == 0) {
    if (take_path(r, id, path)) space(id, tree.space(path, st), st);
    return;
  }
  if (strcmp(name, "lsetstat@openssh.com") == 0) {
    if (!take_path(r, id, path)) return;
    const Attributes a = r.attributes();
    return outcome(id, r.ok() ? tree.set(path, false, a) : EINVAL);
  }
  if (strcmp(name, "fsync@openssh.com") == 0 || strcmp(name, "fstatvfs@openssh.com") == 0) {
    const Handle* h = find(r);
    if (h == nullptr) return outcome(id, EBADF);
    const int fd = h->fd >= 0 ? h->fd : dirfd(h->directory);
    if (name[1] == 's' && name[2] == 'y') return outcome(id, fsync(fd) == 0 ? 0 : errno);
    return space(id, fstatvfs(fd, &st) == 0 ? 0 : errno, st);
  }
  status(id, Code::unsupported, "unknown extension");
}

void Server::handle_request(Type type, std::uint32_t id, In& r) {
  struct ::stat st = {};
  switch (type) {
    case Type::open:
      return open(r, id);
    case Type::read:
      return read(r, id);
    case Type::write:
      return write(r, id);
    case Type::readdir:
      return read_directory(r, id);
    case Type::extended:
      return extended(r, id);
    case Type::close: {
      Handle* h = find(r);
      return outcome(id, h != nullptr ? release(*h) : EBADF);
    }
    case Type::fstat:
    case Type::fsetstat: {
      const Handle* h = find(r);
      if (h == nullptr) return outcome(id, EBADF);
      const int fd = h->fd >= 0 ? h->fd : dirfd(h->directory);
      if (type == Type::fstat) return attributes(id, ::fstat(fd, &st) == 0 ? 0 : errno, st);
      const Attributes a = r.attributes();
      return outcome(id, r.ok() ? set_attributes(fd, a) : EINVAL);
    }
    default:
      break;
  }
  // What is left begins with a path.
  if (!take_path(r, id, path)) return;
  switch (type) {
    case Type::stat:
    case Type::lstat: {
      const int error = tree.stat(path, type == Type::stat, st);
      return attributes(id, error, st);
    }
    case Type::setstat: {
      const Attributes a = r.attributes();
      return outcome(id, r.ok() ? tree.set(path, true, a) : EINVAL);
    }
    case Type::opendir: {
      Handle* h = free_handle();
      if (h == nullptr) return outcome(id, EMFILE);
      int fd = -1;
      if (const int error = tree.open_directory(path, fd); error != 0) return outcome(id, error);
      h->directory = fdopendir(fd);
      if (h->directory == nullptr) {
        ::close(fd);
        return outcome(id, ENOMEM);
      }
      return give_handle(id, *h);
    }
    case Type::remove:
      return outcome(id, tree.remove(path));
    case Type::mkdir: {
      const Attributes a = r.attributes();
      const mode_t mode = (a.flags & attr_permissions) != 0 ? a.permissions & 07777 : 0755;
      return outcome(id, r.ok() ? tree.make_directory(path, mode) : EINVAL);
    }
    case Type::rmdir:
      return outcome(id, tree.remove_directory(path));
    case Type::realpath:
      return real_path(id);
    case Type::rename:
      if (take_path(r, id, other)) outcome(id, tree.rename(path, other, false));
      return;
    case Type::readlink: {
      const int error = tree.read_link(path, other, sizeof other);
      return error != 0 ? outcome(id, error) : one_name(id, other);
    }
    case Type::symlink:
      // As OpenSSH has it, and everybody after it: the target first.
      if (take_path(r, id, other)) outcome(id, tree.make_link(path, other));
      return;
    default:
      return status(id, Code::unsupported, "unknown request");
  }
}

bool Server::receive(unsigned char* to, std::size_t size) const {
  while (size > 0) {
    const ssize_t n = ::read(in, to, size);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    to += n;
    size -= static_cast<std::size_t>(n);
  }
  return true;
}

bool Server::send() {
  const std::size_t size = reply.size();
  const unsigned char* from = reply.finish();
  for (std::size_t done = 0; done < size;) {
    const ssize_t n = ::write(out, from + done, size - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    done += static_cast<std::size_t>(n);
  }
  return true;
}

/// False where the protocol was broken.
bool Server::run() {
  bool greeted = false;
  for (;;) {
    unsigned char head[4];
    if (!receive(head, sizeof head)) return true;
    const std::size_t size = In(head, 4).u32();
    if (size < 5 || size > sizeof request || !receive(request, size)) return false;
    In r(request, size);
    const auto type = static_cast<Type>(r.u8());
    const std::uint32_t id = r.u32();  // of the first packet: the version
    if (!greeted) {
      if (type != Type::init || id < protocol_version) return false;
      greeted = true;
      reply.start(Type::version, protocol_version);
      static constexpr const char* extensions[][2] = {{"posix-rename@openssh.com", "1"}, {"statvfs@openssh.com", "2"},
                                                      {"fstatvfs@openssh.com", "2"},     {"hardlink@openssh.com", "1"},
                                                      {"fsync@openssh.com", "1"},        {"lsetstat@openssh.com", "1"}};
      for (const auto& extension : extensions) {
        reply.text(extension[0]);
        reply.text(extension[1]);
      }
    } else {
      handle_request(type, id, r);
    }
    if (!send()) return true;
  }
}

}  // namespace

int serve(int in, int out, int root, bool fall_back) {
  void* memory = malloc(sizeof(Server));
  if (memory == nullptr) return 1;
  auto* server = new (memory) Server(in, out, root, fall_back);
  const bool well = server->run();
  for (auto& h : server->handles) Server::release(h);
  free(memory);
  return well ? 0 : 1;
}

}  // namespace virga::sftp
