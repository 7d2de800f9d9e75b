"""Operations with real guests: cancelling one undoes it wherever it was, and what has ended is listed with its outcome after a restart of the
daemon, a kill included."""
import random
import time
import unittest

import support
from api import Api, ApiError, Disconnected


class Operations(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        support.enter_private_namespaces()
        cls.images = support.tiny_images()
        cls.daemon = support.Daemon()
        cls.api = Api(cls.daemon.socket)
        cls.virga, cls.incus = support.Client(cls.daemon, "virga"), support.Client(cls.daemon, "incus")
        cls.virga("admin", "init", "--auto")
        cls.fingerprints = {k: cls.api.import_image(p, f"tiny-{k}") for k, p in zip(("container", "virtual-machine"), cls.images)}

    @classmethod
    def tearDownClass(cls):
        left = cls.daemon.destroy()
        if left:
            raise AssertionError(f"left behind: {left}")

    def body(self, name, kind, start=False):
        return {"name": name, "type": kind, "start": start, "config": {"limits.memory": "128MiB"}, "source": {"type": "image", "fingerprint": self.fingerprints[kind]}}

    def begin(self, method, url, data):
        return self.api(method, url, data, wait=False)["id"]

    def end(self, operation):
        return self.api("GET", f"/1.0/operations/{operation}/wait?timeout=60")

    def cancel(self, operation):
        try:
            self.api("DELETE", f"/1.0/operations/{operation}")
        except ApiError as error:
            self.assertIn(error.code, (400, 409), str(error))  # it has ended, or is past the point of return

    def test_a_cancelled_creation_leaves_nothing(self):
        before, cancelled = support.leftovers(self.daemon), 0
        rng = random.Random(3)
        for kind in ("container", "virtual-machine"):
            for n in range(10):
                name = f"x{kind[0]}{n}"
                operation = self.begin("POST", "/1.0/instances", self.body(name, kind, start=True))
                time.sleep(rng.choice([0, 0.002, 0.01, 0.03, 0.06, 0.12]))
                self.cancel(operation)
                done = self.end(operation)
                if done["status"] == "Success":
                    self.api("PUT", f"/1.0/instances/{name}/state", {"action": "stop", "force": True})
                    self.api("DELETE", f"/1.0/instances/{name}")
                else:
                    cancelled += 1
                    self.assertEqual((done["status"], done["status_code"]), ("Cancelled", 401), done)
                    self.assertFalse(self.api.exists(f"/1.0/instances/{name}"))
                # Unpacking an image is shared by all who wait for it: its end is nobody's operation.
                support.wait_until(lambda: support.leftovers(self.daemon) == before, timeout=20, what="a clean host")
        self.assertGreaterEqual(cancelled, 4)

    def test_a_cancelled_start_leaves_a_stopped_guest_that_starts(self):
        rng, cancelled = random.Random(4), 0
        for kind in ("container", "virtual-machine"):
            name = "s" + kind[0]
            self.api("POST", "/1.0/instances", self.body(name, kind))
            before = support.leftovers(self.daemon)
            for _ in range(8):
                operation = self.begin("PUT", f"/1.0/instances/{name}/state", {"action": "start"})
                time.sleep(rng.choice([0, 0.005, 0.02, 0.05, 0.1]))
                self.cancel(operation)
                done = self.end(operation)
                if done["status"] == "Success":
                    self.api("PUT", f"/1.0/instances/{name}/state", {"action": "stop", "force": True})
                else:
                    cancelled += 1
                    self.assertEqual(done["status"], "Cancelled", done)
                self.assertEqual(self.api("GET", f"/1.0/instances/{name}")["status"], "Stopped")
                self.assertEqual(support.leftovers(self.daemon), before)
            self.api("PUT", f"/1.0/instances/{name}/state", {"action": "start"})
            support.wait_until(lambda: self.virga.run("exec", name, "--", "true").returncode == 0, timeout=150, what="a guest that answers")
            self.virga("delete", "--force", name)
        self.assertGreaterEqual(cancelled, 2)

    def test_what_has_ended_is_listed_after_a_restart(self):
        self.api("POST", "/1.0/instances", self.body("l1", "container"))
        with self.assertRaises(ApiError):
            self.api("POST", "/1.0/instances", self.body("l1", "container"))
        stop = self.begin("PUT", "/1.0/instances/l1/state", {"action": "start"})
        self.end(stop)
        run = self.begin("POST", "/1.0/instances/l1/exec", {"command": ["true"], "environment": {"SECRET": "hush"}, "wait-for-websocket": False})
        self.end(run)
        self.virga("delete", "--force", "l1")
        self.daemon.stop()
        self.daemon.start()
        for client in (self.virga, self.incus):
            rows = client.json("operation", "list") if client is self.virga else None
            text = client("operation", "list")
            self.assertIn(stop, text)
            self.assertIn("SUCCESS", text)
            if rows:
                self.assertIn("Starting instance", {r["description"] for r in rows})
            self.assertIn("Success", client("operation", "show", run))
        self.assertNotIn("hush", self.api.raw("GET", f"/1.0/operations/{run}")[1].decode())
        self.assertEqual(self.end(stop)["status_code"], 200)
        self.virga.fails("operation", "delete", stop)
        # One that the daemon's death interrupted is settled by the journal, and says so.
        self.daemon.kill()
        self.daemon.start(env={"VIRGA_FAULT_KILL": "instance-create.3.volume.after"})
        operation = None
        try:
            operation = self.begin("POST", "/1.0/instances", self.body("l2", "container"))
            self.end(operation)
            self.fail("the daemon lives on: is the fault point still called so, and has this build any?")
        except (Disconnected, ConnectionError, ValueError):
            pass
        self.assertTrue(self.daemon.wait_dead())
        self.daemon.start()
        self.assertFalse(self.api.exists("/1.0/instances/l2"))
        if operation:
            done = self.api("GET", f"/1.0/operations/{operation}")
            self.assertEqual(done["status"], "Failure")
            self.assertIn("taken back", done["err"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
