// A small SFTP server, version 3, as OpenSSH's clients and the incus client speak it: one request after the other, in fixed memory,
// without exceptions. virga-agent runs it in a virtual machine, virga-files in a container's namespaces.
#pragma once

namespace virga::sftp {

/// Serves files beneath the directory `root` to whoever is at the other end of `in` and `out`, until they close it or break the
/// protocol. `fall_back`: see Tree. Returns 0 at the end of the stream.
int serve(int in, int out, int root, bool fall_back);

}  // namespace virga::sftp
