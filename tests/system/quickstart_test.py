"""What a stranger does first: ./quickstart, again, and --remove; below a directory of its own and with the programs the tests were built
with."""
import os
import re
import shutil
import subprocess
import tempfile
import unittest

import support

PRESET = os.path.basename(os.path.dirname(support.BIN))


class Programs(unittest.TestCase):
    def test_builds_all_that_it_installs(self):
        """In a build directory that tests have filled, quickstart would not notice a program that it does not build itself."""
        build = os.path.join(support.TOP, "build", PRESET)
        if not os.path.exists(os.path.join(build, "build.ninja")):
            raise unittest.SkipTest(f"{support.BIN} is in no build directory")
        installed = set()
        for folder, _, names in os.walk(build):
            if "cmake_install.cmake" in names:
                with open(os.path.join(folder, "cmake_install.cmake")) as script:
                    installed.update(re.findall(rf'{re.escape(build)}/bin/([a-z-]+)"', script.read()))
        self.assertIn("virgad", installed)
        query = subprocess.run(["ninja", "-C", build, "-t", "query", "programs"], capture_output=True, text=True, check=True).stdout
        self.assertEqual(installed - set(re.findall(r"^ +bin/([a-z-]+)$", query, re.MULTILINE)), set())


class Quickstart(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        if not os.path.exists(os.path.join(support.TOP, "build", PRESET, "build.ninja")):
            raise unittest.SkipTest(f"{support.BIN} is in no build directory")
        cls.base = tempfile.mkdtemp(prefix="virga-quickstart-test.")
        # Fetches the kernel's package into the cache that quickstart will use, while there is a network.
        subprocess.run([os.path.join(support.TOP, "share/images/build-tiny"), "--agent", os.path.join(support.BIN, "virga-agent"), "--out",
                        os.path.join(cls.base, "images")], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        support.enter_private_namespaces()
        os.chmod(cls.base, 0o711)
        cls.state = os.path.join(cls.base, "state")
        cls.environment = dict(os.environ, VIRGA_PREFIX=os.path.join(cls.base, "prefix"), VIRGA_STATE_DIR=cls.state, VIRGA_PRESET=PRESET,
                               VIRGA_SOCKET=os.path.join(cls.state, "unix.socket"))

    @classmethod
    def tearDownClass(cls):
        subprocess.run([os.path.join(support.TOP, "quickstart"), "--remove"], env=cls.environment, capture_output=True, timeout=120)
        shutil.rmtree(cls.base, ignore_errors=True)

    def quickstart(self, *options, code=0):
        result = subprocess.run([os.path.join(support.TOP, "quickstart"), *options], env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                timeout=600)
        self.assertEqual(result.returncode, code, result.stdout + result.stderr)
        return result.stdout + result.stderr

    def virga(self, *args):
        return subprocess.run([os.path.join(self.base, "prefix/bin/virga"), *args], env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=120, check=True).stdout

    def pids(self):
        return [self.virga("query", f"/1.0/instances/{name}/state").split('"pid":')[1].split(",")[0].strip() for name in ("first-container", "first-vm")]

    def test_from_nothing_to_two_guests_and_back(self):
        said = self.quickstart()
        for words in ("first-container", "first-vm", "RUNNING", self.environment["VIRGA_SOCKET"], "https://127.0.0.1:8443"):
            self.assertIn(words, said)
        before = self.pids()
        again = self.quickstart()
        self.assertIn("there already", again)
        self.assertEqual(self.pids(), before, "guests run on while virgad is replaced")

        self.virga("launch", "tiny", "mine")
        refused = self.quickstart("--remove", code=1)
        self.assertIn("mine", refused)
        self.assertIn("remedy:", refused)
        self.assertEqual(self.pids(), before, "nothing was taken away")
        self.virga("delete", "--force", "mine")

        self.quickstart("--remove")
        self.assertFalse(os.path.exists(self.state))
        left = [os.path.join(folder, name) for folder, _, names in os.walk(os.path.join(self.base, "prefix")) for name in names]
        self.assertEqual(left, [], "no program or shared file is left")
        links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
        self.assertNotIn("virgabr0", links)
        with open("/proc/self/mountinfo") as mounts:
            self.assertNotIn(self.base, mounts.read())
        self.quickstart("--remove")  # nothing there: success

    def test_usage(self):
        self.assertIn("--build-only", self.quickstart("--help"))
        self.assertIn("usage:", self.quickstart("--nonsense", code=2))


if __name__ == "__main__":
    unittest.main(verbosity=2)
