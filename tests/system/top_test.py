"""Lists and top show what running guests use, from samples: with both command lines, for both kinds of guest."""
import subprocess
import time
import unittest

import support

CLIENTS = ("virga", "incus")


class Top(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        support.enter_private_namespaces()
        container, vm = support.tiny_images()
        cls.daemon = support.Daemon()
        cls.clients = {name: support.Client(cls.daemon, name) for name in CLIENTS}
        cls.virga = cls.clients["virga"]
        cls.virga("admin", "init", "--auto")
        cls.virga("image", "import", container, "--alias", "tiny")
        cls.virga("image", "import", vm, "--alias", "tiny-vm")
        cls.virga("launch", "tiny", "c", "-c", "limits.memory=128MiB", "-c", "user.tier=web")
        cls.virga("launch", "tiny-vm", "v", "--vm", "-c", "limits.memory=192MiB")
        support.wait_until(lambda: cls.virga.run("exec", "v", "--", "true").returncode == 0, 180, "the VM's agent")

    @classmethod
    def tearDownClass(cls):
        left = cls.daemon.destroy()
        if left:
            raise AssertionError(f"left behind: {left}")

    def test_the_first_list_shows_what_containers_use(self):
        self.daemon.restart()  # a sampler that never ran
        row = self.virga("list", "c", "--format", "csv", "-c", "nmpNg").strip().split(",")
        self.assertEqual(row[0], "c")
        self.assertRegex(row[1], r"^[0-9.]+[KM]iB$")
        self.assertGreater(int(row[2]), 1)
        self.assertGreater(int(row[3]), 0)
        self.assertRegex(row[4], r"^[0-9.]+s$")

    def test_lists_show_the_same_with_both_command_lines(self):
        self.virga("list", "-c", "m")
        time.sleep(1)
        for columns in ("nstPb", "n46", "ncu", "nm", "nMD", "npN", "naf", "ne", "n,user.tier:TIER:2,devices:root.pool:WHERE"):
            for form in ("csv", "table", "compact"):
                with self.subTest(columns=columns, form=form):
                    def both():
                        one, other = (self.clients[c]("list", "-c", columns, "-f", form) for c in CLIENTS)
                        # A pass of the sampler may come between the two.
                        return (one, other) if one == other else None
                    support.wait_until(both, 10, f"equal lists of {columns}")

    def test_top_shows_percents_and_sorts(self):
        self.virga("exec", "c", "--", "sh", "-c", "(i=0; while [ $i -lt 3000000 ]; do i=$((i+1)); done) >/dev/null 2>&1 &")
        out = self.virga("top", "--count", "3", "--refresh", "11", "--format", "csv,noheader", "-c", "ncumg", "--sort", "memory", timeout=60)
        rows = [line.split(",") for line in out.strip().splitlines()]
        self.assertEqual(len(rows), 6)
        self.assertEqual([r[0] for r in rows[-2:]], ["v", "c"], "the VM uses more memory")
        percents = [r[1] for r in rows[2:]]
        self.assertTrue(any(p.endswith("%") and float(p[:-1]) > 0 for p in percents), rows)

    def test_stock_top_works(self):
        # It never ends by itself.
        with self.assertRaises(subprocess.TimeoutExpired) as ended:
            self.clients["incus"].run("top", timeout=8)
        out = (ended.exception.stdout or b"").decode() + (ended.exception.stderr or b"").decode()
        self.assertRegex(out, r"\| c +\|")
        self.assertRegex(out, r"\| v +\|")


if __name__ == "__main__":
    unittest.main()
