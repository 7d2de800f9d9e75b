// The daemon's side of SFTP over a ByteStream: one caller at a time, several requests under way for data. Whoever answers may be a
// guest's agent, so all that comes is checked and bounded. Event loop only.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/byte_stream.h"
#include "wire/sftp/protocol.h"

namespace virga::sftp {

struct Entry {
  std::string name;
  Attributes attributes;
};

class Client {
 public:
  /// How long one answer may take: a guest's file system may hang for ever.
  static constexpr Milliseconds patience{60'000};

  /// Says hello. Errors: unavailable, timeout, invalid (nonsense came back).
  static Task<Result<std::unique_ptr<Client>>> open(std::unique_ptr<ByteStream> stream, Milliseconds timeout = patience);
  ~Client();

  // Errors of all that follows: not_found, denied, exists, invalid (a directory where a file was expected, ...), unavailable,
  // timeout, cancelled. After one of the last three the client is of no use any more.
  Task<Result<Attributes>> stat(std::string path);   ///< follows links
  Task<Result<Attributes>> lstat(std::string path);  ///< does not
  Task<Result<>> set(std::string path, Attributes attributes);
  Task<Result<>> set_link(std::string path, Attributes attributes);  ///< of a link itself
  Task<Result<std::string>> read_link(std::string path);
  Task<Result<>> make_link(std::string target, std::string path);
  Task<Result<>> make_directory(std::string path, std::uint32_t mode);
  Task<Result<>> remove(std::string path);
  Task<Result<>> remove_directory(std::string path);
  /// At most `most` names, without "." and ".."; more is `unavailable`.
  Task<Result<std::vector<Entry>>> list(std::string path, std::size_t most);
  /// A directory and all that is below it. Links are removed, not followed. At most `most` names are held at a time, and paths have
  /// the length that a kernel allows: a server that makes up directory in directory without end is `unavailable`.
  Task<Result<>> remove_tree(std::string path, std::size_t most);

  /// Opens a regular file; the handle is for the calls below.
  Task<Result<std::string>> open_file(std::string path, std::uint32_t flags, std::uint32_t mode);
  Task<Result<Attributes>> stat_file(std::string handle);
  Task<Result<>> set_file(std::string handle, Attributes attributes);
  Task<Result<>> close(std::string handle);
  /// Reads a file from its start, piece after piece in order; an empty string is the end. Several requests are under way.
  Task<Result<std::string>> read_next(std::string handle);
  /// Writes the next piece; returns before it is done. finish_writing() waits and reports what failed.
  Task<Result<>> write_next(std::string handle, std::string bytes);
  Task<Result<>> finish_writing();

 private:
  struct Reply;
  explicit Client(std::unique_ptr<ByteStream> stream);
  Task<Result<std::uint32_t>> send(Type type, std::string fields);
  Task<Result<Reply>> receive(std::uint32_t id);
  Task<Result<std::string>> receive_packet(Milliseconds timeout);
  Task<Result<Reply>> ask(Type type, std::string fields);
  Task<Result<>> ask_status(Type type, std::string fields);
  Task<Result<Attributes>> ask_attributes(Type type, std::string fields);
  Task<Result<>> settle_oldest_write();
  Task<Result<>> remove_below(std::string path, std::size_t& room);

  std::unique_ptr<ByteStream> stream_;
  std::string inbox_;
  std::uint32_t next_id_ = 1;
  struct Asked {
    std::uint32_t id;
    std::uint64_t offset;
    std::size_t size;
  };
  std::deque<Asked> reads_;
  std::uint64_t read_ahead_ = 0;
  std::uint64_t written_ = 0;
  bool read_over_ = false;
  std::deque<std::uint32_t> writes_;
};

}  // namespace virga::sftp
