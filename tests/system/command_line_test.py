"""The command line alone: all of cli/, which needs neither root nor a daemon."""
import os
import sys
import unittest

import support

os.environ.setdefault("VIRGA", os.path.join(support.BIN, "virga"))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "cli"))
from test_cli import *  # noqa: E402,F401,F403
from test_shell import *  # noqa: E402,F401,F403

if __name__ == "__main__":
    unittest.main(verbosity=2)
