// Small files of the host, by trusted paths. What a guest, an image or a client names goes through io/beneath.h instead.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "io/fd.h"

namespace virga::io {

/// The whole file. Errors: not_found, denied, unavailable (larger than `limit` bytes).
Result<std::string> read_file(const std::string& path, std::size_t limit = 16u << 20);
/// Writes to an existing control file (/proc, /sys, cgroup) in one call.
Result<> write_control(const std::string& path, std::string_view text);
/// Writes beside, fsyncs, renames, fsyncs the directory: afterwards either the old text or the new is there, also after a power
/// cut.
Result<> write_file_durably(const std::string& path, std::string_view text, unsigned mode = 0600);
/// Writes a file anew, replacing what was there; not for what must outlive a power cut.
Result<> write_file(const std::string& path, std::string_view text, unsigned mode = 0600);
/// Makes a directory with exactly this mode; one that is there is success. Parents must exist.
Result<> make_directory(const std::string& path, unsigned mode = 0700);
/// Removes a tree without following symlinks or crossing into another mount; absent is success.
Result<> remove_tree(const std::string& path);
bool exists(const std::string& path);
/// open(2) for a path of ours: close-on-exec, refuses a symlink as last component, never waits for the other end of a fifo.
Result<UniqueFd> open_path(const std::string& path, int flags, unsigned mode = 0600);
/// Follows the last component: for the links of /proc/PID (ns/uts, root).
Result<UniqueFd> open_proc_link(const std::string& path, int flags);
/// The same as open_path for one name in an open directory.
Result<UniqueFd> open_in(int directory, const char* name, int flags, unsigned mode = 0600);
/// Names in a directory, without "." and "..", in order.
Result<std::vector<std::string>> list_directory(const std::string& path);
/// Calls with each name until it returns false. The descriptor's position does not matter.
Result<> each_entry(int directory, const std::function<bool(const char* name)>& call);
/// Makes renames and new names in a directory durable.
Result<> sync_directory(const std::string& path);

}  // namespace virga::io
