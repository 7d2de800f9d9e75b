// The program that virgad starts for each image it reads. It is given descriptors, not paths:
//   virga-worker inspect  ROOT-FORMAT MAX-BYTES MAX-ENTRIES SECONDS   3: metadata file, 4: root file or pipe
//   virga-worker unpack   ROOT-FORMAT MAX-BYTES MAX-ENTRIES SECONDS   and 5: the directory to unpack into
//   virga-worker squashfs-to-tar SECONDS                              3: squashfs file, 1: the tarball
//   virga-worker convert-disk MAX-BYTES SECONDS                       3: qcow2 file, 4: the empty file that becomes a clean one
// The first two answer with JSON (protocol.h) on standard output; the last two become sqfs2tar and qemu-img.
#pragma once

namespace virga::image {

int worker_main(int argc, char** argv);

}  // namespace virga::image
