"""Projects with both command lines against a real daemon: limits and restrictions, what they count, and that they hold after the daemon was
killed."""
import re
import unittest

import support

CLIENTS = ("virga", "incus")


class Projects(unittest.TestCase):
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

    @classmethod
    def tearDownClass(cls):
        left = cls.daemon.destroy()
        if left:
            raise AssertionError(f"left behind: {left}")

    def new_project(self, cli, name, *config):
        """Shares the default project's images and has profiles of its own, with a root disk."""
        cli("project", "create", name, "-c", "features.images=false", *[w for c in config for w in ("-c", c)])
        cli("profile", "device", "add", "default", "root", "disk", "path=/", "pool=default", "--project", name)

    def clean(self, name):
        rows = self.virga.json("list", "--project", name)
        if rows:
            self.virga("delete", "--force", "--project", name, *[r["name"] for r in rows])
        self.virga("project", "delete", name)

    def state(self, name):
        return {k: (v["Limit"], v["Usage"]) for k, v in self.daemon.query(f"/1.0/projects/{name}/state")["resources"].items()}

    def test_life_of_a_project(self):
        for name, cli in self.clients.items():
            with self.subTest(client=name):
                self.new_project(cli, "lab", "user.owner=kim")
                self.assertEqual(cli("project", "get", "lab", "user.owner").strip(), "kim")
                cli("project", "set", "lab", "limits.instances=5", "limits.memory=1GiB")
                cli("project", "unset", "lab", "user.owner")
                self.assertEqual(cli("project", "get", "lab", "user.owner").strip(), "")
                self.assertIn("limits.instances: \"5\"", cli("project", "show", "lab"))
                cli("project", "edit", "lab", input=cli("project", "show", "lab").replace("description: \"\"", "description: words"))
                self.assertIn("description: words", cli("project", "show", "lab"))
                info = cli("project", "info", "lab", "--format", "csv")
                self.assertIn("MEMORY,1.00GiB,0B", info)
                self.assertIn("INSTANCES,5,0", info)
                self.assertIn("CPU,UNLIMITED,0", info)
                cli("project", "switch", "lab")
                self.assertIn("lab (current)", cli("project", "list", "--format", "csv"))
                cli("project", "switch", "default")
                cli("project", "rename", "lab", "lab2")
                self.assertIn("cannot be", cli.fails("project", "rename", "default", "other"))
                self.assertIn("cannot be", cli.fails("project", "delete", "default"))
                cli("project", "delete", "lab2")
                self.assertNotIn("lab2", cli("project", "list", "--format", "csv"))

    def test_limits_and_restrictions_hold_and_outlive_the_daemon(self):
        for name, cli in self.clients.items():
            with self.subTest(client=name):
                self.new_project(cli, "lab", "limits.memory=384MiB", "limits.containers=1", "restricted=true")
                self.addCleanup(self.clean, "lab")
                cli("create", "tiny", "c", "--project", "lab", "-c", "limits.memory=128MiB")
                cli("create", "tiny-vm", "v", "--vm", "--project", "lab", "-c", "limits.memory=256MiB")
                self.assertIn("'limits.memory': 384.00MiB in use, 64.00MiB more asked for",
                              cli.fails("create", "tiny-vm", "v2", "--vm", "--project", "lab", "-c", "limits.memory=64MiB"))
                self.daemon.restart()
                self.assertIn("'limits.containers'", cli.fails("create", "tiny", "c2", "--project", "lab", "-c", "limits.memory=4MiB"))
                self.assertIn("limits.memory", cli.fails("config", "set", "v", "limits.memory=512MiB", "--project", "lab"))
                self.assertIn("restricted.containers.nesting", cli.fails("config", "set", "c", "security.nesting=true", "--project", "lab"))
                self.assertIn("restricted.containers.nesting", cli.fails("profile", "set", "default", "security.nesting=true", "--project", "lab"))
                self.assertIn("limits.containers", cli.fails("project", "set", "lab", "limits.containers=0"))
                self.assertEqual(self.state("lab")["memory"], (384 << 20, 384 << 20))
                self.assertEqual(self.state("lab")["virtual-machines"], (-1, 1))
                cli("delete", "v", "--project", "lab")
                self.assertEqual(self.state("lab")["memory"], (384 << 20, 128 << 20))
                self.doCleanups()

    def test_a_guest_moves_with_its_disk_and_log(self):
        for name, cli in self.clients.items():
            for flags, image in (([], "tiny"), (["--vm"], "tiny-vm")):
                with self.subTest(client=name, flags=flags):
                    self.new_project(cli, "lab")
                    self.addCleanup(self.clean, "lab")
                    cli("launch", image, "g", *flags, "-c", "limits.memory=128MiB")
                    support.wait_until(lambda: self.virga.run("exec", "g", "--", "true").returncode == 0, 120, "exec in g")
                    cli("exec", "g", "--", "sh", "-c", "echo kept > /root/mark; sync")
                    self.assertIn("running", cli.fails("move", "g", "g2", "--target-project", "lab"))
                    cli("stop", "--force", "g")
                    cli("move", "g", "g2", "--target-project", "lab")
                    self.assertEqual(self.virga.json("list"), [])
                    self.daemon.restart()
                    cli("start", "g2", "--project", "lab")
                    support.wait_until(lambda: self.virga.run("exec", "g2", "--project", "lab", "--", "true").returncode == 0, 120, "exec in g2")
                    self.assertEqual(cli("exec", "g2", "--project", "lab", "--", "cat", "/root/mark").strip(), "kept")
                    # Its age is known with the first sample.
                    support.wait_until(lambda: re.match(r"^g2,lab,[0-9.]+s$", self.virga("list", "--project", "lab", "--format", "csv", "-c", "neg")), 30, "the age in the list")
                    self.doCleanups()


if __name__ == "__main__":
    unittest.main()
