"""Warnings as a person meets them, with both command lines: what the host lacks, a DHCP service that died, firewall rules that somebody removed, an
instance that cannot start with its host; they count, survive the daemon, are acknowledged and deleted."""
import os
import signal
import subprocess
import unittest

import support
from api import Api


class Warnings(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        support.enter_private_namespaces()
        cls.images = support.tiny_images()
        cls.daemon = support.Daemon()
        cls.api = Api(cls.daemon.socket)
        cls.virga, cls.incus = support.Client(cls.daemon, "virga"), support.Client(cls.daemon, "incus")
        cls.virga("admin", "init", "--auto")

    @classmethod
    def tearDownClass(cls):
        left = cls.daemon.destroy()
        if left:
            raise AssertionError(f"left behind: {left}")

    def of_type(self, words):
        return [w for w in self.api("GET", "/1.0/warnings?recursion=1") if words in w["type"]]

    def test_a_service_that_died_and_rules_that_went(self):
        network = self.api("GET", "/1.0/networks?recursion=1")
        bridge = next(n["name"] for n in network if n["managed"])
        for count in (1, 2):
            pid = next(p for p, c in support.processes_naming(self.daemon.state).items() if "dnsmasq" in c)
            os.kill(pid, signal.SIGKILL)
            warning = support.wait_until(lambda: [w for w in self.of_type("Network service") if w["count"] == count], what="a warning")[0]
        self.assertEqual(warning["entity_url"], f"/1.0/networks/{bridge}")
        self.assertEqual((warning["status"], warning["severity"], warning["location"]), ("new", "moderate", "none"))
        subprocess.run(["nft", "flush", "ruleset"], check=True)
        repaired = support.wait_until(lambda: self.of_type("Firewall rules"), what="a warning")[0]
        for client in (self.incus, self.virga):
            table = client("warning", "list")
            self.assertIn(repaired["uuid"], table)
            self.assertIn("HIGH", table)
            self.assertIn("/1.0/networks/", client("warning", "show", warning["uuid"]))
        self.incus("warning", "ack", warning["uuid"])
        self.virga("warning", "acknowledge", repaired["uuid"])
        self.daemon.restart()
        for client in (self.incus, self.virga):
            self.assertNotIn(repaired["uuid"], client("warning", "list"))
            self.assertIn("ACKNOWLEDGED", client("warning", "list", "--all"))
        self.incus("warning", "delete", warning["uuid"])
        self.virga("warning", "delete", repaired["uuid"])
        self.assertIn("not found", self.incus.fails("warning", "show", warning["uuid"]))
        self.assertEqual(self.of_type("Firewall rules"), [])
        code, _ = self.api.raw("PUT", "/1.0/warnings/nope", "{}", {"Content-Type": "application/json"})
        self.assertEqual(code, 404)

    def test_what_the_host_lacks(self):
        # Debian 12's runc has known escapes, and where there is no KVM virtual machines are emulated: the daemon said so at its start.
        listed = {w["type"]: w for w in self.api("GET", "/1.0/warnings?recursion=1")}
        if not os.access("/dev/kvm", os.R_OK) or "vmx" not in support.contents("/proc/cpuinfo").decode() + "svm":
            self.assertIn("TCG", listed["Virtual machines are limited on this host"]["last_message"])
        uuid = next(iter(listed.values()))["uuid"]
        for status, code in (("resolved", 403), ("gone", 400), ("acknowledged", 200), ("new", 200)):
            got, _ = self.api.raw("PATCH", f"/1.0/warnings/{uuid}", '{"status": "%s"}' % status, {"Content-Type": "application/json"})
            self.assertEqual(got, code, status)
        self.assertEqual(self.api("GET", "/1.0/warnings?project=default&recursion=1"), [w for w in self.api("GET", "/1.0/warnings?recursion=1") if w["project"] == "default"])

    def test_an_instance_that_cannot_start_with_its_host(self):
        self.virga("image", "import", self.images[0], "--alias", "tiny")
        self.virga("create", "tiny", "a1", "-c", "boot.autostart=true")
        self.daemon.stop()
        # A host that was restarted, whose first start fails.
        store = os.path.join(self.daemon.state, "store.db")
        import sqlite3
        with sqlite3.connect(store) as db:
            table, column = "documents", "key"
            db.execute(f"DELETE FROM {table} WHERE {column} = '/host/boot-id'")
        db.close()
        self.daemon.start(env={"VIRGA_FAULT_FAIL": "instance-start.3.guest.before"})
        warning = support.wait_until(lambda: self.of_type("autostart"), what="a warning")[0]
        self.assertEqual(warning["entity_url"], "/1.0/instances/a1")
        self.assertEqual(warning["project"], "default")
        self.assertIn("fault injected", warning["last_message"])
        self.virga("delete", "--force", "a1")
        support.wait_until(lambda: not self.of_type("autostart"), what="the end of the warning of what was deleted")


if __name__ == "__main__":
    unittest.main(verbosity=2)
