"""Runs the commands that doc/ shows, as they stand there: each ```sh block of each page, in order, in an empty directory. A page leaves the daemon as
it found it. Blocks that need what a test has not (another host, a person) are marked ```console."""
import glob
import os
import re
import subprocess
import tempfile
import unittest

import support

FAILING_COMMAND = "set -E; trap 'echo \"at: $BASH_COMMAND\" >&2' ERR\n"


def blocks(path):
    with open(path) as f:
        return re.findall(r"^```sh\n(.*?)^```", f.read(), re.M | re.S)


class Documentation(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        support.enter_private_namespaces()
        container, vm = support.tiny_images()
        cls.daemon = support.Daemon()
        cls.cli = support.Client(cls.daemon, "virga")
        cls.cli("admin", "init", "--auto")
        cls.cli("image", "import", container, "--alias", "tiny")
        cls.cli("image", "import", vm, "--alias", "tiny")
        cls.before = cls.objects()

    @classmethod
    def tearDownClass(cls):
        left = cls.daemon.destroy()
        if left:
            raise AssertionError(f"left behind: {left}")

    @classmethod
    def objects(cls):
        return {noun: sorted(cls.daemon.query(f"/1.0/{noun}")) for noun in ("instances", "networks", "storage-pools")}

    def page(self, name):
        env = dict(self.cli.environment(), PATH=support.BIN + ":" + os.environ["PATH"])
        with tempfile.TemporaryDirectory() as directory:
            for block in blocks(os.path.join(support.TOP, name)):
                with self.subTest(page=name, block=block):
                    result = subprocess.run(["bash", "-e", "-o", "pipefail", "-c", FAILING_COMMAND + block], cwd=directory, env=env, stdin=subprocess.DEVNULL, capture_output=True,
                                            text=True, timeout=300)
                    self.assertEqual(result.returncode, 0, f"{result.stdout}{result.stderr}\n{self.daemon.tail(20)}")
        left = self.objects()
        for instance in left["instances"]:  # the next page has not to pay for it
            self.cli("delete", "--force", instance.rsplit("/", 1)[1])
        self.assertEqual(left, self.before, f"{name} leaves things behind")


def add_pages():
    """One test a page, so that each is counted and can be run by itself."""
    for path in sorted(glob.glob(os.path.join(support.TOP, "doc/**/*.md"), recursive=True)):
        name = os.path.relpath(path, support.TOP)
        if name == "doc/guides/images.md":  # guide_images_test has what it needs: a network
            continue
        if blocks(path):
            setattr(Documentation, "test_" + re.sub(r"\W", "_", name.removeprefix("doc/").removesuffix(".md")), lambda self, name=name: self.page(name))


class Links(unittest.TestCase):
    def test_links_between_pages_lead_somewhere(self):
        for path in glob.glob(os.path.join(support.TOP, "**/*.md"), recursive=True):
            if "/build/" in path:
                continue
            with open(path) as f:
                text = re.sub(r"^```.*?^```", "", f.read(), flags=re.M | re.S)
            for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", re.sub(r"`[^`]*`", "", text)):
                self.assertTrue(os.path.exists(os.path.join(os.path.dirname(path), target)), f"{os.path.relpath(path, support.TOP)}: {target}")


add_pages()

if __name__ == "__main__":
    unittest.main(verbosity=2)
