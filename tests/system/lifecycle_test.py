"""The main job, done by a command line against a real daemon, on a container and on a VM: run once with `virga` and once with the stock
`incus` client.

VARIANTS: VIRGA_CLIENT=virga VIRGA_CLIENT=incus
"""
import functools
import json
import os
import pathlib
import pty
import subprocess
import time
import unittest

import support

CLIENT = os.environ.get("VIRGA_CLIENT", "virga")
KINDS = (("c", []), ("v", ["--vm"]))


def each_kind(test):
    """The test, once for each kind of guest: a kind that fails does not keep the other from being tried."""
    @functools.wraps(test)
    def run(self):
        for prefix, flags in KINDS:
            with self.subTest(kind=prefix):
                test(self, prefix, flags)
    return run


class Lifecycle(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        support.enter_private_namespaces()
        container, vm = support.tiny_images()
        cls.daemon = support.Daemon()
        cls.cli = support.Client(cls.daemon, CLIENT)
        support.Client(cls.daemon, "virga")("admin", "init", "--auto")
        for path in (container, vm):
            # The stock client's --alias takes the name away from the image that had it.
            said = cls.cli("image", "import", path, *(["--alias", "tiny"] if CLIENT == "virga" else []))
            if CLIENT == "incus":
                cls.cli("image", "alias", "create", "tiny", said.split()[-1])

    @classmethod
    def tearDownClass(cls):
        left = cls.daemon.destroy()
        if left:
            raise AssertionError(f"left behind: {left}")

    def launch(self, name, *flags, action="launch"):
        """Of the kind that the flags say; the stock client takes the kind from the image and names it by the alias."""
        vm = "--vm" in flags
        image = "tiny/vm" if vm and CLIENT == "incus" else "tiny"
        out = self.cli(action, image, name, *flags)
        project = flags[flags.index("--project") + 1] if "--project" in flags else "default"
        made = self.daemon.query(f"/1.0/instances/{name}?project={project}")
        self.assertEqual(made["type"], "virtual-machine" if vm else "container")
        return out

    def address(self, name):
        def look():
            state = self.daemon.query(f"/1.0/instances/{name}/state")
            for nic, data in (state.get("network") or {}).items():
                if nic == "lo":
                    continue
                for a in data["addresses"]:
                    if a["family"] == "inet" and a["scope"] == "global":
                        return a["address"]
            return None
        return support.wait_until(look, 60, f"address of {name}")

    def test_images_are_listed_with_their_alias(self):
        images = self.cli.json("image", "list")
        self.assertEqual(sorted(i["type"] for i in images), ["container", "virtual-machine"])
        self.assertEqual({a["name"] for i in images for a in i["aliases"]}, {"tiny"})

    @each_kind
    def test_life(self, prefix, flags):
        name = f"{prefix}-life"
        self.launch(name, *flags, "-c", "limits.memory=128MiB", "-c", "user.note=hello")
        listed = [i for i in self.cli.json("list") if i["name"] == name][0]
        self.assertEqual(listed["status"], "Running")
        self.assertEqual(listed["config"]["user.note"], "hello")
        self.assertEqual(self.cli("exec", name, "--", "hostname").strip(), name)
        address = self.address(name)
        self.assertIn(address, self.cli("list"))
        support.wait_until(lambda: subprocess.run(["busybox", "ping", "-c1", "-W1", address], stdout=subprocess.DEVNULL).returncode == 0, 30, f"ping of {address}")
        self.assertIn("Running".upper(), self.cli("info", name).upper())
        self.cli("pause", name)
        self.assertEqual(self.cli.json("list", name)[0]["status"], "Frozen")
        self.cli("resume", name)
        self.assertEqual(self.cli("exec", name, "--", "echo", "back").strip(), "back")
        self.cli("restart", name, timeout=120)
        self.assertEqual(self.cli("exec", name, "--", "echo", "again").strip(), "again")
        self.cli("exec", name, "--", "sh", "-c", "echo kept > /root/file; sync")
        self.cli("stop", name, timeout=120)
        self.assertEqual(self.cli.json("list", name)[0]["status"], "Stopped")
        self.cli("rename", name, f"{name}2")
        self.cli("start", f"{name}2")
        self.assertEqual(self.cli("exec", f"{name}2", "--", "cat", "/root/file").strip(), "kept")
        self.assertIn("running", self.cli.fails("delete", f"{name}2").lower())
        self.cli("stop", "--force", f"{name}2")
        self.cli("delete", f"{name}2")
        self.assertNotIn(name, self.cli("list"))

    @each_kind
    def test_exec(self, prefix, flags):
        name = f"{prefix}-exec"
        self.launch(name, *flags)
        run = self.cli.run("exec", name, "--", "sh", "-c", "cat; echo err >&2; exit 7", input="in\n")
        self.assertEqual((run.stdout, run.stderr, run.returncode), ("in\n", "err\n", 7))
        self.assertEqual(self.cli("exec", name, "--env", "COLOR=blue", "--cwd", "/tmp", "--", "sh", "-c", "echo $COLOR; pwd").split(), ["blue", "/tmp"])
        self.assertEqual(self.cli("exec", name, "--user", "1000", "--group", "100", "--", "sh", "-c", "id -u; id -g").split(), ["1000", "100"])
        big = self.cli.run("exec", name, "--", "sh", "-c", "head -c 3000000 /dev/zero", binary=True)
        self.assertEqual(len(big.stdout), 3000000)
        self.assertNotEqual(self.cli.run("exec", name, "--", "/no/such/program").returncode, 0)
        self.interactive(name)
        self.cli("delete", "--force", name)

    def interactive(self, name):
        """A terminal: what is typed is echoed, the size arrives, the exit code too."""
        master, slave = pty.openpty()
        import fcntl, struct, termios
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 101, 0, 0))
        child = subprocess.Popen([self.cli.program, "exec", name, "--", "sh"], stdin=slave, stdout=slave, stderr=slave, env=self.cli.environment(), start_new_session=True)
        os.close(slave)
        seen = b""

        def until(mark, timeout=30):
            nonlocal seen
            import select
            deadline = time.monotonic() + timeout
            while mark not in seen:
                ready, _, _ = select.select([master], [], [], max(0, deadline - time.monotonic()))
                self.assertTrue(ready, f"no {mark!r} in {seen!r}")
                seen += os.read(master, 65536)

        until(b"#")
        os.write(master, b"stty size; tty; echo mark-$((40+2))\n")
        until(b"mark-42")
        self.assertIn(b"33 101", seen)
        os.write(master, b"exit 5\n")
        self.assertEqual(child.wait(30), 5)
        os.close(master)

    def test_limits_are_what_the_guest_sees(self):
        self.launch("v-limits", "--vm", "-c", "limits.cpu=2", "-c", "limits.memory=192MiB")
        self.assertEqual(self.cli("exec", "v-limits", "--", "nproc").strip(), "2")
        total = int(self.cli("exec", "v-limits", "--", "awk", "/MemTotal/ {print $2}", "/proc/meminfo"))
        self.assertTrue(100_000 < total < 192 * 1024, total)
        self.cli("delete", "--force", "v-limits")
        self.launch("c-default")
        most = min(int(pathlib.Path("/proc/sys/kernel", name).read_text()) for name in ("pid_max", "threads-max")) * 15 // 100
        uuid = self.daemon.query("/1.0/instances/c-default")["config"]["volatile.uuid"]
        found = [path.read_text().strip() for path in pathlib.Path("/sys/fs/cgroup").rglob(f"{uuid}/pids.max")]
        self.assertEqual(found, [str(most)], "no container takes all processes of the host")
        self.cli("delete", "--force", "c-default")
        self.launch("c-limits", "-c", "limits.memory=32MiB", "-c", "limits.processes=20")
        hog = self.cli.run("exec", "c-limits", "--", "sh", "-c", "head -c 200000000 /dev/zero | tail | wc -c")
        self.assertNotIn("200000000", hog.stdout, "the memory limit holds")
        forks = self.cli.run("exec", "c-limits", "--", "sh", "-c", "for i in $(seq 50); do sleep 5 & done; wait")
        self.assertIn("fork", forks.stderr.lower())
        self.cli("delete", "--force", "c-limits")

    def test_profiles_merge(self):
        self.cli("profile", "create", "big")
        self.cli("profile", "set", "big", "limits.memory=100MiB")
        self.cli("profile", "set", "big", "user.from=big")
        self.launch("c-prof", "-p", "default", "-p", "big", action="init" if CLIENT == "incus" else "create")
        expanded = self.daemon.query("/1.0/instances/c-prof")
        self.assertEqual(expanded["expanded_config"]["limits.memory"], "100MiB")
        self.assertIn("eth0", expanded["expanded_devices"])
        self.assertIn("c-prof", self.cli.fails("profile", "delete", "big"))
        self.cli("delete", "c-prof")
        self.cli("profile", "delete", "big")

    def test_projects_are_name_spaces(self):
        self.cli("project", "create", "lab", "-c", "features.images=false", "-c", "features.profiles=false")
        self.launch("same", "--project", "lab")
        self.launch("same")
        self.assertEqual(len(self.cli.json("list", "--all-projects")), len(self.cli.json("list")) + 1)
        self.assertEqual(self.cli("exec", "same", "--project", "lab", "--", "hostname").strip(), "same")
        self.cli("delete", "--force", "same", "--project", "lab")
        self.cli("project", "delete", "lab")
        self.cli("delete", "--force", "same")

    def test_wrong_input_is_refused_with_its_name(self):
        self.assertIn("limits.memori", self.cli.fails("launch", "tiny", "bad", "-c", "limits.memori=1GiB"))
        self.assertRegex(self.cli.fails("launch", "no-such-image", "bad"), "no image.*no-such-image|no-such-image.*not found")
        self.assertIn("bad_name", self.cli.fails("launch", "tiny", "bad_name"))
        self.assertRegex(self.cli.fails("start", "absent"), "no.*absent|absent.*(not found|does not exist)")
        self.assertEqual([i for i in self.cli.json("list") if i["name"].startswith("bad")], [])

    @each_kind
    def test_guests_outlive_the_daemon(self, prefix, flags):
        name = f"{prefix}-outlive"
        self.launch(name, *flags)
        before = self.daemon.query(f"/1.0/instances/{name}/state")["pid"]
        self.daemon.restart()
        self.assertEqual(self.daemon.query(f"/1.0/instances/{name}/state")["pid"], before)
        self.assertEqual(self.cli("exec", name, "--", "echo", "alive").strip(), "alive")
        self.cli("stop", name, timeout=120)
        self.cli("delete", name)

    def test_names_resolve_between_guests(self):
        self.launch("one")
        self.launch("two")
        address = self.address("two")
        self.address("one")
        self.assertIn(address, self.cli("exec", "one", "--", "ping", "-c1", "-W5", "two"))
        self.cli("delete", "--force", "one", "two")

    @each_kind
    def test_a_guest_that_powers_off_is_seen_stopped(self, prefix, flags):
        name = f"{prefix}-off"
        self.launch(name, *flags)
        self.cli.run("exec", name, "--", "poweroff")
        support.wait_until(lambda: self.cli.json("list", name)[0]["status"] == "Stopped", 60, f"{name} stopped")
        self.cli("delete", name)


if __name__ == "__main__":
    unittest.main(verbosity=2)
