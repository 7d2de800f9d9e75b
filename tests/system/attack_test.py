"""Attacks on a real daemon, as a tenant with a guest, as a client with a socket, and as another user of the host. Numbers such as S12 name the
attack in the list of the security guide. Each test ends with the daemon well and nothing left behind."""
import base64
import contextlib
import ctypes
import http.client
import io
import json
import os
import re
import select
import socket
import ssl
import struct
import subprocess
import tarfile
import tempfile
import threading
import time
import unittest
import urllib.parse

import support
from api import Api, ApiError, UnixConnection

PORT = 18443
MIB = 1 << 20
CLONE_NEWNET = 0x40000000


class World:
    """One daemon, a container that attacks, one that is attacked, and a VM."""

    def __init__(self):
        support.enter_private_namespaces()
        self.tiny, self.tiny_vm = support.tiny_images()
        self.daemon = support.Daemon()
        self.api = Api(self.daemon.socket)
        self.cli = support.Client(self.daemon, "virga")
        self.cli("admin", "init", "--auto")
        self.api("PATCH", "/1.0", {"config": {"core.https_address": f"127.0.0.1:{PORT}"}})
        self.image = self.api.import_image(self.tiny, "tiny")
        self.vm_image = self.api.import_image(self.tiny_vm, "tiny-vm")
        for name, kind in (("mallory", "container"), ("victim", "container"), ("machine", "virtual-machine")):
            self.create(name, self.image if kind == "container" else self.vm_image, kind, start=True)
        self.network = [n for n in self.api("GET", "/1.0/networks?recursion=1") if n["managed"]][0]
        self.objects = self.listed()

    def create(self, name, image, kind="container", start=False, **more):
        return self.api("POST", "/1.0/instances", {"name": name, "type": kind, "start": start, "source": {"type": "image", "fingerprint": image}, **more})

    def state(self, name, action):
        return self.api("PUT", f"/1.0/instances/{name}/state", {"action": action, "force": True, "timeout": 60})

    def pid(self, name):
        return self.api("GET", f"/1.0/instances/{name}/state")["pid"]

    def remove(self, name):
        url = f"/1.0/instances/{name}"
        if self.api.exists(url):
            if self.api("GET", url)["status"] != "Stopped":
                self.state(name, "stop")
            self.api("DELETE", url)

    def run(self, name, *command, timeout=60, input=None):
        return self.cli.run("exec", name, "--", *command, timeout=timeout, input=input)

    def shell(self, name, text, timeout=60):
        """Both outputs of a shell command in a guest."""
        done = self.run(name, "sh", "-c", text, timeout=timeout)
        return done.stdout + done.stderr

    def listed(self):
        """Names of all objects: what is refused makes none."""
        out = {}
        for noun in ("instances", "profiles", "networks", "storage-pools", "projects", "images", "images/aliases", "certificates"):
            out[noun] = sorted(self.api("GET", f"/1.0/{noun}"))
        return out


def setUpModule():
    global world
    world = World()


def tearDownModule():
    left = world.daemon.destroy()
    if left:
        raise AssertionError(f"left behind: {left}")


def ask(method, url, body, headers):
    """Reads the answer also where the daemon refused before it had taken the whole body."""
    connection = UnixConnection(world.daemon.socket, 120)
    with contextlib.closing(connection):
        with contextlib.suppress(BrokenPipeError):
            connection.request(method, url, body=body, headers=headers)
        response = connection.response_class(connection.sock, method=method)
        response.begin()
        return response.status, response.read()


class AttackTest(unittest.TestCase):
    maxDiff = None

    def tearDown(self):
        self.assertIsNone(world.daemon.process.poll(), f"the daemon has ended:\n{world.daemon.tail()}")
        self.assertEqual(world.listed(), world.objects, "the attack made or removed something")

    def refused(self, method, url, body=None, field=None, codes=(*range(400, 500), 501), content_type="application/json"):
        """A refusal: a 4xx, in the answer or as the end of its operation, that names the field. Never a 500."""
        text = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        shown = f"{method} {url} {(text or b'')[:200]}"
        started = time.monotonic()
        status, answer = ask(method, url, text, {"Content-Type": content_type} if text is not None else {})
        try:
            answer = json.loads(answer)
        except ValueError:
            self.fail(f"{shown}: {status}, an answer that is no JSON: {answer[:200]}")
        code, error = answer.get("error_code"), answer.get("error")
        if answer["type"] == "async":
            done = world.api("GET", f"/1.0/operations/{answer['metadata']['id']}/wait?timeout=60")
            code, error = done["status_code"], done["err"]
        else:
            self.assertEqual(status, code or status, shown)
        self.assertIn(code, codes, f"{shown}: {error}")
        self.assertLess(time.monotonic() - started, 10, shown)
        self.assertLess(len(error), 4096, f"{shown}: the refusal repeats what was sent")
        self.assertFalse(any(ord(c) < 0x20 and c != "\n" for c in error), f"{shown}: control characters in {error!r}")
        if field:
            self.assertIn(field, error, shown)
        return error


# --- images ------------------------------------------------------------------------------------------------------------------------------

def tar(entries, metadata=b"architecture: x86_64\ncreation_date: 1700000000\n"):
    """A gzipped tar of (name, kind-or-content, options)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", format=tarfile.PAX_FORMAT) as t:
        if metadata is not None:
            entries = [("metadata.yaml", metadata, {})] + entries
        for name, content, options in entries:
            info = tarfile.TarInfo(name)
            for key, value in options.items():
                setattr(info, key, value)
            if isinstance(content, bytes):
                info.size = len(content)
                t.addfile(info, io.BytesIO(content))
            else:
                info.type = content
                t.addfile(info)
    return out.getvalue()


LINK, DIR, HARD, CHAR = tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE


def tiny_with(changes):
    """The tiny container with some of its entries replaced: name -> TarInfo changes, or None to leave it out."""
    out = io.BytesIO()
    with tarfile.open(world.tiny) as source, tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as target:
        for member in source:
            top = "/".join(member.name.split("/")[:2])
            if top in changes:
                continue
            target.addfile(member, source.extractfile(member) if member.isreg() else None)
        for name, (kind, link) in changes.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.mode = kind, link, 0o777
            target.addfile(info)
    return out.getvalue()


class Images(AttackTest):
    def upload(self, data, headers=None):
        """(fingerprint, "") or ("", error)"""
        status, text = ask("POST", "/1.0/images", data, {"Content-Type": "application/octet-stream", **(headers or {})})
        answer = json.loads(text)
        if answer["type"] == "error":
            self.assertIn(answer["error_code"], range(400, 500), answer)
            return "", answer["error"]
        done = world.api("GET", f"/1.0/operations/{answer['metadata']['id']}/wait?timeout=100")
        if done["status_code"] != 200:
            self.assertIn(done["status_code"], range(400, 500), done)
            return "", done["err"]
        return done["metadata"]["fingerprint"], ""

    @contextlib.contextmanager
    def canary(self):
        """A directory that no image may reach. The guests' users may write there: only paths protect it."""
        with tempfile.TemporaryDirectory(dir=world.daemon.base) as path:
            os.chmod(path, 0o777)
            with open(os.path.join(path, "passwd"), "w") as f:
                f.write("canary")
            yield path
            self.assertEqual(os.listdir(path), ["passwd"])
            self.assertEqual(support.contents(os.path.join(path, "passwd")), b"canary")

    def test_archives_that_lead_outside_are_refused(self):
        """S01-S04, S06, S09: representatives; tests/contract holds the full set."""
        with self.canary() as canary:
            root = [("rootfs", DIR, {"mode": 0o755})]
            archives = {
                "parent": root + [(f"rootfs/../../../../../../../../{canary}/x", b"x", {})],
                "absolute": root + [(f"{canary}/x", b"x", {})],
                "through a link": root + [("rootfs/d", LINK, {"linkname": canary}), ("rootfs/d/x", b"x", {})],
                "hard link": root + [("rootfs/h", HARD, {"linkname": f"{canary}/passwd"}), ("rootfs/h", b"x", {})],
                "root is a link": [("rootfs", LINK, {"linkname": canary}), ("rootfs/x", b"x", {})],
                "root twice": root + [("rootfs", LINK, {"linkname": canary}), ("rootfs/x", b"x", {})],
                "device": root + [("rootfs/sda", CHAR, {"devmajor": 8, "devminor": 0, "mode": 0o666})],
                "metadata is a link": [("metadata.yaml", LINK, {"linkname": "/etc/shadow"}), ("rootfs", DIR, {})],
            }
            for what, entries in archives.items():
                with self.subTest(what):
                    fingerprint, error = self.upload(tar(entries, metadata=None if "metadata" in what else b"architecture: x86_64\ncreation_date: 1\n"))
                    if fingerprint:  # What stays inside may be kept; then it must not run either.
                        world.api("DELETE", f"/1.0/images/{fingerprint}")
                        self.assertIn(what, ("absolute",))
        documents = {
            "bomb": b"a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\nd: [*c,*c,*c,*c,*c,*c]\n",
            "depth": b"properties: " + b"[" * 100_000,
            "twice": b"architecture: x86_64\narchitecture: aarch64\ncreation_date: 1\n",
            "overflow": b"architecture: x86_64\ncreation_date: 99999999999999999999999\n",
            "wrong type": b"architecture: [x86_64]\ncreation_date: {}\nproperties: 7\n",
            "long": b"architecture: x86_64\ncreation_date: 1\nproperties:\n  a: " + b"x" * (3 * MIB),
            "no text": b"architecture: x86_64\0\ncreation_date: 1\n\xff\xfe",
        }
        for what, document in documents.items():
            with self.subTest(what):
                self.assertEqual(self.upload(tar([("rootfs", DIR, {}), ("rootfs/etc", DIR, {})], metadata=document))[0], "")

    def test_small_archives_of_much_are_refused(self):
        """S05, S07: a bomb ends at a bound, a cut archive is an error."""
        before = os.statvfs(world.daemon.base).f_bavail
        whole = support.contents(world.tiny)
        for cut in (0, 1, 512, 10_000, len(whole) // 2, len(whole) - 9):
            with self.subTest(cut=cut):
                self.assertEqual(self.upload(whole[:cut])[0], "")
        sparse = tarfile.TarInfo("rootfs/huge")
        sparse.size = 8 << 60
        raw = tarfile.TarInfo("metadata.yaml").tobuf() + sparse.tobuf(tarfile.GNU_FORMAT) + b"\0" * 1024
        self.assertEqual(self.upload(raw)[0], "")
        after = os.statvfs(world.daemon.base).f_bavail
        self.assertLess(before - after, 64 * MIB // 4096, "what was refused still takes room")

    def test_a_root_whose_mount_points_are_links(self):
        """S12: mounts land inside or the start is refused; nothing appears where the links point."""
        with self.canary() as canary:
            for number, name in enumerate(("dev", "proc", "sys", "etc", "run", "tmp", "sbin")):
                with self.subTest(name):
                    fingerprint, error = self.upload(tiny_with({f"rootfs/{name}": (LINK, "../" * 12 + canary)}))
                    if not fingerprint:
                        continue
                    guest = f"links{number}"
                    try:
                        world.create(guest, fingerprint)
                        with contextlib.suppress(ApiError):
                            world.state(guest, "start")
                        if name in ("dev", "proc", "sys", "sbin"):
                            self.assertEqual(world.api("GET", f"/1.0/instances/{guest}")["status"], "Stopped", f"/{name} is a link")
                        mounts = [m for m in support.contents("/proc/self/mountinfo").decode().splitlines() if canary in m]
                        self.assertEqual(mounts, [])
                    finally:
                        world.remove(guest)
                        world.api("DELETE", f"/1.0/images/{fingerprint}")

    def test_a_running_guest_makes_its_mount_points_links(self):
        with self.canary() as canary:
            for name in ("sys", "proc", "dev"):
                with self.subTest(name):
                    world.create("turncoat", world.image, start=True)
                    try:
                        target = "../" * 12 + canary[1:]
                        out = world.shell("turncoat", f"umount -lr /{name} 2>/dev/null || umount -l /{name}; mv /{name} /old; ln -s {target} /{name}; ls -ld /{name}")
                        self.assertIn(f"/{name} -> {target}", out)
                        world.state("turncoat", "stop")
                        with self.assertRaises(ApiError) as refusal:
                            world.state("turncoat", "start")
                        self.assertEqual(refusal.exception.code, 400)
                        self.assertIn(f"/{name}", str(refusal.exception))
                        self.assertEqual([m for m in support.contents("/proc/self/mountinfo").decode().splitlines() if canary in m], [])
                    finally:
                        world.remove("turncoat")

    def test_disks_that_name_other_files(self):
        """S13, S14: our own reader refuses before any tool of QEMU's sees them."""
        def qcow2(size=1 << 20, backing=b"", bits=16, incompatible=0, l1=0x30000, l1_size=1, refcount=0x10000, extra=b""):
            header = b"QFI\xfb" + struct.pack(">IQIIQIIQQIIQQQQII", 3, 104 + 8 + len(extra) if backing else 0, len(backing), bits, size, 0, l1_size, l1, refcount, 1, 0, 0, incompatible, 0, 0, 4, 104)
            return (header + extra + struct.pack(">II", 0, 0) + backing).ljust(0x50000, b"\0")

        data_file = struct.pack(">II", 0x44415441, 11) + b"/etc/shadow".ljust(16, b"\0")
        disks = {
            "backing": qcow2(backing=b"/etc/shadow"),
            "backing json": qcow2(backing=b'json:{"driver":"file","filename":"/etc/shadow"}'),
            "backing nbd": qcow2(backing=b"nbd:unix:/run/x"),
            "data file": qcow2(incompatible=4, extra=data_file),
            "8 EB": qcow2(size=1 << 63),
            "l1 bomb": qcow2(l1_size=1 << 31),
            "clusters": qcow2(bits=63),
            "l1 outside": qcow2(l1=1 << 62),
            "vmdk": b"# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\nRW 2048 FLAT \"/etc/shadow\" 0\n".ljust(MIB, b"\0"),
            "luks": b"LUKS\xba\xbe\x00\x01".ljust(MIB, b"\0"),
        }
        for what, disk in disks.items():
            with self.subTest(what):
                fingerprint, error = self.upload(tar([("rootfs.img", disk, {})]))
                if fingerprint:
                    info = world.api("GET", f"/1.0/images/{fingerprint}")
                    world.api("DELETE", f"/1.0/images/{fingerprint}")
                    self.fail(f"taken as {info}")

    def test_boot_files_that_are_links(self):
        """A VM's kernel and initrd are opened by the daemon: as links they would hand the host's files to the guest."""
        disk = ("rootfs.img", b"\0" * MIB, {})
        kernel, initrd, command = ("boot/kernel", b"MZ" * 512, {}), ("boot/initrd", b"x" * 512, {}), ("boot/cmdline", b"quiet", {})
        boot = ("boot", DIR, {"mode": 0o755})
        shadow = {"linkname": "/etc/shadow"}
        for what, entries in {
            "kernel": [boot, ("boot/kernel", LINK, shadow), initrd, command, disk], "initrd": [boot, kernel, ("boot/initrd", LINK, shadow), command, disk],
            "command line": [boot, kernel, initrd, ("boot/cmdline", LINK, shadow), disk], "hard link": [boot, kernel, ("boot/initrd", HARD, shadow), command, disk],
            "directory": [("boot", LINK, {"linkname": "/boot"}), disk], "directory twice": [boot, kernel, initrd, command, ("boot", LINK, {"linkname": "/etc"}), disk],
            "disk": [boot, kernel, initrd, command, ("rootfs.img", LINK, {"linkname": "/dev/sda"})], "fifo": [boot, kernel, ("boot/initrd", tarfile.FIFOTYPE, {}), command, disk],
            "more": [boot, kernel, initrd, command, ("boot/../../x", b"x", {}), disk],
        }.items():
            with self.subTest(what):
                fingerprint, error = self.upload(tar(entries))
                if fingerprint:
                    world.api("DELETE", f"/1.0/images/{fingerprint}")
                self.assertEqual(fingerprint, "")

    def test_headers_of_uploads(self):
        """S47: what a client names goes into no header as it came."""
        for name in ("../../x", 'a"; filename="b', "a/b", "\x1b]0;x\x07", "x" * 5000):
            with self.subTest(filename=name[:30]):
                fingerprint, error = self.upload(tiny_with({"rootfs/mnt": (LINK, "name")}), {"X-Incus-filename": name})
                if fingerprint:
                    world.api("DELETE", f"/1.0/images/{fingerprint}")
                    self.fail("was taken")
        for header, value in (("X-Incus-fingerprint", "../../x"), ("X-Incus-fingerprint", "0" * 64), ("X-Incus-aliases", "alias=../../x"), ("X-Incus-aliases", "alias=a%0Ab"),
                              ("X-Incus-aliases", "alias=%ff"), ("X-Incus-profiles", "profile=../x"), ("X-Incus-properties", "a%00b=c"), ("X-Incus-properties", "a=" + "x" * 70_000)):
            with self.subTest(header=header, value=value[:30]):
                fingerprint, error = self.upload(tiny_with({"rootfs/mnt": (LINK, value[:20])}), {header: value})
                if fingerprint:
                    world.api("DELETE", f"/1.0/images/{fingerprint}")
                    self.fail("was taken")


# --- values ------------------------------------------------------------------------------------------------------------------------------

EVIL = ["a\nb", "a\0b", 'a"b', "../../x", "a/b", "-rf", "$(id)", "a b", "a,b=c", "%2e%2e", "é", "a" * 300, "x" * MIB, "\u202eabc", "a;b", "", " "]


class Values(AttackTest):
    def test_names(self):
        image = {"type": "image", "fingerprint": world.image}
        makers = {
            "/1.0/instances": lambda n: {"name": n, "source": image},
            "/1.0/profiles": lambda n: {"name": n},
            "/1.0/networks": lambda n: {"name": n},
            "/1.0/storage-pools": lambda n: {"name": n, "driver": "dir"},
            "/1.0/projects": lambda n: {"name": n},
            "/1.0/images/aliases": lambda n: {"name": n, "target": world.image},
        }
        for url, make in makers.items():
            for name in EVIL + ["UPPER" * 20, ".", "..", "virbr/../x"]:
                if url == "/1.0/instances" and name == "":
                    continue  # virga then makes a name up, as Incus does
                if url == "/1.0/images/aliases" and name in ("a/b", "a,b=c", "é", "virbr/../x", "UPPER" * 20):
                    continue  # fine there, except the one with "..", which is tested below
                with self.subTest(url=url, name=name[:20]):
                    self.refused("POST", url, make(name), None if len(name) > MIB - 100 else "alias" if "alias" in url else "name")
            for wrong in (7, None if url != "/1.0/instances" else True, [], {}, 1.5, True):
                with self.subTest(url=url, wrong=wrong):
                    self.refused("POST", url, make(wrong), "alias" if "alias" in url and wrong is None else "name")
        self.refused("POST", "/1.0/images/aliases", {"name": "a/../b", "target": world.image}, "alias")
        for name in EVIL:
            if len(name) < 1000 and name:
                with self.subTest(rename=name[:20]):
                    self.refused("POST", "/1.0/instances/victim", {"name": name})
                    self.refused("GET", "/1.0/instances/" + urllib.parse.quote(name, safe=""))
                    self.refused("DELETE", "/1.0/profiles/" + urllib.parse.quote(name, safe=""))
                    self.refused("GET", "/1.0/instances?project=" + urllib.parse.quote(name, safe=""))

    def test_configuration_values(self):
        image = {"type": "image", "fingerprint": world.image}
        for key, values in {
            "limits.cpu": ["-1", "0", "1e9", "99999999999999999999", "0-3", "1,2", "0x10", " 1", "NaN", "1\n2"],
            "limits.memory": ["-1", "0", "1", "99999999999999999999GiB", "16EiB", "9223372036854775807TB", "1 GiB\n", "-5GiB", "50%", "NaN"],
            "limits.processes": ["-1", "0", "4294967296000", "many"],
            "boot.autostart": ["maybe", "2", "true\n"],
            "security.privileged": ["true", "1", "yes", "on"],
            "security.nesting": ["maybe"],
            "environment.A\nB": ["x"],
            "environment.": ["x"],
            "environment.1A": ["x"],
            "environment.A=B": ["x"],
            "environment.LD_PRELOAD": ["a\0b"],
            "user.x": ["a\0b", "x" * (MIB - 300)],
            "volatile.uuid": ["00000000-0000-0000-0000-000000000000"],
            "volatile.idmap.base": ["0"],
            "raw.lxc": ["lxc.hook.pre-start=/bin/sh"],
            "raw.qemu": ["-device x"],
            "raw.idmap": ["both 0 0"],
            "security.idmap.base": ["0"],
            "linux.kernel_modules": ["overlay"],
            "limits.memori": ["1GiB"],
            "../x": ["1"],
            "": ["1"],
        }.items():
            for value in values:
                with self.subTest(key=key, value=value[:30]):
                    word = None if not key.isprintable() or not key or len(value) > 1000 else key.split("\n")[0][:20]
                    if key.startswith("environment.") and ("=" in key):
                        word = "config"
                    self.refused("POST", "/1.0/instances", {"name": "bad", "source": image, "config": {key: value}}, word)
                    self.refused("PATCH", "/1.0/instances/victim", {"config": {key: value}}, word)
                    self.refused("POST", "/1.0/profiles", {"name": "bad", "config": {key: value}}, word)
        devices = [
            {"type": "disk", "path": "/", "pool": "../../x"}, {"type": "disk", "path": "/etc", "source": "/etc", "pool": "default"},
            {"type": "disk", "path": "/", "source": "/", "pool": "default"}, {"type": "disk", "path": "/", "pool": "default", "size": "-1"},
            {"type": "disk", "path": "/", "pool": "default", "size": "99999999999999999999"}, {"type": "disk", "path": "/", "pool": "default", "raw.mount.options": "suid"},
            {"type": "nic", "network": "a\nb"}, {"type": "nic", "nictype": "physical", "parent": "lo"}, {"type": "nic", "nictype": "macvlan", "parent": "lo"},
            {"type": "nic", "network": world.network["name"], "hwaddr": "ff:ff:ff:ff:ff:ff"}, {"type": "nic", "network": world.network["name"], "hwaddr": "00:16:3e:00:00:0g"},
            {"type": "nic", "network": world.network["name"], "mtu": "70000"}, {"type": "nic", "network": world.network["name"], "name": "../x"},
            {"type": "nic", "network": world.network["name"], "ipv4.address": "10.0.0.1,10.0.0.2"},
            {"type": "nic", "network": world.network["name"], "ipv4.address": world.network["config"]["ipv4.address"].split("/")[0]},
            {"type": "nic", "network": world.network["name"], "ipv6.address": world.network["config"]["ipv6.address"].split("/")[0]},
            {"type": "nic", "network": world.network["name"], "host_name": "eth0"},
            {"type": "unix-char", "source": "/dev/mem", "path": "/dev/mem"}, {"type": "proxy", "listen": "tcp:0.0.0.0:1", "connect": "unix:/run/x"},
            {"type": "gpu"}, {"type": ""}, {},
        ]
        for device in devices:
            with self.subTest(device=device):
                name = "eth0" if device.get("type") == "nic" else "root"
                both = {"root": {"type": "disk", "path": "/", "pool": "default"}, name: device}
                self.refused("POST", "/1.0/instances", {"name": "bad", "source": image, "devices": both})
        for options in ({"type": 1}, [], "x", {"type": ["nic"]}, None):
            with self.subTest(options=options):
                self.refused("POST", "/1.0/instances", {"name": "bad", "source": image, "devices": {"eth0": options}}, "devices")
        for name in EVIL:
            if len(name) < MIB:
                with self.subTest(name=name[:20]):
                    self.refused("POST", "/1.0/profiles", {"name": "bad", "devices": {name: {"type": "none"}}}, "device")
        # Somebody else's addresses.
        lease = [l for l in world.api("GET", f"/1.0/networks/{world.network['name']}/leases") if l["hostname"] == "victim"]
        for option, value in [("hwaddr", lease[0]["hwaddr"])] + [("ipv6.address" if ":" in l["address"] else "ipv4.address", l["address"]) for l in lease]:
            with self.subTest(option=option):
                self.refused("POST", "/1.0/instances", {"name": "bad", "source": image, "devices": {"eth0": {"type": "nic", "network": world.network["name"], option: value}}}, option)

    def test_configuration_of_networks_pools_and_projects(self):
        for key, value in (("ipv4.address", "10.0.0.1/33"), ("ipv4.address", "127.0.0.1/8"), ("ipv4.address", "0.0.0.0/0"), ("ipv4.address", "10.1.1.1/24\nx"), ("ipv6.address", "fe80::1/64"),
                           ("ipv6.address", "::/0"), ("dns.domain", "a,b"), ("dns.domain", "a\nb"), ("dns.domain", "-x"), ("dns.domain", "a/b"), ("bridge.mtu", "-1"), ("bridge.mtu", "9" * 30),
                           ("raw.dnsmasq", "conf-script=/bin/sh"), ("bridge.external_interfaces", "lo"), ("ipv4.nat", "maybe"), ("user.x", "a\0b")):
            with self.subTest(key=key, value=value):
                self.refused("POST", "/1.0/networks", {"name": "badnet", "config": {key: value}}, key)
        for source in ("/", "/proc", "/etc", world.daemon.state, world.daemon.state + "/images", "/dev/sda", "relative", "/a/../etc", "/tmp\n", "/tmp/a,b", "/tmp\0x", "/" + "x" * 5000):
            with self.subTest(source=source[:40]):
                self.refused("POST", "/1.0/storage-pools", {"name": "bad", "driver": "dir", "config": {"source": source}}, "source")
        for body, field in (({"driver": "btrfs"}, "driver"), ({"driver": "../dir"}, "driver"), ({"driver": ""}, "driver"), ({"driver": "dir", "config": {"size": "1"}}, "size")):
            with self.subTest(body=body):
                self.refused("POST", "/1.0/storage-pools", {"name": "bad", **body}, field)
        for config in ({"features.images": "maybe"}, {"restricted": "true\n"}, {"limits.instances": "-1"}, {"x": "y"}, {"features.images": 1}, {"features.images": None}):
            with self.subTest(config=config):
                self.refused("POST", "/1.0/projects", {"name": "bad", "config": config})
        for config in ({"core.https_address": "x:y"}, {"core.https_address": "127.0.0.1:99999"}, {"core.https_address": "a\nb"}, {"core.nonsense": "1"}):
            with self.subTest(config=config):
                self.refused("PATCH", "/1.0", {"config": config}, next(iter(config)))

    def test_documents(self):
        """Wrong types, unknown fields, doubled keys, depth, and bytes that are no JSON."""
        urls = ("/1.0/instances", "/1.0/profiles", "/1.0/networks", "/1.0/storage-pools", "/1.0/projects", "/1.0/images/aliases", "/1.0/certificates")
        for url in urls:
            for body in (b"[]", b'"x"', b"7", b"nul", b"{", b'{"name": "bad"', b'{"name": "bad", "name": "worse"}', b"[" * 100_000, b'{"a":' * 1000, b"\xef\xbb\xbf{}", b'{"name": "\xff"}',
                         b'{"name": "bad"} x', b'{"name": NaN}', b'{"name": "\\ud800"}', b"{'name': 'bad'}", b"\0", b"x" * (2 * MIB), b'{"name": 1e999}'):
                with self.subTest(url=url, body=body[:40]):
                    self.refused("POST", url, body)
            with self.subTest(url=url):
                self.refused("POST", url, {"name": "bad", "description": 7, "nonsense": 1}, "")
                self.refused("POST", url, {"name": "bad", "nonsense": 1}, "nonsense")
                self.refused("POST", url, {"name": "bad", "config": {"user.a": "1"}, "description": 7} if "aliases" not in url and "cert" not in url else {"name": "bad", "description": 7}, "description")
                self.refused("POST", url, {"name": "bad", "description": "\u0000"})
                self.refused("POST", url, {"name": "bad"}, content_type="text/plain")
        for url in ("/1.0/instances/victim", "/1.0/profiles/default", f"/1.0/networks/{world.network['name']}", "/1.0/storage-pools/default", "/1.0/projects/default", f"/1.0/images/{world.image}", "/1.0"):
            for method in ("PUT", "PATCH"):
                for body in (b'{"config": {"user.a": 1}}', b'{"config": []}', b'{"config": "x"}', b'{"nonsense": 1}', b'{"config": {"a": "1", "a": "2"}}', b"[]"):
                    with self.subTest(url=url, method=method, body=body):
                        self.refused(method, url, body)
        for body in ({"action": "explode"}, {"action": 1}, {"action": "stop", "timeout": "x"}, {"action": "stop", "timeout": 1e300}, {"action": "stop", "timeout": 1 << 70}, {"action": "stop", "timeout": -5},
                     {"action": "stop", "force": 1}, {}):
            with self.subTest(state=body):
                self.refused("PUT", "/1.0/instances/victim/state", body)
        for change in ({"command": []}, {"command": [""]}, {"command": "id"}, {"command": ["a\0b"]}, {"command": [1]}, {"user": -1}, {"user": 1 << 32}, {"user": (1 << 32) - 1}, {"group": 1 << 63},
                       {"width": -1}, {"height": 70000}, {"cwd": "x"}, {"cwd": "/a\0b"}, {"environment": {"A=B": "x"}}, {"environment": {"A": "x\0"}}, {"environment": {"": "x"}}, {"environment": []},
                       {"interactive": "yes"}, {"command": ["x" * 200_000]}, {"command": ["x"] * 200_000}):
            with self.subTest(exec=str(change)[:60]):
                self.refused("POST", "/1.0/instances/victim/exec", {"command": ["id"], **change})
        for query in ("recursion=1&recursion=2", "filter=" + "(" * 5000, "filter=name+eq+%00", "filter=" + urllib.parse.quote("name eq (a+)+$" * 500), "project=" + "x" * 5000, "all-projects=true&project=default"):
            with self.subTest(query=query[:40]):
                self.refused("GET", "/1.0/instances?" + query)


# --- HTTP and TLS ------------------------------------------------------------------------------------------------------------------------

def unix_talk(data, timeout=10, then=None):
    """What the daemon answers to these bytes, until it closes or the time is over; and how long that took."""
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(timeout)
    s.connect(world.daemon.socket)
    began = time.monotonic()
    got = b""
    with s:
        with contextlib.suppress(OSError):
            s.sendall(data)
        while True:
            try:
                piece = s.recv(65536)
            except (socket.timeout, ConnectionError):
                break
            if not piece:
                break
            got += piece
    return got, time.monotonic() - began


class Http(AttackTest):
    def test_smuggling(self):
        """S41: one answer, a refusal, and the end of the connection; what came behind is not a second request."""
        inner = b"GET /1.0/instances HTTP/1.1\r\nHost: x\r\n\r\n"
        start = b"POST /1.0/profiles HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        cases = {
            "CL and TE": start + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + inner,
            "TE and CL": start + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + inner,
            "two CL": start + b"Content-Length: 2\r\nContent-Length: 60\r\n\r\n{}" + inner,
            "CL list": start + b"Content-Length: 2, 2\r\n\r\n{}" + inner,
            "CL sign": start + b"Content-Length: +2\r\n\r\n{}" + inner,
            "CL overflow": start + b"Content-Length: 18446744073709551618\r\n\r\n{}" + inner,
            "TE twice": start + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + inner,
            "TE other": start + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + inner,
            "TE tab": start + b"Transfer-Encoding:\tchunked, identity\r\n\r\n0\r\n\r\n" + inner,
            "chunk overflow": start + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\n{}\r\n0\r\n\r\n" + inner,
            "chunk extension": start + b"Transfer-Encoding: chunked\r\n\r\n2;a=b\r\n{}\r\n0\r\n\r\n" + inner,
            "chunk sign": start + b"Transfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n" + inner,
            "bare LF": b"GET /1.0 HTTP/1.1\nHost: x\n\n" + inner,
            "bare CR": b"GET /1.0 HTTP/1.1\r\nHost: x\rX: y\r\n\r\n" + inner,
            "fold": b"GET /1.0 HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n" + inner,
            "blank before colon": b"GET /1.0 HTTP/1.1\r\nHost: x\r\nContent-Length : 5\r\n\r\n" + inner,
            "no host": b"GET /1.0 HTTP/1.1\r\n\r\n" + inner,
            "two hosts": b"GET /1.0 HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n" + inner,
            "absolute": b"GET http://x/1.0 HTTP/1.1\r\nHost: x\r\n\r\n" + inner,
            "NUL": b"GET /1.0\0 HTTP/1.1\r\nHost: x\r\n\r\n" + inner,
            "escaped NUL": b"GET /1.0/instances/%00 HTTP/1.1\r\nHost: x\r\n\r\n" + inner,
            "escaped slash": b"GET /1.0/instances/a%2fb HTTP/1.1\r\nHost: x\r\n\r\n" + inner,
            "escaped dots": b"GET /1.0/images/aliases/a%2f..%2fb HTTP/1.1\r\nHost: x\r\n\r\n" + inner,
            "dots": b"GET /1.0/../1.0 HTTP/1.1\r\nHost: x\r\n\r\n" + inner,
            "dots semicolon": b"GET /1.0/..;/instances HTTP/1.1\r\nHost: x\r\n\r\n" + inner,
            "slashes": b"GET //1.0 HTTP/1.1\r\nHost: x\r\n\r\n" + inner,
            "old": b"GET /1.0 HTTP/1.0\r\nHost: x\r\n\r\n" + inner,
            "none": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"A" * 512,
            "long line": b"GET /" + b"a" * 200_000,
            "many headers": b"GET /1.0 HTTP/1.1\r\nHost: x\r\n" + b"".join(b"h%d: x\r\n" % i for i in range(20_000)),
        }
        for what, data in cases.items():
            with self.subTest(what):
                got, seconds = unix_talk(data)
                self.assertRegex(got, rb"\AHTTP/1.1 (4\d\d|50[15]) ")
                self.assertEqual(len(re.findall(rb"HTTP/1\.1 \d\d\d ", got)), 1, got[:400])
                self.assertLess(seconds, 5)
        self.assertTrue(world.api.exists("/1.0/profiles/default"))

    def test_slow_clients(self):
        """S40: who drips is cut off, and others are served meanwhile."""
        results = {}

        def drip(name, first, each):
            s = socket.socket(socket.AF_UNIX)
            s.connect(world.daemon.socket)
            s.settimeout(0.25)
            began = time.monotonic()
            with s, contextlib.suppress(BrokenPipeError, ConnectionResetError):
                s.sendall(first)
                while time.monotonic() - began < 12:
                    s.sendall(each)
                    try:
                        if not s.recv(65536):
                            break
                    except socket.timeout:
                        continue
            results[name] = time.monotonic() - began

        threads = [threading.Thread(target=drip, args=(f"head {i}", b"GET /1.0 HTTP/1.1\r\nHost: x\r\n", b"a")) for i in range(60)]
        for t in threads:
            t.start()
        slowest = 0
        for _ in range(40):
            began = time.monotonic()
            world.api("GET", "/1.0/instances?recursion=1")
            slowest = max(slowest, time.monotonic() - began)
        for t in threads:
            t.join()
        self.assertLess(max(results.values()), 6, "a head has 3 seconds")
        self.assertLess(slowest, 1)

    def test_large_bodies_for_small_places(self):
        for method, url in (("PUT", "/1.0"), ("POST", "/1.0/instances"), ("PUT", "/1.0/instances/victim/state"), ("GET", "/1.0/instances"), ("DELETE", "/1.0/instances/absent")):
            with self.subTest(method=method, url=url):
                head = f"{method} {url} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {100 << 30}\r\n\r\n".encode()
                got, seconds = unix_talk(head + b" " * (4 * MIB))
                self.assertRegex(got, rb"\AHTTP/1.1 4\d\d ")
                self.assertLess(seconds, 6)

    def test_who_may_use_the_socket(self):
        """S35, and what another user of the host sees below the state directory (S53)."""
        done = subprocess.run(["setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups", "curl", "-s", "--max-time", "5", "--unix-socket", world.daemon.socket, "http://x/1.0/instances"], capture_output=True, text=True)
        self.assertTrue(done.returncode != 0 or json.loads(done.stdout)["error_code"] == 403, done)

    def test_pages_of_other_sites(self):
        """S43"""
        for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}):
            for method, url in (("POST", "/1.0/profiles"), ("PUT", "/1.0"), ("DELETE", "/1.0/profiles/x")):
                with self.subTest(headers=headers, method=method):
                    status, _ = world.api.raw(method, url, b'{"name": "bad"}', {"Content-Type": "application/json", **headers})
                    self.assertEqual(status, 403)


class Tls(AttackTest):
    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.mkdtemp(prefix="tls.", dir=world.daemon.base)
        for name, extra in (("kim", []), ("eve", []), ("kim2", [])):
            subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name.rstrip('2')}", "-keyout", f"{cls.directory}/{name}.key",
                            "-out", f"{cls.directory}/{name}.crt", *(extra or ["-days", "30"])], check=True, capture_output=True)

    def context(self, name=None):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if name:
            context.load_cert_chain(f"{self.directory}/{name}.crt", f"{self.directory}/{name}.key")
        return context

    def ask(self, name, method, url, body=None):
        connection = http.client.HTTPSConnection("127.0.0.1", PORT, timeout=10, context=self.context(name))
        try:
            connection.request(method, url, body=json.dumps(body) if body is not None else None, headers={"Content-Type": "application/json"} if body is not None else {})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def token(self):
        status, answer = world.api.raw("POST", "/1.0/certificates", json.dumps({"name": "kim", "type": "client", "token": True}), {"Content-Type": "application/json"})
        operation = json.loads(answer)["metadata"]
        metadata = operation["metadata"]
        text = {"client_name": "kim", "fingerprint": metadata["fingerprint"], "addresses": metadata["addresses"], "secret": metadata["secret"], "expires_at": metadata["expiresAt"]}
        return base64.b64encode(json.dumps(text).encode()).decode(), metadata["secret"], operation["id"]

    def test_tokens_open_once(self):
        """S33, S34, S45"""
        token, secret, operation = self.token()
        for text in (json.dumps(world.api("GET", "/1.0/operations?recursion=1")), json.dumps(world.api("GET", f"/1.0/operations/{operation}")), world.daemon.tail(100_000)):
            self.assertNotIn(secret, text)
        join = {"type": "client", "trust_token": token}
        wrong = base64.b64encode(json.dumps({"client_name": "kim", "fingerprint": "", "addresses": [], "secret": "0" * 64, "expires_at": "2100-01-01T00:00:00Z"}).encode()).decode()
        for name, body in (("kim", {"type": "client", "trust_token": wrong}), ("kim", {"type": "client", "trust_token": "x" * 100_000}), ("kim", {"type": "client"}), (None, join),
                           ("kim", {"type": "client", "certificate": "x"}), ("kim", {"type": "client", "token": True})):
            with self.subTest(name=name, body=str(body)[:50]):
                self.assertEqual(self.ask(name, "POST", "/1.0/certificates", body)[0], 403)
        # Two at once, with two keys: one gets in.
        outcomes = {}
        threads = [threading.Thread(target=lambda n=n: outcomes.__setitem__(n, self.ask(n, "POST", "/1.0/certificates", join)[0])) for n in ("kim", "kim2", "eve")]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(sorted(outcomes.values()), [201, 403, 403], outcomes)
        winner = [n for n, status in outcomes.items() if status == 201][0]
        loser = [n for n, status in outcomes.items() if status != 201][0]
        self.assertEqual(self.ask(loser, "POST", "/1.0/certificates", join)[0], 403, "a token is used twice")
        self.assertEqual(self.ask(winner, "GET", "/1.0/instances")[0], 200)
        self.assertEqual(self.ask(loser, "GET", "/1.0/instances")[0], 403)
        # A trusted certificate that is removed is a stranger's on a connection that is open already.
        connection = http.client.HTTPSConnection("127.0.0.1", PORT, timeout=10, context=self.context(winner))
        connection.request("GET", "/1.0/certificates?recursion=1")
        listed = json.loads(connection.getresponse().read())["metadata"]
        self.assertNotIn("PRIVATE", json.dumps(listed))
        world.api("DELETE", f"/1.0/certificates/{listed[0]['fingerprint']}")
        try:
            connection.request("GET", "/1.0/instances")
            self.assertEqual(connection.getresponse().status, 403)
        except (http.client.HTTPException, OSError):
            pass  # closed, which is as well
        connection.close()
        # A withdrawn token.
        token, secret, operation = self.token()
        world.api("DELETE", f"/1.0/operations/{operation}")
        self.assertEqual(self.ask("kim", "POST", "/1.0/certificates", {"type": "client", "trust_token": token})[0], 403)

    def test_idle_strangers_take_no_place(self):
        """S40: connections that never say a word, more than one stranger may have; others come in all the same."""
        idle = []
        try:
            for _ in range(1500):
                s = socket.socket()
                s.settimeout(2)
                s.connect(("127.0.0.1", PORT))
                idle.append(s)
            began = time.monotonic()
            world.api("GET", "/1.0/instances?recursion=1")
            self.assertEqual(world.run("victim", "echo", "fine").stdout, "fine\n")
            self.assertLess(time.monotonic() - began, 6)
            # Silent ones are cut off after the time for a handshake.
            support.wait_until(lambda: idle[0].recv(1) == b"" if self.readable(idle[0]) else False, 20, "the end of an idle connection")
            self.assertEqual(self.ask(None, "GET", "/1.0")[0], 200)
        finally:
            for s in idle:
                s.close()

    @staticmethod
    def readable(s):
        return bool(select.select([s], [], [], 0)[0])

    def test_strangers(self):
        """S34: who is not trusted learns nothing, whatever the method."""
        for name in (None, "eve"):
            with self.subTest(name=name):
                _, about = self.ask(name, "GET", "/1.0")
                self.assertEqual(about["metadata"]["auth"], "untrusted")
                self.assertNotIn("environment", about["metadata"])
                for method, url in (("GET", "/1.0/instances"), ("GET", "/1.0/events"), ("GET", "/1.0/operations"), ("POST", "/1.0/images"), ("GET", "/1.0/projects/default"),
                                    ("PUT", "/1.0"), ("DELETE", "/1.0/instances/victim"), ("POST", "/1.0/instances/victim/exec"), ("GET", "/1.0/resources"), ("GET", "/1.0/metadata/configuration"),
                                    ("GET", "/1.0/certificates"), ("GET", "/1.0/networks"), ("GET", "/1.0/cluster"), ("GET", "/internal/x"), ("GET", "/1.0/operations/x/websocket?secret=y")):
                    status, answer = self.ask(name, method, url, {} if method in ("POST", "PUT") else None)
                    self.assertIn(status, (403, 404), f"{method} {url}: {answer}")
                # A list of public images is for everybody; what there is here is not public.
                self.assertNotEqual(world.api("GET", "/1.0/images"), [])
                self.assertEqual(self.ask(name, "GET", "/1.0/images?recursion=1")[1]["metadata"], [])
        for version in ("tls1", "tls1_1"):
            done = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{PORT}", f"-{version}", "-cipher", "ALL:@SECLEVEL=0"], input="", capture_output=True, text=True, timeout=20)
            self.assertNotIn("Cipher is ECDHE", done.stdout + done.stderr, version)
        plain = socket.create_connection(("127.0.0.1", PORT), timeout=5)
        with plain:
            plain.sendall(b"GET /1.0 HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = b""
            with contextlib.suppress(OSError):
                answer = plain.recv(4096)
            self.assertNotIn(b"200 OK", answer)


# --- guests ------------------------------------------------------------------------------------------------------------------------------

class Guests(AttackTest):
    def test_descriptors(self):
        """S50: what a program holds open, it can be made to use."""
        daemon = world.daemon.process.pid
        own = {os.readlink(f"/proc/{daemon}/fd/{n}") for n in os.listdir(f"/proc/{daemon}/fd")}
        for name in ("victim", "machine"):
            pid = world.pid(name)
            config = world.api("GET", f"/1.0/instances/{name}")["config"]
            places = tuple(f"{world.daemon.state}/{place}" for place in (f"run/{config['volatile.uuid']}", f"logs/{name}"))
            with open(f"/proc/{pid}/stat") as f:
                parent = int(f.read().rsplit(")", 1)[1].split()[1])
            for process in (pid, parent):
                with open(f"/proc/{process}/cmdline", "rb") as f:
                    what = f.read().replace(b"\0", b" ")[:60]
                fds = {n: os.readlink(f"/proc/{process}/fd/{n}") for n in os.listdir(f"/proc/{process}/fd")}
                with self.subTest(name=name, process=what, fds=fds):
                    for n, target in fds.items():
                        if process == parent and target.startswith(places):
                            continue  # the shim's own places
                        self.assertNotRegex(target, r"virga\.db|sqlite|\.key$|unix\.socket|/journal")
                        if not target.startswith("/dev/null"):
                            self.assertNotIn(target, own - {t for t in own if "anon_inode" in t}, "shared with the daemon")
                        self.assertFalse(target.startswith("/") and os.path.isdir(target), "a directory of the host")

    def test_commands_inherit_nothing(self):
        out = world.shell("victim", "ls -l /proc/self/fd")
        self.assertLessEqual(len(re.findall(r" -> ", out)), 4, out)
        for n in (f"{where}/{n}" for where in ("/proc/self/fd", "//proc/self/fd", "/dev/fd", "/proc/1/fd", "/dev/../proc/self/fd") for n in (6, 7, 8)):  # CVE-2024-21626: a leaked directory as working directory
            done = world.cli.run("exec", "mallory", "--cwd", n, "--", "sh", "-c", "ls -a ../../../../../../..; cat ../../../../../../../../etc/hostname")
            self.assertNotEqual(done.returncode, 0, f"{n}: {done.stdout}")
            self.assertNotIn("home", done.stdout)

    def test_containers_are_confined(self):
        """S51"""
        maps = {}
        for name in ("mallory", "victim"):
            with open(f"/proc/{world.pid(name)}/uid_map") as f:
                lines = [tuple(map(int, line.split())) for line in f]
            self.assertEqual(len(lines), 1)
            inside, outside, count = lines[0]
            self.assertEqual(inside, 0)
            self.assertGreaterEqual(outside, 65536)
            maps[name] = range(outside, outside + count)
        self.assertFalse(set(maps["mallory"]) & set(maps["victim"]), maps)
        with open(f"/proc/{world.pid('victim')}/status") as f:
            status = dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)
        self.assertEqual(status["Seccomp"].strip(), "2")
        host = support.contents("/proc/sys/kernel/core_pattern")
        attacks = {
            "see the host": "ls /proc | grep -cE '^[0-9]+$'",
            "core pattern": "echo '|/bin/sh' > /proc/sys/kernel/core_pattern && echo BROKEN",
            "sysrq": "echo b > /proc/sysrq-trigger && echo BROKEN",
            "uevent helper": "echo /x > /sys/kernel/uevent_helper && echo BROKEN",
            "drop caches": "echo 3 > /proc/sys/vm/drop_caches && echo BROKEN",
            "kcore": "head -c 10 /proc/kcore | wc -c | grep -v '^0' && echo BROKEN",
            "device": "mknod /root/sda b 8 0 && echo BROKEN",
            "cgroup v1": "mkdir -p /mnt/c; for c in rdma memory pids devices cpu misc freezer; do mount -t cgroup -o $c none /mnt/c 2>/dev/null || continue; ls /mnt/c; sort -u /mnt/c/tasks; mkdir /mnt/c/x 2>/dev/null && echo BROKEN mkdir $c; for f in /mnt/c/*; do [ -w $f ] && echo writable $f; echo 0 > $f && echo BROKEN $f; done 2>/dev/null; umount /mnt/c; done",
            "unlimited": "for f in $(find /sys/fs/cgroup -name memory.limit_in_bytes -o -name pids.max -o -name release_agent -o -name devices.allow 2>/dev/null); do echo -1 > $f && echo BROKEN $f; done",
            "remount sys": "mount -o remount,rw /sys && echo 1 > /sys/kernel/mm/ksm/run && echo BROKEN",
            "raw disk": "for d in /sys/block/*; do b=${d##*/}; head -c 1 /dev/$b >/dev/null 2>&1 && echo BROKEN $b; done",
            "module": "insmod /root/x.ko 2>&1 | grep -v 'not permitted' | grep -q . || true; modprobe overlay && echo BROKEN",
            "clock": "date -s '2001-01-01 00:00:00' > /dev/null; date +%Y | grep -q 2001 && echo BROKEN",
            "peeled off": "for m in $(awk '{print $5}' /proc/self/mountinfo | grep -E '^/(proc|sys)/'); do umount -l $m 2>/dev/null; done; mkdir -p /mnt/p; mount -t proc p /mnt/p; for r in /proc /mnt/p; do echo x > $r/sys/kernel/core_pattern && echo BROKEN; echo 1 > $r/sys/vm/panic_on_oom && echo BROKEN; echo 1 > $r/sys/fs/protected_symlinks && echo BROKEN; echo b > $r/sysrq-trigger && echo BROKEN; head -c 1 $r/kcore >/dev/null && echo BROKEN; done; mount -t sysfs s /mnt/p && { echo 1 > /mnt/p/kernel/uevent_helper && echo BROKEN; echo 1 > /mnt/p/kernel/mm/ksm/run && echo BROKEN; }",
            "block file system": "for t in ext4 debugfs tracefs configfs securityfs bpf pstore fusectl; do mount -t $t none /mnt/p 2>/dev/null && { echo mounted $t; find /mnt/p -maxdepth 2 -writable -type f | grep -q . && echo BROKEN $t; umount -l /mnt/p; }; done",
            "host name": "hostname hacked; cat /proc/sys/kernel/hostname | grep -q hacked && hostname mallory",
            "kernel log": "dmesg | head -1 | grep -q . && echo BROKEN",
        }
        for what, text in attacks.items():
            with self.subTest(what):
                out = world.shell("mallory", text)
                self.assertNotIn("BROKEN", out)
                if what == "see the host":
                    self.assertLess(int(out.split()[0]), 15)
        self.assertEqual(support.contents("/proc/sys/kernel/core_pattern"), host)
        self.assertLess(abs(time.time() - os.stat(world.daemon.log).st_mtime), 86400)

    def test_virtual_machines_are_confined(self):
        pid = world.pid("machine")
        with open(f"/proc/{pid}/status") as f:
            status = dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)
        self.assertEqual(int(status["CapEff"], 16), 0)
        self.assertEqual(int(status["CapPrm"], 16), 0)
        self.assertEqual(int(status["CapBnd"], 16), 0)
        self.assertEqual(status["Seccomp"].strip(), "2")
        self.assertEqual(status["NoNewPrivs"].strip(), "1")
        uids = set(map(int, status["Uid"].split()))
        self.assertEqual(len(uids), 1)
        self.assertGreaterEqual(uids.pop(), 65536)
        self.assertNotIn("0", status["Groups"].split())
        for space in ("net", "ipc"):
            self.assertNotEqual(os.readlink(f"/proc/{pid}/ns/{space}"), os.readlink(f"/proc/{world.daemon.process.pid}/ns/{space}"), space)
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            arguments = f.read().split(b"\0")
        self.assertIn(b"-nodefaults", arguments)
        with open(f"/proc/{pid}/environ", "rb") as f:
            self.assertLess(len(f.read()), 500)
        self.assertIn("1 packets received", world.shell("victim", "for i in 1 2 3 4 5 6 7 8 9; do ping -c1 -W2 machine && break; sleep 1; done"))

    def test_other_users_of_the_host_see_nothing(self):
        """S53: as an ordinary user, and as a guest's own user on the host."""
        container, qemu = world.pid("victim"), world.pid("machine")
        with open(f"/proc/{container}/uid_map") as f:
            base = f.read().split()[1]
        qemu_uid = str(os.stat(f"/proc/{qemu}").st_uid)
        world.shell("mallory", "cp /bin/busybox /root/sh; chmod 6755 /root/sh; chmod 777 /root; echo key > /root/secret; chmod 666 /root/secret")
        for user in ("1000", base, qemu_uid):
            done = subprocess.run(["setpriv", "--reuid", user, "--regid", user, "--clear-groups", "find", world.daemon.state, "-mindepth", "1", "(", "-readable", "-o", "-writable", ")", "-not", "-type", "l"],
                                  capture_output=True, text=True)
            with self.subTest(user=user, saw=done.stdout):
                own = [p for p in done.stdout.splitlines() if str(os.lstat(p).st_uid) != user]
                self.assertEqual(own, [])
        # By paths that are known, too: a directory that cannot be listed may still let pass.
        paths = subprocess.run(["find", world.daemon.state, "-mindepth", "1", "-not", "-type", "l"], capture_output=True).stdout.split(b"\n")
        probe = "import os, sys\nfor p in sys.stdin.buffer.read().split(b'\\n'):\n  if p and os.access(p, os.R_OK) or os.access(p, os.W_OK): print(os.fsdecode(p))"
        for user in ("1000", base, qemu_uid):
            done = subprocess.run(["setpriv", "--reuid", user, "--regid", user, "--clear-groups", "python3", "-c", probe], input=b"\n".join(paths), capture_output=True)
            saw = [p for p in done.stdout.decode().splitlines() if str(os.lstat(p).st_uid) != user and not (user == base and "/containers/victim/" in p) and not p.endswith("/dnsmasq.pid")]
            with self.subTest(user=user, saw=saw[:20]):
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertEqual(saw, [])
        secrets = subprocess.run(["find", world.daemon.state, "-path", "*mallory*", "-name", "secret"], capture_output=True, text=True).stdout.split()
        self.assertTrue(secrets)

    def test_a_flood_of_commands(self):
        """S19: commands that nobody reads, nobody joins, or that say too much."""
        memory = lambda: int(re.search(r"VmRSS:\s+(\d+)", support.contents(f"/proc/{world.daemon.process.pid}/status").decode()).group(1))
        before = memory()
        deaf = subprocess.Popen([world.cli.program, "exec", "mallory", "--", "sh", "-c", "yes | cat /dev/zero -"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=world.cli.environment())
        try:
            started, refusals = 0, 0
            for _ in range(300):
                status, answer = world.api.raw("POST", "/1.0/instances/mallory/exec", json.dumps({"command": ["true"], "wait-for-websocket": True}), {"Content-Type": "application/json"})
                self.assertIn(status, (202, 429, 503), answer)
                started += status == 202
            for _ in range(20):
                world.api.raw("POST", "/1.0/instances/mallory/exec", json.dumps({"command": ["sh", "-c", "head -c 3000000 /dev/zero; sleep 1000 &"]}), {"Content-Type": "application/json"})
            began = time.monotonic()
            self.assertEqual(world.run("victim", "echo", "fine").stdout, "fine\n")
            self.assertLess(time.monotonic() - began, 10)
            self.assertLess(memory() - before, 200_000, "kB of memory for output that nobody reads")
        finally:
            deaf.kill()
            deaf.wait()
            deaf.stdout.close()
        for operation in world.api("GET", "/1.0/operations?recursion=1").get("running", []):
            if operation["description"] == "Executing command":
                with contextlib.suppress(ApiError):
                    world.api("DELETE", f"/1.0/operations/{operation['id']}")
        support.wait_until(lambda: "yes" not in world.shell("mallory", "ps -o comm"), 30, "the end of a command whose client is gone")
        world.shell("mallory", "killall sleep")

    def test_files_that_block(self):
        """What the daemon reads in a guest's root may be a fifo, a link, or endless."""
        etc = f"{world.daemon.state}/storage-pools/default/containers/mallory/rootfs/etc"
        kept = support.contents(f"{etc}/passwd")
        world.shell("mallory", "rm /etc/passwd; mkfifo /etc/passwd")
        try:
            # The runtime itself reads the fifo, in the guest: a command for that guest waits, and nothing else does.
            stuck = subprocess.Popen([world.cli.program, "exec", "mallory", "--", "true"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=world.cli.environment())
            began = time.monotonic()
            self.assertEqual(world.run("victim", "echo", "fine").stdout, "fine\n")
            world.api("GET", "/1.0/instances/mallory/state")
            self.assertLess(time.monotonic() - began, 5)
        finally:
            os.remove(f"{etc}/passwd")
            with open(f"{etc}/passwd", "wb") as f:
                f.write(kept)
            stuck.kill()
            stuck.wait()
        for text in ("ln -s /proc/self/environ /etc/passwd", "ln -s ../../../../../../../../etc/passwd /etc/passwd", "truncate -s 1T /etc/passwd"):
            with self.subTest(text):
                self.assertIn("fine", world.shell("mallory", f"rm /etc/passwd; {text}; echo fine"))
                self.assertIn("fine", world.shell("mallory", "echo fine; env | grep HOME"))
        world.shell("mallory", "rm /etc/passwd; echo root::0:0::/root:/bin/sh > /etc/passwd")
        for text in ("mkfifo /etc/os-release", "rm -f /etc/os-release; ln -s /dev/zero /etc/os-release", "rm -rf /etc/os-release; printf 'NAME=\\033]0;owned\\007<img onerror=x>\\nVERSION_ID=1' > /etc/os-release"):
            world.shell("mallory", f"rm -f /etc/os-release; {text}")
            state = world.api("GET", "/1.0/instances/mallory/state")
            self.assertNotIn("\x1b", json.dumps(state, ensure_ascii=False))

    def test_logs(self):
        """S18: a console that talks without end is kept to a bound; only logs are logs."""
        world.shell("mallory", "head -c 40000000 /dev/zero | tr '\\0' x > /dev/console", timeout=120)
        size = sum(os.stat(os.path.join(root, f)).st_size for root, _, files in os.walk(f"{world.daemon.state}/logs/mallory") for f in files)
        self.assertLess(size, 20 * MIB)
        listed = world.api("GET", "/1.0/instances/mallory/logs")
        self.assertTrue(listed)
        for name in ("..%2f..%2fstore.db", "%2e%2e", "..", "nothing.log", "console.log%00", "%2fetc%2fshadow", "victim%2fconsole.log"):
            for method in ("GET", "DELETE"):
                with self.subTest(name=name, method=method):
                    self.refused(method, f"/1.0/instances/mallory/logs/{name}", codes=(400, 404, 501))

    def test_secrets_of_commands(self):
        """S45: only who started a command gets its secrets."""
        status, answer = world.api.raw("POST", "/1.0/instances/victim/exec", json.dumps({"command": ["true"], "wait-for-websocket": True}), {"Content-Type": "application/json"})
        operation = json.loads(answer)["metadata"]
        secrets = list(operation["metadata"]["fds"].values())
        self.assertEqual(len(secrets), 4)
        everything = json.dumps([world.api("GET", "/1.0/operations?recursion=1"), world.api("GET", f"/1.0/operations/{operation['id']}")]) + world.daemon.tail(100_000)
        for secret in secrets:
            self.assertNotIn(secret, everything)
        url = f"/1.0/operations/{operation['id']}/websocket?secret="
        for wrong in ("", "x", "0" * 64, secrets[0][:-1], secrets[0] + "0"):
            self.refused("GET", url + wrong, codes=(404,))
        world.api("DELETE", f"/1.0/operations/{operation['id']}")

    def test_a_deep_tree_is_removed(self):
        """A guest's file names are longer and deeper than any path; its instance is deleted all the same."""
        world.create("deep", world.image, start=True)
        out = world.shell("deep", "n=$(printf '%0200d' 0); i=0; cd /root; while [ $i -lt 600 ]; do mkdir $n && cd -P $n || break; i=$((i+1)); done; echo made $i; ln /etc/passwd x; mkfifo f", timeout=120)
        self.assertRegex(out, r"made \d+")
        world.api("GET", "/1.0/instances/deep/state")
        world.remove("deep")

    def test_a_disk_that_says_it_is_another(self):
        """S15: what a guest writes to the beginning of its disk is data, wherever the disk goes."""
        secret = "/etc/hostname-of-the-host"
        header = b"QFI\xfb" + struct.pack(">IQIIQIIQQIIQ", 2, 104, len(secret), 16, 1 << 30, 0, 1, 0x30000, 0x10000, 1, 0, 0)
        header = header.ljust(104, b"\0") + secret.encode()
        vmdk = b"# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\nRW 2048 FLAT \"/etc/shadow\" 0\n"
        for what, data in (("qcow2", header), ("vmdk", vmdk)):
            with self.subTest(what):
                octal = "".join(f"\\{b:03o}" for b in data)
                world.create("forger", world.vm_image, "virtual-machine", start=True)
                fingerprint = None
                try:
                    out = world.shell("forger", f"printf '{octal}' > /tmp/h && dd if=/tmp/h of=/dev/vda bs=4096 conv=notrunc 2>/dev/null && sync && echo written", timeout=120)
                    self.assertIn("written", out)
                    world.state("forger", "stop")
                    fingerprint = world.api("POST", "/1.0/images", {"source": {"type": "instance", "name": "forger"}})["metadata"]["fingerprint"]
                    with tempfile.TemporaryDirectory(dir=world.daemon.base) as path:
                        status, exported = ask("GET", f"/1.0/images/{fingerprint}/export", None, {})
                        with tarfile.open(fileobj=io.BytesIO(exported)) as t:
                            t.extract("rootfs.img", path, filter="data")
                        told = json.loads(subprocess.run(["qemu-img", "info", "-f", "qcow2", "--output", "json", f"{path}/rootfs.img"], check=True, capture_output=True).stdout)
                        self.assertNotIn("backing-filename", told)
                        subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", f"{path}/rootfs.img", f"{path}/raw"], check=True)
                        with open(f"{path}/raw", "rb") as f:
                            self.assertEqual(f.read(len(data)), data)
                    # It starts again as it was, and so does what is made of it.
                    world.create("forger2", fingerprint, "virtual-machine")
                    for name in ("forger", "forger2"):
                        world.state(name, "start")
                        # What it holds now is the guest's: its file system's journal may have put the first block back.
                        self.assertEqual(world.run(name, "echo", "fine", timeout=120).stdout, "fine\n")
                finally:
                    world.remove("forger")
                    world.remove("forger2")
                    if fingerprint:
                        world.api("DELETE", f"/1.0/images/{fingerprint}")

    def test_screens_and_monitors_listen_nowhere(self):
        """S54: QEMU's own servers are reached over the daemon or not at all."""
        pid = world.pid("machine")
        for family in ("tcp", "tcp6", "udp", "udp6"):
            with open(f"/proc/{pid}/net/{family}") as f:
                self.assertEqual(len(f.readlines()), 1, f"QEMU's network namespace has a socket of {family}")
        run = f"{world.daemon.state}/run/{world.api('GET', '/1.0/instances/machine')['config']['volatile.uuid']}"
        for name in os.listdir(run):
            if os.path.exists(f"{run}/{name}") and not os.path.isdir(f"{run}/{name}"):
                self.assertEqual(os.stat(f"{run}/{name}").st_mode & 0o007, 0, name)
        # A console's secrets end with its operation.
        operation = world.api("POST", "/1.0/instances/machine/console", {"type": "console"}, wait=False)
        secrets = operation["metadata"]["fds"]
        world.api("DELETE", f"/1.0/operations/{operation['id']}")
        for secret in secrets.values():
            self.refused("GET", f"/1.0/operations/{operation['id']}/websocket?secret={secret}", codes=(404,))

    def test_names_that_a_guest_makes_up(self):
        """S44, S46: an interface may have nearly any name; lists and metrics stay readable for everybody."""
        names = [b"a\xff\xfe", b"b\x1b]0;x\x07", b'c"}', b"d\\n", b"<img>", b"e\x7f", b"f\xc2\x9b"]

        def make():
            libc = ctypes.CDLL(None, use_errno=True)
            s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
            made = 0
            for name in names:
                attribute = lambda kind, data: struct.pack("=HH", 4 + len(data), kind) + data.ljust((len(data) + 3) & ~3, b"\0")
                body = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + attribute(3, name + b"\0") + attribute(18, attribute(1, b"dummy\0"))
                s.send(struct.pack("=IHHII", 16 + len(body), 16, 0x605, 1, 0) + body)  # RTM_NEWLINK, create, acknowledge
                made += struct.unpack_from("=i", s.recv(4096), 16)[0] == 0
            s.close()
            return made

        if in_network_of(world.pid("mallory"), make) == 0:
            # Without the module for such interfaces one of them is the guest's own, renamed.
            in_network_of(world.pid("mallory"), lambda: subprocess.run([b"ip", b"link", b"set", b"lo", b"name", names[0]], check=True))
        for url in ("/1.0/instances/mallory/state", "/1.0/instances/mallory?recursion=1", "/1.0/instances?recursion=2"):
            support.wait_until(lambda: "a??" in json.dumps(world.api("GET", url)), 30, f"the names in {url}")
            status, answer = ask("GET", url, None, {})
            text = answer.decode("utf-8")
            self.assertFalse(any(ord(c) < 0x20 and c != "\n" for c in json.dumps(json.loads(text), ensure_ascii=False)), text)
            self.assertNotIn("\\u001b", text)
        status, answer = ask("GET", "/1.0/metrics", None, {})
        text = answer.decode("utf-8")
        self.assertFalse([line for line in text.splitlines() if not re.fullmatch(r'#.*|[A-Za-z_]+(\{([a-z_]+="([^"\\]|\\["\\n])*",?)*\})? [0-9.e+-]+', line)])
        self.assertNotIn("\x1b", text)
        for shown in (world.cli("list"), world.cli("info", "mallory")):
            self.assertNotIn("\x1b", shown)

        def undo():
            for index, name in socket.if_nameindex():
                name = os.fsencode(name)
                if index == 1 and name != b"lo":
                    subprocess.run([b"ip", b"link", b"set", name, b"name", b"lo"], check=True)
                elif name not in (b"lo", b"eth0"):
                    subprocess.run([b"ip", b"link", b"delete", name], check=True)

        # Others may have left a root that does not boot any more: it is not restarted.
        in_network_of(world.pid("mallory"), undo)

    def test_an_agent_that_lies(self):
        """S46: the port of the agent belongs to whoever is root in the guest."""
        world.create("liar", world.vm_image, "virtual-machine", start=True)
        try:
            self.assertEqual(world.run("liar", "echo", "well").stdout, "well\n")
            world.shell("liar", "(sleep 1; for p in $(pidof virga-agent); do kill -STOP 1; kill -9 $p; done; for i in 1 2 3 4 5; do cat /bin/busybox /dev/urandom | head -c 4000000 > /dev/virtio-ports/org.virga.agent.0; done) </dev/null >/dev/null 2>&1 &")
            time.sleep(2)
            began = time.monotonic()
            done = world.run("liar", "echo", "well", timeout=90)
            self.assertLess(time.monotonic() - began, 60, "a command for a guest whose agent lies ends")
            state = world.api("GET", "/1.0/instances/liar/state")
            self.assertEqual(state["status"], "Running")
            self.assertEqual(world.run("machine", "echo", "fine").stdout, "fine\n")
        finally:
            world.remove("liar")


# --- network -----------------------------------------------------------------------------------------------------------------------------

def in_network_of(pid, what):
    """Runs in the network namespace of a process, on a thread of its own, and gives its result."""
    result = {}

    def body():
        libc = ctypes.CDLL(None, use_errno=True)
        with open(f"/proc/{pid}/ns/net") as f:
            if libc.setns(f.fileno(), CLONE_NEWNET) != 0:
                result["error"] = OSError(ctypes.get_errno(), "setns")
                return
        try:
            result["value"] = what()
        except Exception as error:  # told to the caller's thread
            result["error"] = error

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if "error" in result:
        raise result["error"]
    return result["value"]


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def mac(text):
    return bytes.fromhex(text.replace(":", ""))


def link_local(text):
    bytes_ = mac(text)
    return socket.inet_ntop(socket.AF_INET6, b"\xfe\x80" + b"\0" * 6 + bytes([bytes_[0] ^ 2]) + bytes_[1:3] + b"\xff\xfe" + bytes_[3:])


def ether(to, source, kind, payload):
    return to + source + struct.pack(">H", kind) + payload


def ipv4(source, to, protocol, payload, fragment=0):
    head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 1, fragment, 64, protocol, 0, socket.inet_aton(source), socket.inet_aton(to))
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + payload


def ipv6(source, to, header, payload, hops=255):
    return struct.pack(">IHBB", 6 << 28, len(payload), header, hops) + socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, to) + payload


def icmpv6(source, to, body):
    pseudo = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, to) + struct.pack(">II", len(body), 58)
    return body[:2] + struct.pack(">H", checksum(pseudo + body)) + body[4:]


def udp(source_port, to_port, payload):
    return struct.pack(">HHHH", source_port, to_port, 8 + len(payload), 0) + payload


class Network(AttackTest):
    def addresses(self, name):
        def look():
            nic = (world.api("GET", f"/1.0/instances/{name}/state")["network"] or {}).get("eth0")
            found = {a["family"]: a["address"] for a in nic["addresses"] if a["scope"] == "global"} if nic else {}
            return (nic["hwaddr"], found["inet"], found["inet6"], link_local(nic["hwaddr"])) if len(found) == 2 else None
        return support.wait_until(look, 60, f"addresses of {name}")

    def test_spoofing(self):
        """S52: frames with somebody else's names reach neither the other guests nor the host."""
        my_mac, my_ip, my_ip6, my_link = self.addresses("mallory")
        mark = b"virga-attack-" + os.urandom(8).hex().encode()
        his_mac, his_ip, his_ip6, his_link = self.addresses("victim")
        gateway, gateway6 = (world.network["config"][k].split("/")[0] for k in ("ipv4.address", "ipv6.address"))
        bridge = world.network["name"]
        bridge_mac = mac(json.loads(subprocess.run(["ip", "-j", "link", "show", bridge], check=True, capture_output=True).stdout)[0]["address"])
        me, him, all_ = mac(my_mac), mac(his_mac), b"\xff" * 6
        bad = mac("02:00:00:66:66:66")

        def arp(source_mac, operation, sender_mac, sender_ip, target_ip):
            return ether(all_, source_mac, 0x0806, struct.pack(">HHBBH", 1, 0x0800, 6, 4, operation) + sender_mac + socket.inet_aton(sender_ip) + b"\0" * 6 + socket.inet_aton(target_ip) + mark)

        data = udp(5000, 5001, mark)
        ra = bytes([134, 0, 0, 0, 64, 0, 7, 8]) + b"\0" * 8 + bytes([1, 1]) + me + bytes([5, 1, 0, 0]) + struct.pack(">I", 1400) + bytes([253, 4]) + mark.ljust(30, b"\0")
        na = bytes([136, 0, 0, 0, 0x20, 0, 0, 0]) + socket.inet_pton(socket.AF_INET6, gateway6) + bytes([2, 1]) + me + bytes([253, 4]) + mark.ljust(30, b"\0")
        group = mac("33:33:00:00:00:01")
        hop = lambda inner: bytes([inner, 0, 1, 4, 0, 0, 0, 0])  # an empty hop-by-hop header
        attacks = {
            "source MAC": ether(him, bad, 0x0800, ipv4(my_ip, his_ip, 17, data)),
            "gateway's MAC": ether(him, bridge_mac, 0x0800, ipv4(my_ip, his_ip, 17, data)),
            "source IP": ether(him, me, 0x0800, ipv4("192.0.2.1", his_ip, 17, data)),
            "gateway's IP": ether(him, me, 0x0800, ipv4(gateway, his_ip, 17, data)),
            "victim's IP": ether(bridge_mac, me, 0x0800, ipv4(his_ip, gateway, 17, data)),
            "fragment": ether(him, me, 0x0800, ipv4(gateway, his_ip, 17, mark, fragment=5)),
            "ARP for the gateway": arp(me, 2, me, gateway, his_ip),
            "ARP for the victim": arp(me, 1, me, his_ip, his_ip),
            "ARP with another MAC": arp(me, 2, bad, my_ip, his_ip),
            "ARP probe of the gateway": arp(me, 2, me, "0.0.0.0", gateway),
            "DHCP offer": ether(all_, me, 0x0800, ipv4(my_ip, "255.255.255.255", 17, udp(67, 68, mark))),
            "DHCP from elsewhere": ether(all_, me, 0x0800, ipv4(my_ip, "255.255.255.255", 17, udp(6767, 68, mark))),
            "DHCP client port": ether(bridge_mac, me, 0x0800, ipv4("0.0.0.0", "255.255.255.255", 17, udp(68, 53, mark))),
            "RA": ether(group, me, 0x86dd, ipv6(my_link, "ff02::1", 58, icmpv6(my_link, "ff02::1", ra))),
            "RA behind a header": ether(group, me, 0x86dd, ipv6(my_link, "ff02::1", 0, hop(58) + icmpv6(my_link, "ff02::1", ra))),
            "RA behind options": ether(group, me, 0x86dd, ipv6(my_link, "ff02::1", 60, hop(58) + icmpv6(my_link, "ff02::1", ra))),
            "RA in fragments": ether(group, me, 0x86dd, ipv6(my_link, "ff02::1", 44, bytes([58, 0, 0, 0, 0, 0, 0, 1]) + icmpv6(my_link, "ff02::1", ra))),
            "RA in a later fragment": ether(group, me, 0x86dd, ipv6(my_link, "ff02::1", 44, bytes([58, 0, 0, 8, 0, 0, 0, 1]) + icmpv6(my_link, "ff02::1", ra))),
            "NA for the gateway": ether(group, me, 0x86dd, ipv6(my_ip6, "ff02::1", 58, icmpv6(my_ip6, "ff02::1", na))),
            "NA behind a header": ether(group, me, 0x86dd, ipv6(my_ip6, "ff02::1", 0, hop(58) + icmpv6(my_ip6, "ff02::1", na))),
            "source IPv6": ether(him, me, 0x86dd, ipv6(gateway6, his_ip6, 17, data)),
            "victim's IPv6": ether(bridge_mac, me, 0x86dd, ipv6(his_ip6, gateway6, 17, data)),
            "DHCPv6 server": ether(mac("33:33:00:01:00:02"), me, 0x86dd, ipv6(my_link, "ff02::1:2", 17, udp(547, 546, mark))),
            "VLAN": ether(him, me, 0x8100, struct.pack(">HH", 5, 0x0800) + ipv4(gateway, his_ip, 17, data)),
            "VLAN 0": ether(him, me, 0x8100, struct.pack(">HH", 0, 0x0800) + ipv4(gateway, his_ip, 17, data)),
            "QinQ": ether(him, me, 0x88a8, struct.pack(">HHHH", 5, 0x8100, 5, 0x0800) + ipv4(gateway, his_ip, 17, data)),
            "LLDP": ether(mac("01:80:c2:00:00:0e"), me, 0x88cc, mark),
            "STP": mac("01:80:c2:00:00:00") + me + struct.pack(">H", 38) + b"\x42\x42\x03" + mark.ljust(35, b"\0"),
            "MPLS": ether(him, me, 0x8847, mark),
            "PPPoE": ether(all_, me, 0x8863, mark),
            "own": ether(him, me, 0x0800, ipv4(my_ip, his_ip, 17, data)),  # the control: this one arrives
            "own to the host": ether(bridge_mac, me, 0x0800, ipv4(my_ip, gateway, 17, data)),
        }

        def listener(interface):
            s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            s.bind((interface, 0))
            s.settimeout(2)
            return s

        at_victim = in_network_of(world.pid("victim"), lambda: listener("eth0"))
        at_host = listener(bridge)
        from_me = in_network_of(world.pid("mallory"), lambda: listener("eth0"))

        after = b"after" + os.urandom(8).hex().encode()
        sentinels = ether(him, me, 0x0800, ipv4(my_ip, his_ip, 17, udp(5000, 5001, after))), ether(bridge_mac, me, 0x0800, ipv4(my_ip, gateway, 17, udp(5000, 5001, after)))

        def arrived(s):
            """Whether a marked frame came before the sentinel, which always arrives."""
            found = False
            while True:
                frame, origin = s.recvfrom(65536)
                if origin[2] != socket.PACKET_OUTGOING:
                    if after in frame:
                        return found
                    found = found or mark in frame

        def reach(frame):
            from_me.send(frame)
            for sentinel in sentinels:
                from_me.send(sentinel)
            return [where for where, s in (("the victim", at_victim), ("the host", at_host)) if arrived(s)]

        with at_victim, at_host, from_me:
            self.assertEqual(reach(attacks.pop("own")), ["the victim"])
            self.assertEqual(reach(attacks.pop("own to the host")), ["the host"])
            for what, frame in attacks.items():
                with self.subTest(what):
                    self.assertEqual(reach(frame), [])
            # Somebody else's firewall reloads.
            subprocess.run(["nft", "flush", "ruleset"], check=True)
            support.wait_until(lambda: reach(attacks["gateway's IP"]) == [], 10, "the guard after a flush of all rules")
            for what in ("source MAC", "ARP for the gateway", "RA", "DHCP offer"):
                with self.subTest(what, after="flush"):
                    self.assertEqual(reach(attacks[what]), [])

    def test_the_host_is_closed(self):
        """What listens on the host is not for guests; DHCP and DNS are."""
        gateway, gateway6 = (world.network["config"][k].split("/")[0] for k in ("ipv4.address", "ipv6.address"))
        self.addresses("mallory")
        with socket.create_server(("::", 7777), family=socket.AF_INET6, dualstack_ipv6=True):
            subprocess.run(["ip", "address", "add", "192.0.2.9/32", "dev", "lo"], check=True)
            for address in (gateway, "192.0.2.9", gateway6):
                def attempt():
                    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as s:
                        s.settimeout(1)
                        return s.connect_ex((address, 7777))
                with self.subTest(address):
                    self.assertNotEqual(in_network_of(world.pid("mallory"), attempt), 0)
        self.assertIn(gateway, world.shell("mallory", f"nslookup victim {gateway} 2>&1 || true"))


if __name__ == "__main__":
    unittest.main(verbosity=2)
