#!/bin/sh
# Makes a tiny Linux guest for tests: tiny_initrd.sh AGENT DIR puts `vmlinuz` and `initrd` into DIR, made of Debian's cloud kernel, its
# virtio modules, busybox and virga-agent. The kernel's package is fetched once with apt-get and what is needed of it kept in
# ${XDG_CACHE_HOME:-~/.cache}/virga-test. The guest runs busybox init, the agent, and a shell on ttyS0.
set -eu
[ $# -eq 2 ] || { echo "usage: $0 AGENT DIR" >&2; exit 2; }
agent=$(realpath "$1")
out=$(mkdir -p "$2" && realpath "$2")
cache=${XDG_CACHE_HOME:-$HOME/.cache}/virga-test
busybox=$(command -v busybox) || { echo "$0: install busybox-static" >&2; exit 1; }
# Load order is dependency order.
modules="drivers/virtio/virtio_ring drivers/virtio/virtio drivers/virtio/virtio_pci_modern_dev drivers/virtio/virtio_pci_legacy_dev
  drivers/virtio/virtio_pci drivers/char/virtio_console drivers/block/virtio_blk net/core/failover drivers/net/net_failover
  drivers/net/virtio_net drivers/char/hw_random/virtio-rng"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fetch_kernel() {
  package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
  [ -n "$package" ] || { echo "$0: apt knows no linux-image-cloud-amd64; run apt-get update" >&2; exit 1; }
  mkdir -p "$work/deb" "$work/x"
  (cd "$work/deb" && apt-get -qq -o APT::Sandbox::User=root download "$package")
  dpkg-deb -x "$work"/deb/*.deb "$work/x"
  mkdir -p "$work/kernel"
  cp "$work"/x/boot/vmlinuz-* "$work/kernel/vmlinuz"
  for m in $modules; do cp "$work"/x/lib/modules/*/kernel/"$m".ko "$work/kernel/"; done
  mkdir -p "$cache"
  # Somebody else may be doing the same: whoever renames first wins.
  mv -T "$work/kernel" "$cache/kernel" 2>/dev/null || [ -d "$cache/kernel" ]
}
[ -d "$cache/kernel" ] || fetch_kernel

root=$work/root
mkdir -p "$root/bin" "$root/sbin" "$root/etc" "$root/proc" "$root/sys" "$root/dev" "$root/root" "$root/tmp" "$root/mnt" "$root/lib/modules"
cp "$busybox" "$root/bin/busybox"
cp "$agent" "$root/sbin/virga-agent"
for m in $modules; do cp "$cache/kernel/${m##*/}.ko" "$root/lib/modules/"; done
ln -s /bin/busybox "$root/init"
printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n' >"$root/etc/passwd"
printf 'NAME="virga tiny"\nVERSION_ID="1"\n' >"$root/etc/os-release"
cat >"$root/etc/inittab" <<'END'
::sysinit:/etc/rc
::respawn:/sbin/virga-agent
ttyS0::respawn:/bin/sh -l
END
{
  echo '#!/bin/busybox sh'
  echo '/bin/busybox mount -t proc proc /proc'
  echo '/bin/busybox mount -t sysfs sys /sys'
  echo '/bin/busybox mount -t devtmpfs dev /dev'
  echo '/bin/busybox mkdir -p /dev/pts'
  echo '/bin/busybox mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts'
  for m in $modules; do echo "/bin/busybox insmod /lib/modules/${m##*/}.ko"; done
  echo '/bin/busybox --install -s /bin'
  echo 'ifconfig lo up'
  echo 'hostname tiny'
} >"$root/etc/rc"
chmod 755 "$root/etc/rc"
# Not compressed: unpacking costs an emulated guest more than the few megabytes cost the host.
(cd "$root" && find . | "$busybox" cpio -o -H newc >"$work/initrd" 2>/dev/null)
cp "$cache/kernel/vmlinuz" "$out/vmlinuz"
mv "$work/initrd" "$out/initrd"
