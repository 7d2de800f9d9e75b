"""doc/reference is what the programs say today, and every command has examples."""
import os
import re
import subprocess
import sys
import unittest

import support


class ReferenceTest(unittest.TestCase):
    maxDiff = None

    def test_it_is_current(self):
        done = subprocess.run([sys.executable, os.path.join(support.TOP, "tests/support/reference.py"), "--check", "--bin", support.BIN], capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_every_command_has_examples(self):
        without = []
        for name in sorted(os.listdir(os.path.join(support.TOP, "doc/reference/commands"))):
            with open(os.path.join(support.TOP, "doc/reference/commands", name)) as f:
                text = f.read()
            for title, section in re.findall(r"^#+ (virga [^\n]*)\n(.*?)(?=^#+ virga|\Z)", text, re.M | re.S):
                if "[command]" not in section and "```console" not in section:
                    without.append(title)
        self.assertEqual(without, [])


if __name__ == "__main__":
    unittest.main(verbosity=2)
