"""What the server says of the machine, with both command lines; and, where the real daemon is installed, beside its answer: the same fields, and
the same values for what does not change."""
import json
import os
import shutil
import subprocess
import tempfile
import unittest

import support
from api import Api, Disconnected

MOVING = {"used", "hugepages_used", "Average1Min", "Average5Min", "Average10Min", "Processes", "frequency"}
ORACLE = next((p for p in (shutil.which("incusd"), "/usr/libexec/incus/incusd") if p and os.path.exists(p)), None)


def leaves(value, path=""):
    """Path and value of everything that is no container; lists by index."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for n, inner in enumerate(value):
            yield from leaves(inner, f"{path}[{n}]")
    else:
        yield path, value


class Resources(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        # Not in a network namespace of its own: the machine's cards are to be seen.
        cls.daemon = support.Daemon(extra=["--fake-drivers"])

    @classmethod
    def tearDownClass(cls):
        cls.daemon.destroy()

    def test_both_command_lines_show_them(self):
        for name in ("virga", "incus"):
            text = support.Client(self.daemon, name)("info", "--resources")
            with self.subTest(client=name):
                for word in ("architecture", "x86_64") if name == "virga" else ("CPU", "Memory", "Architecture: x86_64"):
                    self.assertIn(word, text)

    @unittest.skipUnless(ORACLE, "the real daemon is not installed")
    def test_beside_the_real_daemon(self):
        base = tempfile.mkdtemp(prefix="incus-oracle.")
        process = subprocess.Popen([ORACLE, "--logfile", base + "/log"], env=dict(os.environ, INCUS_DIR=base), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        try:
            oracle = Api(base + "/unix.socket", timeout=60)

            def answer():
                try:
                    return oracle("GET", "/1.0/resources")
                except (OSError, Disconnected):
                    return None
            theirs = support.wait_until(answer, 60, "the real daemon")
            ours = self.daemon.query("/1.0/resources")
        finally:
            process.terminate()
            process.wait(60)
            support.unmount_below(base)
            shutil.rmtree(base, ignore_errors=True)
        mine = dict(leaves(ours))
        missing, different = [], []
        for path, value in leaves(theirs):
            if path.rsplit(".", 1)[-1] in MOVING:
                continue
            if path not in mine:
                missing.append(path)
            elif mine[path] != value:
                different.append((path, value, mine[path]))
        # 6.0 does not read the size of blocks.
        different = [d for d in different if not d[0].endswith(".block_size")]
        self.assertEqual(missing, [])
        self.assertEqual(different, [])


if __name__ == "__main__":
    unittest.main()
