"""Templates and metadata of instances: shown, changed, and rendered into containers."""
import json
import os
import shutil
import subprocess
import unittest

import support

METADATA = """
templates:
  /etc/made:
    when:
    - create
    - copy
    create_only: true
    template: made.tpl
    properties:
      greeting: hello
  /etc/started/deep/file:
    when:
    - start
    template: start.tpl
    uid: "12"
    gid: "34"
    mode: "0640"
  /etc/renamed:
    when:
    - rename
    template: made.tpl
"""


class Templates(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        support.enter_private_namespaces()
        container, vm = support.tiny_images()
        cls.daemon = support.Daemon()
        cls.virga = support.Client(cls.daemon, "virga")
        cls.incus = support.Client(cls.daemon, "incus")
        cls.virga("admin", "init", "--auto")
        for alias, image in (("templated", container), ("templated-vm", vm)):
            cls.templated(alias, image)

    @classmethod
    def templated(cls, alias, image):
        base = os.path.join(cls.daemon.base, "image")
        os.makedirs(base)
        subprocess.run(["tar", "-C", base, "-xf", image], check=True)
        os.makedirs(os.path.join(base, "templates"), exist_ok=True)
        with open(os.path.join(base, "metadata.yaml")) as f:
            metadata = f.read()
        with open(os.path.join(base, "metadata.yaml"), "w") as f:
            f.write(metadata.rstrip("\n") + METADATA)
        with open(os.path.join(base, "templates", "made.tpl"), "w") as f:
            f.write('{{ properties.greeting }} {{ instance.name }} {{ trigger }} {{ config_get("user.word", "none") }}\n')
        with open(os.path.join(base, "templates", "start.tpl"), "w") as f:
            f.write('{% for key, value in devices.root %}{{ key }}={{ value }};{% endfor %}{% if config_get("user.word", "") == "" %}unset{% else %}set{% endif %}\n')
        tar = os.path.join(cls.daemon.base, "image.tar")
        subprocess.run(["tar", "-C", base, "-cf", tar, "."], check=True)
        shutil.rmtree(base)
        cls.virga("image", "import", tar, "--alias", alias)

    @classmethod
    def tearDownClass(cls):
        left = cls.daemon.destroy()
        if left:
            raise AssertionError(f"left behind: {left}")

    def read(self, name, path):
        return self.virga("exec", name, "--", "cat", path).strip()

    def test_rendered_on_create_start_and_rename(self):
        self.virga("create", "templated", "t1", "-c", "user.word=first")
        self.virga("start", "t1")
        self.assertEqual(self.read("t1", "/etc/made"), "hello t1 create first")
        started = self.read("t1", "/etc/started/deep/file")
        self.assertIn("path=/;", started)
        self.assertTrue(started.endswith("set"), started)
        self.assertEqual(self.virga("exec", "t1", "--", "stat", "-c", "%u %g %a", "/etc/started/deep/file").strip(), "12 34 640")
        self.virga("config", "unset", "t1", "user.word")
        self.virga("exec", "t1", "--", "sh", "-c", "echo mine > /etc/made")
        self.daemon.restart()
        self.virga("restart", "--force", "t1")
        self.assertEqual(self.read("t1", "/etc/made"), "mine", "of the creation only")
        self.assertTrue(self.read("t1", "/etc/started/deep/file").endswith("unset"))
        self.virga("stop", "--force", "t1")
        self.virga("rename", "t1", "t2")
        self.virga("start", "t2")
        self.assertEqual(self.read("t2", "/etc/renamed"), "t2 rename none")

    def test_a_virtual_machine_gets_them_from_its_agent(self):
        due = lambda: self.daemon.query("/1.0/instances/v1")["config"].get("volatile.templates.due")  # noqa: E731
        self.virga("create", "templated-vm", "v1", "--vm", "-c", "user.word=first")
        self.virga("config", "template", "edit", "v1", "made.tpl", input="{{ 1")
        self.assertIn("template", self.virga.fails("start", "v1"))
        self.virga("config", "template", "edit", "v1", "made.tpl", input='{{ properties.greeting }} {{ instance.name }} {{ trigger }} {{ config_get("user.word", "none") }}\n')
        self.virga("start", "v1")
        self.daemon.restart()  # before the agent can have answered, on an emulated machine
        support.wait_until(lambda: not due(), 120, "the files")
        self.assertEqual(self.read("v1", "/etc/made"), "hello v1 create first")
        self.assertTrue(self.read("v1", "/etc/started/deep/file").endswith("set"))
        self.assertEqual(self.virga("exec", "v1", "--", "stat", "-c", "%u %g %a", "/etc/started/deep/file").strip(), "12 34 640")
        self.virga("exec", "v1", "--", "sh", "-c", "rm -r /etc/started; echo mine > /etc/made; sync")
        self.virga("restart", "--force", "v1")
        support.wait_until(lambda: not due(), 120, "the files")
        self.assertTrue(self.read("v1", "/etc/started/deep/file").endswith("set"))
        self.assertEqual(self.read("v1", "/etc/made"), "mine", "of the creation only")
        self.virga("delete", "--force", "v1")

    def test_metadata_and_templates_are_changed(self):
        self.virga("create", "templated", "m1")
        for cli in (self.virga, self.incus):
            with self.subTest(client=cli.name):
                shown = cli("config", "metadata", "show", "m1")
                self.assertIn("/etc/made", shown)
                cli("config", "metadata", "edit", "m1", input=shown.replace("create_only: false", "create_only: true").replace("greeting: ", f"greeting: by-{cli.name}-"))
                self.assertIn(f"greeting: by-{cli.name}-", cli("config", "metadata", "show", "m1"))
                self.assertIn("made.tpl", cli("config", "template", "list", "m1"))
                self.assertIn("config_get", cli("config", "template", "show", "m1", "made.tpl"))
                cli("config", "template", "create", "m1", "new.tpl")
                cli("config", "template", "edit", "m1", "new.tpl", input="text {{ instance.name }}\n")
                self.assertEqual(cli("config", "template", "show", "m1", "new.tpl").strip(), "text {{ instance.name }}")
                cli("config", "template", "delete", "m1", "new.tpl")
                self.assertNotIn("new.tpl", cli("config", "template", "list", "m1"))
                cli.fails("config", "template", "show", "m1", "new.tpl")
        for body, word in (({"templates": {"/x": {"when": ["never"], "template": "a"}}}, "when"), ({"templates": {"x": {"template": "a"}}}, "path"),
                           ({"templates": {"/x": {"template": "../a"}}}, "template"), ({"templates": {"/x": {"template": "a", "mode": "99999"}}}, "mode"), ({"what": 1}, "what"),
                           ({"properties": {"a": "b\nc"}}, "properties")):
            with self.assertRaises(support.CommandFailed) as failed:
                self.daemon.query("/1.0/instances/m1/metadata", "PUT", body)
            self.assertIn(word, str(failed.exception), body)

    def test_hostile_templates(self):
        """S17: through links, by other tags, without end, without bound: the start fails, and the host stays as it is."""
        canary = os.path.join(self.daemon.base, "canary")
        os.makedirs(canary)
        os.chmod(canary, 0o777)
        self.virga("create", "templated", "h1")
        self.virga("file", "create", "--type=symlink", "h1/etc/started", canary)
        self.virga.run("start", "h1")
        self.assertEqual(os.listdir(canary), [])
        self.virga("file", "delete", "h1/etc/started")
        self.virga.run("stop", "--force", "h1")
        for text in ('{% include "/etc/shadow" %}', '{{ exec("id") }}', "{% for a in config %}" * 30 + "x" + "{% endfor %}" * 30, "{{ 1"):
            self.virga("config", "template", "edit", "h1", "start.tpl", input=text)
            self.assertIn("template", self.virga.fails("start", "h1"), text)
        self.assertEqual(support.mounts_below(self.daemon.state).count("h1"), 0)
        self.virga("config", "template", "edit", "h1", "start.tpl", input="well\n")
        self.virga("start", "h1")
        self.assertEqual(self.read("h1", "/etc/started/deep/file"), "well")


if __name__ == "__main__":
    unittest.main()
