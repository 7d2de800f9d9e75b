// Client and server over a socket pair, on a directory that a guest might have prepared.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <thread>

#include "io/stream.h"
#include "wire/sftp/client.h"
#include "wire/sftp/server/server.h"

namespace fs = std::filesystem;

namespace virga::sftp {
namespace {

class SftpTest : public testing::Test {
 protected:
  SftpTest() {
    char name[] = "/tmp/virga-sftp-XXXXXX";
    base_ = ::mkdtemp(name);
    root_ = base_ + "/root";
    fs::create_directories(root_);
  }
  ~SftpTest() override { fs::remove_all(base_); }

  /// Runs a conversation against a server on root_.
  template <class F>
  void talk(F conversation) {
    auto sockets = io::make_socket_pair();
    ASSERT_TRUE(sockets);
    const int theirs = sockets->theirs.get();
    std::thread server([this, theirs] {
      const int root = ::open(root_.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
      server_result_ = serve(theirs, theirs, root, false);
      ::close(root);
      ::shutdown(theirs, SHUT_RDWR);
    });
    boost::asio::io_context loop;
    {
      TaskGroup tasks(loop.get_executor());
      auto body = [&]() -> Task<> {
        auto client = co_await Client::open(io::make_stream(loop.get_executor(), std::move(sockets->ours)), Milliseconds(5'000));
        if (!client) {
          ADD_FAILURE() << client.error().text();
          co_return;
        }
        co_await conversation(**client);
      };
      tasks.spawn("conversation", body());
      loop.run();
      EXPECT_EQ(tasks.failures(), 0);
    }
    server.join();
  }
  static Task<Result<std::string>> read_all(Client& c, std::string path) {
    VIRGA_CO_TRY(auto handle, co_await c.open_file(std::move(path), open_read, 0));
    std::string out;
    while (true) {
      VIRGA_CO_TRY(auto piece, co_await c.read_next(handle));
      if (piece.empty()) break;
      out += piece;
    }
    VIRGA_CO_CHECK(co_await c.close(handle));
    co_return out;
  }
  static Task<Result<>> write_all(Client& c, std::string path, std::string text,
                                  std::uint32_t flags = open_write | open_create | open_truncate) {
    VIRGA_CO_TRY(auto handle, co_await c.open_file(std::move(path), flags, 0640));
    VIRGA_CO_CHECK(co_await c.write_next(handle, std::move(text)));
    VIRGA_CO_CHECK(co_await c.finish_writing());
    co_return co_await c.close(handle);
  }

  std::string base_, root_;
  int server_result_ = -1;
};

TEST_F(SftpTest, FilesGoInAndComeOutWhole) {
  std::string large(3'000'001, 'x');
  for (std::size_t i = 0; i < large.size(); i += 97) large[i] = static_cast<char>('a' + i % 26);
  talk([&](Client& c) -> Task<> {
    auto written = co_await write_all(c, "/large", large);
    EXPECT_TRUE(written) << written.error().text();
    auto back = co_await read_all(c, "/large");
    EXPECT_TRUE(back && *back == large);
    auto again = co_await read_all(c, "/large");
    EXPECT_TRUE(again && *again == large) << "a second handle starts from its own beginning";
    auto appended = co_await write_all(c, "/large", "end", open_write | open_append);
    EXPECT_TRUE(appended);
    auto st = co_await c.stat("/large");
    EXPECT_EQ(st->size, large.size() + 3);
    EXPECT_EQ(st->permissions & 07777, 0640u);
  });
  EXPECT_EQ(server_result_, 0);
}

TEST_F(SftpTest, DirectoriesLinksAndAttributes) {
  talk([&](Client& c) -> Task<> {
    EXPECT_TRUE(co_await c.make_directory("/d", 0750));
    EXPECT_EQ((co_await c.make_directory("/d", 0750)).error().kind(), ErrorKind::exists);
    EXPECT_TRUE(co_await write_all(c, "/d/f", "hello"));
    EXPECT_TRUE(co_await c.make_link("f", "/d/l"));
    EXPECT_EQ((co_await c.read_link("/d/l")).value(), "f");
    EXPECT_EQ((co_await read_all(c, "/d/l")).value(), "hello");
    EXPECT_TRUE(S_ISLNK((co_await c.lstat("/d/l"))->permissions));
    auto entries = co_await c.list("/d", 10);
    EXPECT_EQ(entries->size(), 2u);
    EXPECT_EQ((co_await c.list("/d", 1)).error().kind(), ErrorKind::unavailable);
    Attributes a;
    a.flags = attr_permissions | attr_owner;
    a.permissions = 04755;
    a.uid = 12;
    a.gid = 34;
    auto set = co_await c.set("/d/f", a);
    EXPECT_TRUE(set) << set.error().text();
    auto st = co_await c.stat("/d/f");
    EXPECT_EQ(st->permissions & 07777, 04755u);
    EXPECT_EQ(st->uid, 12u);
    EXPECT_EQ((co_await c.remove_directory("/d")).error().kind(), ErrorKind::invalid) << "not empty";
    EXPECT_EQ((co_await c.remove("/d")).error().kind(), ErrorKind::invalid) << "a directory";
    EXPECT_TRUE(co_await c.remove("/d/l"));
    EXPECT_TRUE(co_await c.remove("/d/f"));
    EXPECT_TRUE(co_await c.remove_directory("/d"));
    EXPECT_EQ((co_await c.stat("/d")).error().kind(), ErrorKind::not_found);
  });
}

TEST_F(SftpTest, ManyEntries) {
  for (int i = 0; i < 1000; ++i) std::ofstream(root_ + "/" + std::string(200, 'n') + std::to_string(i)) << "";
  talk([&](Client& c) -> Task<> {
    auto entries = co_await c.list("/", 2000);
    EXPECT_TRUE(entries && entries->size() == 1000u);
  });
}

/// S16: nothing that a guest can put into its root leads out of it.
TEST_F(SftpTest, LinksAndDotsStayInside) {
  std::ofstream(base_ + "/canary") << "host";
  fs::create_directory_symlink("/", root_ + "/abs");
  fs::create_directory_symlink("../..", root_ + "/up");
  fs::create_symlink(base_ + "/canary", root_ + "/file");
  fs::create_symlink("../canary", root_ + "/rel");
  talk([&](Client& c) -> Task<> {
    for (const std::string& path : {"/file", "/rel", "/../canary", "/up/canary", "/abs/../canary", "/abs/up/rel"}) {
      auto text = co_await read_all(c, path);  // what is inside may be found there, after the first round
      EXPECT_NE(text ? *text : "", "host") << path;
      (void)co_await write_all(c, path, "broken");
    }
    (void)co_await c.remove("/up/canary");
    (void)co_await c.make_link("x", "/up/moved");
    Attributes a;
    a.flags = attr_permissions;
    a.permissions = 0777;
    (void)co_await c.set("/up/canary", a);
  });
  std::ifstream canary(base_ + "/canary");
  std::string text;
  std::getline(canary, text);
  EXPECT_EQ(text, "host");
  EXPECT_FALSE(fs::exists(base_ + "/moved"));
}

TEST_F(SftpTest, FifosAndDevicesAreNotOpened) {
  ASSERT_EQ(::mkfifo((root_ + "/fifo").c_str(), 0666), 0);
  talk([&](Client& c) -> Task<> {
    EXPECT_EQ((co_await read_all(c, "/fifo")).error().kind(), ErrorKind::invalid);
    EXPECT_EQ((co_await write_all(c, "/fifo", "x")).error().kind(), ErrorKind::invalid);
    EXPECT_EQ((co_await read_all(c, "/")).error().kind(), ErrorKind::invalid);
    EXPECT_TRUE(co_await c.remove("/fifo"));
  });
}

TEST_F(SftpTest, IdsAndSizesThatNoFileCanHave) {
  std::ofstream(root_ + "/f") << "x";
  talk([&](Client& c) -> Task<> {
    Attributes a;
    a.flags = attr_owner;
    a.uid = 0xffffffff;
    EXPECT_EQ((co_await c.set("/f", a)).error().kind(), ErrorKind::invalid);
    a.flags = attr_size;
    a.size = ~0ull;
    EXPECT_EQ((co_await c.set("/f", a)).error().kind(), ErrorKind::invalid);
    std::string nul("/f\0g", 4);
    EXPECT_EQ((co_await c.stat(nul)).error().kind(), ErrorKind::invalid);
    EXPECT_EQ((co_await c.stat(std::string(5000, 'a'))).error().kind(), ErrorKind::invalid);
  });
}

TEST_F(SftpTest, ADirectorySwappedForALinkNeverLeadsOutside) {
  fs::create_directory(root_ + "/real");
  fs::create_directory(base_ + "/outside");
  fs::create_directory_symlink(base_ + "/outside", root_ + "/link");
  std::atomic<bool> stop = false;
  std::thread guest([&] {
    while (!stop) {
      ::renameat2(AT_FDCWD, (root_ + "/real").c_str(), AT_FDCWD, (root_ + "/link").c_str(), RENAME_EXCHANGE);
    }
  });
  talk([&](Client& c) -> Task<> {
    for (int i = 0; i < 3000; ++i) {
      (void)co_await write_all(c, "/real/f", "guest");
      (void)co_await c.make_directory("/real/d", 0755);
      (void)co_await c.remove_directory("/real/d");
    }
  });
  stop = true;
  guest.join();
  EXPECT_TRUE(fs::is_empty(base_ + "/outside"));
}

namespace {

std::string number(std::uint32_t v) {
  return {static_cast<char>(v >> 24), static_cast<char>(v >> 16), static_cast<char>(v >> 8), static_cast<char>(v)};
}
std::string packet(Type type, const std::string& rest) {
  return number(static_cast<std::uint32_t>(rest.size() + 1)) + static_cast<char>(type) + rest;
}
/// An answer to READDIR with one entry.
std::string one_name(std::uint32_t id, const std::string& name) {
  return packet(Type::name,
                number(id) + number(1) + number(static_cast<std::uint32_t>(name.size())) + name + number(0) + number(0));
}

}  // namespace

TEST_F(SftpTest, AListOfNamesThatNoFileCanHaveIsAnError) {
  for (const auto& [name, good] : {std::pair(std::string(255, 'x'), true), std::pair(std::string(256, 'x'), false),
                                   std::pair(std::string(100'000, 'x'), false), std::pair(std::string("a/b"), false)}) {
    auto sockets = io::make_socket_pair();
    ASSERT_TRUE(sockets);
    // All answers beforehand: the ids count from one.
    const auto answers = packet(Type::version, number(3)) + packet(Type::handle, number(1) + number(1) + "h") + one_name(2, name) +
                         packet(Type::status, number(3) + number(1) + number(0) + number(0)) +
                         packet(Type::status, number(4) + number(0) + number(0) + number(0));
    ASSERT_EQ(::write(sockets->theirs.get(), answers.data(), answers.size()), static_cast<ssize_t>(answers.size()));
    boost::asio::io_context loop;
    TaskGroup tasks(loop.get_executor());
    auto body = [&, good = good]() -> Task<> {
      auto client = co_await Client::open(io::make_stream(loop.get_executor(), std::move(sockets->ours)), Milliseconds(2'000));
      if (!client) {
        ADD_FAILURE() << client.error().text();
        co_return;
      }
      auto entries = co_await (*client)->list("/", 10);
      EXPECT_EQ(entries.has_value(), good) << (entries ? "" : entries.error().text());
    };
    tasks.spawn("conversation", body());
    loop.run();
    EXPECT_EQ(tasks.failures(), 0);
  }
}

TEST_F(SftpTest, AnAnswerInTheLastMomentIsAnAnswer) {
  using namespace std::chrono_literals;
  auto sockets = io::make_socket_pair();
  ASSERT_TRUE(sockets);
  boost::asio::io_context loop;
  TaskGroup tasks(loop.get_executor());
  auto body = [&]() -> Task<> {
    auto client = co_await Client::open(io::make_stream(loop.get_executor(), std::move(sockets->ours)), 30ms);
    if (!client) {
      ADD_FAILURE() << client.error().text();
      co_return;
    }
    co_await sleep_for(1ms);  // lets the timer's call run, which was on its way already
    auto root = co_await (*client)->stat("/");
    EXPECT_TRUE(root) << root.error().text();
  };
  // Answers, and keeps the loop busy until the time is over: answer and time-out are found together.
  auto late = [&]() -> Task<> {
    co_await sleep_for(5ms);
    const auto answers = packet(Type::version, number(3)) + packet(Type::attrs, number(1) + number(0));
    EXPECT_EQ(::write(sockets->theirs.get(), answers.data(), answers.size()), static_cast<ssize_t>(answers.size()));
    std::this_thread::sleep_for(60ms);
  };
  tasks.spawn("conversation", body());
  tasks.spawn("late", late());
  loop.run();
  EXPECT_EQ(tasks.failures(), 0);
}

TEST_F(SftpTest, ABrokenServerIsAnError) {
  for (const std::string& bytes : {std::string("\0\0\0\5\2\0\0\0\2", 9), std::string("\xff\xff\xff\xff", 4),
                                   std::string("\0\0\0\1\2", 5), std::string("\0\0\0\x09\x65\0\0\0\3xxxx", 13)}) {
    auto sockets = io::make_socket_pair();
    ASSERT_TRUE(sockets);
    ASSERT_EQ(::write(sockets->theirs.get(), bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
    boost::asio::io_context loop;
    TaskGroup tasks(loop.get_executor());
    auto body = [&]() -> Task<> {
      auto client = co_await Client::open(io::make_stream(loop.get_executor(), std::move(sockets->ours)), Milliseconds(2'000));
      EXPECT_FALSE(client);
    };
    tasks.spawn("conversation", body());
    loop.run();
    EXPECT_EQ(tasks.failures(), 0);
  }
}

/// A server as a guest may write one: the agent's port belongs to whoever is root there.
class Liar {
 public:
  using Answer = std::function<std::string(Type, std::uint32_t id)>;
  Liar(int fd, Answer answer) : fd_(fd), answer_(std::move(answer)), thread_([this] { run(); }) {}
  ~Liar() { thread_.join(); }

  static std::string number(std::uint64_t v, unsigned width) {
    std::string out;
    while (width-- > 0) out.push_back(static_cast<char>(v >> (8 * width)));
    return out;
  }
  static std::string text(const std::string& t) { return number(t.size(), 4) + t; }
  static std::string packet(Type type, std::uint32_t id, const std::string& fields) {
    return number(fields.size() + 5, 4) + number(static_cast<unsigned>(type), 1) + number(id, 4) + fields;
  }
  static std::string status(std::uint32_t id, Code code) {
    return packet(Type::status, id, number(static_cast<unsigned>(code), 4) + text("") + text(""));
  }
  static std::string names(std::uint32_t id, unsigned count, const std::string& name, unsigned mode) {
    std::string fields = number(count, 4);
    for (unsigned i = 0; i < count; ++i) fields += text(name) + text("") + number(attr_permissions, 4) + number(mode, 4);
    return packet(Type::name, id, fields);
  }

 private:
  void run() {
    std::string request;
    char buffer[65536];
    while (true) {
      const auto n = ::read(fd_, buffer, sizeof buffer);
      if (n <= 0) break;
      request.append(buffer, static_cast<std::size_t>(n));
      while (request.size() >= 9) {
        const auto at = [&](std::size_t i) { return static_cast<std::uint32_t>(static_cast<unsigned char>(request[i])); };
        const auto size = at(0) << 24 | at(1) << 16 | at(2) << 8 | at(3);
        if (request.size() < size + 4) break;
        const auto answer = answer_(static_cast<Type>(request[4]), at(5) << 24 | at(6) << 16 | at(7) << 8 | at(8));
        request.erase(0, size + 4);
        if (::write(fd_, answer.data(), answer.size()) < 0) break;
      }
    }
    ::shutdown(fd_, SHUT_RDWR);
  }
  int fd_;
  Answer answer_;
  std::thread thread_;
};

template <class F>
void talk_to_liar(Liar::Answer answer, F conversation) {
  ::signal(SIGPIPE, SIG_IGN);
  auto sockets = io::make_socket_pair();
  ASSERT_TRUE(sockets);
  Liar liar(sockets->theirs.get(), [answer](Type type, std::uint32_t id) {
    if (type == Type::init) return Liar::number(5, 4) + Liar::number(2, 1) + Liar::number(protocol_version, 4);
    return answer(type, id);
  });
  boost::asio::io_context loop;
  TaskGroup tasks(loop.get_executor());
  auto body = [&]() -> Task<> {
    auto client = co_await Client::open(io::make_stream(loop.get_executor(), std::move(sockets->ours)), Milliseconds(5'000));
    EXPECT_TRUE(client);
    if (client) co_await conversation(**client);
  };
  tasks.spawn("conversation", body());
  loop.run();
  EXPECT_EQ(tasks.failures(), 0);
}

TEST(SftpClient, DirectoriesWithoutEndAreNotFollowed) {
  std::size_t opened = 0;
  bool listed = false;
  auto answer = [&](Type type, std::uint32_t id) {
    if (type == Type::opendir) {
      ++opened;
      listed = false;
      return Liar::packet(Type::handle, id, Liar::text("h"));
    }
    if (type == Type::readdir && !std::exchange(listed, true)) return Liar::names(id, 1, std::string(100, 'd'), S_IFDIR | 0755);
    return Liar::status(id, type == Type::readdir ? Code::end_of_file : Code::ok);
  };
  talk_to_liar(answer, [](Client& c) -> Task<> {
    auto removed = co_await c.remove_tree("/x", 200'000);
    EXPECT_FALSE(removed);
    if (!removed) EXPECT_EQ(removed.error().kind(), ErrorKind::unavailable);
  });
  EXPECT_LT(opened, 50u);
}

TEST(SftpClient, AListThatDoesNotGoOnIsRefused) {
  auto answer = [](Type type, std::uint32_t id) {
    if (type == Type::opendir) return Liar::packet(Type::handle, id, Liar::text("h"));
    return type == Type::readdir ? Liar::names(id, 0, "", 0) : Liar::status(id, Code::ok);
  };
  talk_to_liar(answer, [](Client& c) -> Task<> { EXPECT_FALSE(co_await c.list("/x", 10)); });
}

TEST(SftpClient, AWholeTreeIsHeldWithinItsBound) {
  // Each directory holds four files and a directory: eleven levels of five names are more than fifty.
  int left = 0;
  auto answer = [&](Type type, std::uint32_t id) {
    if (type == Type::opendir) {
      left = 2;
      return Liar::packet(Type::handle, id, Liar::text("h"));
    }
    if (type == Type::readdir && left > 0) return --left == 1 ? Liar::names(id, 4, "f", S_IFREG) : Liar::names(id, 1, "d", S_IFDIR);
    return Liar::status(id, type == Type::readdir ? Code::end_of_file : Code::ok);
  };
  talk_to_liar(answer, [](Client& c) -> Task<> {
    auto removed = co_await c.remove_tree("/x", 50);
    EXPECT_FALSE(removed);
  });
}

}  // namespace
}  // namespace virga::sftp
