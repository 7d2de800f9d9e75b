"""Servers elsewhere: two daemons, the virga command and the stock incus client, over HTTPS with tokens."""
import json
import os
import shutil
import tempfile
import unittest

import support

PORTS = {"a": 18443, "b": 18444}


class Desk(support.Client):
    """A person's command line with a configuration of its own, which knows servers by name only."""

    def __init__(self, name, base):
        self.name = name
        self.config = tempfile.mkdtemp(prefix="desk.", dir=base)
        self.program = shutil.which("incus") if name == "incus" else os.path.join(support.BIN, "virga")

    def environment(self):
        env = dict(os.environ, HOME=self.config, INCUS_CONF=self.config, VIRGA_CONF=os.path.join(self.config, "virga"), LC_ALL="C.UTF-8",
                   VIRGA_SOCKET="/nonexistent", INCUS_SOCKET="/nonexistent")
        env.setdefault("TERM", "xterm")
        return env


class Remotes(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        support.enter_private_namespaces()
        cls.base = tempfile.mkdtemp(prefix="virga-remotes.")
        cls.daemons, cls.local = {}, {}
        for name, port in PORTS.items():
            daemon = support.Daemon(extra=["--fake-drivers"])
            cls.daemons[name] = daemon
            cls.local[name] = support.Client(daemon, "virga")
            cls.local[name]("config", "set", f"core.https_address=127.0.0.1:{port}")

    @classmethod
    def tearDownClass(cls):
        for daemon in cls.daemons.values():
            daemon.destroy()
        shutil.rmtree(cls.base, ignore_errors=True)

    def token(self, server, *options, name="desk"):
        return self.local[server]("config", "trust", "add", name, "-q", *options).strip().splitlines()[-1]

    def desk(self, program="virga", servers="ab", *options):
        desk = Desk(program, self.base)
        for server in servers:
            desk("remote", "add", server, self.token(server, *options))
        return desk


class RemoteCommands(Remotes):
    def test_a_token_joins_and_every_command_takes_a_remote(self):
        for program in ("virga", "incus"):
            with self.subTest(program):
                desk = self.desk(program)
                rows = desk.json("remote", "list")
                self.assertEqual(rows["a"]["Addr"] if isinstance(rows, dict) else [r["Addr"] for r in rows if r["name"] == "a"][0], "https://127.0.0.1:18443")
                desk("project", "create", f"b:p-{program}")
                self.assertIn(f"p-{program}", desk("project", "list", "b:", "--format", "csv"))
                self.assertNotIn(f"p-{program}", desk("project", "list", "a:", "--format", "csv"))
                self.assertIn("18444", desk("config", "show", "b:"))
                self.assertEqual(desk("config", "get", "b:", "core.https_address"), "127.0.0.1:18444\n")
                desk("config", "set", "b:", "user.desk=1")
                self.assertEqual(self.local["b"]("config", "get", "user.desk"), "1\n")
                self.assertEqual(self.local["a"]("config", "get", "user.desk"), "\n")
                desk("config", "unset", "b:", "user.desk")
                desk("remote", "switch", "b")
                self.assertEqual(desk("remote", "get-default"), "b\n")
                self.assertIn(f"p-{program}", desk("project", "list", "--format", "csv"))
                desk("project", "switch", f"p-{program}")
                self.assertIn(f"p-{program} (current)", desk("project", "list", "--format", "csv"))
                desk("project", "switch", "default")
                desk("project", "delete", f"p-{program}")
                desk("remote", "rename", "a", "first")
                self.assertIn("default", desk("profile", "list", "first:", "--format", "csv"))
                self.assertIn("default", desk.fails("remote", "remove", "b"))
                desk("remote", "switch", "first")
                desk("remote", "remove", "b")
                self.assertIn("b", desk.fails("profile", "list", "b:"))

    def test_a_configuration_can_be_copied_from_the_other_client(self):
        desk, copy = self.desk("incus"), Desk("virga", self.base)
        shutil.copytree(desk.config, os.path.join(copy.config, "virga"))
        self.assertIn("default", copy("profile", "list", "b:", "--format", "csv"))
        os.remove(os.path.join(desk.config, "config.yml"))
        copy("remote", "add", "pictures", "https://images.example.org", "--protocol", "simplestreams")
        shutil.copy(os.path.join(copy.config, "virga/config.yml"), desk.config)
        self.assertIn("simplestreams", desk("remote", "list", "--format", "csv"))
        self.assertIn("default", desk("profile", "list", "a:", "--format", "csv"))

    def test_what_is_wrong_is_said(self):
        desk = self.desk(servers="a")
        self.assertIn("exist", desk.fails("list", "nowhere:"))
        self.assertIn("exists as", desk.fails("remote", "add", "a", self.token("a")))
        for name in ("x:y", "x/y", "x y", "-x", ""):
            desk.fails("remote", "add", name, "https://127.0.0.1:18443")
        self.assertIn("static", desk.fails("remote", "remove", "local"))
        self.assertIn("static", desk.fails("remote", "set-url", "local", "https://127.0.0.1:1"))
        self.assertIn("fingerprint", desk.fails("remote", "add", "b", "127.0.0.1:18444"))
        self.assertIn("https", desk.fails("remote", "add", "i", "http://127.0.0.1/", "--protocol", "simplestreams"))
        self.assertIn("virga server", desk.fails("list", "i2:") if desk("remote", "add", "i2", "https://127.0.0.1/x", "--protocol", "oci") == "" else "")
        self.assertIn("token", desk.fails("remote", "add", "b", "127.0.0.1:18444", "--accept-certificate"))
        listed = desk("remote", "list", "--format", "csv")
        self.assertNotIn("18444", listed, "what failed leaves nothing")
        self.assertFalse(os.path.exists(os.path.join(desk.config, "virga/servercerts/b.crt")))

    def test_a_server_that_shows_another_certificate_is_refused(self):
        desk = self.desk(servers="a")
        desk("remote", "set-url", "a", "https://127.0.0.1:18444")
        self.assertIn("certificate", desk.fails("list", "a:"))
        self.assertIn("not the one in the token", desk.fails("remote", "add", "c", self.forged_token()))

    def forged_token(self):
        """A token of b that names the address of a."""
        import base64
        token = json.loads(base64.b64decode(self.token("b")))
        token["addresses"] = ["127.0.0.1:18443"]
        return base64.b64encode(json.dumps(token).encode()).decode()

    def test_token_and_certificate_may_be_given_apart(self):
        desk = Desk("virga", self.base)
        desk("remote", "add", "b", "https://127.0.0.1:18444", "--accept-certificate", "--token", self.token("b"))
        self.assertIn("default", desk("profile", "list", "b:", "--format", "csv"))
        self.assertEqual(os.stat(os.path.join(desk.config, "virga/client.key")).st_mode & 0o777, 0o600)


if __name__ == "__main__":
    unittest.main(verbosity=2)
