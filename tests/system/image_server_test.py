"""Images of servers that speak simplestreams: a local directory served over HTTPS on the loopback, launched and copied from by the API, by virga
and by the stock client; refreshed; and served by a hostile one (S10)."""
import functools
import hashlib
import http.server
import json
import os
import shutil
import ssl
import subprocess
import tarfile
import tempfile
import threading
import unittest

import support
from api import Api, ApiError


def sha256(path, *more):
    h = hashlib.sha256()
    for p in (path, *more):
        with open(p, "rb") as f:
            h.update(f.read())
    return h.hexdigest()


class Server:
    """A directory over HTTPS. `answers` has what is sent instead for a path: (status, headers, body)."""

    def __init__(self, base):
        self.root = os.path.join(base, "www")
        os.makedirs(os.path.join(self.root, "streams/v1"))
        self.key, self.certificate = os.path.join(base, "key.pem"), os.path.join(base, "cert.pem")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", self.key, "-out", self.certificate,
                        "-days", "30", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
        self.asked, self.answers, self.products = [], {}, {}
        self.stalled, self.go_on = {}, threading.Event()  # paths of which so many bytes come, and no more until then
        outer = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                outer.asked.append(self.path)
                if self.path in outer.stalled:
                    body = support.contents(outer.root + self.path)
                    outer.answers[self.path] = (200, {"Content-Length": str(len(body))}, body[:outer.stalled[self.path]])
                answer = outer.answers.get(self.path)
                if answer is None:
                    return super().do_GET()
                status, headers, body = answer
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if "Content-Length" not in headers:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                try:
                    self.wfile.write(body)
                    if self.path in outer.stalled:
                        self.wfile.flush()
                        outer.go_on.wait(60)
                except OSError:
                    pass
                self.close_connection = True

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=self.root))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"https://127.0.0.1:{self.server.server_address[1]}"

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def add(self, alias, version, packed, change=None):
        """A unified tarball of ours, as a split image."""
        path = f"images/{alias}/{version}"
        directory = os.path.join(self.root, path)
        os.makedirs(directory, exist_ok=True)
        metadata, root = os.path.join(directory, "incus.tar.xz"), None
        with tempfile.TemporaryDirectory() as scratch:
            with tarfile.open(packed) as tar:
                tar.extractall(scratch, filter="fully_trusted") if hasattr(tarfile, "fully_trusted_filter") else tar.extractall(scratch)
            if change:
                change(scratch)
            vm = os.path.exists(os.path.join(scratch, "rootfs.img"))
            names = ["metadata.yaml"] + (["boot"] if os.path.isdir(os.path.join(scratch, "boot")) else [])
            subprocess.run(["tar", "-C", scratch, "-cJf", metadata, *names], check=True)
            if vm:
                root, ftype, key = os.path.join(directory, "disk.qcow2"), "disk-kvm.img", "combined_disk-kvm-img_sha256"
                shutil.copy(os.path.join(scratch, "rootfs.img"), root)
            else:
                root, ftype, key = os.path.join(directory, "rootfs.tar.xz"), "root.tar.xz", "combined_rootxz_sha256"
                subprocess.run(["tar", "-C", os.path.join(scratch, "rootfs"), "-cJf", root, "."], check=True)
        fingerprint = sha256(metadata, root)
        product = self.products.setdefault(f"{alias}:default", {"aliases": alias, "arch": "amd64", "os": "Tiny", "release": "one", "variant": "default", "versions": {}})
        product["versions"].setdefault(version, {"items": {}})["items"].update({
            "incus.tar.xz": {"ftype": "incus.tar.xz", "path": f"{path}/incus.tar.xz", "sha256": sha256(metadata), "size": os.path.getsize(metadata), key: fingerprint},
            os.path.basename(root): {"ftype": ftype, "path": f"{path}/{os.path.basename(root)}", "sha256": sha256(root), "size": os.path.getsize(root)}})
        self.publish()
        return fingerprint

    def publish(self):
        index = {"format": "index:1.0", "index": {"images": {"datatype": "image-downloads", "format": "products:1.0", "path": "streams/v1/images.json",
                                                             "products": list(self.products)}}}
        for name, document in (("index.json", index), ("images.json", {"format": "products:1.0", "content_id": "images", "datatype": "image-downloads", "products": self.products})):
            with open(os.path.join(self.root, "streams/v1", name), "w") as f:
                json.dump(document, f)


class ImageServer(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        support.enter_private_namespaces()
        cls.container, cls.vm = support.tiny_images()
        cls.base = tempfile.mkdtemp(prefix="virga-streams.")
        cls.addClassCleanup(shutil.rmtree, cls.base, ignore_errors=True)
        cls.server = Server(cls.base)
        cls.addClassCleanup(cls.server.close)
        cls.fingerprint = cls.server.add("tiny/1", "20260101_00:00", cls.container)
        cls.vm_fingerprint = cls.server.add("tiny-vm/1", "20260101_00:00", cls.vm)
        # Both trust the server, as if an authority had signed for it.
        os.environ["SSL_CERT_FILE"] = cls.server.certificate
        cls.daemon = support.Daemon()
        cls.addClassCleanup(cls.end)
        cls.cli = support.Client(cls.daemon, "virga")
        cls.cli("admin", "init", "--auto")
        cls.api = Api(cls.daemon.socket)

    @classmethod
    def end(cls):
        left = cls.daemon.destroy()
        if left:
            raise AssertionError(f"left behind: {left}")

    def tearDown(self):
        self.server.answers.clear()
        for image in self.api("GET", "/1.0/images?recursion=1"):
            self.api("DELETE", f"/1.0/images/{image['fingerprint']}")

    def source(self, alias="tiny/1", **more):
        return {"type": "image", "mode": "pull", "server": self.server.url, "protocol": "simplestreams", "alias": alias, **more}

    def create(self, name, source=None, **more):
        return self.api("POST", "/1.0/instances", {"name": name, "source": source or self.source(), **more})

    def files_asked(self):
        return [p for p in self.server.asked if p.startswith("/images/")]

    def uploads(self):
        return [n for n in os.listdir(os.path.join(self.daemon.state, "images")) if n.startswith(".")]

    def test_an_instance_of_each_kind(self):
        for kind, alias, fingerprint in (("container", "tiny/1", self.fingerprint), ("virtual-machine", "tiny-vm/1", self.vm_fingerprint)):
            with self.subTest(kind=kind):
                self.server.asked.clear()
                self.create("s1", self.source(alias), type=kind, start=True)
                support.wait_until(lambda: self.cli.run("exec", "s1", "--", "true").returncode == 0, 60, "exec")
                image = self.api("GET", f"/1.0/images/{fingerprint}")
                self.assertEqual((image["cached"], image["auto_update"], image["public"], image["type"]), (True, True, False, kind))
                self.assertEqual(image["update_source"]["server"], self.server.url)
                self.assertEqual(image["update_source"]["alias"], alias)
                self.assertEqual(image["properties"]["serial"], "20260101_00:00")
                self.assertEqual(self.api("GET", "/1.0/instances/s1")["config"]["image.serial"], "20260101_00:00")
                self.assertEqual(len(self.files_asked()), 2)
                self.create("s2", self.source(alias), type=kind)
                self.assertEqual(len(self.files_asked()), 2, "it is here already")
                self.cli("delete", "--force", "s1", "s2")

    def test_two_at_once_download_once(self):
        self.server.asked.clear()
        threads = [threading.Thread(target=self.create, args=(f"two-{n}",)) for n in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(len([i for i in self.api("GET", "/1.0/instances") if "/two-" in i]), 4)
        self.assertEqual(len(self.files_asked()), 2)
        self.cli("delete", *(f"two-{n}" for n in range(4)))

    def test_copy_and_refresh(self):
        copy = {"source": self.source(), "public": True, "auto_update": True, "aliases": [{"name": "mine", "description": ""}], "properties": {"note": "x"}}
        self.create("before")
        self.assertTrue(self.api("GET", f"/1.0/images/{self.fingerprint}")["cached"])
        self.api("POST", "/1.0/images", copy)
        image = self.api("GET", f"/1.0/images/{self.fingerprint}")
        self.assertEqual((image["cached"], image["public"], image["auto_update"], image["properties"]["note"]), (False, True, True, "x"))
        self.assertEqual(self.api("GET", "/1.0/images/aliases/mine")["target"], self.fingerprint)
        refresh = lambda f: self.api("POST", f"/1.0/images/{f}/refresh")
        refresh(self.fingerprint)
        self.assertEqual(len(self.api("GET", "/1.0/images")), 1)

        def change(directory):
            with open(os.path.join(directory, "rootfs/etc/newer"), "w") as f:
                f.write("yes\n")
        newer = self.server.add("tiny/1", "20260201_00:00", self.container, change)
        try:
            refresh(self.fingerprint)
            self.assertEqual([i["fingerprint"] for i in self.api("GET", "/1.0/images?recursion=1")], [newer])
            self.assertEqual(self.api("GET", "/1.0/images/aliases/mine")["target"], newer)
            self.assertTrue(self.api("GET", f"/1.0/images/{newer}")["public"])
            self.cli("launch", "mine", "after")
            self.assertEqual(self.cli("exec", "after", "--", "cat", "/etc/newer"), "yes\n")
            self.cli("start", "before")
            self.assertNotEqual(self.cli.run("exec", "before", "--", "cat", "/etc/newer").returncode, 0, "what was made before stays as it was")
            self.cli("delete", "--force", "before", "after")
        finally:
            del self.server.products["tiny/1:default"]["versions"]["20260201_00:00"]
            self.server.publish()

    def test_a_server_that_is_away(self):
        self.create("first")
        self.server.answers["/streams/v1/index.json"] = (503, {}, b"")
        self.create("second")
        with self.assertRaises(ApiError):
            self.api("POST", "/1.0/images", {"source": self.source()})
        self.cli("delete", "first", "second")

    def test_a_kill_in_the_middle_of_a_download_leaves_nothing(self):
        """Wherever it stands: at the first file's first bytes, in the second file, of an instance's image and of a copy."""
        items = self.server.products["tiny/1:default"]["versions"]["20260101_00:00"]["items"]
        for name, part in (("incus.tar.xz", 10), ("rootfs.tar.xz", 1000), ("rootfs.tar.xz", items["rootfs.tar.xz"]["size"] // 2)):
            for body in ({"name": "cut", "source": self.source()}, {"source": self.source(), "aliases": [{"name": "cut"}]}):
                with self.subTest(file=name, part=part, to="instance" if "name" in body else "image"):
                    path = "/" + items[name]["path"]
                    self.server.go_on.clear()
                    self.server.asked.clear()
                    self.server.stalled = {path: part}
                    self.api("POST", "/1.0/instances" if "name" in body else "/1.0/images", body, wait=False)
                    support.wait_until(lambda: path in self.server.asked and self.uploads(), 20, "the download")
                    self.daemon.restart()
                    self.server.stalled, self.server.answers = {}, {}
                    self.server.go_on.set()
                    self.assertEqual((self.uploads(), self.api("GET", "/1.0/images"), self.api("GET", "/1.0/instances")), ([], [], []))
                    self.create("again", start=True)
                    support.wait_until(lambda: self.cli.run("exec", "again", "--", "true").returncode == 0, 60, "exec")
                    self.cli("delete", "--force", "again")
                    self.api("DELETE", f"/1.0/images/{self.fingerprint}")

    def test_the_command_line_lists_and_fetches(self):
        cli = support.Client(self.daemon, "virga")
        cli("remote", "add", "streams", self.server.url, "--protocol", "simplestreams")
        rows = [r.split(",") for r in cli("image", "list", "streams:", "--format", "csv", "-c", "lfpts").splitlines()]
        size = os.path.getsize
        self.assertEqual(sorted(r[:4] for r in rows), sorted([["tiny/1", self.fingerprint[:12], "yes", "CONTAINER"], ["tiny-vm/1", self.vm_fingerprint[:12], "yes", "VIRTUAL-MACHINE"]]))
        self.assertEqual(cli("image", "list", "streams:", "nosuch", "--format", "csv"), "")
        self.assertIn("tiny/1", cli("image", "list", "streams:", "os=Tiny", "--format", "csv"))
        self.assertIn(self.fingerprint[:12], cli("image", "alias", "list", "streams:", "--format", "csv"))
        info = cli("image", "info", "streams:tiny/1")
        for word in (self.fingerprint, "Architecture: x86_64", "Public: yes", "serial: 20260101_00:00", "Uploaded: 2026/01/01", "- tiny/1"):
            self.assertIn(word, info)
        self.assertIn(self.vm_fingerprint, cli("image", "info", "--vm", "streams:tiny-vm/1"))
        self.assertIn("os: Tiny", cli("image", "show", f"streams:{self.fingerprint[:20]}"))
        self.assertIn("not found", cli.fails("image", "info", "streams:nosuch"))
        self.assertIn("server of images", cli.fails("image", "delete", "streams:tiny/1"))
        cli("launch", "streams:tiny/1", "l1")
        support.wait_until(lambda: cli.run("exec", "l1", "--", "true").returncode == 0, 60, "exec")
        image = self.api("GET", f"/1.0/images/{self.fingerprint}")
        self.assertEqual((image["cached"], image["update_source"]["alias"]), (True, "tiny/1"))
        cli("create", f"streams:{self.fingerprint[:20]}", "l2")
        cli("create", "streams:tiny-vm/1", "l3", "--vm")
        self.assertEqual(cli.json("list", "l3")[0]["type"], "virtual-machine")
        self.assertIn("not found", cli.fails("launch", "streams:nosuch", "l4"))
        self.assertIn("--vm", cli.fails("launch", "streams:tiny-vm/1", "l4"))
        cli("delete", "--force", "l1", "l2", "l3")
        cli("image", "copy", "streams:tiny/1", "local:", "--alias", "copied", "--auto-update")
        image = self.api("GET", f"/1.0/images/{self.fingerprint}")
        self.assertEqual((image["cached"], image["auto_update"]), (False, True))
        cli("image", "copy", "streams:tiny-vm/1", "local:", "--vm", "--copy-aliases")
        self.assertEqual(self.api("GET", "/1.0/images/aliases/tiny-vm%2F1")["target"], self.vm_fingerprint)
        self.assertIn("publishes", cli.fails("image", "copy", "streams:tiny/1", "local:", "--mode", "relay"))
        # An OCI registry is known, and refused with the reason.
        cli("remote", "add", "registry", "https://registry.example.org", "--protocol", "oci")
        self.assertIn("oci", cli("remote", "list", "--format", "csv"))
        for command in (("launch", "registry:alpine", "o1"), ("image", "list", "registry:"), ("image", "copy", "registry:alpine", "local:")):
            self.assertIn("application containers are not supported yet", cli.fails(*command))

    def test_stock_client(self):
        if shutil.which("incus") is None:
            self.skipTest("the incus client is not installed: ./dev deps --tests")
        incus = support.Client(self.daemon, "incus")
        incus("remote", "add", "streams", self.server.url, "--protocol", "simplestreams", "--public")
        self.assertIn("tiny/1", incus("image", "list", "streams:"))
        incus("launch", "streams:tiny/1", "i1")
        self.assertEqual(incus("exec", "i1", "--", "hostname").strip(), "i1")
        incus("image", "copy", "streams:tiny/1", "local:", "--alias", "copied", "--auto-update")
        self.assertEqual(self.api("GET", "/1.0/images/aliases/copied")["target"], self.fingerprint)
        self.assertIn("already up to date", incus("image", "refresh", "copied"))
        incus("delete", "--force", "i1")

    def test_hostile_servers(self):
        items = json.dumps(self.server.products)
        listing = "/streams/v1/images.json"
        version = self.server.products["tiny/1:default"]["versions"]["20260101_00:00"]["items"]
        root, metadata = "/" + version["rootfs.tar.xz"]["path"], "/" + version["incus.tar.xz"]["path"]

        def changed(**fields):
            products = json.loads(items)
            for name, value in fields.items():
                item, field = name.split("__")
                products["tiny/1:default"]["versions"]["20260101_00:00"]["items"]["rootfs.tar.xz" if item == "root" else "incus.tar.xz"][field] = value
            return (200, {}, json.dumps({"products": products}).encode())

        def contents(path):
            return support.contents(self.server.root + path)
        cases = {
            "fingerprint is a path": {listing: changed(metadata__combined_rootxz_sha256="../../x")},
            "fingerprint too short": {listing: changed(metadata__combined_rootxz_sha256="ab" * 31)},
            "fingerprint of something else": {listing: changed(metadata__combined_rootxz_sha256="ab" * 32)},
            "digest of something else": {listing: changed(root__sha256="ab" * 32)},
            "path leads up": {listing: changed(root__path="../../../etc/passwd")},
            "path is a URL": {listing: changed(root__path="http://169.254.169.254/x")},
            "size is less": {listing: changed(root__size=1000)},
            "size is more": {listing: changed(root__size=1 << 30)},
            "size is absurd": {listing: changed(root__size=1 << 62)},
            "redirect to the cloud's secrets": {root: (302, {"Location": "http://169.254.169.254/latest/meta-data"}, b"")},
            "redirect to a file": {root: (302, {"Location": "file:///etc/shadow"}, b"")},
            "redirect to plain HTTP": {root: (302, {"Location": self.server.url.replace("https", "http") + root}, b"")},
            "redirect in a circle": {root: (302, {"Location": self.server.url + root}, b"")},
            "index is huge": {"/streams/v1/index.json": (200, {}, b" " * (17 << 20))},
            "index nests": {"/streams/v1/index.json": (200, {}, b"[" * 100000)},
            "index is a list": {"/streams/v1/index.json": (200, {}, b"[]")},
            "index names a path that leads up": {"/streams/v1/index.json": (200, {}, json.dumps({"index": {"a": {"datatype": "image-downloads", "path": "../../x"}}}).encode())},
            "list is cut": {listing: (200, {}, items.encode()[:200])},
            "the root is another": {root: (200, {}, b"x" * len(contents(root)))},
            "the root goes on": {root: (200, {}, contents(root) + b"x")},
            "the root is cut": {root: (200, {"Content-Length": str(len(contents(root)))}, contents(root)[:1000])},
            "the metadata is missing": {metadata: (404, {}, b"")},
        }
        for name, answers in cases.items():
            with self.subTest(case=name):
                self.server.answers = answers
                with self.assertRaises(ApiError):
                    self.create("hostile")
                self.assertEqual(self.api("GET", "/1.0/images"), [])
                self.assertEqual(self.api("GET", "/1.0/instances"), [])
                self.assertEqual(self.uploads(), [])
        self.server.answers = {}
        for source in (self.source(server=self.server.url.replace("https", "http")), self.source(server="file:///etc"), self.source(server="unix:///run/x"),
                       self.source(server="https://user@127.0.0.1/"), self.source(protocol="gopher"), self.source(server="https://169.254.169.254"),
                       self.source(certificate="-----BEGIN CERTIFICATE-----\nnot one\n-----END CERTIFICATE-----\n"), self.source("none/such"), self.source("../../x"),
                       {**self.source(), "alias": ""}):
            with self.subTest(source=source):
                with self.assertRaises(ApiError):
                    self.create("hostile", source)
                self.assertEqual(self.api("GET", "/1.0/instances"), [])
        self.create("fine")
        self.cli("delete", "fine")


if __name__ == "__main__":
    unittest.main(verbosity=2)
