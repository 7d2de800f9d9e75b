// What the frames between the daemon and virga-agent mean. Plain C++, shared with the static agent.
//
//   daemon                                     agent
//   hello  magic, version, nonce        ->          ends whatever an earlier session left running
//                                       <-  welcome   magic, version, nonce: only frames behind it belong to this session
//                                       <-  announce  "I have just started": the daemon says hello (again)
//   exec   stream N                     ->
//                                       <-  started   or, where nothing could be started, exit
//   data, end (input)                   ->          as far as the agent's window allows
//                                       <-  data, end (output, error), as far as the daemon's windows allow
//   window                             <->          more room
//   resize, signal                      ->
//                                       <-  exit      the command's process has ended; data may still follow until both ends
//   close                               ->          nobody is interested any more: kill it, forget the stream
//   state, power, ping, freeze, thaw  stream N  ->
//                                       <-  state_reply, power_reply, pong, freeze_reply, thaw_reply  stream N
//
// Types a side does not know are ignored, and so are fields behind those it knows.
#pragma once

#include <cstdint>

#include "wire/agent/frames.h"

namespace virga::agent {

inline constexpr std::uint16_t protocol_version = 1;
inline constexpr std::uint64_t hello_magic = 0x7661676976'41f7c3ULL;
inline constexpr std::size_t nonce_size = 16;
inline constexpr char port_name[] = "org.virga.agent.0";

enum class Type : std::uint8_t {
  hello = 1,
  welcome = 2,
  announce = 3,
  exec = 10,
  started = 11,  // u32 pid, u32 window of the input
  data = 12,     // u8 channel, bytes
  end = 13,      // u8 channel
  window = 14,   // u8 channel, u32 more bytes
  resize = 15,   // u16 columns, u16 rows
  signal = 16,   // u8 number
  exit = 17,     // u32 code
  close = 18,
  state = 30,
  state_reply = 31,
  power = 32,        // u8 Power
  power_reply = 33,  // u8 0: it goes down; otherwise text
  ping = 34,
  pong = 35,
  freeze = 40,  // u32 milliseconds at most
  thaw = 41,
  freeze_reply = 42,  // u8 0: the file systems are held still
  thaw_reply = 43,
};

enum class Channel : std::uint8_t { input = 0, output = 1, error = 2 };
enum class Power : std::uint8_t { off = 0, reboot = 1 };

/// How many bytes of output, and of errors, an agent may send of one command before the daemon asks for more.
inline constexpr std::uint32_t output_window = 64u << 10;
/// The same for input, towards the agent.
inline constexpr std::uint32_t input_window = 64u << 10;
inline constexpr std::size_t max_commands = 256;
inline constexpr std::size_t max_arguments = 1024;
inline constexpr std::size_t max_interfaces = 64;
inline constexpr std::size_t max_addresses = 32;  // of one interface

struct Hello {
  std::uint16_t version = protocol_version;
  Byte nonce[nonce_size] = {};
};

/// hello and welcome have the same payload.
inline void write_hello(Writer& w, const Hello& hello) {
  w.u64(hello_magic);
  w.u16(hello.version);
  w.bytes(hello.nonce, nonce_size);
}
inline bool read_hello(Reader& r, Hello& hello) {
  const bool magic = r.u64() == hello_magic;
  hello.version = r.u16();
  const Byte* nonce = r.take(nonce_size);
  if (!magic || nonce == nullptr || hello.version == 0) return false;
  std::memcpy(hello.nonce, nonce, nonce_size);
  return true;
}

// exec: u8 flags (1: terminal, 2: files), u16 columns, u16 rows, u32 uid, u32 gid, text cwd (empty: the user's home),
//       u16 count + texts of argv, u16 count + texts of the environment ("NAME=value")
inline constexpr std::uint8_t exec_terminal = 1;
/// Serve the guest's files by SFTP on the command's streams, instead of argv ("sftp-server": all that an older agent sees of it).
inline constexpr std::uint8_t exec_files = 2;

// state_reply: u64 processes, u64 memory total, memory used, u64 cpu nanoseconds, texts: os name, os version, kernel, host name,
//       u16 count of interfaces, each: text name, text mac, text state ("up", "down"), text type ("broadcast", "loopback",
//       "point-to-point"), u32 mtu, u64 x 8: bytes in/out, packets in/out, errors in/out, dropped in/out, u16 count of addresses,
//       each: u8 family (4, 6), u8 prefix length, u8 scope (0 global, 1 link, 2 local), text address

}  // namespace virga::agent
