#include "apps/virga/elsewhere.h"

#include <algorithm>
#include <array>

namespace virga::cli {
namespace {

struct Entry {
  std::string_view command, instead;
};

// Asked only for words that are not in the tree of commands, so an entry whose command has come since does no harm.
constexpr std::array entries = {
    // incus
    Entry{"admin recover", "incus has it, virga needs none: what lies in the state directory is found again at each start"},
    Entry{"admin sql", "incus has it, virga not: virga query reads everything over the API"},
    Entry{"cluster", "incus has it, virga not yet: a server stands alone; virga remote add reaches several from one command line"},
    Entry{"copy", "incus has it, virga not yet: virga publish makes an image of an instance, virga launch others of that"},
    Entry{"export",
          "incus has it, virga not yet: virga publish makes an image of an instance, virga image export writes it to a file"},
    Entry{"import", "incus has it, virga not yet for instances: virga image import takes images"},
    Entry{"network acl", "incus has it, virga not yet"},
    Entry{"network attach-profile", "incus has it, virga not: virga profile device add PROFILE eth0 nic network=NETWORK"},
    Entry{"network detach-profile", "incus has it, virga not: virga profile device remove PROFILE eth0"},
    Entry{"network forward", "incus has it, virga not yet"},
    Entry{"network integration", "incus has it, virga not yet"},
    Entry{"network list-allocations",
          "incus has it, virga not: virga network list-leases NETWORK shows the addresses of one network"},
    Entry{"network load-balancer", "incus has it, virga not yet"},
    Entry{"network peer", "incus has it, virga not yet"},
    Entry{"network zone", "incus has it, virga not yet"},
    Entry{"rebuild", "incus has it, virga not yet: virga delete --force NAME, then virga launch IMAGE NAME"},
    Entry{"remote proxy", "incus has it, virga not"},
    Entry{"snapshot", "incus has it, virga not yet: virga publish --force NAME --alias KEPT keeps an instance's state as an image"},
    Entry{"storage bucket", "incus has it, virga not yet"},
    Entry{"webui", "incus has it, virga not yet"},
    // docker, podman
    Entry{"attach", "here it is: virga console NAME, or virga shell NAME"},
    Entry{"images", "here it is: virga image list"},
    Entry{"inspect", "here it is: virga info NAME, virga config show NAME --expanded"},
    Entry{"kill", "here it is: virga stop --force NAME"},
    Entry{"logs", "here it is: virga console NAME --show-log"},
    Entry{"pull", "here it is: virga image copy REMOTE:IMAGE local:"},
    Entry{"run", "here it is: virga launch IMAGE NAME"},
    Entry{"stats", "here it is: virga top"},
    // virsh, and what people call it
    Entry{"destroy", "here it is: virga stop --force NAME (virga delete NAME takes its disk away as well)"},
    Entry{"edit", "here it is: virga config edit NAME"},
    Entry{"reboot", "here it is: virga restart NAME"},
    Entry{"set", "here it is: virga config set NAME KEY=VALUE"},
    Entry{"show", "here it is: virga config show NAME"},
    Entry{"shutdown", "here it is: virga stop NAME; of the whole daemon: virga admin shutdown"},
    Entry{"ssh", "here it is: virga shell NAME"},
    Entry{"status", "here it is: virga list, virga info NAME"},
    Entry{"suspend", "here it is: virga pause NAME"},
    Entry{"undefine", "here it is: virga delete NAME"},
};

}  // namespace

std::string_view instead_of(std::string_view command) {
  const auto* found = std::find_if(entries.begin(), entries.end(), [&](const Entry& entry) { return entry.command == command; });
  return found == entries.end() ? std::string_view() : found->instead;
}

}  // namespace virga::cli
