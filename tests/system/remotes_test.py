"""Servers elsewhere: two daemons, the virga command and the stock incus client, over HTTPS with tokens."""
import base64
import json
import os
import select
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


class RestrictedClients(Remotes):
    def setUp(self):
        a = self.local["a"]
        for project in ("mine", "theirs"):
            if project not in a("project", "list", "--format", "csv"):
                a("project", "create", project)
                a("profile", "create", f"of-{project}", "--project", project)

    def test_a_restricted_client_works_in_its_project_and_sees_no_other(self):
        for program in ("virga", "incus"):
            with self.subTest(program):
                desk = self.desk(program, "a", "--restricted", "--projects", "mine")
                self.assertIn("of-mine", desk("profile", "list", "a:", "--format", "csv"))
                listed = desk("project", "list", "a:", "--format", "csv")
                self.assertIn("mine", listed)
                self.assertNotIn("theirs", listed)
                self.assertNotIn("default", listed)
                self.assertNotIn("of-theirs", desk("profile", "list", "a:", "--all-projects", "--format", "csv"))
                there, nowhere = (desk.fails("profile", "show", "a:default", "--project", p) for p in ("theirs", "nowhere"))
                self.assertEqual(there.replace("theirs", "nowhere"), nowhere)
                desk.fails("config", "set", "a:", "user.x=1")
                desk.fails("config", "trust", "add", "a:another")
                desk("profile", "create", f"a:by-{program}")
                self.assertIn(f"by-{program}", self.local["a"]("profile", "list", "--project", "mine", "--format", "csv"))

    def test_trust_is_edited_and_taken_away(self):
        a, desk = self.local["a"], Desk("virga", self.base)
        desk("remote", "add", "a", self.token("a", "--restricted", "--projects", "mine", name="tenant"))
        rows = [r for r in a.json("config", "trust", "list") if r["name"] == "tenant"]
        fingerprint = rows[-1]["fingerprint"]
        text = a("config", "trust", "show", fingerprint)
        self.assertIn("restricted: true", text)
        a("config", "trust", "edit", fingerprint, input=text.replace("- mine", "- theirs").replace("name: tenant", "name: other"))
        self.assertIn("of-theirs", desk("profile", "list", "a:", "--project", "theirs", "--format", "csv"))
        desk.fails("profile", "list", "a:", "--project", "mine")
        self.assertIn("other", a("config", "trust", "list", "--format", "csv"))
        a("config", "trust", "remove", fingerprint)
        self.assertIn("authorized", desk.fails("profile", "list", "a:", "--project", "theirs"))

    def test_a_certificate_is_added_by_hand(self):
        a, desk = self.local["a"], Desk("virga", self.base)
        path = os.path.join(self.base, "hand.crt")
        with open(path, "w") as file:
            file.write(desk("remote", "get-client-certificate"))
        a("config", "trust", "add-certificate", path, "--restricted", "--projects", "mine")
        desk("remote", "add", "a", "127.0.0.1:18443", "--accept-certificate")
        self.assertIn("of-mine", desk("profile", "list", "a:", "--format", "csv"))
        self.assertIn("does not exist", a.fails("config", "trust", "add-certificate", path, "--restricted", "--projects", "nowhere"))

    def made(self, name, *extensions):
        """A new certificate with its key: their paths."""
        import subprocess
        paths = [os.path.join(self.base, f"{name}.{kind}") for kind in ("crt", "key")]
        more = [word for extension in extensions for word in ("-addext", extension)]
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384", "-nodes", "-keyout", paths[1], "-out", paths[0], "-subj", f"/CN={name}",
                        "-days", "2", *more], check=True, capture_output=True)
        return paths

    def test_a_certificate_that_is_not_a_clients_is_refused(self):
        """S34: for servers only; and one whose time is over or has not come."""
        import subprocess
        a = self.local["a"]
        server, _ = self.made("servers", "extendedKeyUsage=serverAuth")
        early, key = self.made("early")
        subprocess.run(["openssl", "x509", "-in", early, "-signkey", key, "-days", "-1", "-out", early + ".old"], check=True, capture_output=True)
        for client in (a, support.Client(self.daemons["a"], "incus")):
            self.assertIn("extended key usage", client.fails("config", "trust", "add-certificate", server))
            client.fails("config", "trust", "add-certificate", early + ".old")
        both, _ = self.made("both", "extendedKeyUsage=serverAuth,clientAuth")
        a("config", "trust", "add-certificate", both)
        # A token does not help either.
        desk = Desk("virga", self.base)
        desk("remote", "get-client-certificate")
        for kind, path in (("crt", server), ("key", server[:-3] + "key")):
            shutil.copy(path, os.path.join(desk.config, f"virga/client.{kind}"))
        self.assertIn("extended key usage", desk.fails("remote", "add", "a", self.token("a", name="servers")))

    def test_a_client_gives_itself_a_new_certificate(self):
        import subprocess
        for program in ("virga", "incus"):
            with self.subTest(program):
                desk = self.desk(program, "a", "--restricted", "--projects", "mine")
                directory = desk.config if program == "incus" else os.path.join(desk.config, "virga")
                fingerprint = desk.json("config", "trust", "list", "a:")[0]["fingerprint"]
                shown = desk("config", "trust", "show", f"a:{fingerprint}")
                new = self.made(f"new-{program}")
                pem = support.contents(new[0]).decode()
                document = {"name": "desk", "type": "client", "restricted": True, "projects": ["mine"], "description": "", "certificate": pem}
                for change in ({"projects": ["mine", "theirs"]}, {"restricted": False}, {"name": "other"}):
                    desk.fails("config", "trust", "edit", f"a:{fingerprint}", input=json.dumps({**document, **change}))
                self.assertEqual(desk("config", "trust", "show", f"a:{fingerprint}"), shown)
                desk("config", "trust", "edit", f"a:{fingerprint}", input=json.dumps(document))
                desk.fails("profile", "list", "a:")
                for kind, path in zip(("crt", "key"), new):
                    shutil.copy(path, os.path.join(directory, f"client.{kind}"))
                self.assertIn("of-mine", desk("profile", "list", "a:", "--format", "csv"))
                self.assertNotIn(fingerprint, self.local["a"]("config", "trust", "list", "-c", "f", "--format", "csv"))

    def test_every_verb_of_trust_with_both_clients(self):
        for program in ("virga", "incus"):
            with self.subTest(program):
                cli, name = support.Client(self.daemons["a"], program), f"verbs-{program}"
                self.assertIn("verbs", base64.b64decode(cli("config", "trust", "add", name, "-q").strip().splitlines()[-1]).decode())
                self.assertIn(name, cli("config", "trust", "list-tokens", "--format", "csv"))
                cli("config", "trust", "revoke-token", name)
                self.assertNotIn(name, cli("config", "trust", "list-tokens", "--format", "csv"))
                path, _ = self.made(name)
                cli("config", "trust", "add-certificate", path, "--name", name, "--restricted", "--projects", "mine", "--description", "by hand")
                row = [r for r in cli.json("config", "trust", "list") if r["name"] == name][0]
                self.assertEqual((row["restricted"], row["projects"], row["type"], row["description"]), (True, ["mine"], "client", "by hand"))
                shown = cli("config", "trust", "show", row["fingerprint"])
                cli("config", "trust", "edit", row["fingerprint"], input=shown.replace(f"name: {name}", f"name: renamed-{program}").replace("by hand", "edited"))
                row = [r for r in cli.json("config", "trust", "list") if r["name"] == f"renamed-{program}"][0]
                self.assertEqual((row["restricted"], row["projects"], row["description"]), (True, ["mine"], "edited"))
                cli("config", "trust", "remove", row["fingerprint"])
                self.assertNotIn(f"renamed-{program}", cli("config", "trust", "list", "--format", "csv"))

    def test_sessions_end_with_the_right(self):
        """An open event stream, and a command that runs: at once, whether the certificate goes or its project."""
        import subprocess
        a = self.local["a"]
        a("admin", "init", "--auto")
        if "small" not in a("image", "list", "--format", "csv"):
            a("image", "import", *small_image(self.base, "small"), "--alias", "small")
        for change in ("removed", "narrowed"):
            with self.subTest(change):
                desk = self.desk("virga", "a", "--restricted", "--projects", "default,mine")
                fingerprint = desk.json("config", "trust", "list", "a:")[0]["fingerprint"]
                a("launch", "small", f"s-{change}")
                # Its fake guest knows sleep, which ends by a signal only.
                watcher = subprocess.Popen([desk.program, "monitor", "a:", "--project", "default", "--format", "json"], stdout=subprocess.PIPE, text=True, env=desk.environment())
                runner = subprocess.Popen([desk.program, "exec", f"a:s-{change}", "--project", "default", "--", "sleep", "1000"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                          stderr=subprocess.PIPE, env=desk.environment())
                running = lambda: (self.daemons["a"].query("/1.0/operations?recursion=1") or {}).get("running", [])
                support.wait_until(lambda: any(o["class"] == "websocket" for o in running()), what="the command")
                a("profile", "edit", "default", input=a("profile", "show", "default"))
                support.wait_until(lambda: select.select([watcher.stdout], [], [], 0)[0] or a("profile", "edit", "default", input=a("profile", "show", "default")), what="an event")
                self.assertEqual((watcher.poll(), runner.poll()), (None, None))
                if change == "removed":
                    a("config", "trust", "remove", fingerprint)
                else:
                    a("config", "trust", "edit", fingerprint, input=a("config", "trust", "show", fingerprint).replace("- default\n", ""))
                try:
                    for process in (watcher, runner):
                        process.communicate(timeout=20)
                finally:
                    watcher.kill()
                    runner.kill()
                support.wait_until(lambda: not any(o["class"] == "websocket" for o in running()), what="the command's end")
                a("delete", "--force", f"s-{change}")

    def test_a_bearer_token_stands_for_the_certificate(self):
        import subprocess
        desk = self.desk("virga", "a", "--restricted", "--projects", "mine")
        token = desk("remote", "get-client-token", "1H").strip()
        def status(project, token):
            return subprocess.run(["curl", "-sk", "-o", "/dev/null", "-w", "%{http_code}", "-H", f"Authorization: Bearer {token}",
                                   f"https://127.0.0.1:18443/1.0/profiles?project={project}"], capture_output=True, text=True, check=True).stdout
        self.assertEqual((status("mine", token), status("theirs", token), status("mine", token[:-2])), ("200", "404", "403"))


def small_image(directory, name, split=False):
    """A container's image of a few files: (metadata, rootfs), or (unified,)."""
    import io
    import tarfile

    def add(tar, path, data, mode=0o644):
        info = tarfile.TarInfo(path)
        info.size, info.mode = len(data), mode
        tar.addfile(info, io.BytesIO(data))

    def folder(tar, path):
        info = tarfile.TarInfo(path)
        info.type, info.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(info)
    metadata = f"architecture: x86_64\ncreation_date: 1700000000\nproperties:\n  os: {name}\n  description: {name}\n".encode()
    paths = [os.path.join(directory, f"{name}.tar")] + ([os.path.join(directory, f"{name}.root.tar")] if split else [])
    with tarfile.open(paths[0], "w") as tar:
        add(tar, "metadata.yaml", metadata)
        if not split:
            for path in ("rootfs", "rootfs/bin", "rootfs/etc"):
                folder(tar, path)
            add(tar, "rootfs/bin/init", os.urandom(300_000), 0o755)
    if split:
        with tarfile.open(paths[1], "w") as tar:
            for path in ("bin", "etc"):
                folder(tar, path)
            add(tar, "bin/init", os.urandom(300_000), 0o755)
    return paths


class ImageCopies(Remotes):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.fingerprints = {}
        for name, split in (("whole", False), ("parts", True)):
            cls.local["a"]("image", "import", *small_image(cls.base, name, split), "--alias", name)
            cls.fingerprints[name] = [i for i in cls.local["a"].json("image", "list") if i["properties"]["os"] == name][0]["fingerprint"]

    def tearDown(self):
        for image in self.local["b"].json("image", "list"):
            self.local["b"]("image", "delete", image["fingerprint"])

    def on_b(self, project="default"):
        return {i["fingerprint"]: i for i in self.daemons["b"].query(f"/1.0/images?recursion=1&project={project}")}

    def test_every_mode_copies_both_kinds_of_files_with_both_clients(self):
        desks = {program: self.desk(program) for program in ("virga", "incus")}
        for program, desk in desks.items():
            for mode in ("pull", "push", "relay"):
                for name, fingerprint in self.fingerprints.items():
                    with self.subTest(program=program, mode=mode, image=name):
                        desk("image", "copy", f"a:{name}", "b:", "--copy-aliases", "--alias", f"{name}-2", "--mode", mode)
                        image = self.on_b()[fingerprint]
                        self.assertEqual(sorted(a["name"] for a in image["aliases"]), [name, f"{name}-2"])
                        self.assertEqual(image["properties"]["os"], name)
                        files = [os.path.join(self.daemons[d].state, "images", fingerprint + suffix) for d in "ab" for suffix in ("", ".rootfs")]
                        for a, b in zip(files[:2], files[2:]):
                            self.assertEqual(os.path.exists(a), os.path.exists(b))
                            self.assertTrue(not os.path.exists(a) or support.contents(a) == support.contents(b))
                        self.local["b"]("image", "delete", fingerprint)
        left = [o for d in "ab" for o in (self.daemons[d].query("/1.0/operations?recursion=1") or {}).get("running", [])]
        self.assertEqual(left, [], "no secret is left behind")

    def test_an_instance_of_another_servers_image(self):
        self.local["b"]("admin", "init", "--auto")
        whole = self.fingerprints["whole"]
        for program in ("virga", "incus"):
            desk = self.desk(program)
            for is_public in (False, True):
                with self.subTest(program=program, public=is_public):
                    self.local["a"]("image", "edit", whole, input=f"public: {str(is_public).lower()}\nproperties:\n  os: whole\n")
                    desk("create", "a:whole", f"b:by-{program}")
                    image = self.on_b()[whole]
                    self.assertEqual((image["cached"], image["public"]), (True, False))
                    self.assertEqual(self.daemons["b"].query(f"/1.0/instances/by-{program}")["config"]["volatile.base_image"], whole)
                    if is_public and program == "virga":
                        self.assertEqual((image["update_source"]["alias"], image["update_source"]["protocol"]), ("whole", "incus"))
                        self.assertEqual(self.daemons["b"].query(f"/1.0/images/{whole}/refresh", "POST")["description"], "Refreshing image")
                    desk("delete", f"b:by-{program}")
                    self.local["b"]("image", "delete", whole)
            self.assertIn("nosuch", desk.fails("create", "a:nosuch", "b:x"))
        self.local["a"]("image", "edit", whole, input="public: false\nproperties:\n  os: whole\n")
        # The default remote is where an instance goes that names none.
        desk = self.desk("virga")
        desk("remote", "switch", "b")
        desk("create", "a:parts", "here")
        self.assertIn("here", desk("list", "b:", "--format", "csv"))
        desk("delete", "here")
        left = [o for d in "ab" for o in (self.daemons[d].query("/1.0/operations?recursion=1") or {}).get("running", [])]
        self.assertEqual(left, [], "no secret is left behind")

    def test_a_secret_is_for_one_image_and_one_download(self):
        a, wanted = self.daemons["a"], self.fingerprints["whole"]
        url = f"https://127.0.0.1:18443/1.0/images/{wanted}"
        get = ServerConfiguration.get
        self.assertEqual(get(self, url)[0], 404)
        self.assertEqual(get(self, url + "/export")[0], 404)
        secret = self.secret(wanted)
        self.assertEqual(get(self, url + f"?secret={secret}")[0], 200)
        self.assertEqual(get(self, f"https://127.0.0.1:18443/1.0/images/{self.fingerprints['parts']}/export?secret={secret}")[0], 404)
        listed = json.dumps(a.query("/1.0/operations?recursion=1"))
        self.assertNotIn(secret, listed)
        self.assertEqual(get_bytes(self, url + f"/export?secret={secret}")[0], 200)
        self.assertEqual(get(self, url + f"/export?secret={secret}")[0], 404, "once")
        # Strangers see public images and nothing else.
        self.assertEqual(json.loads(get(self, "https://127.0.0.1:18443/1.0/images")[1])["metadata"], [])
        self.local["a"]("image", "edit", wanted, input="public: true\nproperties:\n  os: whole\n")
        self.assertEqual(json.loads(get(self, "https://127.0.0.1:18443/1.0/images")[1])["metadata"], [f"/1.0/images/{wanted}"])
        public = Desk("virga", self.base)
        public("remote", "add", "shop", "https://127.0.0.1:18443", "--public", "--accept-certificate")
        self.assertIn(wanted[:12], public("image", "list", "shop:", "--format", "csv"))
        self.local["a"]("image", "edit", wanted, input="public: false\nproperties:\n  os: whole\n")
        self.assertEqual(public("image", "list", "shop:", "--format", "csv"), "")

    def secret(self, fingerprint):
        return self.daemons["a"].query(f"/1.0/images/{fingerprint}/secret", "POST")["metadata"]["secret"]

    def pull(self, **source):
        """What b says to an order to fetch: the error's text, or nothing."""
        body = {"source": {"type": "image", "mode": "pull", "protocol": "incus", "server": "https://127.0.0.1:18443",
                           "certificate": self.daemons["a"].query("/1.0")["environment"]["certificate"], "fingerprint": self.fingerprints["whole"], **source}}
        try:
            operation = self.daemons["b"].query("/1.0/images", "POST", body)
        except support.CommandFailed as refused:
            return str(refused)
        return self.daemons["b"].query(f"/1.0/operations/{operation['id']}/wait")["err"]

    def test_a_server_is_not_led_where_it_should_not_go(self):
        secret = self.secret(self.fingerprints["whole"])
        other = self.daemons["b"].query("/1.0")["environment"]["certificate"]
        self.assertIn("certificate", self.pull(secret=secret, certificate=other))
        self.assertIn("certificate", self.pull(secret=secret, certificate=""))
        self.assertIn("may not be reached", self.pull(secret=secret, server="https://169.254.169.254"))
        for server in ("http://127.0.0.1:18443", "file:///etc/passwd", "https://127.0.0.1:18443/?x=", "unix:///run/x", ""):
            self.assertIn("source.server", self.pull(secret=secret, server=server), server)
        self.assertIn("404", self.pull(secret="0" * 64))
        self.assertIn("fingerprint", self.pull(secret=secret, fingerprint="../../x"))
        self.assertEqual(self.on_b(), {})
        self.assertEqual(self.pull(secret=secret), "")
        self.assertIn("already", self.pull(secret=self.secret(self.fingerprints["whole"])))

    def test_an_upload_needs_the_secret_of_its_image(self):
        import subprocess
        whole = os.path.join(self.base, "whole.tar")
        def upload(secret, fingerprint):
            return subprocess.run(["curl", "-sk", "-o", "/dev/null", "-w", "%{http_code}", "-H", f"X-Incus-secret: {secret}", "-H", f"X-Incus-fingerprint: {fingerprint}",
                                   "-H", "Content-Type: application/octet-stream", "--data-binary", f"@{whole}", "https://127.0.0.1:18444/1.0/images"],
                                  capture_output=True, text=True, check=True).stdout
        self.assertEqual(upload("0" * 64, self.fingerprints["whole"]), "403")
        expect = lambda f: self.daemons["b"].query("/1.0/images", "POST", {"source": {"type": "image", "mode": "push", "fingerprint": f}})["metadata"]["secret"]
        secret = expect(self.fingerprints["whole"])
        self.assertEqual(upload(secret, self.fingerprints["parts"]), "403")
        self.assertEqual(upload(secret, self.fingerprints["whole"]), "202")
        self.assertEqual(upload(secret, self.fingerprints["whole"]), "403", "once")
        support.wait_until(lambda: self.on_b(), what="the image")
        # Another image than the one that was announced is not taken.
        self.local["b"]("image", "delete", self.fingerprints["whole"])
        secret = expect(self.fingerprints["parts"])
        self.assertEqual(upload(secret, self.fingerprints["parts"]), "202")
        support.wait_until(lambda: not (self.daemons["b"].query("/1.0/operations") or {}).get("running"), what="the end of the import")
        self.assertEqual(self.on_b(), {})

    def test_a_killed_server_leaves_nothing_of_a_download(self):
        self.assertEqual(self.pull(secret=self.secret(self.fingerprints["parts"]), fingerprint=self.fingerprints["parts"]), "")
        self.local["b"]("image", "delete", self.fingerprints["parts"])
        self.daemons["b"].restart()
        self.assertEqual([n for n in os.listdir(os.path.join(self.daemons["b"].state, "images"))], [])


def get_bytes(test, url):
    import ssl
    import urllib.request
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with urllib.request.urlopen(url, context=context, timeout=20) as answer:
        return answer.status, answer.read()


class ServerConfiguration(Remotes):
    METRICS = "127.0.0.1:18445"

    def get(self, url, **options):
        import ssl
        import urllib.error
        import urllib.request
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        request = urllib.request.Request(url, **options)
        try:
            with urllib.request.urlopen(request, context=context, timeout=20) as answer:
                return answer.status, answer.read().decode(), answer.headers
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(), error.headers

    def test_metrics_have_an_address_of_their_own(self):
        a = self.local["a"]
        a("config", "set", f"core.metrics_address={self.METRICS}")
        self.assertEqual(self.get(f"https://{self.METRICS}/1.0/metrics")[0], 403)
        self.assertEqual(self.get(f"https://{self.METRICS}/1.0")[0], 404, "nothing else is there")
        a("config", "set", "core.metrics_authentication=false")
        status, text, _ = self.get(f"https://{self.METRICS}/1.0/metrics")
        self.assertEqual(status, 200)
        self.assertIn("# EOF", text)
        # An address that is taken is refused, and nothing changes.
        self.assertIn("18443", a.fails("config", "set", "core.metrics_address=127.0.0.1:18443"))
        self.assertEqual(a("config", "get", "core.metrics_address"), self.METRICS + "\n")
        a("config", "unset", "core.metrics_address")
        a("config", "unset", "core.metrics_authentication")
        with self.assertRaises(OSError):
            self.get(f"https://{self.METRICS}/1.0/metrics")

    def test_the_address_changes_while_it_is_used(self):
        desk = self.desk(servers="b")
        desk("config", "set", "b:", "core.https_address=127.0.0.1:18446")
        desk("remote", "set-url", "b", "https://127.0.0.1:18446")
        self.assertEqual(desk("config", "get", "b:", "core.https_address"), "127.0.0.1:18446\n")
        # The same port on all addresses, and back: the old address is in the way of the new one.
        for address in ("0.0.0.0:18446", "127.0.0.1:18446"):
            desk("config", "set", "b:", f"core.https_address={address}")
            self.assertEqual(desk("config", "get", "b:", "core.https_address"), f"{address}\n")
        desk("config", "set", "b:", f"core.https_address=127.0.0.1:{PORTS['b']}")

    def test_pages_of_one_other_origin(self):
        a, url = self.local["a"], "https://127.0.0.1:18443/1.0"
        self.assertEqual(self.get(url, headers={"Origin": "https://ui.example.org"})[2]["Access-Control-Allow-Origin"], None)
        a("config", "set", "core.https_allowed_origin=https://ui.example.org", "core.https_allowed_methods=GET, POST")
        _, _, headers = self.get(url, headers={"Origin": "https://ui.example.org"}, method="OPTIONS")
        self.assertEqual((headers["Access-Control-Allow-Origin"], headers["Access-Control-Allow-Methods"]), ("https://ui.example.org", "GET, POST"))
        self.assertEqual(self.get(url, headers={"Origin": "https://evil.example.org"})[2]["Access-Control-Allow-Origin"], None)
        for status, origin in ((403, "https://evil.example.org"), (400, "https://ui.example.org")):
            answer = self.get(url + "/certificates", headers={"Origin": origin, "Content-Type": "application/json"}, data=b"{\"x\":1}", method="POST")
            self.assertEqual(answer[0], status, answer[1])
        a("config", "unset", "core.https_allowed_origin")
        a("config", "unset", "core.https_allowed_methods")

    def open_as(self, desk, port, before=b""):
        """A connection with the client's certificate, with `before` sent ahead of TLS."""
        import socket
        import ssl
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.load_cert_chain(os.path.join(desk.config, "virga/client.crt"), os.path.join(desk.config, "virga/client.key"))
        plain = socket.create_connection(("127.0.0.1", port), timeout=20)
        plain.sendall(before)
        return context.wrap_socket(plain)

    @staticmethod
    def exchange(connection, request):
        connection.sendall(request)
        return connection.recv(65536)

    def test_a_trusted_proxy_says_whose_connections_it_passes_on(self):
        import ssl
        import subprocess
        a, desk = self.local["a"], self.desk(servers="a")
        header = b"PROXY TCP4 192.0.2.7 192.0.2.9 4711 8443\r\n"
        body = b'{"description": "x"}'
        request = (b"PATCH /1.0/profiles/default HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)) + body

        def seen_from(before):
            """Where the daemon says that a change has come from."""
            watcher = subprocess.Popen([a.program, "monitor", "--type", "lifecycle", "--format", "json"], stdout=subprocess.PIPE, text=True, env=a.environment())
            try:
                for attempt in range(100):  # until the watcher watches
                    with self.open_as(desk, PORTS["a"], before) as connection:
                        self.assertIn(b" 200 ", self.exchange(connection, request))
                    if select.select([watcher.stdout], [], [], 0.2)[0]:
                        return json.loads(watcher.stdout.readline())["metadata"]["requestor"]["address"]
                self.fail("no event came")
            finally:
                watcher.kill()
                watcher.communicate()
        with self.assertRaises((ssl.SSLError, ConnectionError)):
            self.open_as(desk, PORTS["a"], header)
        a("config", "set", "core.https_trusted_proxy=127.0.0.1")
        self.assertEqual(seen_from(header), "192.0.2.7:4711")
        self.assertTrue(seen_from(b"").startswith("127.0.0.1:"))
        with self.assertRaises((ssl.SSLError, ConnectionError)):
            self.open_as(desk, PORTS["a"], b"PROXY TCP4 nobody\r\n")
        a("config", "unset", "core.https_trusted_proxy")
        with self.assertRaises((ssl.SSLError, ConnectionError)):
            self.open_as(desk, PORTS["a"], header)

    def test_pages_of_other_origins_open_websockets_where_they_may(self):
        a, desk = self.local["a"], self.desk(servers="a")

        def status(origin):
            request = (f"GET /1.0/events HTTP/1.1\r\nHost: 127.0.0.1:18443\r\nOrigin: {origin}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                       "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
            with self.open_as(desk, PORTS["a"]) as connection:
                return int(self.exchange(connection, request.encode()).split()[1])
        self.assertEqual([status(o) for o in ("https://127.0.0.1:18443", "https://ui.example.org")], [101, 403])
        a("config", "set", "core.https_allowed_websocket_origin=https://ui.example.org, https://other.example.org")
        self.assertEqual([status(o) for o in ("https://ui.example.org", "https://other.example.org", "https://evil.example.org")], [101, 101, 403])
        answer = self.get("https://127.0.0.1:18443/1.0/certificates", headers={"Origin": "https://ui.example.org", "Content-Type": "application/json"}, data=b"{}", method="POST")
        self.assertEqual(answer[0], 403, "for WebSockets only")
        a("config", "unset", "core.https_allowed_websocket_origin")

    def test_keys_are_refused_by_name(self):
        a = self.local["a"]
        self.assertIn("core.https_address", a.fails("config", "set", "core.https_adress=:1"))
        self.assertIn("trust add", a.fails("config", "set", "core.trust_password=x"))
        self.assertIn("core.remote_token_expiry", a.fails("config", "set", "core.remote_token_expiry=soon"))
        a("config", "edit", input="config:\n  core.https_address: 127.0.0.1:18443\n  user.note: hello\n")
        self.assertEqual(a("config", "get", "user.note"), "hello\n")
        self.assertIn("user.note: hello", a("config", "show"))
        keys = self.daemons["a"].query("/1.0/metadata/configuration")["configs"]["server"]["core"]["keys"]
        self.assertIn("core.proxy_https", [name for entry in keys for name in entry])

    def test_tokens_expire_as_configured_and_can_be_withdrawn(self):
        a = self.local["a"]
        a("config", "set", "core.remote_token_expiry=1S")
        short = self.token("a", name="short")
        support.wait_until(lambda: "short" not in a("config", "trust", "list-tokens", "--format", "csv"), what="the token's end")
        desk = Desk("virga", self.base)
        self.assertIn("token", desk.fails("remote", "add", "a", short))
        a("config", "unset", "core.remote_token_expiry")
        revoked = self.token("a", name="revoked")
        self.assertIn("revoked", a("config", "trust", "list-tokens", "--format", "csv"))
        self.assertIn("revoked", support.Client(self.daemons["a"], "incus")("config", "trust", "list-tokens", "--format", "csv"))
        a("config", "trust", "revoke-token", "revoked")
        self.assertIn("token", desk.fails("remote", "add", "a", revoked))
        used = self.token("a", name="used")
        desk("remote", "add", "a", used)
        self.assertIn("token", Desk("virga", self.base).fails("remote", "add", "a", used))


if __name__ == "__main__":
    unittest.main(verbosity=2)
