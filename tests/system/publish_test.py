"""publish: an image made of an instance, of both kinds, that launches again; what is refused; a cancel and a kill leave nothing.

VARIANTS: VIRGA_CLIENT=virga VIRGA_CLIENT=incus
"""
import http.client
import json
import os
import socket
import unittest

import support

CLIENT = os.environ.get("VIRGA_CLIENT", "virga")


class Publish(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        support.enter_private_namespaces()
        container, vm = support.tiny_images()
        cls.daemon = support.Daemon()
        cls.cli = support.Client(cls.daemon, CLIENT)
        cls.virga = support.Client(cls.daemon, "virga")
        cls.virga("admin", "init", "--auto")
        cls.virga("image", "import", container, "--alias", "tiny")
        cls.virga("image", "import", vm, "--alias", "tiny-vm")

    @classmethod
    def tearDownClass(cls):
        left = cls.daemon.destroy()
        if left:
            raise AssertionError(f"left behind: {left}")

    def image(self, alias):
        target = self.daemon.query(f"/1.0/images/aliases/{alias}")["target"]
        return self.daemon.query(f"/1.0/images/{target}")

    def test_container(self):
        self.cli("launch", "tiny", "c1")
        self.cli("exec", "c1", "--", "sh", "-c", "echo kept > /root/x; chown 1000:1001 /root/x; ln /root/x /root/y; ln -s /etc/passwd /root/z")
        self.assertIn("running", self.cli.fails("publish", "c1", "--alias", "p/1"))
        for compression in ("none", "gzip", "zstd", "xz", "bzip2"):
            with self.subTest(compression=compression):
                self.cli("publish", "c1", "--force", "--reuse", "--alias", "p/1", "--public", "--compression", compression, "--expire", "2040-01-02T03:04:05Z", "os=Mine", "note=a b")
        image = self.daemon.query("/1.0/images/aliases/p%2F1")
        image = self.daemon.query(f"/1.0/images/{image['target']}")
        self.assertEqual((image["public"], image["type"], image["properties"]), (True, "container", {"os": "Mine", "note": "a b"}))
        self.assertTrue(image["expires_at"].startswith("2040-01-02T03:04:05"))
        self.assertEqual(self.cli.json("list", "c1")[0]["status"], "Running", "it was started again")
        self.cli("launch", "p/1", "c2")
        out = self.cli("exec", "c2", "--", "sh", "-c", "cat /root/x; stat -c '%u %g %h' /root/x; readlink /root/z; hostname")
        self.assertEqual(out.split(), ["kept", "1000", "1001", "2", "/etc/passwd", "c2"])
        self.assertTrue(self.cli.fails("publish", "c1", "--force", "--alias", "p/1", "--compression", "none"), "the alias is taken")
        self.cli("delete", "--force", "c1", "c2")

    def test_templates_go_along(self):
        """Those of the instance, which its user may have changed, not those of the image it was made from."""
        self.virga("create", "tiny", "t1")
        metadata = self.daemon.query("/1.0/instances/t1/metadata")
        metadata["templates"] = {"/etc/made": {"when": ["create"], "template": "made.tpl", "properties": {"word": "kept"}, "mode": "0600", "uid": "7"}}
        metadata["properties"]["note"] = "edited"
        self.daemon.query("/1.0/instances/t1/metadata", "PUT", metadata)
        self.virga("config", "template", "create", "t1", "made.tpl", input="{{ properties.word }} {{ instance.name }}\n")
        self.virga("config", "template", "edit", "t1", "made.tpl", input="{{ properties.word }} {{ instance.name }}\n")
        self.cli("publish", "t1", "--alias", "templated")
        self.assertEqual(self.image("templated")["properties"].get("note"), "edited")
        self.virga("launch", "templated", "t2")
        out = self.virga("exec", "t2", "--", "sh", "-c", "cat /etc/made; stat -c '%u %a' /etc/made")
        self.assertEqual(out.split(), ["kept", "t2", "7", "600"])
        self.assertIn("made.tpl", self.virga("config", "template", "list", "t2"))
        self.virga("delete", "--force", "t1", "t2")
        self.virga("image", "delete", "templated")

    def test_virtual_machine(self):
        self.cli("launch", "tiny-vm", "v1", "--vm")
        self.cli("exec", "v1", "--", "sh", "-c", "echo kept > /root/x; sync")
        self.cli("publish", "v1", "--force", "--alias", "pv", "--compression", "zstd")
        image = self.image("pv")
        self.assertEqual((image["type"], image["public"]), ("virtual-machine", False))
        self.assertEqual(image["properties"]["os"], "Tiny", "without properties it keeps those of its own image")
        # What it was made from may go.
        self.cli("delete", "--force", "v1")
        self.cli("launch", "pv", "v2", "--vm")
        self.assertEqual(self.cli("exec", "v2", "--", "cat", "/root/x"), "kept\n")
        self.cli("delete", "--force", "v2")
        self.cli("image", "delete", "pv")

    def test_what_is_refused(self):
        if CLIENT != "virga":
            self.skipTest("asks the API")
        self.cli("create", "tiny", "r1")
        cases = [
            ({"source": {"type": "instance", "name": "none"}}, "none"),
            ({"source": {"type": "instance", "name": "r1"}, "compression_algorithm": "gzip; rm"}, "compression_algorithm"),
            ({"source": {"type": "instance", "name": "r1"}, "properties": {"a\nb": "c"}}, "property"),
            ({"source": {"type": "instance", "name": "r1"}, "properties": {"a": 1}}, "properties"),
            ({"source": {"type": "instance", "name": "r1"}, "filename": "../x"}, "file name"),
            ({"source": {"type": "instance", "name": "r1"}, "aliases": [{"name": "a b"}]}, "alias"),
            ({"source": {"type": "instance", "name": "r1"}, "aliases": "x"}, "aliases"),
            ({"source": {"type": "instance", "name": "r1"}, "expires_at": "soon"}, "expires_at"),
            ({"source": {"type": "instance", "name": ".."}}, ".."),
            ({"source": {"type": "thing"}}, "source.type"),
            ({"source": "r1"}, "source"),
            ({}, "source.type"),
            ({"source": {"type": "instance", "name": "r1"}, "surprise": 1}, "surprise"),
        ]
        before = len(self.daemon.query("/1.0/images"))
        for body, word in cases:
            with self.subTest(body=body):
                answer = self.post(body)
                self.assertEqual(answer["type"], "error", answer)
                self.assertIn(answer["error_code"], (400, 404), answer)
                self.assertIn(word, str(answer))
        self.assertEqual(len(self.daemon.query("/1.0/images")), before)
        self.cli("delete", "r1")

    def test_cancel_and_kill_leave_nothing(self):
        if CLIENT != "virga":
            self.skipTest("asks the API")
        self.cli("launch", "tiny", "k1")
        self.cli("exec", "k1", "--", "dd", "if=/dev/urandom", "of=/root/large", "bs=1M", "count=60")
        self.cli("stop", "--force", "k1")
        images = len(self.daemon.query("/1.0/images"))
        body = {"source": {"type": "instance", "name": "k1"}, "compression_algorithm": "xz"}
        for end in ("cancel", "kill"):
            with self.subTest(end=end):
                operation = self.post(body)["operation"]
                support.wait_until(lambda: self.packing(), 20, "the packer at work")
                if end == "cancel":
                    self.daemon.query(operation, "DELETE")
                    support.wait_until(lambda: not self.uploads(), 20, "the upload to be gone")
                else:
                    self.daemon.restart()
                support.wait_until(lambda: not self.packing(), 20, "the packer's end")
                self.assertEqual(self.uploads(), [])
                self.assertEqual(len(self.daemon.query("/1.0/images")), images)
                self.assertNotIn("k1/rootfs", "".join(support.mounts_below(self.daemon.state)))
                self.cli("start", "k1")
                self.cli("stop", "--force", "k1")
        self.cli("delete", "k1")

    def post(self, body):
        connection = http.client.HTTPConnection("virga")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(self.daemon.socket)
        connection.request("POST", "/1.0/images", json.dumps(body), {"Content-Type": "application/json"})
        return json.loads(connection.getresponse().read())

    def packing(self):
        return [c for c in support.processes_naming("virga-worker").values() if " pack xz " in c]

    def uploads(self):
        return [n for n in os.listdir(os.path.join(self.daemon.state, "images")) if n.startswith(".upload-")]


if __name__ == "__main__":
    unittest.main(verbosity=2)
