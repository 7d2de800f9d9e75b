// The program that virgad starts for each image it reads. It is given descriptors, not paths:
//   virga-worker inspect  ROOT-FORMAT MAX-BYTES MAX-ENTRIES SECONDS   3: metadata file, 4: root file or pipe
//   virga-worker unpack   ROOT-FORMAT MAX-BYTES MAX-ENTRIES SECONDS   and 5: the directory to unpack into
//   virga-worker squashfs-to-tar SECONDS                              3: squashfs file, 1: the tarball
//   virga-worker convert-disk MAX-BYTES SECONDS FROM TO               3: the disk, 4: the empty file that it becomes; qcow2 or raw
//   virga-worker flatten-disk MAX-BYTES SECONDS FROM TO LAYERS        3: qcow2 file, 4: as above, 5...: the layers below it
//   virga-worker pack COMPRESSION ID-BASE ID-COUNT MAX-BYTES MAX-ENTRIES SECONDS PARTS
//       3: metadata as JSON, 4: the tarball, 5: the image below ("b" in PARTS), 6: the root's directory ("t") or its disk ("d")
// The first two answer with JSON (protocol.h) on standard output, pack too, with lines before it that say how many bytes were read;
// the others become sqfs2tar and qemu-img.
#pragma once

namespace virga::image {

int worker_main(int argc, char** argv);

}  // namespace virga::image
