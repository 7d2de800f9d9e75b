#!/usr/bin/env python3
"""Fails on an #include that goes against the table in src/README.md. Tests beside the source may also include fakes and stores."""
import pathlib
import re
import sys

SRC = pathlib.Path(__file__).resolve().parents[2] / "src"
INTERFACES = ["store/store.h", "drivers/compute/driver.h", "drivers/storage/driver.h", "drivers/network/driver.h", "drivers/remote/driver.h"]
READERS = ["drivers/image/reader.h", "drivers/image/files.h", "drivers/image/packer.h"]
# The first rule that matches a file's path decides what it may include: folders, or single headers.
RULES = [
    ("base/", ["base/"]),
    ("model/", ["base/", "model/"]),
    ("io/", ["base/", "io/"]),
    ("wire/sftp/server/", ["wire/sftp/server/", "wire/sftp/protocol.h", "wire/sftp/packet.h"]),
    ("wire/", ["base/", "model/", "io/", "wire/"]),
    ("store/store.h", ["base/", "model/"]),
    ("store/", ["base/", "model/", "io/", "store/"]),
    *[(f"drivers/{kind}/driver.h", ["base/", "model/"]) for kind in ("compute", "storage", "network", "remote")],
    *[(f"drivers/{kind}/", ["base/", "model/", "io/", "wire/", f"drivers/{kind}/"]) for kind in ("compute", "storage", "network", "image", "remote", "host")],
    ("engine/", ["base/", "model/", "engine/", *INTERFACES, *READERS]),
    ("api/", ["base/", "model/", "engine/", "wire/", "api/", *INTERFACES]),
    ("client/", ["base/", "model/", "io/", "wire/", "client/"]),
    ("apps/virgad/", [""]),
    ("apps/virga/", ["base/", "model/", "client/", "wire/yaml/", "apps/virga/"]),
    ("apps/virga-worker/", ["base/", "io/", "drivers/image/", "apps/virga-worker/"]),
    ("apps/virga-shim/", ["apps/virga-shim/", "base/shim_protocol.h"]),
    ("apps/virga-agent/", ["apps/virga-agent/", "wire/agent/", "wire/sftp/server/"]),
    ("apps/virga-files/", ["apps/virga-files/", "wire/sftp/server/"]),
]
# Concrete drivers and stores are strangers to each other, whatever the folder above allows.
CONCRETE = re.compile(r"^(drivers/(?:compute|storage|network|remote)/[a-z]+|store/(?:sqlite|memory|etcd))/")


def allowed(file, header, is_test):
    rule = next((targets for prefix, targets in RULES if file.startswith(prefix)), None)
    if rule is None:
        return False
    mine, theirs = CONCRETE.match(file), CONCRETE.match(header)
    if theirs and (not mine or mine.group(1) != theirs.group(1)) and not file.startswith("apps/virgad/"):
        return is_test and ("/fake/" in header or "store/memory/" in header)
    return any(header.startswith(t) for t in rule)


def main():
    bad = files = 0
    for path in sorted([*SRC.rglob("*.cc"), *SRC.rglob("*.h")]):
        file = path.relative_to(SRC).as_posix()
        files += 1
        is_test = bool(re.search(r"_test[._]|_fixture[._]", path.name))
        for number, line in enumerate(path.read_text().splitlines(), 1):
            found = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
            if not found:
                continue
            header = found.group(1) if "/" in found.group(1) else f"{path.parent.relative_to(SRC).as_posix()}/{found.group(1)}"
            if not allowed(file, header, is_test):
                print(f'src/{file}:{number}: must not include "{header}" (see src/README.md)')
                bad += 1
    print(f"include directions: {files} files, {bad} wrong")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
