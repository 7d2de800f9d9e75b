"""Copies of instances with both command lines against a real daemon: the data is that of the moment, the rest is the copy's own."""
import os
import threading
import unittest

import support
from api import Api, ApiError

CLIENTS = ("virga", "incus")


class Copies(unittest.TestCase):
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

    def sh(self, name, script, *flags):
        return self.virga("exec", name, *flags, "--", "sh", "-c", script, timeout=120)

    def shown(self, name, project="default"):
        return self.daemon.query(f"/1.0/instances/{name}?project={project}")

    def pool(self, name, pool="default"):
        source = self.daemon.query(f"/1.0/storage-pools/{pool}")["config"]["source"]
        return os.path.join(source, "containers", name)

    def test_a_stopped_container(self):
        self.virga("launch", "tiny", "web", "-c", "limits.memory=64MiB", "-c", "user.tier=front")
        self.sh("web", "echo kept > /kept; chown 33:44 /kept; chmod 4711 /kept; rm /etc/hostname; mkdir /d; ln /kept /d/again;"
                       " dd if=/dev/zero of=/sparse bs=1 count=1 seek=33554432 2>/dev/null; ln -s /kept /link")
        self.virga("stop", "-f", "web")
        original = self.shown("web")
        for name, cli in self.clients.items():
            with self.subTest(client=name):
                copy = f"copy-by-{name}"
                cli("copy", "web", copy, "-c", "limits.memory=96MiB")
                got = self.shown(copy)
                self.assertEqual(got["status"], "Stopped")
                self.assertEqual(got["config"]["limits.memory"], "96MiB")
                self.assertEqual(got["config"]["user.tier"], "front")
                self.assertEqual(got["profiles"], original["profiles"])
                for key in ("volatile.uuid", "volatile.eth0.hwaddr"):
                    self.assertNotEqual(got["config"][key], original["config"][key], key)
                self.assertEqual(got["config"]["volatile.base_image"], original["config"]["volatile.base_image"])
                self.virga("start", copy)
                out = self.sh(copy, "cat /kept; stat -c '%u %g %a %h' /kept; ls /etc/hostname 2>&1; cat /link; stat -c %s /sparse")
                self.assertEqual(out.splitlines()[:2], ["kept", "33 44 4711 2"])
                self.assertIn("No such file", out)
                self.assertEqual(out.splitlines()[-2:], ["kept", "33554433"])
                # The root of the copy belongs to another range of the host's ids.
                mine, theirs = (os.lstat(os.path.join(self.pool(n), "upper/kept")) for n in (copy, "web"))
                self.assertNotEqual(mine.st_uid, theirs.st_uid)
                self.assertEqual(mine.st_uid % 65536 - theirs.st_uid % 65536, os.lstat(self.pool(copy)).st_uid % 65536 - os.lstat(self.pool("web")).st_uid % 65536)
                self.assertLess(os.lstat(os.path.join(self.pool(copy), "upper/sparse")).st_blocks, 64)
                # Neither sees what the other does from now on.
                self.sh(copy, "echo changed > /kept")
        self.virga("start", "web")
        self.assertEqual(self.sh("web", "cat /kept").strip(), "kept")

    def test_a_container_that_runs(self):
        self.virga("launch", "tiny", "web")
        self.sh("web", "i=0; while :; do i=$((i+1)); echo $i > /count.new && mv /count.new /count; done >/dev/null 2>&1 &")
        pid = self.daemon.query("/1.0/instances/web/state")["pid"]
        for name, cli in self.clients.items():
            with self.subTest(client=name):
                cli("copy", "web", f"live-{name}")
                self.assertEqual(self.shown("web")["status"], "Running")
                self.virga("start", f"live-{name}")
                self.assertRegex(self.sh(f"live-{name}", "cat /count"), r"^\d+\n$")
        self.assertEqual(self.daemon.query("/1.0/instances/web/state")["pid"], pid)
        before = int(self.sh("web", "cat /count"))
        support.wait_until(lambda: int(self.sh("web", "cat /count")) > before, what="the source to count on")

    def test_virtual_machines(self):
        self.virga("launch", "tiny-vm", "db", "--vm", "-c", "limits.memory=128MiB")
        support.wait_until(lambda: self.virga.run("exec", "db", "--", "true").returncode == 0, timeout=120, what="the agent")
        # The tiny image's root is in memory; its disk is written below the file system.
        disk = self.sh("db", "ls /dev/vd? /dev/sd? 2>/dev/null | head -n 1").strip()
        self.assertTrue(disk)
        self.sh("db", f"echo written-by-the-guest | dd of={disk} bs=512 seek=4096 conv=notrunc 2>/dev/null; sync")
        for name, cli in self.clients.items():
            with self.subTest(client=name):
                copy = f"vm-{name}"
                cli("copy", "db", copy)
                self.assertEqual(self.shown("db")["status"], "Running")
                self.virga("start", copy)
                support.wait_until(lambda: self.virga.run("exec", copy, "--", "true").returncode == 0, timeout=120, what="the copy's agent")
                self.assertIn("written-by-the-guest", self.sh(copy, f"dd if={disk} bs=512 skip=4096 count=1 2>/dev/null"))
                self.sh(copy, f"echo changed-in-the-copy!! | dd of={disk} bs=512 seek=4096 conv=notrunc 2>/dev/null; sync")
                self.virga("delete", "-f", copy)
        self.assertIn("written-by-the-guest", self.sh("db", f"dd if={disk} bs=512 skip=4096 count=1 iflag=direct 2>/dev/null"))

    def test_another_pool_and_project(self):
        self.virga("project", "create", "lab", "-c", "features.images=false", "-c", "features.profiles=false")
        self.addCleanup(self.virga, "project", "delete", "lab")
        self.virga("create", "tiny", "web")
        self.virga("file", "push", __file__, "web/note")
        self.virga("create", "tiny-vm", "db", "--vm")
        with open(__file__) as file:
            text = file.read()
        for name, cli in self.clients.items():
            with self.subTest(client=name):
                cli("copy", "web", f"web-{name}", "--storage", "second")
                self.assertEqual(self.shown(f"web-{name}")["devices"]["root"]["pool"], "second")
                self.assertTrue(os.path.isdir(self.pool(f"web-{name}", "second")))
                self.assertEqual(self.virga("file", "pull", f"web-{name}/note", "-"), text)
                cli("copy", "web", f"lab-{name}", "--target-project", "lab")
                self.assertEqual(self.virga("file", "pull", f"lab-{name}/note", "-", "--project", "lab"), text)
                cli("copy", "db", f"db-{name}", "-s", "second")
                self.virga("start", f"db-{name}", f"web-{name}")
        # The image goes with its last user, though nobody has imported it there.
        second = os.path.dirname(os.path.dirname(self.pool("x", "second")))
        self.assertEqual(len(os.listdir(os.path.join(second, "images"))), 2)
        for name in CLIENTS:
            self.virga("delete", "-f", f"web-{name}", f"db-{name}")
        self.assertEqual(os.listdir(os.path.join(second, "images")), [])

    def test_a_copy_outlives_source_and_image(self):
        container, _ = support.tiny_images()
        fingerprint = self.api("GET", "/1.0/images/aliases/tiny")["target"]
        self.virga("create", "tiny", "web")
        self.virga("file", "push", __file__, "web/note")
        self.virga("copy", "web", "copy")
        self.virga("delete", "web")
        self.virga("image", "delete", fingerprint)
        try:
            self.virga("copy", "copy", "second-copy")
            self.virga("delete", "copy")
            self.virga("start", "second-copy")
            self.assertIn("Copies of instances", self.sh("second-copy", "head -n 1 /note"))
        finally:
            self.virga("image", "import", container, "--alias", "tiny")

    def test_refresh(self):
        self.virga("launch", "tiny", "web")
        self.sh("web", "echo one > /one; echo same > /same")
        # The stock client would give the copy the addresses of its source, too; it sees that this is not done here.
        self.assertIn("container_incremental_copy", self.clients["incus"].fails("copy", "web", "x", "--refresh"))
        for name, cli in (("virga", self.virga),):
            with self.subTest(client=name):
                copy = f"refreshed-{name}"
                cli("copy", "web", copy, "--refresh")  # not there yet
                kept = os.lstat(os.path.join(self.pool(copy), "upper/same")).st_ino
                mac = self.shown(copy)["config"]["volatile.eth0.hwaddr"]
                self.sh("web", "echo two > /two; rm /one")
                cli("copy", "web", copy, "--refresh")
                self.assertEqual(os.lstat(os.path.join(self.pool(copy), "upper/same")).st_ino, kept, "what is the same was copied again")
                self.assertEqual(self.shown(copy)["config"]["volatile.eth0.hwaddr"], mac)
                self.virga("start", copy)
                self.assertEqual(self.sh(copy, "ls /one /two 2>/dev/null; cat /same").split(), ["/two", "same"])
                self.assertIn("running", cli.fails("copy", "web", copy, "--refresh"))
                self.sh("web", "rm /two; echo one > /one")

    def test_snapshots(self):
        """A copy has its source's snapshots, or is made of one, or has none; of both kinds."""
        for kind, image, flags in (("containers", "tiny", []), ("virtual-machines", "tiny-vm", ["--vm", "-c", "limits.memory=128MiB"])):
            with self.subTest(kind=kind):
                self.virga("launch", image, "web", *flags)
                if kind == "containers":
                    write = lambda name, text: self.sh(name, f"echo {text} > /text")
                    read = lambda name: self.sh(name, "cat /text").strip()
                    ready = lambda name: None
                else:
                    ready = lambda name: support.wait_until(lambda: self.virga.run("exec", name, "--", "true").returncode == 0, timeout=120, what="the agent")
                    ready("web")
                    disk = self.sh("web", "ls /dev/vd? /dev/sd? 2>/dev/null | head -n 1").strip()
                    write = lambda name, text: self.sh(name, f"printf %-16s {text} | dd of={disk} bs=512 seek=4096 conv=notrunc 2>/dev/null; sync")
                    read = lambda name: self.sh(name, f"dd if={disk} bs=16 skip=131072 count=1 2>/dev/null").strip()
                write("web", "one")
                self.virga("snapshot", "create", "web", "first")
                write("web", "two")
                self.virga("copy", "web", "all")
                self.virga("copy", "web/first", "then")
                self.virga("copy", "web", "bare", "--instance-only")
                count = lambda name: len(self.api("GET", f"/1.0/instances/{name}/snapshots"))
                self.assertEqual([count(n) for n in ("all", "then", "bare")], [1, 0, 0])
                self.virga("delete", "-f", "web")
                for name, text in (("all", "two"), ("then", "one"), ("bare", "two")):
                    self.virga("start", name)
                    ready(name)
                    self.assertEqual(read(name), text, name)
                self.virga("stop", "-f", "all")
                self.virga("snapshot", "restore", "all", "first")
                self.virga("start", "all")
                ready("all")
                self.assertEqual(read("all"), "one")
                self.virga("delete", "-f", "all", "then", "bare")
        self.virga("create", "tiny", "web")
        self.assertIn("nosuch", self.virga.fails("copy", "web/nosuch", "x"))

    def test_refresh_with_snapshots(self):
        self.virga("launch", "tiny", "web")
        self.sh("web", "echo one > /text")
        self.virga("snapshot", "create", "web", "first")
        self.virga("copy", "web", "spare")
        self.sh("web", "echo two > /text")
        self.virga("snapshot", "create", "web", "second")
        self.virga("snapshot", "delete", "web", "first")
        self.virga("copy", "web", "spare", "--refresh")
        self.assertEqual(self.api("GET", "/1.0/instances/spare/snapshots"), ["/1.0/instances/spare/snapshots/second"])
        self.assertIn("would be lost", self.virga.fails("copy", "web", "spare", "--refresh", "--instance-only"))
        self.virga("start", "spare")
        self.assertEqual(self.sh("spare", "cat /text"), "two\n")

    def test_templates_of_a_copy(self):
        self.virga("create", "tiny", "web")
        self.virga("config", "template", "create", "web", "who.tpl", input="{{ instance.name }} by {{ trigger }}\n")
        metadata = self.daemon.query("/1.0/instances/web/metadata")
        metadata["templates"] = {"/etc/who": {"when": ["copy"], "template": "who.tpl", "create_only": False, "properties": {}}}
        self.api("PUT", "/1.0/instances/web/metadata", metadata)
        self.virga("start", "web")
        self.virga("copy", "web", "copy")
        self.virga("start", "copy")
        self.assertEqual(self.sh("copy", "cat /etc/who"), "copy by copy\n")
        self.assertEqual(self.sh("web", "ls /etc/who 2>/dev/null; true"), "")

    def test_a_schedule_of_the_copy(self):
        """Nobody else has one: the daemon hears of it from the copy alone."""
        self.virga("create", "tiny", "plain")
        self.virga("copy", "plain", "kept", "-c", "snapshots.schedule=* * * * *", "-c", "snapshots.schedule.stopped=true")
        support.wait_until(lambda: self.daemon.query("/1.0/instances/kept/snapshots"), 90, "the first snapshot of the copy")

    def test_policy_and_bad_requests(self):
        self.virga("project", "create", "tight", "-c", "features.images=false", "-c", "features.profiles=false", "-c", "restricted=true", "-c", "limits.instances=1")
        self.addCleanup(self.virga, "project", "delete", "tight")
        self.virga("create", "tiny", "web", "-c", "security.nesting=true")
        self.assertIn("restricted.containers.nesting", self.virga.fails("copy", "web", "c", "--target-project", "tight"))
        self.virga("copy", "web", "c", "--target-project", "tight", "-c", "security.nesting=false")
        self.assertIn("limits.instances", self.virga.fails("copy", "web", "d", "--target-project", "tight", "-c", "security.nesting=false"))

        def refused(field=None, **source):
            with self.assertRaises(ApiError) as caught:
                self.api("POST", "/1.0/instances", {"name": "x", "source": {"type": "copy", "source": "web", **source}})
            self.assertIn(caught.exception.code, (400, 404, 501))
            if field:
                self.assertIn(field, str(caught.exception))

        refused(source="")
        refused(source="nobody")
        refused(source="web/snap")
        refused(source="web/")
        refused(source="/snap")
        refused(source="web/../x")
        refused(source="../web")
        refused(project="elsewhere")
        refused(mode="push")
        refused(server="https://192.0.2.1")
        refused(refresh_exclude_older=True)
        refused(live="yes", field="live")
        for text in (self.virga.fails("copy", "web", "web"), self.clients["incus"].fails("copy", "web", "web")):
            self.assertIn("already exists", text)
        self.virga("create", "tiny-vm", "db", "--vm")
        self.assertIn("size", self.virga.fails("copy", "db", "y", "-d", "root,size=20GiB"))

    def test_many_at_once_and_cancelled(self):
        self.virga("launch", "tiny", "web")
        self.sh("web", "dd if=/dev/urandom of=/big bs=1M count=48 2>/dev/null")
        threads = [threading.Thread(target=self.virga, args=("copy", "web", f"c{i}")) for i in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(len(self.virga.json("list")), 5)
        ranges = {os.lstat(self.pool(f"c{i}")).st_uid for i in range(4)}
        self.assertEqual(len(ranges), 4)
        # One that waits for its turn, as something else holds the source.
        stop = self.api("PUT", "/1.0/instances/web/state", {"action": "stop", "timeout": 60}, wait=False)
        try:
            copy = self.api("POST", "/1.0/instances", {"name": "never", "source": {"type": "copy", "source": "web"}}, wait=False)
            self.api("DELETE", f"/1.0/operations/{copy['id']}")
            with self.assertRaises(ApiError) as caught:
                self.api.wait(copy["id"])
            self.assertIn("ancel", str(caught.exception))
            self.assertFalse(self.api.exists("/1.0/instances/never"))
        finally:
            self.virga("stop", "-f", "web")
            support.wait_until(lambda: self.api.exists(f"/1.0/operations/{stop['id']}") is False or
                               self.api("GET", f"/1.0/operations/{stop['id']}")["status_code"] != 103, what="the stop to end")


if __name__ == "__main__":
    unittest.main()
