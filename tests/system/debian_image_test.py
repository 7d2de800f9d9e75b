"""image build debian/12: the container runs systemd, and has an address; with VIRGA_LONG=1 the virtual machine boots by firmware too.

Skipped where mmdebstrap is not installed or Debian's archive cannot be reached.
"""
import os
import shutil
import subprocess
import tempfile
import time
import unittest

import support

LONG = os.environ.get("VIRGA_LONG") == "1"


def archive_reachable():
    """Asks for the suite's signed index as apt would, by way of whatever proxy apt knows."""
    helper = "/usr/lib/apt/apt-helper"
    if not os.path.exists(helper):
        return False
    with tempfile.TemporaryDirectory() as scratch:
        try:
            result = subprocess.run([helper, "-o", "Acquire::Retries=0", "-o", "Acquire::http::Timeout=10", "download-file",
                                     "http://deb.debian.org/debian/dists/bookworm/InRelease", os.path.join(scratch, "InRelease")], capture_output=True, timeout=40)
        except subprocess.TimeoutExpired:
            return False
        return result.returncode == 0


class DebianImage(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        if shutil.which("mmdebstrap") is None:
            raise unittest.SkipTest("mmdebstrap is not installed: ./dev deps --tests")
        if not archive_reachable():
            raise unittest.SkipTest("Debian's archive cannot be reached")
        # Built with the host's network, before the private one is entered.
        cls.out = os.path.join(support.CACHE, f"debian-{os.getpid()}")
        os.makedirs(cls.out)
        cls.addClassCleanup(shutil.rmtree, cls.out, ignore_errors=True)
        began = time.monotonic()
        argv = [os.path.join(support.TOP, "share/images/build-debian"), "--suite", "12", "--out", cls.out, "--agent", os.path.join(support.BIN, "virga-agent"),
                "--kind", "all" if LONG else "container", "--cache", os.path.join(support.CACHE, "packages")]
        result = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=1200)
        print(f"built in {time.monotonic() - began:.0f} s", flush=True)
        if result.returncode != 0:
            raise AssertionError(result.stderr)
        cls.images = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
        support.enter_private_namespaces()
        cls.daemon = support.Daemon()
        cls.addClassCleanup(cls.end)
        cls.cli = support.Client(cls.daemon, "virga")
        cls.cli("admin", "init", "--auto")

    @classmethod
    def end(cls):
        left = cls.daemon.destroy()
        if left:
            raise AssertionError(f"left behind: {left}")

    def run_in(self, name, *argv, timeout=60):
        return self.cli.run("exec", name, "--", *argv, timeout=timeout).stdout.strip()

    def address(self, name):
        for nic, data in (self.daemon.query(f"/1.0/instances/{name}/state").get("network") or {}).items():
            for a in data["addresses"]:
                if nic != "lo" and a["family"] == "inet" and a["scope"] == "global":
                    return a["address"]
        return None

    def check(self, name, patience):
        support.wait_until(lambda: self.run_in(name, "systemctl", "is-system-running") in ("running", "degraded"), patience, f"systemd of {name}")
        self.assertEqual(self.run_in(name, "systemctl", "--failed", "--no-legend", "--plain"), "")
        address = support.wait_until(lambda: self.address(name), 60, f"address of {name}")
        self.assertEqual(subprocess.run(["ping", "-c1", "-W5", address], stdout=subprocess.DEVNULL).returncode, 0)
        self.assertIn(address, self.run_in(name, "ip", "-4", "-o", "addr"))
        self.assertEqual(support.wait_until(lambda: self.run_in(name, "hostname") == name, 60, f"the name of {name}"), True)
        self.assertIn("VERSION_ID=\"12\"", self.run_in(name, "cat", "/etc/os-release"))
        self.assertRegex(self.run_in(name, "cat", "/etc/machine-id"), "^[0-9a-f]{32}$")

    def test_container(self):
        self.cli("image", "import", self.images["container"], "--alias", "debian/12")
        began = time.monotonic()
        self.cli("launch", "debian/12", "d1", "-c", "limits.memory=512MiB", "-c", "limits.processes=500")
        self.check("d1", 90)
        print(f"container is up after {time.monotonic() - began:.1f} s", flush=True)
        # Its init manages services and their processes.
        self.assertEqual(self.run_in("d1", "systemd-run", "--wait", "--pipe", "--quiet", "echo", "from a unit"), "from a unit")
        first = self.run_in("d1", "cat", "/etc/machine-id")
        self.cli("restart", "d1")
        self.check("d1", 90)
        self.assertEqual(self.run_in("d1", "cat", "/etc/machine-id"), first)
        self.cli("launch", "debian/12", "d2")
        self.check("d2", 90)
        self.assertNotEqual(self.run_in("d2", "cat", "/etc/machine-id"), first, "no two guests share it")
        # A clean end within a few seconds: init is told in the way that systemd understands.
        began = time.monotonic()
        self.cli("stop", "d1", "--timeout", "60")
        self.assertLess(time.monotonic() - began, 60)
        self.cli("delete", "--force", "d1", "d2")

    @unittest.skipUnless(LONG, "boots by firmware in an emulated machine, which takes minutes: VIRGA_LONG=1")
    def test_virtual_machine(self):
        self.cli("image", "import", self.images["virtual-machine"], "--alias", "debian/12")
        began = time.monotonic()
        self.cli("launch", "debian/12", "v1", "--vm", "-c", "limits.memory=1GiB", timeout=300)
        # Waits for the agent.
        self.assertEqual(self.cli.run("exec", "v1", "--", "true", timeout=400).returncode, 0)
        print(f"virtual machine answers exec after {time.monotonic() - began:.1f} s", flush=True)
        self.check("v1", 300)
        print(f"virtual machine is up after {time.monotonic() - began:.1f} s", flush=True)
        self.assertEqual(self.cli.run("exec", "v1", "--", "test", "-d", "/sys/firmware/efi").returncode, 0, "it was started by firmware")
        size = int(self.run_in("v1", "df", "-k", "--output=size", "/").split()[-1])
        self.assertGreater(size, 8 << 20, "the root has grown to its disk of 10 GiB")
        self.assertEqual(self.cli.run("exec", "v1", "--", "cloud-init", "--version").returncode, 0)
        self.cli("delete", "--force", "v1")


class Failures(unittest.TestCase):
    def test_a_failed_build_leaves_nothing(self):
        if shutil.which("mmdebstrap") is None:
            self.skipTest("mmdebstrap is not installed")

        with tempfile.TemporaryDirectory(prefix="virga-build.") as base:
            work, out = os.path.join(base, "work"), os.path.join(base, "out")
            os.mkdir(work)
            with open("/proc/self/mountinfo") as f:
                before = f.read().count("\n")
            argv = [os.path.join(support.TOP, "share/images/build-debian"), "--suite", "12", "--out", out, "--kind", "container", "--cache", base + "/cache",
                    "--mirror", "http://127.0.0.1:9/debian"]
            result = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, env=dict(os.environ, VIRGA_BUILD_DIR=work))
            self.assertNotEqual(result.returncode, 0)
            self.assertIn("mmdebstrap failed", result.stderr)
            self.assertEqual((os.listdir(work), os.listdir(out)), ([], []))
            with open("/proc/self/mountinfo") as f:
                self.assertEqual(f.read().count("\n"), before)

    def test_wrong_names_are_refused(self):
        script = os.path.join(support.TOP, "share/images/build-debian")
        for suite in ("../x", "12; id", "-x", ""):
            result = subprocess.run([script, "--suite", suite, "--out", "/nonexistent/x", "--kind", "container"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20)
            self.assertNotEqual(result.returncode, 0, suite)


if __name__ == "__main__":
    unittest.main(verbosity=2)
