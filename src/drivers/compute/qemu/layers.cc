// Layers of disks of a guest that runs. QEMU opens no file itself: each layer's descriptors lie in a set that its node names, one
// to read and one to write with, as QEMU asks for the one or the other when a layer changes its place.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

#include "base/log.h"
#include "drivers/compute/qemu/descriptors.h"
#include "drivers/compute/qemu/guest.h"

namespace virga::compute::qemu_driver {
namespace {

using namespace std::chrono_literals;

/// What QEMU says about its nodes.
class Nodes {
 public:
  static Task<Result<Nodes>> ask(GuestPtr guest) {
    Nodes out;
    VIRGA_CO_TRY(out.blocks_, co_await command(guest, "query-block"));
    VIRGA_CO_TRY(out.nodes_, co_await command(guest, "query-named-block-nodes", {{"flat", true}}));
    co_return out;
  }
  /// The node that a disk of the guest writes to; empty: there is no such disk.
  std::string top_of(std::size_t disk) const {
    const auto device = "/" + disk_device(disk) + "/";
    const auto* blocks = blocks_.if_array();
    if (blocks == nullptr) return {};
    for (const auto& block : *blocks) {
      const auto* object = block.if_object();
      if (object == nullptr) continue;
      const Fields fields(*object);
      const auto qdev = fields.string("qdev").value_or("") + "/";
      if (qdev.find(device) == std::string::npos && qdev != disk_device(disk) + "/") continue;
      const auto inserted = fields.object("inserted").value_or(json::object());
      return Fields(inserted).string("node-name").value_or("");
    }
    return {};
  }
  bool has(const std::string& node) const { return find(node) != nullptr; }
  /// The set that a file node's descriptors are in. Errors: unsupported.
  Result<std::int64_t> set_of(const std::string& node) const {
    const auto* object = find(node + "-file");
    const auto file = object == nullptr ? std::string() : Fields(*object).string("file").value_or("");
    constexpr std::string_view prefix = "/dev/fdset/";
    if (!file.starts_with(prefix))
      return fail(ErrorKind::unsupported, fmt::format("QEMU does not have '{}' by a descriptor", node));
    return parse_integer(std::string_view(file).substr(prefix.size()), 0, INT32_MAX);
  }

 private:
  const json::object* find(const std::string& node) const {
    const auto* nodes = nodes_.if_array();
    if (nodes == nullptr) return nullptr;
    for (const auto& entry : *nodes) {
      const auto* object = entry.if_object();
      if (object != nullptr && Fields(*object).string("node-name").value_or("") == node) return object;
    }
    return nullptr;
  }
  json::value blocks_, nodes_;
};

/// Adds a descriptor of the file to a set, or to a new one. Returns the set.
Task<Result<std::int64_t>> pass(CorePtr core, GuestPtr guest, std::string path, bool writable, bool layered,
                                std::optional<std::int64_t> set) {
  VIRGA_CO_TRY(auto fd, co_await core->options.pool.run([path, writable, layered] { return open_layer(path, writable, layered); }));
  json::object arguments;
  if (set) arguments["fdset-id"] = *set;
  VIRGA_CO_TRY(auto answer, co_await command_with(guest, std::move(fd), "add-fd", std::move(arguments)));
  const auto* object = answer.if_object();
  if (object == nullptr) co_return fail(ErrorKind::unavailable, "QEMU's answer to 'add-fd' makes no sense");
  co_return Fields(*object).integer("fdset-id", -1);
}

Task<> drop(GuestPtr guest, std::string node, std::optional<std::int64_t> set) {
  co_await shield();
  (void)co_await command(guest, "blockdev-del", {{"node-name", node}});
  (void)co_await command(guest, "blockdev-del", {{"node-name", node + "-file"}});
  if (set) (void)co_await command(guest, "remove-fd", {{"fdset-id", *set}});
}

Task<Result<>> add_node(GuestPtr guest, const std::string& node, std::int64_t set) {
  json::object file{{"driver", "file"},
                    {"node-name", node + "-file"},
                    {"filename", fmt::format("/dev/fdset/{}", set)},
                    {"discard", "unmap"},
                    {"locking", "on"}};
  VIRGA_CO_CHECK(co_await command(guest, "blockdev-add", std::move(file)));
  json::object format{{"driver", "qcow2"},  {"node-name", node},  {"file", node + "-file"},
                      {"backing", nullptr}, {"discard", "unmap"}, {"detect-zeroes", "unmap"}};
  VIRGA_CO_CHECK(co_await command(guest, "blockdev-add", std::move(format)));
  co_return Result<>{};
}

/// Written out beforehand, so that the guest need not wait for it.
Result<> write_out(const std::string& path) {
  VIRGA_TRY(auto fd, open_layer(path, false, true));
  if (::fdatasync(fd.get()) != 0) return fail_errno(errno, fmt::format("fsync '{}'", path));
  return {};
}

}  // namespace

Task<Result<>> add_disk_layer(CorePtr core, GuestPtr guest, std::size_t disk, Disk layer) {
  VIRGA_CO_TRY(auto nodes, co_await Nodes::ask(guest));
  const auto top = nodes.top_of(disk), node = layer_node(disk, layer.path);
  if (top.empty()) co_return fail(ErrorKind::unavailable, "QEMU does not know the disk");
  if (top == node) co_return Result<>{};
  // The layer that is written to now is only read from then on.
  for (std::size_t i = 0; i < layer.backing.size(); ++i) {
    if (layer_node(disk, layer.backing[i]) != top) continue;
    const bool layered = i + 1 < layer.backing.size();
    VIRGA_CO_TRY(auto set, nodes.set_of(top));
    VIRGA_CO_CHECK(co_await pass(core, guest, layer.backing[i], false, layered, set));
    VIRGA_CO_CHECK(co_await core->options.pool.run([path = layer.backing[i]] { return write_out(path); }));
  }
  if (nodes.has(node) || nodes.has(node + "-file")) co_await drop(guest, node, std::nullopt);
  VIRGA_CO_TRY(auto set, co_await pass(core, guest, layer.path, true, true, std::nullopt));
  auto added = co_await add_node(guest, node, set);
  if (added) {
    const auto began = std::chrono::steady_clock::now();
    auto done = co_await command(guest, "blockdev-snapshot", {{"node", top}, {"overlay", node}}, 60s);
    if (!done) added = fail(std::move(done).error());
    const auto took = std::chrono::duration_cast<Milliseconds>(std::chrono::steady_clock::now() - began);
    if (added) log::info("virtual machine '{}': the disk goes on in a new layer, after {} ms", guest->id, took.count());
  }
  if (!added) {
    co_await drop(guest, node, set);
    co_return fail(std::move(added).error().wrap("lay a new layer over the disk"));
  }
  co_return Result<>{};
}

namespace {

/// Follows a job to its end. One that a daemon before us began goes on in QEMU all the same. Errors: not_found (no such job).
Task<Result<>> finish_job(GuestPtr guest, std::string job) {
  auto pause = 20ms;
  for (;;) {
    VIRGA_CO_TRY(auto answer, co_await command(guest, "query-jobs"));
    const json::object* found = nullptr;
    if (const auto* jobs = answer.if_array())
      for (const auto& entry : *jobs)
        if (const auto* object = entry.if_object(); object != nullptr && Fields(*object).string("id").value_or("") == job)
          found = object;
    if (found == nullptr) co_return fail(ErrorKind::not_found, "no such job");
    if (Fields(*found).string("status").value_or("") == "concluded") {
      const auto error = Fields(*found).string("error").value_or("");
      VIRGA_CO_CHECK(co_await command(guest, "job-dismiss", {{"id", job}}));
      if (!error.empty()) co_return fail(ErrorKind::unavailable, fmt::format("QEMU cannot merge the layers: {}", error));
      co_return Result<>{};
    }
    if (!co_await sleep_for(pause)) co_return fail(ErrorKind::cancelled, "cancelled");
    pause = std::min<Milliseconds>(pause * 2, 1'000ms);
  }
}

}  // namespace

Task<Result<>> merge_disk_layers(CorePtr core, GuestPtr guest, std::size_t disk, Disk layers, std::string upper,
                                 std::string lower) {
  const auto above = layer_node(disk, upper), below = layer_node(disk, lower);
  const auto job = "merge-" + above;
  auto earlier = co_await finish_job(guest, job);
  if (!earlier && earlier.error().kind() != ErrorKind::not_found) co_return earlier;
  VIRGA_CO_TRY(auto nodes, co_await Nodes::ask(guest));
  const auto top = nodes.top_of(disk);
  if (earlier) {
    co_await drop(guest, above, nodes.set_of(above).value_or(-1));
    co_return Result<>{};
  }
  if (top.empty() || !nodes.has(below)) co_return fail(ErrorKind::unavailable, "QEMU does not know the disk or its layer");
  if (top == above) co_return fail(ErrorKind::unsupported, "the guest writes to this layer");
  // It was merged before, or nothing was ever written to it.
  if (!nodes.has(above)) co_return Result<>{};
  std::vector<std::string> chain{layers.path};
  chain.insert(chain.end(), layers.backing.begin(), layers.backing.end());
  const auto at = std::find(chain.begin(), chain.end(), upper);
  if (at == chain.begin() || at == chain.end() || at + 1 == chain.end() || *(at + 1) != lower)
    co_return fail(ErrorKind::unsupported, "these are not two layers of the disk");
  // Both the lower layer and the one that will lie on it are written to.
  for (const auto& path : {*(at - 1), lower}) {
    const auto node = layer_node(disk, path);
    if (node == top) continue;
    VIRGA_CO_TRY(auto set, nodes.set_of(node));
    VIRGA_CO_CHECK(co_await pass(core, guest, path, true, path != chain.back(), set));
  }
  const auto name = lower.substr(lower.rfind('/') + 1);
  VIRGA_CO_CHECK(co_await command(guest, "block-commit",
                                  {{"job-id", job},
                                   {"device", top},
                                   {"top-node", above},
                                   {"base-node", below},
                                   {"backing-file", name},
                                   {"auto-dismiss", false}}));
  VIRGA_CO_CHECK(co_await finish_job(guest, job));
  co_await drop(guest, above, nodes.set_of(above).value_or(-1));
  co_return Result<>{};
}

}  // namespace virga::compute::qemu_driver
