#!/usr/bin/env python3
"""Makes the seeds of the fuzz targets that are binary: small tarballs, disk headers, agent frames."""
import gzip
import io
import lzma
import pathlib
import struct
import tarfile

CORPUS = pathlib.Path(__file__).resolve().parent / "corpus"


def put(target, name, data):
    directory = CORPUS / target
    directory.mkdir(parents=True, exist_ok=True)
    (directory / name).write_bytes(data if isinstance(data, bytes) else data.encode())


def tarball(entries):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, content in entries:
            info = tarfile.TarInfo(name)
            info.type = kind
            if kind == tarfile.REGTYPE:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:
                info.linkname = content.decode()
                tar.addfile(info)
    return out.getvalue().rstrip(b"\0") + b"\0" * 1024


METADATA = b"architecture: x86_64\ncreation_date: 1\nproperties: {os: tiny}\ntemplates: {/etc/hostname: {when: [create], template: h.tpl}}\n"
F, D, L, H = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
plain = tarball([("metadata.yaml", F, METADATA), ("rootfs", D, b""), ("rootfs/etc", D, b""), ("rootfs/etc/hostname", F, b"x\n"), ("rootfs/bin", L, b"usr/bin")])
put("archive", "container.tar", plain)
put("archive", "container.tar.gz", gzip.compress(plain, mtime=0))
put("archive", "container.tar.xz", lzma.compress(plain))
put("archive", "links.tar", tarball([("metadata.yaml", F, METADATA), ("rootfs/d", L, b"/etc"), ("rootfs/d/passwd", F, b"x"), ("rootfs/h", H, b"rootfs/d")]))
put("archive", "long.tar", tarball([("metadata.yaml", F, METADATA), ("rootfs/" + "n" * 200, F, b"x"), ("../x", F, b"x")]))

qcow2 = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", 3, 0, 0, 16, 1 << 20, 0, 1, 0x30000, 0x10000, 1, 0, 0) + struct.pack(">QQQII", 0, 0, 0, 4, 104)
put("disk_header", "v3.qcow2", qcow2 + b"\0" * 512)
put("disk_header", "v2.qcow2", struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", 2, 0, 0, 16, 1 << 20, 0, 1, 0x30000, 0x10000, 1, 0, 0) + b"\0" * 512)
put("disk_header", "backing.qcow2", struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", 3, 112, 11, 16, 1 << 20, 0, 1, 0x30000, 0x10000, 1, 0, 0) + struct.pack(">QQQII", 0, 0, 0, 4, 104) + b"\0" * 8 + b"/etc/shadow")
for kind in range(8):
    put("agent", f"frame{kind}", struct.pack("<IBBHI", 4, kind, 0, 0, 1) + b"data")
