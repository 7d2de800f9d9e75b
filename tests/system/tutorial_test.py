"""Runs the commands that doc/ shows, as they stand there: each ```sh block of each page, in order, in one shell a page."""
import os
import re
import subprocess
import unittest

import support


def blocks(path):
    with open(path) as f:
        return re.findall(r"^```sh\n(.*?)^```", f.read(), re.M | re.S)


class Documentation(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        support.enter_private_namespaces()
        container, vm = support.tiny_images()
        cls.daemon = support.Daemon()
        cls.cli = support.Client(cls.daemon, "virga")
        cls.cli("admin", "init", "--auto")
        cls.cli("image", "import", container, "--alias", "tiny")
        cls.cli("image", "import", vm, "--alias", "tiny")

    @classmethod
    def tearDownClass(cls):
        left = cls.daemon.destroy()
        if left:
            raise AssertionError(f"left behind: {left}")

    def test_first_steps(self):
        self.page("doc/tutorial/first-steps.md")

    def page(self, name):
        found = blocks(os.path.join(support.TOP, name))
        self.assertGreater(len(found), 3, f"{name} has commands")
        env = dict(self.cli.environment(), PATH=support.BIN + ":" + os.environ["PATH"])
        for block in found:
            for line in filter(None, map(str.strip, block.splitlines())):
                with self.subTest(page=name, command=line):
                    result = subprocess.run(["bash", "-o", "pipefail", "-c", line], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=180)
                    self.assertEqual(result.returncode, 0, f"{line}\n{result.stdout}{result.stderr}\n{self.daemon.tail(20)}")


if __name__ == "__main__":
    unittest.main(verbosity=2)
