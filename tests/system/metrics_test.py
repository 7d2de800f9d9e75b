"""/1.0/metrics with real guests of both kinds: the text is strict OpenMetrics, the numbers move, a guest that hangs delays nobody, and nothing is
measured when nobody asks."""
import os
import signal
import subprocess
import time
import unittest

import openmetrics
import support
from api import Api


class Metrics(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        support.enter_private_namespaces()
        container, vm = support.tiny_images()
        cls.daemon = support.Daemon()
        cls.api, cls.virga = Api(cls.daemon.socket), support.Client(cls.daemon, "virga")
        cls.virga("admin", "init", "--auto")
        for alias, path in (("tiny-c", container), ("tiny-v", vm)):
            cls.api.import_image(path, alias)

    @classmethod
    def tearDownClass(cls):
        left = cls.daemon.destroy()
        if left:
            raise AssertionError(f"left behind: {left}")

    def scrape(self, query="", status=200):
        code, text = self.api.raw("GET", "/1.0/metrics" + query)
        self.assertEqual(code, status, text)
        return openmetrics.parse(text.decode()) if status == 200 else text

    def test_both_kinds(self):
        self.virga("launch", "tiny-c", "c1", "-c", "limits.memory=128MiB")
        self.virga("launch", "tiny-v", "v1", "--vm", "-c", "limits.memory=128MiB")
        self.virga("exec", "v1", "--", "true")  # its agent is there
        families = self.scrape()
        for name, kind in (("c1", "container"), ("v1", "virtual-machine")):
            labels = {"name": name, "project": "default", "type": kind}
            self.assertEqual(openmetrics.values(families, "incus_memory_MemTotal_bytes", **labels), [128 << 20], name)
            self.assertGreater(sum(openmetrics.values(families, "incus_cpu_seconds_total", **labels)), 0, name)
            self.assertGreaterEqual(openmetrics.values(families, "incus_procs_total", **labels)[0], 1, name)
            self.assertEqual(len(openmetrics.values(families, "incus_network_receive_bytes_total", device="eth0", **labels)), 1, name)
            self.assertEqual(len(openmetrics.values(families, "incus_memory_OOM_kills_total", **labels)), 1, name)
        self.assertGreater(openmetrics.values(families, "incus_disk_reads_completed_total", name="v1")[0], 0)
        self.assertGreater(openmetrics.values(families, "incus_filesystem_size_bytes", name="c1", mountpoint="/")[0], 0)
        self.assertEqual(len(openmetrics.values(families, "incus_memory_RSS_bytes", name="c1")), 1)
        self.assertEqual(len(openmetrics.values(families, "incus_operations_total")), 1)
        self.assertGreaterEqual(openmetrics.values(families, "incus_uptime_seconds")[0], 0)

        # A guest that works shows it at the next pass.
        before = sum(openmetrics.values(families, "incus_cpu_seconds_total", name="c1"))
        self.virga("exec", "c1", "--", "sh", "-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done")
        support.wait_until(lambda: sum(openmetrics.values(self.scrape(), "incus_cpu_seconds_total", name="c1")) > before + 0.02, what="more CPU time")

        # Another project sees nothing of it, and the internal numbers come with all projects only.
        self.virga("project", "create", "other")
        self.assertEqual(self.scrape("?project=other"), {})
        self.scrape("?project=nowhere", status=404)

        # QEMU that hangs: the scrape is as fast as ever, with the last sample.
        pid = self.api("GET", "/1.0/instances/v1/state")["pid"]
        os.kill(pid, signal.SIGSTOP)
        try:
            end, slowest, seen = time.monotonic() + 14, 0, 0
            while time.monotonic() < end:
                began = time.monotonic()
                seen += len(openmetrics.values(self.scrape(), "incus_procs_total", name="c1"))
                slowest = max(slowest, time.monotonic() - began)
                time.sleep(0.2)
            self.assertLess(slowest, 1)
            self.assertGreater(seen, 10)
        finally:
            os.kill(pid, signal.SIGCONT)

        # The same after the daemon was killed: the guests run on, and are sampled again.
        self.daemon.restart()
        families = self.scrape()
        self.assertEqual(len(openmetrics.values(families, "incus_procs_total")), 2, families)

    def test_certificates_of_type_metrics(self):
        self.virga("config", "set", "core.https_address", "127.0.0.1:8443")
        cert, key = os.path.join(self.daemon.base, "m.crt"), os.path.join(self.daemon.base, "m.key")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=prometheus", "-days", "2",
                        "-keyout", key, "-out", cert], check=True, capture_output=True)

        def get(path, *client):
            out = subprocess.run(["curl", "-sk", "-o", os.devnull, "-w", "%{http_code}", *client, "https://127.0.0.1:8443" + path], capture_output=True, text=True)
            return out.stdout

        mine = ("--cert", cert, "--key", key)
        self.assertEqual(get("/1.0/metrics", *mine), "403")
        self.assertEqual(get("/1.0/metrics"), "403")
        incus = support.Client(self.daemon, "incus")
        incus("config", "trust", "add-certificate", cert, "--type", "metrics")
        self.assertEqual(get("/1.0/metrics", *mine), "200")
        for path in ("/1.0/instances", "/1.0/events", "/1.0/operations", "/1.0/projects", "/1.0/certificates"):
            self.assertEqual(get(path, *mine), "403", path)
        self.assertEqual(get("/1.0/metrics"), "403")


if __name__ == "__main__":
    unittest.main(verbosity=2)
