"""Runs the commands of doc/guides/images.md as they stand there."""
import os
import subprocess
import tempfile
import unittest

import support
import tutorial_test


class ImagesGuide(unittest.TestCase):
    def test_guide(self):
        support.enter_private_namespaces()
        support.tiny_images()  # the packages that building needs are in the cache
        daemon = support.Daemon()
        try:
            cli = support.Client(daemon, "virga")
            cli("admin", "init", "--auto")
            cache = os.path.join(support.CACHE, "packages")
            env = dict(cli.environment(), PATH=support.BIN + ":" + os.environ["PATH"], XDG_CACHE_HOME=os.path.join(daemon.base, "cache"))
            if os.path.isdir(cache):
                os.makedirs(env["XDG_CACHE_HOME"])
                os.symlink(cache, os.path.join(env["XDG_CACHE_HOME"], "virga"))
            blocks = tutorial_test.blocks(os.path.join(support.TOP, "doc/guides/images.md"))
            self.assertGreater(len(blocks), 4)
            with tempfile.TemporaryDirectory() as directory:
                for line in filter(None, (l.strip() for block in blocks for l in block.splitlines())):
                    with self.subTest(command=line):
                        result = subprocess.run(["bash", "-o", "pipefail", "-c", line], cwd=directory, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=180)
                        self.assertEqual(result.returncode, 0, f"{line}\n{result.stdout}{result.stderr}\n{daemon.tail(20)}")
        finally:
            self.assertEqual(daemon.destroy(), {})


if __name__ == "__main__":
    unittest.main(verbosity=2)
