#include "wire/sftp/client.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <boost/asio/steady_timer.hpp>
#include <charconv>
#include <cstring>

#include "base/text.h"
#include "wire/sftp/packet.h"

namespace virga::sftp {
namespace {

/// So many requests for data may be under way: enough to keep a virtio port or a socket full, 1 MiB at most.
constexpr std::size_t under_way = 8;
/// No file system of Linux has longer ones: a list is bounded in bytes, too.
constexpr std::size_t max_name = 255;
/// Nor does its kernel know longer paths. The server may be a guest's own program, which makes up what it likes.
constexpr std::size_t longest_path = 4095;

class Fields {
 public:
  Fields& u8(unsigned v) { return number(v, 1); }
  Fields& u32(std::uint32_t v) { return number(v, 4); }
  Fields& u64(std::uint64_t v) { return number(v, 8); }
  Fields& text(std::string_view v) {
    u32(static_cast<std::uint32_t>(v.size()));
    out_.append(v);
    return *this;
  }
  Fields& attributes(const Attributes& a) {
    u32(a.flags);
    if ((a.flags & attr_size) != 0) u64(a.size);
    if ((a.flags & attr_owner) != 0) u32(a.uid).u32(a.gid);
    if ((a.flags & attr_permissions) != 0) u32(a.permissions);
    if ((a.flags & attr_times) != 0) u32(a.accessed).u32(a.modified);
    return *this;
  }
  std::string take() { return std::move(out_); }

 private:
  Fields& number(std::uint64_t v, unsigned width) {
    for (unsigned i = 0; i < width; ++i) out_.push_back(static_cast<char>(v >> (8 * (width - 1 - i)) & 0xff));
    return *this;
  }
  std::string out_;
};

class Parser : public In {
 public:
  explicit Parser(std::string_view bytes) : In(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size()) {}
  std::string_view text() {
    std::size_t size = 0;
    const char* at = bytes(size);
    return {at, size};
  }
};

Error nonsense() {
  return Error(ErrorKind::unavailable, "the guest's file server broke the protocol");
}

ErrorKind kind_of(int error, Code code) {
  switch (error) {
    case 0:
      break;
    case EISDIR:
    case ENOTDIR:
    case ENOTEMPTY:
    case EINVAL:
    case ENODEV:
    case ELOOP:
    case EOPNOTSUPP:
    case EFBIG:
    case ENAMETOOLONG:
      return ErrorKind::invalid;
    case ENOSPC:
    case EDQUOT:
    case EMFILE:
      return ErrorKind::unavailable;
    default:
      if (const auto kind = kind_of_errno(error); kind != ErrorKind::internal) return kind;
  }
  return code == Code::no_such_file        ? ErrorKind::not_found
         : code == Code::permission_denied ? ErrorKind::denied
         : code == Code::unsupported       ? ErrorKind::unsupported
         : code == Code::bad_message       ? ErrorKind::invalid
                                           : ErrorKind::unavailable;
}

Result<> read_status(std::string_view fields) {
  Parser p(fields);
  const auto code = static_cast<Code>(p.u32());
  if (!p.ok()) return fail(nonsense());
  if (code == Code::ok) return {};
  const auto words = printable_text(p.text(), 200);
  auto tag = p.text();
  int error = 0;
  if (tag.starts_with(errno_tag)) {
    tag.remove_prefix(std::strlen(errno_tag));
    std::from_chars(tag.data(), tag.data() + tag.size(), error);
  }
  if (error == ENODEV) return fail(ErrorKind::invalid, "it is neither a regular file nor a directory nor a link");
  return fail(kind_of(error, code), words.empty() ? "failure" : words);
}

}  // namespace

struct Client::Reply {
  Type type{};
  std::uint32_t id = 0;
  std::string fields;
};

Client::Client(std::unique_ptr<ByteStream> stream) : stream_(std::move(stream)) {}
Client::~Client() = default;

Task<Result<std::unique_ptr<Client>>> Client::open(std::unique_ptr<ByteStream> stream, Milliseconds timeout) {
  std::unique_ptr<Client> client(new Client(std::move(stream)));
  std::string hello = Fields().u32(5).u8(static_cast<unsigned>(Type::init)).u32(protocol_version).take();
  VIRGA_CO_CHECK(co_await client->stream_->write(std::move(hello)));
  VIRGA_CO_TRY(auto packet, co_await client->receive_packet(timeout));
  Parser p(packet);
  if (static_cast<Type>(p.u8()) != Type::version || p.u32() < protocol_version || !p.ok()) co_return fail(nonsense());
  co_return client;
}

Task<Result<std::uint32_t>> Client::send(Type type, std::string fields) {
  const auto id = next_id_++;
  std::string packet;
  packet.reserve(fields.size() + 9);
  packet = Fields().u32(static_cast<std::uint32_t>(fields.size() + 5)).u8(static_cast<unsigned>(type)).u32(id).take();
  packet += fields;
  VIRGA_CO_CHECK(co_await stream_->write(std::move(packet)));
  co_return id;
}

Task<Result<std::string>> Client::receive_packet(Milliseconds timeout) {
  // The timer may have fired, and its call be on the way, when this returns: then there is nothing of ours left to touch.
  struct Watch {
    bool late = false, over = false;
  };
  const auto watch = std::make_shared<Watch>();
  const auto end = [](Watch* w) { w->over = true; };
  const std::unique_ptr<Watch, decltype(end)> ended(watch.get(), end);
  boost::asio::steady_timer timer(co_await current_executor(), timeout);
  timer.async_wait([this, watch](const boost::system::error_code& ec) {
    if (ec || watch->over) return;
    watch->late = true;
    stream_->abort();
  });
  std::size_t need = 4;
  while (true) {
    if (need == 4 && inbox_.size() >= 4) {
      need += Parser(inbox_).u32();
      if (need < 9 || need > max_packet + 4) co_return fail(nonsense());
    }
    if (inbox_.size() >= need) break;
    auto bytes = co_await stream_->read();
    if (watch->late)
      co_return fail(ErrorKind::timeout, fmt::format("the guest's file server did not answer within {} s", timeout.count() / 1000));
    if (!bytes) co_return fail(std::move(bytes).error());
    if (bytes->empty()) co_return fail(ErrorKind::unavailable, "the guest's file server has ended");
    inbox_ = inbox_.empty() ? std::move(*bytes) : inbox_ + *bytes;
  }
  std::string packet = inbox_.substr(4, need - 4);
  inbox_.erase(0, need);
  co_return packet;
}

/// Answers come in the order of the requests: ours and OpenSSH's server know no other.
Task<Result<Client::Reply>> Client::receive(std::uint32_t id) {
  VIRGA_CO_TRY(auto packet, co_await receive_packet(patience));
  Parser p(packet);
  Reply reply;
  reply.type = static_cast<Type>(p.u8());
  reply.id = p.u32();
  if (!p.ok() || reply.id != id) co_return fail(nonsense());
  reply.fields = packet.substr(5);
  co_return reply;
}

Task<Result<Client::Reply>> Client::ask(Type type, std::string fields) {
  while (!writes_.empty()) VIRGA_CO_CHECK(co_await settle_oldest_write());
  for (; !reads_.empty(); reads_.pop_front()) VIRGA_CO_CHECK(co_await receive(reads_.front().id));
  VIRGA_CO_TRY(const auto id, co_await send(type, std::move(fields)));
  VIRGA_CO_TRY(auto reply, co_await receive(id));
  if (reply.type == Type::status && type != Type::close)
    if (auto status = read_status(reply.fields); !status) co_return fail(std::move(status).error());
  co_return reply;
}

Task<Result<>> Client::ask_status(Type type, std::string fields) {
  VIRGA_CO_TRY(auto reply, co_await ask(type, std::move(fields)));
  if (reply.type != Type::status) co_return fail(nonsense());
  co_return read_status(reply.fields);
}

Task<Result<Attributes>> Client::ask_attributes(Type type, std::string fields) {
  VIRGA_CO_TRY(auto reply, co_await ask(type, std::move(fields)));
  Parser p(reply.fields);
  auto attributes = p.attributes();
  if (reply.type != Type::attrs || !p.ok()) co_return fail(nonsense());
  co_return attributes;
}

Task<Result<Attributes>> Client::stat(std::string path) {
  return ask_attributes(Type::stat, Fields().text(path).take());
}
Task<Result<Attributes>> Client::lstat(std::string path) {
  return ask_attributes(Type::lstat, Fields().text(path).take());
}
Task<Result<>> Client::set(std::string path, Attributes attributes) {
  return ask_status(Type::setstat, Fields().text(path).attributes(attributes).take());
}
Task<Result<>> Client::set_link(std::string path, Attributes attributes) {
  return ask_status(Type::extended, Fields().text("lsetstat@openssh.com").text(path).attributes(attributes).take());
}
Task<Result<>> Client::make_link(std::string target, std::string path) {
  return ask_status(Type::symlink, Fields().text(target).text(path).take());
}
Task<Result<>> Client::make_directory(std::string path, std::uint32_t mode) {
  Attributes a;
  a.flags = attr_permissions;
  a.permissions = mode;
  return ask_status(Type::mkdir, Fields().text(path).attributes(a).take());
}
Task<Result<>> Client::remove(std::string path) {
  return ask_status(Type::remove, Fields().text(path).take());
}
Task<Result<>> Client::remove_directory(std::string path) {
  return ask_status(Type::rmdir, Fields().text(path).take());
}
Task<Result<Attributes>> Client::stat_file(std::string handle) {
  return ask_attributes(Type::fstat, Fields().text(handle).take());
}
Task<Result<>> Client::set_file(std::string handle, Attributes attributes) {
  return ask_status(Type::fsetstat, Fields().text(handle).attributes(attributes).take());
}
Task<Result<>> Client::close(std::string handle) {
  return ask_status(Type::close, Fields().text(handle).take());
}

Task<Result<std::string>> Client::read_link(std::string path) {
  VIRGA_CO_TRY(auto reply, co_await ask(Type::readlink, Fields().text(path).take()));
  Parser p(reply.fields);
  const auto count = p.u32();
  auto target = std::string(p.text());
  if (reply.type != Type::name || count != 1 || !p.ok()) co_return fail(nonsense());
  co_return target;
}

Task<Result<std::string>> Client::open_file(std::string path, std::uint32_t flags, std::uint32_t mode) {
  Attributes a;
  a.flags = attr_permissions;
  a.permissions = mode;
  VIRGA_CO_TRY(auto reply, co_await ask(Type::open, Fields().text(path).u32(flags).attributes(a).take()));
  Parser p(reply.fields);
  auto handle = std::string(p.text());
  if (reply.type != Type::handle || !p.ok() || handle.size() > 256) co_return fail(nonsense());
  read_ahead_ = written_ = 0;
  read_over_ = false;
  co_return handle;
}

Task<Result<std::vector<Entry>>> Client::list(std::string path, std::size_t most) {
  VIRGA_CO_TRY(auto opened, co_await ask(Type::opendir, Fields().text(path).take()));
  Parser h(opened.fields);
  const auto handle = std::string(h.text());
  if (opened.type != Type::handle || !h.ok()) co_return fail(nonsense());
  std::vector<Entry> out;
  while (true) {
    VIRGA_CO_TRY(const auto id, co_await send(Type::readdir, Fields().text(handle).take()));
    VIRGA_CO_TRY(auto reply, co_await receive(id));
    Parser p(reply.fields);
    if (reply.type == Type::status) {
      if (static_cast<Code>(p.u32()) == Code::end_of_file) break;
      if (auto status = read_status(reply.fields); !status) co_return fail(std::move(status).error());
    }
    if (reply.type != Type::name) co_return fail(nonsense());
    const auto count = p.u32();
    if (count == 0) co_return fail(nonsense());  // it could go on so for ever
    for (std::uint32_t i = 0; i < count && p.ok(); ++i) {
      Entry entry;
      entry.name = std::string(p.text());
      p.text();
      entry.attributes = p.attributes();
      if (entry.name == "." || entry.name == "..") continue;
      if (entry.name.empty() || entry.name.size() > max_name || entry.name.find('/') != std::string::npos)
        co_return fail(nonsense());
      if (out.size() >= most) co_return fail(ErrorKind::unavailable, fmt::format("the directory has more than {} entries", most));
      out.push_back(std::move(entry));
    }
    if (!p.ok()) co_return fail(nonsense());
  }
  VIRGA_CO_CHECK(co_await close(handle));
  co_return out;
}

Task<Result<>> Client::remove_tree(std::string path, std::size_t most) {
  co_return co_await remove_below(std::move(path), most);
}

Task<Result<>> Client::remove_below(std::string path, std::size_t& room) {
  if (path.size() > longest_path) co_return fail(ErrorKind::unavailable, "the directories are nested too deeply");
  VIRGA_CO_TRY(auto entries, co_await list(path, room));
  const auto held = entries.size();
  room -= held;
  for (auto& entry : entries) {
    auto below = path + "/" + entry.name;
    const bool directory = (entry.attributes.permissions & S_IFMT) == S_IFDIR;
    VIRGA_CO_CHECK(directory ? co_await remove_below(std::move(below), room) : co_await remove(std::move(below)));
  }
  room += held;
  co_return co_await remove_directory(std::move(path));
}

Task<Result<std::string>> Client::read_next(std::string handle) {
  while (!read_over_ && reads_.size() < under_way) {
    VIRGA_CO_TRY(const auto id, co_await send(Type::read, Fields().text(handle).u64(read_ahead_).u32(max_data).take()));
    reads_.push_back({id, read_ahead_, max_data});
    read_ahead_ += max_data;
  }
  if (reads_.empty()) co_return std::string();
  const auto asked = reads_.front();
  reads_.pop_front();
  VIRGA_CO_TRY(auto reply, co_await receive(asked.id));
  if (reply.type == Type::status) {
    Parser p(reply.fields);
    read_over_ = true;
    for (; !reads_.empty(); reads_.pop_front()) VIRGA_CO_CHECK(co_await receive(reads_.front().id));
    if (static_cast<Code>(p.u32()) == Code::end_of_file) co_return std::string();
    auto status = read_status(reply.fields);
    co_return fail(status ? nonsense() : std::move(status).error());
  }
  Parser p(reply.fields);
  const auto size = p.u32();
  if (reply.type != Type::data || !p.ok() || size == 0 || size > asked.size || reply.fields.size() != size + 4)
    co_return fail(nonsense());
  if (size < asked.size) {
    // Short, as files of /proc and the last piece are: what was asked behind it is asked again from where this ends.
    for (; !reads_.empty(); reads_.pop_front()) VIRGA_CO_CHECK(co_await receive(reads_.front().id));
    read_ahead_ = asked.offset + size;
  }
  reply.fields.erase(0, 4);
  co_return std::move(reply.fields);
}

Task<Result<>> Client::settle_oldest_write() {
  const auto id = writes_.front();
  writes_.pop_front();
  VIRGA_CO_TRY(auto reply, co_await receive(id));
  if (reply.type != Type::status) co_return fail(nonsense());
  co_return read_status(reply.fields);
}

Task<Result<>> Client::write_next(std::string handle, std::string bytes) {
  for (std::size_t done = 0; done < bytes.size();) {
    const auto n = std::min(bytes.size() - done, max_data);
    while (writes_.size() >= under_way) VIRGA_CO_CHECK(co_await settle_oldest_write());
    std::string fields = Fields().text(handle).u64(written_).u32(static_cast<std::uint32_t>(n)).take();
    fields.append(bytes, done, n);
    VIRGA_CO_TRY(const auto id, co_await send(Type::write, std::move(fields)));
    writes_.push_back(id);
    written_ += n;
    done += n;
  }
  co_return Result<>{};
}

Task<Result<>> Client::finish_writing() {
  Result<> first{};
  while (!writes_.empty())
    if (auto settled = co_await settle_oldest_write(); !settled && first) first = std::move(settled);
  co_return first;
}

}  // namespace virga::sftp
