"""Backups of instances with both command lines against a real daemon: what is imported is what was exported, and what a hostile backup says is
refused."""
import io
import json
import os
import subprocess
import tarfile
import time
import unittest
import urllib.parse

import support
from api import Api, ApiError

CLIENTS = ("virga", "incus")


class Base(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        support.enter_private_namespaces()
        container, vm = support.tiny_images()
        cls.daemon = support.Daemon()
        cls.clients = {name: support.Client(cls.daemon, name) for name in CLIENTS}
        cls.virga = cls.clients["virga"]
        cls.virga("admin", "init", "--auto")
        cls.virga("storage", "create", "second", "dir")
        cls.virga("image", "import", container, "--alias", "tiny")
        cls.virga("image", "import", vm, "--alias", "tiny-vm")
        cls.api = Api(cls.daemon.socket)

    @classmethod
    def tearDownClass(cls):
        left = cls.daemon.destroy()
        if left:
            raise AssertionError(f"left behind: {left}")

    def tearDown(self):
        for row in self.virga.json("list", "--all-projects"):
            self.virga("delete", "--force", "--project", row["project"], row["name"])
        self.assertEqual(self.backup_files(), [], "backups outlive their instances")

    def backup_files(self):
        top = os.path.join(self.daemon.state, "backups")
        return sorted(os.path.join(d, f) for d, _, files in os.walk(top) for f in files)

    def path(self, name):
        return os.path.join(self.daemon.base, name)

    def sh(self, name, script):
        return self.virga("exec", name, "--", "sh", "-c", script, timeout=120)

    def shown(self, name):
        return self.api("GET", f"/1.0/instances/{name}")


class Backups(Base):
    def test_containers(self):
        """With files of all kinds, exported by one client and imported by the other, stopped and running."""
        self.virga("launch", "tiny", "web", "-c", "user.tier=front", "-c", "limits.memory=64MiB", "-d", "root,pool=default")
        self.sh("web", "echo kept > /kept; chown 33:44 /kept; chmod 4711 /kept; rm /etc/hostname; mkdir /d; ln /kept /d/again; ln -s /kept /link;"
                       " mkfifo /pipe; dd if=/dev/zero of=/sparse bs=1 count=1 seek=33554432 2>/dev/null; touch -d '2020-02-03 04:05:06' /old")
        look = ("cat /kept; stat -c '%n %u %g %a %h %F' /kept /pipe /link; stat -c '%s' /sparse; stat -c %Y /old; ls /etc/hostname 2>/dev/null;"
                " find / -xdev -type f | sort | md5sum")
        before = self.sh("web", look)
        mac = self.shown("web")["config"]["volatile.eth0.hwaddr"]
        for running in (True, False):
            if not running:
                self.virga("stop", "-f", "web")
            for name, other in (CLIENTS, CLIENTS[::-1]):
                with self.subTest(client=name, running=running):
                    file = self.path(f"web-{name}.tar.gz")
                    self.clients[name]("export", "web", file)
                    self.assertEqual(self.shown("web")["status"], "Running" if running else "Stopped")
                    self.assertEqual(self.api("GET", "/1.0/instances/web/backups"), [], "the client's backup stays on the server")
                    self.clients[other]("import", file, "again")
                    got = self.shown("again")
                    self.assertEqual(got["config"]["user.tier"], "front")
                    self.assertEqual(got["devices"]["root"]["pool"], "default")
                    self.assertNotEqual(got["config"]["volatile.eth0.hwaddr"], mac, "the address is the other one's")
                    self.virga("start", "again")
                    self.assertEqual(self.sh("again", look), before)
                    self.virga("delete", "-f", "again")
        # Nothing of what was there is left in the pool but the image.
        images = os.path.join(self.api("GET", "/1.0/storage-pools/default")["config"]["source"], "images")
        self.assertEqual([n for n in os.listdir(images) if n.startswith("import-")], [])
        self.virga("delete", "web")
        self.virga("import", self.path("web-virga.tar.gz"))
        self.assertEqual(self.shown("web")["config"]["volatile.eth0.hwaddr"], mac, "restored, it has its address again")

    def test_virtual_machines(self):
        self.virga("launch", "tiny-vm", "db", "--vm", "-c", "limits.memory=128MiB")
        ready = lambda name: support.wait_until(lambda: self.virga.run("exec", name, "--", "true").returncode == 0, timeout=120, what="the agent")
        ready("db")
        disk = self.sh("db", "ls /dev/vd? /dev/sd? 2>/dev/null | head -n 1").strip()
        self.sh("db", f"echo written-by-the-guest | dd of={disk} bs=512 seek=4096 conv=notrunc 2>/dev/null; sync")
        for name, other in (CLIENTS, CLIENTS[::-1]):
            with self.subTest(client=name):
                file = self.path(f"db-{name}.tar.zst")
                self.clients[name]("export", "db", file, "--compression", "zstd")
                with tarfile.open(fileobj=io.BytesIO(subprocess.run(["zstd", "-dc", file], capture_output=True, check=True).stdout)) as tar:
                    names = tar.getnames()
                    self.assertIn("backup/virtual-machine.img", names)
                    raw = tar.extractfile("backup/virtual-machine.img")
                    raw.seek(4096 * 512)
                    self.assertTrue(raw.read(32).startswith(b"written-by-the-guest"))
                self.clients[other]("import", file, "again", "-s", "second")
                self.assertEqual(self.shown("again")["devices"]["root"]["pool"], "second")
                self.virga("start", "again")
                ready("again")
                self.assertIn("written-by-the-guest", self.sh("again", f"dd if={disk} bs=512 skip=4096 count=1 2>/dev/null"))
                self.virga("delete", "-f", "again")

    def test_backups_that_stay(self):
        self.virga("create", "tiny", "web")
        url = "/1.0/instances/web/backups"
        made = self.api("POST", url, {})
        self.assertEqual(made["resources"]["backups"], [f"{url}/backup0"])
        self.api("POST", url, {"name": "mine", "compression_algorithm": "none", "expires_at": "2100-01-01T00:00:00Z", "instance_only": True})
        self.assertEqual(self.api("GET", url), [f"{url}/backup0", f"{url}/mine"])
        self.daemon.restart()
        shown = self.api("GET", f"{url}/mine")
        self.assertEqual((shown["expires_at"], shown["instance_only"]), ("2100-01-01T00:00:00Z", True))
        self.assertEqual(len(self.backup_files()), 2)
        self.assertEqual(os.stat(self.backup_files()[0]).st_mode & 0o777, 0o600)
        with self.assertRaises(ApiError) as caught:
            self.api("POST", url, {"name": "mine"})
        self.assertEqual(caught.exception.code, 409)
        self.api("POST", f"{url}/mine", {"name": "yours"})
        self.assertFalse(self.api.exists(f"{url}/mine"))
        status, data = self.api.raw("GET", f"{url}/yours/export")
        self.assertEqual(status, 200)
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            self.assertEqual(tar.getnames()[:4], ["backup", "backup/index.yaml", "backup/container", "backup/container/backup.yaml"])
        self.virga("rename", "web", "www")
        self.assertEqual(self.api("GET", "/1.0/instances/www/backups"), ["/1.0/instances/www/backups/backup0", "/1.0/instances/www/backups/yours"])
        self.api("DELETE", "/1.0/instances/www/backups/yours")
        self.assertEqual(len(self.backup_files()), 1)

    def test_expiry(self):
        self.virga("create", "tiny", "web")
        soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 4))
        self.api("POST", "/1.0/instances/web/backups", {"name": "short", "expires_at": soon})
        self.api("POST", "/1.0/instances/web/backups", {"name": "long"})
        support.wait_until(lambda: self.api("GET", "/1.0/instances/web/backups") == ["/1.0/instances/web/backups/long"], timeout=30, what="the backup to expire")
        self.assertEqual(len(self.backup_files()), 1)
        with self.assertRaises(ApiError) as caught:
            self.api("POST", "/1.0/instances/web/backups", {"expires_at": "2001-01-01T00:00:00Z"})
        self.assertIn("expires_at", str(caught.exception))

    def test_what_is_refused(self):
        self.virga("create", "tiny", "web")
        self.assertIn("plain tarballs", self.clients["incus"].fails("export", "web", self.path("x"), "--optimized-storage"))
        self.assertFalse(os.path.exists(self.path("x.part")))
        self.virga("snapshot", "create", "web", "first")
        self.assertIn("--instance-only", self.virga.fails("export", "web", self.path("x")))
        file = self.path("web.tar.gz")
        self.virga("export", "web", file, "--instance-only")
        self.assertIn("already exists", self.virga.fails("import", file))
        self.assertIn("storage pool 'none' not found", self.virga.fails("import", file, "x", "--storage", "none"))
        self.virga("project", "create", "tight", "-c", "features.images=false", "-c", "features.profiles=false", "-c", "limits.instances=0")
        self.addCleanup(self.virga, "project", "delete", "tight")
        self.assertIn("limits.instances", self.virga.fails("import", file, "--project", "tight"))

    def test_templates_go_along(self):
        self.virga("create", "tiny", "web")
        self.virga("config", "template", "create", "web", "who.tpl", input="{{ instance.name }}\n")
        metadata = self.api("GET", "/1.0/instances/web/metadata")
        metadata["templates"] = {"/etc/who": {"when": ["start"], "template": "who.tpl", "create_only": False, "properties": {}}}
        self.api("PUT", "/1.0/instances/web/metadata", metadata)
        self.virga("export", "web", self.path("t.tar"), "--compression", "none")
        self.virga("import", self.path("t.tar"), "again")
        self.virga("start", "again")
        self.assertEqual(self.sh("again", "cat /etc/who"), "again\n")


INDEX = {"name": "evil", "backend": "dir", "pool": "default", "optimized": "false", "optimized_header": "false", "type": "container"}
INSTANCE = {"name": "evil", "type": "container", "architecture": "x86_64", "ephemeral": "false", "profiles": ["default"], "config": {}, "devices": {}, "description": ""}


class Hostile(Base):
    """S01 to S09 with backups: JSON is YAML, too."""

    def pack(self, entries):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for name, content in entries:
                entry = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
                entry.name = name
                if content is None:
                    entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                    tar.addfile(entry)
                elif isinstance(content, tarfile.TarInfo):
                    tar.addfile(entry)
                else:
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))
        return out.getvalue()

    def backup(self, instance=None, index=None, inner=None, extra=(), place="container"):
        instance = {**INSTANCE, **(instance or {})}
        index = {**INDEX, "config": {"container": instance}, **(index or {})}
        inner = {"container": instance} if inner is None else inner
        dump = lambda value: value if isinstance(value, bytes) else json.dumps(value).encode()
        return self.pack([("backup", None), ("backup/index.yaml", dump(index)), (f"backup/{place}", None), (f"backup/{place}/backup.yaml", dump(inner)),
                          (f"backup/{place}/rootfs", None), (f"backup/{place}/rootfs/sbin", None), (f"backup/{place}/rootfs/sbin/init", b"#!/bin/true\n"), *extra])

    def send(self, data, **headers):
        status, text = self.api.raw("POST", "/1.0/instances", data, {"Content-Type": "application/octet-stream", **headers})
        answer = json.loads(text)
        if answer["type"] == "error":
            return answer["error"]
        done = self.api("GET", f"/1.0/operations/{answer['metadata']['id']}/wait?timeout=60")
        return done["err"]

    def refused(self, data, words, **headers):
        error = self.send(data, **headers)
        self.assertIn(words, error)
        self.assertEqual(self.api("GET", "/1.0/instances"), [])
        images = os.path.join(self.api("GET", "/1.0/storage-pools/default")["config"]["source"], "images")
        self.assertEqual([n for n in os.listdir(images) if "import-" in n], [], "something is left of it")
        self.assertEqual(self.uploads(), [])

    def uploads(self):
        return [n for n in os.listdir(os.path.join(self.daemon.state, "images")) if "upload" in n]

    def test_one_that_is_as_it_should_be(self):
        self.assertEqual(self.send(self.backup()), "")
        self.assertEqual(self.shown("evil")["status"], "Stopped")

    def test_documents_that_contradict_each_other(self):
        privileged = {**INSTANCE, "config": {"security.privileged": "true"}}
        self.refused(self.backup(inner={"container": privileged}), "say different things about 'config'")
        self.refused(self.backup(inner={"container": INSTANCE, "instance": privileged}), "both 'container' and 'instance'")
        self.refused(self.backup(index={"type": "virtual-machine"}), "which it is not")
        self.refused(self.backup({"type": "virtual-machine"}), "which it is not")
        self.refused(self.backup(extra=[("backup/container/backup.yaml", b"{}")]), "appears twice")
        self.refused(self.backup(extra=[("backup/index.yaml", b"{}")]), "appears twice")

    def test_what_the_policy_and_the_tables_refuse(self):
        for config in ({"security.privileged": "true"}, {"raw.lxc": "x"}, {"limits.cpu": "many"}, {"user.a\nb": "x"}):
            self.refused(self.backup({"config": config}), "config")
        for devices in ({"d": {"type": "disk", "source": "/", "path": "/mnt"}}, {"d": {"type": "unix-char", "path": "/dev/mem"}}, {"../d": {"type": "none"}}):
            self.assertTrue(self.send(self.backup({"devices": devices})))
        self.assertEqual(self.api("GET", "/1.0/instances"), [])
        self.refused(self.backup({"profiles": ["none"]}), "none")
        self.refused(self.backup({"architecture": "aarch64"}), "architecture")

    def test_names(self):
        for name in ("../../x", "a/b", "-rf", "$(id)", "a\nb", "", "x" * 65536, "."):
            with self.subTest(name=name[:20]):
                self.refused(self.backup({"name": name}), "name")
        for name in ("../../x", "a/b", "-rf", "$(id)"):
            self.refused(self.backup(), "name", **{"X-Incus-name": name})

    def test_malformed_documents(self):
        for text in (b"a: [", b"a: &a [*a]\n", b"a: &x {b: c}\nd: *x\n", b"[]", b"x: " + b"[" * 1000, b"a: 1\na: 2\n", b"\xff\xfe", b"x" * (2 << 20),
                     b"optimized: true\n", b"config: text\n", b"config: {container: []}\n"):
            with self.subTest(text=text[:20]):
                self.assertTrue(self.send(self.raw_index(text)))
                self.assertEqual(self.api("GET", "/1.0/instances"), [])
                self.assertTrue(self.send(self.backup(inner=text)))
        for field, value in (("profiles", "default"), ("config", []), ("devices", {"a": "b"}), ("ephemeral", "perhaps"), ("name", ["x"])):
            self.assertIn(field, self.send(self.backup({field: value})))
        for idmap in ("[", "{}", '[{"Isuid":true,"Isgid":true,"Hostid":1000000,"Nsid":5,"Maprange":65536}]', '[{"Isuid":true,"Isgid":true,"Hostid":-1,"Nsid":0,"Maprange":65536}]'):
            self.assertTrue(self.send(self.backup({"config": {"volatile.last_state.idmap": idmap}})))
        self.assertEqual(self.api("GET", "/1.0/instances"), [])

    def raw_index(self, text):
        return self.pack([("backup", None), ("backup/index.yaml", text), ("backup/container", None), ("backup/container/backup.yaml", json.dumps({"container": INSTANCE}).encode()),
                          ("backup/container/rootfs", None)])

    def test_entries_that_lead_outside(self):
        link = tarfile.TarInfo()
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        hard = tarfile.TarInfo()
        hard.type, hard.linkname = tarfile.LNKTYPE, "backup/index.yaml"
        other = tarfile.TarInfo()
        other.type, other.linkname = tarfile.LNKTYPE, "/etc/passwd"
        device = tarfile.TarInfo()
        device.type, device.devmajor, device.devminor = tarfile.BLKTYPE, 8, 0
        place = "backup/container"
        for extra in ([("../x", b"x")], [("/x", b"x")], [("backup/../../x", b"x")], [("other/x", b"x")], [(f"{place}/../../../x", b"x")], [(f"{place}/rootfs/../../x", b"x")],
                      [(f"{place}/rootfs/d", link), (f"{place}/rootfs/d/passwd", b"x")], [(f"{place}/rootfs/h", hard)], [(f"{place}/rootfs/h", other)],
                      [(f"{place}/rootfs/sda", device)], [(f"{place}/rootfs", link)], [(f"{place}/templates", link)], [(f"{place}/metadata.yaml", link)],
                      [("backup/virtual-machine.img", b"\0" * 512)], [("backup/virtual-machine/backup.yaml", b"{}")], [("backup/container.bin", b"x")],
                      [("backup/snapshots", None)], [("backup/snapshots/s/rootfs/x", b"x")], [("backup/what", b"x")]):
            with self.subTest(extra=extra[-1][0]):
                self.assertTrue(self.send(self.backup(extra=extra)))
                self.assertEqual(self.api("GET", "/1.0/instances"), [])
        self.assertEqual(self.uploads(), [])

    def test_truncated(self):
        data = self.backup()
        content = -(-len(data.rstrip(b"\0")) // 512) * 512  # what follows are the marks of the end
        for size in range(0, content + 1, 512):
            self.assertTrue(self.send(data[:size]), size)
        self.assertEqual(self.api("GET", "/1.0/instances"), [])

    def test_disks_that_look_like_another_format(self):
        """A raw disk is raw: a qcow2 header in it, naming a file of the host, is the guest's data."""
        secret = self.path("secret")
        with open(secret, "w") as f:
            f.write("the host's own" * 100)
        name = secret.encode()
        header = b"QFI\xfb" + (2).to_bytes(4, "big") + (104).to_bytes(8, "big") + len(name).to_bytes(4, "big") + (16).to_bytes(4, "big") + (1 << 20).to_bytes(8, "big")
        disk = (header.ljust(104, b"\0") + name).ljust(1 << 20, b"\0")
        instance = {**INSTANCE, "type": "virtual-machine"}
        data = self.pack([("backup", None), ("backup/index.yaml", json.dumps({**INDEX, "type": "virtual-machine", "config": {"container": instance}}).encode()),
                          ("backup/virtual-machine", None), ("backup/virtual-machine/backup.yaml", json.dumps({"container": instance}).encode()),
                          ("backup/virtual-machine.img", disk)])
        self.assertEqual(self.send(data), "")
        self.virga("export", "evil", self.path("out.tar"), "--compression", "none")
        with tarfile.open(self.path("out.tar")) as tar:
            raw = tar.extractfile("backup/virtual-machine.img").read(1 << 20)
        self.assertEqual(raw[:len(disk)], disk)
        self.assertNotIn(b"the host's own", raw)

    def test_ids_are_shifted_back(self):
        """As daemons pack a root that they store shifted."""
        entry = tarfile.TarInfo()
        entry.uid, entry.gid, entry.size = 1000033, 1000044, 0
        idmap = json.dumps([{"Isuid": True, "Isgid": False, "Hostid": 1000000, "Nsid": 0, "Maprange": 65536}, {"Isuid": False, "Isgid": True, "Hostid": 1000000, "Nsid": 0, "Maprange": 65536}])
        self.assertEqual(self.send(self.backup({"config": {"volatile.last_state.idmap": idmap}}, extra=[("backup/container/rootfs/mine", entry)])), "")
        done = self.api.raw("GET", "/1.0/instances/evil/files?path=" + urllib.parse.quote("/mine"))
        self.assertEqual(done[0], 200)
        self.assertNotIn("volatile.last_state.idmap", self.shown("evil")["config"])
        listed = self.virga("file", "pull", "evil/mine", self.path("mine"), "-p")
        root = os.path.join(self.api("GET", "/1.0/storage-pools/default")["config"]["source"], "images")
        found = [os.path.join(root, n, "rootfs/mine") for n in os.listdir(root) if n.startswith("import-")]
        self.assertEqual([(os.lstat(f).st_uid, os.lstat(f).st_gid) for f in found], [(33, 44)])


if __name__ == "__main__":
    unittest.main()
