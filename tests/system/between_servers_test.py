"""Copies of instances between two real daemons over HTTPS: every mode, both kinds, both clients."""
import json
import os
import shutil
import tempfile
import unittest

import support
from api import Api, ApiError
from remotes_test import Desk

PORTS = {"a": 18453, "b": 18454}
CLIENTS = ("virga", "incus")
MODES = ("pull", "push", "relay")


class BetweenServers(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        support.enter_private_namespaces()
        container, vm = support.tiny_images()
        cls.base = tempfile.mkdtemp(prefix="virga-between.")
        cls.daemons, cls.local, cls.api = {}, {}, {}
        for name, port in PORTS.items():
            daemon = cls.daemons[name] = support.Daemon()
            cli = cls.local[name] = support.Client(daemon, "virga")
            cls.api[name] = Api(daemon.socket)
            cli("config", "set", f"core.https_address=127.0.0.1:{port}")
            cli("storage", "create", "default", "dir")
            cli("profile", "device", "add", "default", "root", "disk", "path=/", "pool=default")
        cls.local["a"]("image", "import", container, "--alias", "tiny")
        cls.local["a"]("image", "import", vm, "--alias", "tiny-vm")
        cls.desks = {}
        for program in CLIENTS:
            desk = cls.desks[program] = Desk(program, cls.base)
            for server in PORTS:
                desk("remote", "add", server, cls.local[server]("config", "trust", "add", f"desk-{program}", "-q").strip().splitlines()[-1])

    @classmethod
    def tearDownClass(cls):
        left = [daemon.destroy() for daemon in cls.daemons.values()]
        shutil.rmtree(cls.base, ignore_errors=True)
        if any(left):
            raise AssertionError(f"left behind: {left}")

    def tearDown(self):
        for name, cli in self.local.items():
            for row in cli.json("list"):
                cli("delete", "--force", row["name"])
            files = [f for _, _, files in os.walk(os.path.join(self.daemons[name].state, "backups")) for f in files]
            self.assertEqual(files, [], f"{name}: what was sent stays")
            self.assertEqual([f for f in os.listdir(os.path.join(self.daemons[name].state, "images")) if "upload" in f], [])

    def sh(self, server, name, script):
        return self.local[server]("exec", name, "--", "sh", "-c", script, timeout=120)

    def test_containers(self):
        self.local["a"]("launch", "tiny", "web", "-c", "user.tier=front")
        self.sh("a", "web", "echo kept > /kept; chown 33:44 /kept; chmod 4711 /kept; rm /etc/hostname")
        for program in CLIENTS:
            for mode in MODES:
                with self.subTest(client=program, mode=mode):
                    name = f"web-{program}-{mode}"
                    flags = ["--stateless"] if program == "incus" else []
                    self.desks[program]("copy", "a:web", f"b:{name}", "--mode", mode, "-c", "user.copied=yes", *flags)
                    self.assertEqual(self.api["a"]("GET", "/1.0/instances/web")["status"], "Running")
                    got = self.api["b"]("GET", f"/1.0/instances/{name}")
                    self.assertEqual((got["config"]["user.tier"], got["config"]["user.copied"]), ("front", "yes"))
                    self.local["b"]("start", name)
                    self.assertEqual(self.sh("b", name, "cat /kept; stat -c '%u %g %a' /kept; ls /etc/hostname 2>/dev/null; true"), "kept\n33 44 4711\n")

    def test_virtual_machines(self):
        self.local["a"]("launch", "tiny-vm", "db", "--vm", "-c", "limits.memory=128MiB")
        ready = lambda server, name: support.wait_until(lambda: self.local[server].run("exec", name, "--", "true").returncode == 0, timeout=120, what="the agent")
        ready("a", "db")
        disk = self.sh("a", "db", "ls /dev/vd? /dev/sd? 2>/dev/null | head -n 1").strip()
        self.sh("a", "db", f"echo written-by-the-guest | dd of={disk} bs=512 seek=4096 conv=notrunc 2>/dev/null; sync")
        for program, mode in (("virga", "pull"), ("incus", "push"), ("incus", "relay")):
            with self.subTest(client=program, mode=mode):
                flags = ["--stateless"] if program == "incus" else []
                self.desks[program]("copy", "a:db", "b:db", "--mode", mode, *flags)
                self.local["b"]("start", "db")
                ready("b", "db")
                self.assertIn("written-by-the-guest", self.sh("b", "db", f"dd if={disk} bs=512 skip=4096 count=1 2>/dev/null"))
                self.local["b"]("delete", "-f", "db")

    def test_what_is_wrong_is_said(self):
        self.local["a"]("create", "tiny", "web")
        desk = self.desks["virga"]
        self.assertIn("nobody", desk.fails("copy", "a:nobody", "b:x"))
        self.assertIn("mode", desk.fails("copy", "a:web", "b:x", "--mode", "carrier-pigeon"))
        self.assertIn("pool", desk.fails("copy", "a:web", "b:x", "-s", "none"))
        self.assertIn("nosuch", desk.fails("copy", "a:web", "b:x", "-p", "nosuch"))
        desk("copy", "a:web", "b:x")
        self.assertIn("already exists", desk.fails("copy", "a:web", "b:x"))

    def test_secrets_and_certificates(self):
        """Whoever knows a secret may connect, nobody else; and a server that shows another certificate is sent nothing."""
        self.local["a"]("create", "tiny", "web")
        a, b = self.api["a"], self.api["b"]
        certificate = {name: api("GET", "/1.0")["environment"]["certificate"] for name, api in self.api.items()}

        def ask(peer, certificate, name="x"):
            return b("POST", "/1.0/instances", {"name": name, "type": "container", "source": {"type": "migration", "mode": "pull", "certificate": certificate, **peer}})

        sending = a("POST", "/1.0/instances/web", {"migration": True}, wait=False)
        shown = a("GET", f"/1.0/operations/{sending['id']}")
        self.assertNotIn(sending["metadata"]["fs"], json.dumps(shown), "the secrets are shown to others")
        peer = {"operation": f"https://127.0.0.1:{PORTS['a']}/1.0/operations/{sending['id']}", "secrets": sending["metadata"]}
        for wrong, words in ((({**peer, "secrets": {"control": "00", "fs": "00"}}), "does not exist"), ({**peer, "operation": "https://127.0.0.1:1/1.0/operations/" + sending["id"]}, "")):
            with self.assertRaises(ApiError) as caught:
                ask(wrong, certificate["a"])
            self.assertIn(words, str(caught.exception))
        with self.assertRaises(ApiError) as caught:
            ask(peer, certificate["b"])
        self.assertIn("certificate", str(caught.exception))
        ask(peer, certificate["a"])
        self.assertTrue(b.exists("/1.0/instances/x"))
        self.assertEqual(a.wait(sending["id"])["status_code"], 200)
        for operation in ("http://127.0.0.1/1.0/operations/1", "https://127.0.0.1", "https://a@b/1.0/operations/1", "https://h/1.0/operations/../x", "file:///etc"):
            with self.assertRaises(ApiError) as caught:
                ask({**peer, "operation": operation}, certificate["a"], "y")
            self.assertEqual(caught.exception.code, 400)
            self.assertIn("operation", str(caught.exception))

    def test_a_killed_server_leaves_nothing(self):
        self.local["a"]("create", "tiny", "web")
        a, b = self.api["a"], self.api["b"]
        expecting = b("POST", "/1.0/instances", {"name": "x", "type": "container", "source": {"type": "migration", "mode": "push"}}, wait=False)
        self.daemons["b"].kill()
        self.daemons["b"].start()
        self.assertFalse(b.exists("/1.0/instances/x"))
        with self.assertRaises(ApiError):
            a("POST", "/1.0/instances/web", {"migration": True, "target": {"operation": f"https://127.0.0.1:{PORTS['b']}/1.0/operations/{expecting['id']}",
                                                                           "secrets": expecting["metadata"], "certificate": b("GET", "/1.0")["environment"]["certificate"]}})


if __name__ == "__main__":
    unittest.main()
