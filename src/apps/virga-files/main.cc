// virga-files serves the files of one container by SFTP on its standard input and output, as a process that is in the container
// as far as files are concerned and nowhere else: in its mount and user namespace, in a network and IPC namespace of its own, with
// the capabilities that files need and no others. The host's process namespace is kept, so that the guest neither sees nor
// signals nor traces it. It ends when its standard input does.
//
//   virga-files running        descriptor 4: the guest's user namespace, 5: its mount namespace
//   virga-files stopped ROOT   descriptor 4: a user namespace with the guest's ids; ROOT: its mounted root, of which it takes a
//                              mount of its own that ends with it
//   descriptor 3               what went wrong, in words; closed without a word once it serves
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/mount.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "wire/sftp/server/server.h"

namespace {

constexpr int report_fd = 3, user_fd = 4, mount_fd = 5;

[[noreturn]] void give_up(const char* what) {
  char text[256];
  const int n = snprintf(text, sizeof text, "%s: %s", what, strerror(errno));
  (void)!write(report_fd, text, static_cast<size_t>(n));
  _exit(1);
}

/// The root as this process' whole file system, in a mount namespace that nobody else has.
void enter_root(const char* path) {
  // Copied before the namespace is left: a tree of another one cannot be.
  const int tree = static_cast<int>(syscall(SYS_open_tree, AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC));
  if (tree < 0) give_up("copy the root's mount");
  if (unshare(CLONE_NEWNS) != 0) give_up("make a mount namespace");
  if (mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) give_up("make the mounts private");
  if (syscall(SYS_move_mount, tree, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH) != 0) give_up("mount the root");
  if (fchdir(tree) != 0 || syscall(SYS_pivot_root, ".", ".") != 0) give_up("change to the root");
  if (umount2(".", MNT_DETACH) != 0) give_up("let go of the host's file system");
  if (chdir("/") != 0) give_up("change to the root");
}

void keep_capabilities_for_files() {
  constexpr uint32_t kept =
      1u << CAP_CHOWN | 1u << CAP_DAC_OVERRIDE | 1u << CAP_DAC_READ_SEARCH | 1u << CAP_FOWNER | 1u << CAP_FSETID;
  for (int cap = 0; cap < 64; ++cap)
    if ((cap >= 32 || (kept >> cap & 1) == 0) && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) != 0 && errno != EINVAL)
      give_up("drop capabilities");
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct data[2] = {};
  data[0].effective = data[0].permitted = kept;
  if (syscall(SYS_capset, &header, data) != 0) give_up("drop capabilities");
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) give_up("give up new privileges");
}

void limit_resources() {
  const struct rlimit none = {0, 0}, files = {512, 512}, processes = {0, 0};
  setrlimit(RLIMIT_CORE, &none);
  setrlimit(RLIMIT_NOFILE, &files);
  setrlimit(RLIMIT_NPROC, &processes);
  signal(SIGXFSZ, SIG_IGN);
  signal(SIGPIPE, SIG_IGN);
}

}  // namespace

int main(int argc, char** argv) {
  const bool running = argc == 2 && strcmp(argv[1], "running") == 0;
  if (!running && (argc != 3 || strcmp(argv[1], "stopped") != 0)) {
    fprintf(stderr, "virga-files is started by virgad\n");
    return 2;
  }
  if (unshare(CLONE_NEWNET | CLONE_NEWIPC) != 0) give_up("leave the host's network");
  if (running) {
    if (setns(mount_fd, CLONE_NEWNS) != 0) give_up("enter the guest's mounts");
  } else {
    enter_root(argv[2]);
  }
  if (setns(user_fd, CLONE_NEWUSER) != 0) give_up("enter the guest's user namespace");
  if (setgroups(0, nullptr) != 0 || setresgid(0, 0, 0) != 0 || setresuid(0, 0, 0) != 0) give_up("become the guest's root");
  prctl(PR_SET_PDEATHSIG, SIGKILL);  // only now: changing the user takes it back
  keep_capabilities_for_files();
  limit_resources();
  umask(0);
  const int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (root < 0) give_up("open the guest's root");
  close(report_fd);
  close(user_fd);
  close(mount_fd);
  return virga::sftp::serve(0, 1, root, false);
}
