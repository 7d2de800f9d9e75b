"""Attacks of a tenant: a TLS client whose certificate is restricted to the project "red", on a daemon where others live. S-numbers name the attack in the
list of the security guide. The routes are those of api/openapi.yaml, so that a new one is attacked from its first day."""
import base64
import contextlib
import functools
import gzip
import hashlib
import http.client
import json
import os
import re
import socket
import ssl
import struct
import subprocess
import tempfile
import threading
import time
import unittest

import support
from api import Api
from openapi import OpenApi

PORT = 18444
MARK = "not-for-tenants"


class World:
    """What is in "default" and "blue" is others'; "red" is the tenant's."""

    def __init__(self):
        support.enter_private_namespaces()
        self.tiny, _ = support.tiny_images()
        self.daemon = support.Daemon()
        self.api = Api(self.daemon.socket)
        self.cli = support.Client(self.daemon, "virga")
        self.cli("admin", "init", "--auto")
        self.api("PATCH", "/1.0", {"config": {"core.https_address": f"127.0.0.1:{PORT}"}})
        self.image = self.api.import_image(self.tiny, "tiny")
        self.api("PATCH", f"/1.0/images/{self.image}", {"properties": {"description": MARK}})
        self.network = [n["name"] for n in self.api("GET", "/1.0/networks?recursion=1") if n["managed"]][0]
        self.create("victim", description=MARK, start=True)
        self.api("POST", "/1.0/profiles", {"name": "inner", "description": MARK})
        for project in ("red", "blue"):
            self.api("POST", "/1.0/projects", {"name": project, "description": MARK if project == "blue" else "", "config": {"features.images": "true", "features.profiles": "true"}})
        devices = self.api("GET", "/1.0/profiles/default")["devices"]
        for project in ("red", "blue"):
            self.api("PUT", f"/1.0/profiles/default?project={project}", {"description": "", "config": {}, "devices": devices})
        # The same content under another fingerprint: what is the tenant's must not be taken for others'.
        self.image_of_red = self.upload(gzip.compress(gzip.decompress(support.contents(self.tiny)), compresslevel=1), "red")
        self.directory = tempfile.mkdtemp(prefix="tls.", dir=self.daemon.base)
        self.tenant = self.make_certificate("tenant")
        self.api("POST", "/1.0/certificates", {"name": "tenant", "certificate": self.pem("tenant"), "restricted": True, "projects": ["red"]})
        self.make_certificate("other")
        self.api("POST", "/1.0/certificates", {"name": "other", "certificate": self.pem("other"), "restricted": True, "projects": ["blue"]})

    def create(self, name, project="default", image=None, **more):
        return self.api("POST", f"/1.0/instances?project={project}", {"name": name, "source": {"type": "image", "fingerprint": image or self.image}, **more})

    def upload(self, data, project):
        status, text = self.api.raw("POST", f"/1.0/images?project={project}", data, {"Content-Type": "application/octet-stream", "X-Incus-filename": "x.tar.gz"})
        return self.api.wait(json.loads(text)["metadata"]["id"])["metadata"]["fingerprint"]

    def make_certificate(self, name):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}", "-days", "30", "-keyout", f"{self.directory}/{name}.key",
                        "-out", f"{self.directory}/{name}.crt"], check=True, capture_output=True)
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(self.pem(name))).hexdigest()

    def pem(self, name):
        return support.contents(f"{self.directory}/{name}.crt").decode()

    @functools.cache
    def context(self, name=None):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if name:
            context.load_cert_chain(f"{self.directory}/{name}.crt", f"{self.directory}/{name}.key")
        return context

    def ask(self, method, url, body=None, who="tenant", headers=None):
        """(status, text) as the tenant."""
        connection = http.client.HTTPSConnection("127.0.0.1", PORT, timeout=60, context=self.context(who))
        text = None if body is None else json.dumps(body)
        with contextlib.closing(connection):
            connection.request(method, url, body=text, headers={**({"Content-Type": "application/json"} if text else {}), **(headers or {})})
            response = connection.getresponse()
            return response.status, response.read().decode("utf-8")

    def outcome(self, method, url, body=None):
        """The code of the end of what the tenant asked for: of the answer, or of the operation."""
        status, text = self.ask(method, url, body)
        answer = json.loads(text)
        if answer["type"] != "async":
            return status, answer.get("error", "")
        done = self.api("GET", f"/1.0/operations/{answer['metadata']['id']}/wait?timeout=100")
        return done["status_code"], done["err"]


def setUpModule():
    global world
    world = World()


def tearDownModule():
    left = world.daemon.destroy()
    if left:
        raise AssertionError(f"left behind: {left}")


class TenantTest(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.before = self.others()

    def tearDown(self):
        self.assertIsNone(world.daemon.process.poll(), f"the daemon has ended:\n{world.daemon.tail()}")
        for instance in world.api("GET", "/1.0/instances?recursion=1&project=red"):
            if instance["status"] != "Stopped":
                world.api("PUT", f"/1.0/instances/{instance['name']}/state?project=red", {"action": "stop", "force": True})
            world.api("DELETE", f"/1.0/instances/{instance['name']}?project=red")
        self.assertEqual(self.others(), self.before, "the tenant changed what is others'")

    def others(self):
        """All that is not the tenant's, as an administrator sees it."""
        out = {}
        for project in ("default", "blue"):
            for noun in ("instances", "profiles", "images", "images/aliases"):
                out[project, noun] = world.api("GET", f"/1.0/{noun}?recursion=1&project={project}")
        for noun in ("networks", "storage-pools", "projects", "certificates"):
            out[noun] = [{k: v for k, v in o.items() if k != "used_by"} for o in world.api("GET", f"/1.0/{noun}?recursion=1") if o.get("name") != "red"]
        out["config"] = world.api("GET", "/1.0")["config"]
        out["pid"] = world.api("GET", "/1.0/instances/victim/state")["pid"]
        for image in out["default", "images"]:
            image.pop("last_used_at", None)
        return out


class Matrix(TenantTest):
    BODIES = {
        "/1.0/instances": {"name": "stolen", "source": {"type": "image", "alias": "tiny"}},
        "/1.0/instances/{name}": {"name": "stolen", "description": "stolen", "project": "red"},
        "/1.0/instances/{name}/state": {"action": "stop", "force": True},
        "/1.0/instances/{name}/exec": {"command": ["touch", "/stolen"]},
        "/1.0/projects": {"name": "stolen"},
        "/1.0/profiles": {"name": "stolen"},
        "/1.0/networks": {"name": "stolen"},
        "/1.0/storage-pools": {"name": "stolen", "driver": "dir"},
        "/1.0/certificates": {"name": "stolen", "type": "client", "token": True},
        "/1.0/certificates/{fingerprint}": {"restricted": False, "projects": [], "type": "client"},
        "/1.0": {"config": {"user.x": "stolen"}},
    }

    def names(self, path, theirs):
        """The path with others' names in it, or with ones that nobody has."""
        certificate = hashlib.sha256(ssl.PEM_cert_to_DER_cert(world.pem("other"))).hexdigest()
        noun = path.split("/")[2] if path.count("/") > 1 else ""
        real = {"instances": "victim", "profiles": "inner", "networks": world.network, "storage-pools": "default", "projects": "blue", "images": world.image, "certificates": certificate,
                "operations": self.operation, "warnings": "00000000-0000-4000-8000-000000000000"}
        made_up = {"instances": "victin", "profiles": "innes", "networks": "nonet", "storage-pools": "nopool", "projects": "blur", "images": "0123456789abcdef" * 4, "certificates": "fedcba98" * 8,
                   "operations": "00000000-0000-4000-8000-000000000001", "warnings": "00000000-0000-4000-8000-000000000001"}
        name = (real if theirs else made_up).get(noun, "x")
        out = path.replace("aliases/{name}", "aliases/" + ("tiny" if theirs else "tinz")).replace("{type}", "container").replace("{volume}", "victim" if theirs else "victin").replace("{file}", "console.log")
        return re.sub(r"\{[a-z_]+\}", name, out, count=1), name

    def test_every_route_with_others_names(self):
        """S30, S32: whatever the method, the route and the way in which a project is named, nothing of others' is shown or changed, and what is theirs looks like
        what does not exist."""
        status, text = world.api.raw("POST", "/1.0/instances/victim/exec", json.dumps({"command": ["sleep", "300"]}), {"Content-Type": "application/json"})
        self.operation = json.loads(text)["metadata"]["id"]
        # Belongs to the whole server, and may be read.
        shared = re.compile(r"/|/1\.0|/1\.0/(networks|storage-pools|resources|metadata).*")
        tried = 0
        try:
            for method, path, _ in OpenApi().operations():
                for query in ("", "project=default", "project=blue", "project=red", "all-projects=true", "all-projects=1&recursion=2", "project=red&recursion=1", "recursion=1&filter=name+ne+x"):
                    url, name = self.names(path, True)
                    if path.endswith(("/files", "/metadata/templates")):
                        query += ("&" if query else "") + "path=/etc/passwd" if path.endswith("/files") else ""
                    if path.endswith("/wait"):
                        query += ("&" if query else "") + "timeout=0"
                    body = self.BODIES.get(path, {}) if method in ("POST", "PUT", "PATCH") else None
                    if method == "POST" and query.startswith("project=red") and path.count("{") == 0:
                        continue  # what the tenant makes in his own project
                    with self.subTest(f"{method} {url}?{query}"):
                        tried += 1
                        status, text = world.ask(method, url + ("?" + query if query else ""), body)
                        self.assertLess(status, 600)
                        self.assertNotIn(status, (500, 502, 503), text)
                        self.assertNotIn(MARK, text)
                        if method not in ("GET", "HEAD"):
                            self.assertGreaterEqual(status, 400, text)
                        if status < 400 or shared.fullmatch(path):
                            self.assertNotIn("/1.0/instances/victim", text)
                            continue
                        nowhere, made_up = self.names(path, False)
                        other_status, other_text = world.ask(method, nowhere + ("?" + query if query else ""), body)
                        there = text.replace(url, "URL").replace("tiny", "ALIAS").replace("victim", "NAME")
                        not_there = other_text.replace(nowhere, "URL").replace("tinz", "ALIAS").replace("victin", "NAME").replace(made_up, "NAME")
                        self.assertEqual((status, there.replace(name, "NAME")), (other_status, not_there.replace(name, "NAME")))
        finally:
            world.api("DELETE", f"/1.0/operations/{self.operation}")
        self.assertGreater(tried, 500)
        self.assertNotIn("stolen", world.cli("exec", "victim", "--", "ls", "/"))

    def test_prefixes_tell_nothing(self):
        """S30: the beginnings of others' fingerprints and identifiers are no oracle."""
        for url, real in ((f"/1.0/images/{{}}", world.image), (f"/1.0/images/{{}}/export", world.image), ("/1.0/certificates/{}", hashlib.sha256(ssl.PEM_cert_to_DER_cert(world.pem("other"))).hexdigest())):
            project = "" if "certificates" in url else "?project=red"
            for length in (1, 2, 6, 12, 63):
                # The image of the tenant's own project is the same, so its prefix may be found there; in no other place.
                if "images" in url and world.image_of_red.startswith(real[:length]):
                    continue
                status, text = world.ask("GET", url.format(real[:length]) + project)
                self.assertEqual(status, 404, text)

    def test_uploads_and_transfers_stay_in_the_project(self):
        """S31: an image that is brought, published or aliased lands in the tenant's project or nowhere."""
        for url in ("/1.0/images", "/1.0/images?project=default", "/1.0/images?project=blue", "/1.0/images?all-projects=true"):
            for headers in ({"Content-Type": "application/octet-stream"}, {"Content-Type": "multipart/form-data; boundary=x"}, {"Content-Type": "application/json"}, {"X-Incus-secret": "0" * 64, "X-Incus-fingerprint": "0" * 64}):
                with self.subTest(url=url, headers=headers):
                    status, text = world.ask("POST", url, {"source": {"type": "instance", "name": "victim"}}, headers=headers)
                    self.assertIn(status, (400, 403, 404), text)
        for source in ({"type": "instance", "name": "victim"}, {"type": "instance", "name": "victim", "project": "default"}, {"type": "container", "name": "../victim"}, {"type": "instance", "name": "victim", "project": "red"}):
            code, error = world.outcome("POST", "/1.0/images?project=red", {"source": source})
            self.assertIn(code, (400, 404, 501), error)
        for target in (f"https://127.0.0.1:{PORT}", "https://localhost:1", "https://169.254.169.254", "https://10.0.0.1", "https://[::1]:1", "https://[::ffff:127.0.0.1]:1", "http://127.0.0.1:1", "file:///etc/passwd",
                       "https://a@127.0.0.1", "https://2130706433", "https://0x7f000001", "https://127.1"):
            for body in ({"source": {"type": "image", "mode": "pull", "protocol": "incus", "server": target, "fingerprint": "0" * 64}}, {"source": {"type": "image", "mode": "pull", "protocol": "simplestreams", "server": target, "alias": "x"}}):
                with self.subTest(target=target, protocol=body["source"]["protocol"]):
                    code, error = world.outcome("POST", "/1.0/images?project=red", body)
                    self.assertIn(code, (400, 403), error)
            with self.subTest(target=target, push=True):
                code, error = world.outcome("POST", f"/1.0/images/{world.image_of_red}/export?project=red", {"target": target, "secret": "0" * 64})
                self.assertIn(code, (400, 403), error)
            with self.subTest(target=target, create=True):
                code, error = world.outcome("POST", "/1.0/instances?project=red", {"name": "far", "source": {"type": "image", "mode": "pull", "protocol": "simplestreams", "server": target, "alias": "x"}})
                self.assertIn(code, (400, 403), error)


class Limits(TenantTest):
    def setUp(self):
        super().setUp()
        world.api("PATCH", "/1.0/projects/red", {"config": {"restricted": "true", "limits.instances": "3", "limits.memory": "300MiB", "limits.processes": "1000"}})

    def tearDown(self):
        super().tearDown()  # removes the instances
        world.api("PUT", "/1.0/projects/red", {"description": "", "config": {"features.images": "true", "features.profiles": "true"}})

    def make(self, name, **more):
        config = {"limits.memory": "32MiB", "limits.processes": "100", **more.pop("config", {})}
        return world.outcome("POST", "/1.0/instances?project=red", {"name": name, "source": {"type": "image", "fingerprint": world.image_of_red}, "config": config, **more})

    def at_once(self, calls):
        results = [None] * len(calls)
        threads = [threading.Thread(target=lambda i=i: results.__setitem__(i, calls[i]())) for i in range(len(calls))]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        return results

    def test_limits_hold_under_races(self):
        """S31: many at once get no more than one after the other would."""
        results = self.at_once([lambda i=i: self.make(f"race{i}") for i in range(10)])
        self.assertEqual(len([1 for code, _ in results if code == 200]), 3, results)
        self.assertEqual(len(world.api("GET", "/1.0/instances?project=red")), 3)
        names = [i["name"] for i in world.api("GET", "/1.0/instances?recursion=1&project=red")]
        # Each may grow alone; together they may not.
        results = self.at_once([lambda n=n: world.outcome("PATCH", f"/1.0/instances/{n}?project=red", {"config": {"limits.memory": "200MiB"}}) for n in names])
        total = sum(int(i["config"]["limits.memory"].removesuffix("MiB")) for i in world.api("GET", "/1.0/instances?recursion=1&project=red"))
        self.assertLessEqual(total, 300, results)
        # By a profile instead, while another instance is changed and one is renamed.
        world.api("POST", "/1.0/profiles?project=red", {"name": "big"})
        try:
            calls = [lambda: world.outcome("PATCH", "/1.0/profiles/big?project=red", {"config": {"limits.memory": "250MiB"}}),
                     lambda: world.outcome("PUT", f"/1.0/instances/{names[0]}?project=red", {"profiles": ["default", "big"], "config": {"limits.processes": "100"}}),
                     lambda: world.outcome("POST", f"/1.0/instances/{names[1]}?project=red", {"name": "renamed"}),
                     lambda: world.outcome("DELETE", f"/1.0/instances/{names[2]}?project=red"), lambda: self.make("late"), lambda: self.make("later")]
            results = self.at_once(calls)
            instances = world.api("GET", "/1.0/instances?recursion=1&project=red")
            self.assertLessEqual(len(instances), 3, results)
            self.assertLessEqual(sum(int(i["expanded_config"]["limits.memory"].removesuffix("MiB")) for i in instances), 300, results)
        finally:
            for i in world.api("GET", "/1.0/instances?project=red"):
                world.api("DELETE", i if "project=" in i else i + "?project=red")
            world.api("DELETE", "/1.0/profiles/big?project=red")

    def test_nothing_that_reaches_the_host(self):
        """S22, S23, S24, S31: keys and devices that reach the host are refused by each way in which an instance gets them."""
        code, error = self.make("guest")
        self.assertEqual(code, 200, error)
        config = [{"security.privileged": "true"}, {"security.nesting": "true"}, {"raw.lxc": "lxc.hook.start=/x"}, {"raw.qemu": "-S"}, {"raw.idmap": "both 0 0"}, {"raw.apparmor": "x"}, {"raw.seccomp": "x"},
                  {"linux.kernel_modules": "x"}, {"linux.sysctl.kernel.core_pattern": "|/x"}, {"security.syscalls.intercept.mount": "true"}, {"security.idmap.base": "0"}, {"security.idmap.isolated": "maybe"},
                  {"boot.host_shutdown_action": "x"}, {"volatile.uuid": "x"}, {"volatile.idmap.base": "0"}, {"limits.kernel.nofile": "1"}, {"limits.memory": "301MiB"}, {"limits.memory": ""}, {"limits.processes": "1001"}]
        devices = [{"type": "disk", "source": "/", "path": "/mnt"}, {"type": "disk", "source": "/dev/sda", "path": "/mnt"}, {"type": "disk", "pool": "default", "source": "../containers/victim", "path": "/mnt"},
                   {"type": "disk", "pool": "default", "path": "/", "source": "victim"}, {"type": "disk", "pool": "default", "path": "/", "raw.mount.options": "suid"},
                   {"type": "unix-char", "source": "/dev/mem", "path": "/dev/mem"}, {"type": "unix-block", "source": "/dev/sda", "path": "/dev/sda"}, {"type": "unix-hotplug"}, {"type": "usb"}, {"type": "gpu"},
                   {"type": "pci", "address": "0000:00:00.0"}, {"type": "tpm", "path": "/dev/tpm0"}, {"type": "infiniband"}, {"type": "proxy", "listen": "tcp:0.0.0.0:1", "connect": "unix:/run/x"},
                   {"type": "nic", "nictype": "physical", "parent": "lo"}, {"type": "nic", "nictype": "macvlan", "parent": "lo"}, {"type": "nic", "nictype": "bridged", "parent": world.network},
                   {"type": "nic", "nictype": "sriov", "parent": "lo"}, {"type": "nic", "nictype": "routed", "parent": "lo"}]
        sets = [{"config": c} for c in config] + [{"devices": {"x": d}} for d in devices] + [{"devices": {"root": d}} for d in devices]
        fine = ({"limits.memory": ""},)
        for one in sets:
            with self.subTest(str(one)):
                kept = {"limits.memory": "32MiB", "limits.processes": "100"}
                whole = {**one, "config": {**kept, **one.get("config", {})}}
                ways = [("POST", "/1.0/instances?project=red", {"name": "made", "source": {"type": "image", "fingerprint": world.image_of_red}, **whole}), ("PUT", "/1.0/instances/guest?project=red", whole),
                        ("PATCH", "/1.0/instances/guest?project=red", one), ("POST", "/1.0/instances/guest?project=red", {"name": "guest2", "project": "red", **whole})]
                if one.get("config") not in fine and not any(k.startswith("limits.") for k in one.get("config", {})):
                    ways += [("POST", "/1.0/profiles?project=red", {"name": "made", **one}), ("PATCH", "/1.0/profiles/default?project=red", one), ("PUT", "/1.0/profiles/default?project=red", one)]
                for method, url, body in ways:
                    code, error = world.outcome(method, url, body)
                    self.assertIn(code, (400, 403, 404, 501), f"{method} {url} {body}: {error}")
        self.assertEqual(world.api("GET", "/1.0/instances?project=red"), ["/1.0/instances/guest?project=red"])
        self.assertEqual(world.api("GET", "/1.0/instances/guest?project=red")["expanded_devices"], world.api("GET", "/1.0/profiles/default?project=red")["devices"])


class Sockets(TenantTest):
    def websocket(self, url, who="tenant", headers=""):
        raw = socket.create_connection(("127.0.0.1", PORT), timeout=20)
        s = world.context(who).wrap_socket(raw)
        s.sendall(f"GET {url} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\n{headers}\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            piece = s.recv(4096)
            if not piece:
                break
            head += piece
        return s, head

    def test_streams_of_events_show_the_own_project_only(self):
        """S30, S45: events of others, and secrets, are in no stream."""
        streams = []
        for query in ("?project=red", "?all-projects=true", "?project=red&type=operation,lifecycle,logging"):
            s, head = self.websocket("/1.0/events" + query)
            self.assertTrue(head.startswith(b"HTTP/1.1 101"), head)
            streams.append(s)
        for query in ("", "?project=default", "?project=blue", "?type=logging"):
            s, head = self.websocket("/1.0/events" + query)
            self.assertTrue(head.startswith(b"HTTP/1.1 404"), head)
            s.close()
        status, text = world.api.raw("POST", "/1.0/instances/victim/exec", json.dumps({"command": ["true"], "wait-for-websocket": True}), {"Content-Type": "application/json"})
        theirs = json.loads(text)["metadata"]
        world.create("mine", "red", world.image_of_red)
        time.sleep(0.5)
        for s in streams:
            s.settimeout(1)
            seen = b""
            with contextlib.suppress(OSError):
                while True:
                    piece = s.recv(65536)
                    if not piece:
                        break
                    seen += piece
            s.close()
            self.assertIn(b"mine", seen)
            for word in ("victim", theirs["id"], *theirs["metadata"]["fds"].values()):
                self.assertNotIn(word.encode(), seen)
        # Another's command, with its secret.
        for secret in theirs["metadata"]["fds"].values():
            s, head = self.websocket(f"/1.0/operations/{theirs['id']}/websocket?secret={secret}")
            self.assertTrue(head.startswith(b"HTTP/1.1 404"), head)
            s.close()
        world.api("DELETE", f"/1.0/operations/{theirs['id']}")

    def test_a_stream_ends_with_the_trust_that_opened_it(self):
        """S34: also one that a bearer token has opened, on a connection that showed no certificate."""
        name = "leaver"
        fingerprint = world.make_certificate(name)
        b64 = lambda b: base64.urlsafe_b64encode(b).rstrip(b"=").decode()

        def token(header, claims, key=None):
            text = b64(json.dumps(header).encode()) + "." + b64(json.dumps(claims).encode())
            if key is None:
                return text + "."
            der = subprocess.run(["openssl", "dgst", "-sha256", "-sign", f"{world.directory}/{key}.key"], input=text.encode(), capture_output=True, check=True).stdout
            length = der[3]
            r, rest = der[4:4 + length], der[4 + length:]
            numbers = b"".join(n.lstrip(b"\0").rjust(32, b"\0") for n in (r, rest[2:2 + rest[1]]))
            return text + "." + b64(numbers)

        now = int(time.time())
        good = {"sub": fingerprint, "iat": now, "nbf": now - 60, "exp": now + 600}
        for restricted in (True, False):
            world.api("POST", "/1.0/certificates", {"name": name, "certificate": world.pem(name), "restricted": restricted, "projects": ["red"] if restricted else []})
            bearer = "Authorization: Bearer " + token({"alg": "ES256", "typ": "JWT"}, good, name) + "\r\n"
            s, head = self.websocket("/1.0/events?project=red", who=None, headers=bearer)
            self.assertTrue(head.startswith(b"HTTP/1.1 101"), head)
            # S34: forged ones open nothing.
            for header, claims, key in (({"alg": "none"}, good, None), ({"alg": "ES256"}, good, "tenant"), ({"alg": "RS256"}, good, name), ({"alg": "HS256"}, good, name), ({"alg": "ES256"}, {**good, "exp": now - 1}, name),
                                        ({"alg": "ES256"}, {**good, "exp": None}, name), ({"alg": "ES256"}, {**good, "nbf": now + 500}, name), ({"alg": "ES256"}, {**good, "sub": world.tenant}, name),
                                        ({"alg": "ES256", "crit": ["x"]}, good, name), ({"alg": ["ES256"]}, good, name)):
                status, text = world.ask("GET", "/1.0/instances?project=red", who=None, headers={"Authorization": "Bearer " + token(header, claims, key)})
                self.assertEqual(status, 403, (header, claims, text))
            world.api("DELETE", f"/1.0/certificates/{fingerprint}")
            s.settimeout(10)
            with s, contextlib.suppress(ConnectionError, ssl.SSLError):
                while s.recv(4096):
                    pass  # ends, or the test times out

    def test_frames_that_break_the_protocol(self):
        """S40: a WebSocket that is not masked, too long, out of order or cut in a thousand pieces costs its own connection only."""
        mask = b"\1\2\3\4"

        def frame(opcode, payload=b"", final=True, masked=True, length=None):
            n = len(payload) if length is None else length
            head = bytes([(0x80 if final else 0) | opcode])
            bit = 0x80 if masked else 0
            head += bytes([bit | n]) if n < 126 else bytes([bit | 126]) + struct.pack(">H", n) if n < 65536 else bytes([bit | 127]) + struct.pack(">Q", n)
            return head + (mask + bytes(c ^ mask[i & 3] for i, c in enumerate(payload)) if masked else payload)

        cases = {"unmasked": frame(1, b"x", masked=False), "huge": frame(2, b"", length=1 << 62), "over the limit": frame(2, b"", length=64 << 20), "unknown": frame(3, b"x"), "reserved": b"\xf1\x81" + mask + b"x",
                 "a long ping": frame(9, b"x" * 125 + b"y"), "a cut ping": frame(9, b"x", final=False), "continues nothing": frame(0, b"x"), "begins twice": frame(1, b"x", final=False) + frame(1, b"y"),
                 "no text": frame(1, b"\xff\xfe"), "short close": frame(8, b"x"), "a bad code": frame(8, b"\0\1"), "overlong": b"\x82\xfe\0\1" + mask + b"x"}
        for what, data in cases.items():
            with self.subTest(what):
                s, head = self.websocket("/1.0/events?project=red")
                self.assertTrue(head.startswith(b"HTTP/1.1 101"), head)
                s.settimeout(8)
                with s, contextlib.suppress(ConnectionError, ssl.SSLError):
                    s.sendall(data)
                    while s.recv(4096):
                        pass
        # Pieces without end add up to no more than a message may have.
        s, head = self.websocket("/1.0/events?project=red")
        s.settimeout(20)
        with s, contextlib.suppress(ConnectionError, ssl.SSLError, BrokenPipeError):
            s.sendall(frame(2, b"x" * 60_000, final=False))
            for _ in range(200):
                s.sendall(frame(0, b"x" * 60_000, final=False))
            while s.recv(4096):
                pass
        self.assertEqual(world.ask("GET", "/1.0/instances?project=red")[0], 200)


if __name__ == "__main__":
    unittest.main(verbosity=2)
