"""api/openapi.yaml and the daemon say the same: every route is in both, and what the daemon answers is what the file describes."""
import json
import os
import re
import subprocess
import unittest

import support
from api import Api
from openapi import OpenApi


class OpenApiTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        support.enter_private_namespaces()
        container, _ = support.tiny_images()
        cls.file = OpenApi()
        cls.daemon = support.Daemon()
        cls.api = Api(cls.daemon.socket)
        support.Client(cls.daemon, "virga")("admin", "init", "--auto")
        cls.fingerprint = cls.api.import_image(container, "tiny")
        cls.api("POST", "/1.0/instances", {"name": "c1", "start": True, "source": {"type": "image", "alias": "tiny"}})
        cls.api("POST", "/1.0/certificates", {"name": "joiner", "type": "client", "token": True}, wait=False)
        # Placeholders stand for what there is.
        network = next(n["name"] for n in cls.api("GET", "/1.0/networks?recursion=1") if n["managed"])
        operations = cls.api("GET", "/1.0/operations")["success"]
        cls.names = {"/1.0/instances/": "c1", "/1.0/images/aliases/": "tiny", "/1.0/images/": cls.fingerprint, "/1.0/networks/": network,
                     "/1.0/storage-pools/": "default", "/1.0/projects/": "default", "/1.0/profiles/": "default",
                     "/1.0/operations/": operations[0].rsplit("/", 1)[1]}

    @classmethod
    def tearDownClass(cls):
        cls.daemon.stop()  # forgets the token; the guest runs on
        left = cls.daemon.destroy()
        if left:
            raise AssertionError(f"left behind: {left}")

    def test_every_route_is_described_and_nothing_else(self):
        served = subprocess.run([os.path.join(support.BIN, "virgad"), "--list-routes"], capture_output=True, text=True, check=True).stdout.split("\n")
        self.assertEqual(set(filter(None, served)) - self.file.routes(), set(), "these are served and not described in api/openapi.yaml")
        self.assertEqual(self.file.routes() - set(served), set(), "these are described in api/openapi.yaml and not served")

    def test_all_references_resolve(self):
        text = json.dumps(self.file.document)
        for reference in set(re.findall(r'"\$ref": "([^"]+)"', text)):
            self.file.resolve({"$ref": reference})

    def url(self, path):
        for prefix, name in self.names.items():
            if path.startswith(prefix + "{"):
                path = re.sub(r"\{\w+\}", name, path, count=1)
                break
        return path.replace("{type}", "container").replace("{volume}", "c1").replace("{file}", "init.log")

    def test_answers_are_as_described(self):
        looked = 0
        for method, path, operation in self.file.operations():
            schema = self.file.answer(operation, 200) if method == "GET" else None
            url = self.url(path)
            if schema is None or "{" in url:
                continue
            # The operation that stands for all is a token's, which does not end by itself.
            for query in ("?timeout=0",) if url.endswith("/wait") else ("", "?recursion=1", "?recursion=2"):
                with self.subTest(url=url + query):
                    status, text = self.api.raw("GET", url + query)
                    self.assertEqual(status, 200, text[:300])
                    self.assertEqual(self.file.problems(schema, json.loads(text)), [])
                    looked += 1
        self.assertGreater(looked, 80)

    def test_refusals_are_as_described(self):
        error = {"$ref": "#/components/schemas/Error"}
        for method, url, body, code in (("GET", "/1.0/instances/none", None, 404), ("POST", "/1.0/profiles", b"{", 400), ("POST", "/1.0/profiles", b'{"name":"default"}', 409),
                                        ("DELETE", "/1.0", None, 405), ("GET", "/1.0/instances?filter=(", None, 400)):
            with self.subTest(method=method, url=url):
                status, text = self.api.raw(method, url, body, {"Content-Type": "application/json"})
                self.assertEqual(status, code, text)
                answer = json.loads(text)
                self.assertEqual(self.file.problems(error, answer), [])
                self.assertEqual(answer["error_code"], status)

    def test_operations_are_as_described(self):
        status, text = self.api.raw("PUT", "/1.0/instances/c1/state", b'{"action":"freeze"}', {"Content-Type": "application/json"})
        self.assertEqual(status, 202, text)
        answer = json.loads(text)
        self.assertEqual(self.file.problems({"$ref": "#/components/schemas/Async"}, answer), [])
        done = self.api.wait(answer["metadata"]["id"])
        self.assertEqual(self.file.problems({"$ref": "#/components/schemas/Operation"}, done), [])
        self.api("PUT", "/1.0/instances/c1/state", {"action": "unfreeze"})


if __name__ == "__main__":
    unittest.main(verbosity=2)
