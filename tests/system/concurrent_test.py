"""A hundred mixed operations at once over twenty guests leave the right state and nothing else."""
import os
import random
import threading
import unittest

import support
from api import Api, ApiError

SEED = int(os.environ.get("VIRGA_SEED", "1"))


class Concurrent(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        support.enter_private_namespaces()
        cls.images = support.tiny_images()
        cls.daemon = support.Daemon()
        cls.api = Api(cls.daemon.socket)
        support.Client(cls.daemon, "virga")("admin", "init", "--auto")
        cls.fingerprints = {k: cls.api.import_image(p, f"tiny-{k}") for k, p in zip(("container", "virtual-machine"), cls.images)}

    @classmethod
    def tearDownClass(cls):
        left = cls.daemon.destroy()
        if left:
            raise AssertionError(f"left behind: {left}")

    def at_once(self, jobs):
        """Runs all jobs in threads of their own and returns what each returned or raised."""
        results = [None] * len(jobs)

        def work(n):
            try:
                results[n] = jobs[n]()
            except Exception as error:  # each is looked at by the test
                results[n] = error

        threads = [threading.Thread(target=work, args=(n,)) for n in range(len(jobs))]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        return results

    def create(self, name, kind):
        return self.api("POST", "/1.0/instances", {"name": name, "type": kind, "config": {"limits.memory": "64MiB"},
                                                   "source": {"type": "image", "fingerprint": self.fingerprints[kind]}})

    def state(self, name, action):
        return self.api("PUT", f"/1.0/instances/{name}/state", {"action": action, "force": True})

    def test_mixed(self):
        kinds = {f"g{n}": ("virtual-machine" if n % 5 == 0 else "container") for n in range(20)}
        failed = [r for r in self.at_once([lambda n=n, k=k: self.create(n, k) for n, k in kinds.items()]) if isinstance(r, Exception)]
        self.assertEqual(failed, [])
        addresses = [n["volatile.eth0.hwaddr"] for n in (i["config"] for i in self.api("GET", "/1.0/instances?recursion=1"))]
        self.assertEqual(len(set(addresses)), 20, "each NIC has its own address")

        rng = random.Random(SEED)
        jobs = []
        for _ in range(100):
            name = rng.choice(list(kinds))
            action = rng.choice(["start", "start", "stop", "restart", "freeze", "unfreeze", "get", "put"])
            if action == "get":
                jobs.append(lambda name=name: self.api("GET", f"/1.0/instances/{name}/state"))
            elif action == "put":
                jobs.append(lambda name=name: self.api("PATCH", f"/1.0/instances/{name}", {"config": {"user.x": "1"}}))
            else:
                jobs.append(lambda name=name, action=action: self.state(name, action))
        for result in self.at_once(jobs):
            if isinstance(result, Exception):
                # Refusals are right (busy, running already, not running); anything else is not.
                self.assertIsInstance(result, ApiError)
                self.assertIn(result.code, (400, 409, 423, 503), str(result))
                self.assertNotIn("internal", result.message)

        # What the API says is what is.
        for instance in self.api("GET", "/1.0/instances?recursion=1"):
            pid = self.api("GET", f"/1.0/instances/{instance['name']}/state")["pid"]
            if instance["status"] in ("Running", "Frozen"):
                self.assertTrue(os.path.exists(f"/proc/{pid}"), instance["name"])
            else:
                self.assertEqual(instance["status"], "Stopped", instance["name"])
                self.assertLessEqual(pid, 0)
        failed = [r for r in self.at_once([lambda n=n: self.settle(n) for n in kinds]) if isinstance(r, Exception)]
        self.assertEqual(failed, [])
        self.assertEqual(self.api("GET", "/1.0/instances"), [])

    def settle(self, name):
        status = self.api("GET", f"/1.0/instances/{name}")["status"]
        if status != "Stopped":
            self.state(name, "stop")
        self.api("DELETE", f"/1.0/instances/{name}")


if __name__ == "__main__":
    unittest.main(verbosity=2)
