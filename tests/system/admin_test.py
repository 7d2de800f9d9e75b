"""admin: init by questions and by document, shutdown, doctor. Real daemon, real guests."""
import os
import pty
import subprocess
import time
import unittest

import support

PRESEED = """
config:
  user.site: lab
storage_pools:
- name: default
  driver: dir
networks:
- name: virgabr0
  type: bridge
  config: {ipv4.address: 10.99.7.1/24, ipv6.address: none}
projects:
- name: team
  description: theirs
profiles:
- name: default
  devices:
    root: {type: disk, path: /, pool: default}
    eth0: {type: nic, name: eth0, network: virgabr0}
- name: small
  config: {limits.memory: 128MiB}
certificates:
- name: someone
  type: client
  restricted: false
  certificate: |
"""


class AdminTest(unittest.TestCase):
    def setUp(self):
        support.enter_private_namespaces()  # a network that a test made ends with its namespace
        self.daemon = support.Daemon()
        self.cli = support.Client(self.daemon, "virga")
        self.addCleanup(lambda: self.assertEqual(self.daemon.destroy(), {}))

    def ask(self, *words, answers):
        """Runs a command on a terminal and types the answers, one to each question. Returns (exit code, what was shown)."""
        pid, terminal = pty.fork()
        if pid == 0:
            os.execve(self.cli.program, [self.cli.program, *words], self.cli.environment())
        shown, answers = "", list(answers)
        while True:
            try:
                part = os.read(terminal, 4096)
            except OSError:
                break
            if not part:
                break
            shown += part.decode()
            if answers and shown.endswith(": "):
                os.write(terminal, (answers.pop(0) + "\n").encode())
        os.close(terminal)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown

    def test_init_asks(self):
        code, shown = self.ask("admin", "init", answers=["", "", "zfs", "", "", "perhaps", "yes", "", "10.99.8.1/24", "", "none", "no", "yes"])
        self.assertEqual(code, 0, shown)
        self.assertIn("There is no backend 'zfs'", shown)
        self.assertIn("yes or no is expected", shown)
        self.assertIn("Storage pool default created", shown)
        self.assertIn("storage_pools:\n- name: default\n", shown.replace("\r", ""))
        self.assertIn("10.99.8.1/24", self.cli("network", "get", "virgabr0", "ipv4.address"))
        self.assertEqual(self.cli("profile", "device", "get", "default", "eth0", "network"), "virgabr0\n")
        # Asked again, it offers to leave things as they are.
        code, shown = self.ask("admin", "init", answers=[""] * 4)
        self.assertEqual(code, 0, shown)
        self.assertNotIn("created", shown)

    def test_preseed_can_be_run_again(self):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384", "-nodes", "-keyout", f"{self.daemon.base}/key", "-out",
                        f"{self.daemon.base}/crt", "-subj", "/CN=someone", "-days", "2"], check=True, capture_output=True)
        pem = support.contents(f"{self.daemon.base}/crt").decode()
        preseed = PRESEED + "".join(f"    {line}\n" for line in pem.splitlines())
        first = self.cli("admin", "init", "--preseed", input=preseed)
        for line in ("Storage pool default created", "Network virgabr0 created", "Project team created", "Profile small created", "Certificate someone added"):
            self.assertIn(line + "\n", first)
        self.assertEqual(self.cli("admin", "init", "--preseed", input=preseed), "")
        certificate = self.daemon.query("/1.0/certificates?recursion=1")[0]
        self.assertEqual((certificate["name"], certificate["restricted"]), ("someone", False))
        self.assertEqual(self.daemon.query("/1.0")["config"], {"user.site": "lab"})
        # What --dump says makes the same again.
        self.assertEqual(self.cli("admin", "init", "--preseed", input=self.cli("admin", "init", "--dump")), "")
        for text, named in (("nosuch: 1\n", "nosuch"), ("cluster: {enabled: true}\n", "cluster"), ("networks:\n- type: bridge\n", "networks"), ("a: [\n", "line")):
            self.assertIn(named, self.cli.fails("admin", "init", "--preseed", input=text))

    def test_shutdown_stops_guests_in_order_and_they_come_back(self):
        container, _ = support.tiny_images()
        self.cli("admin", "init", "--auto")
        self.cli("image", "import", container, "--alias", "tiny")
        self.cli("launch", "tiny", "runs")
        self.cli("launch", "tiny", "paused")
        self.cli("pause", "paused")
        self.cli("create", "tiny", "stopped")
        pid = self.daemon.query("/1.0/instances/runs/state")["pid"]
        started = time.monotonic()
        self.cli("admin", "shutdown", "--timeout", "20")
        self.assertEqual(self.daemon.process.wait(30), 0)
        self.assertLess(time.monotonic() - started, 60)
        self.assertFalse(os.path.exists(f"/proc/{pid}"))
        self.assertFalse([c for c in support.processes_naming(self.daemon.state).values() if "virga-shim" in c])
        self.daemon.start()
        states = lambda: {i["name"]: i["status"] for i in self.daemon.query("/1.0/instances?recursion=1")}  # noqa: E731
        support.wait_until(lambda: states() == {"runs": "Running", "paused": "Running", "stopped": "Stopped"}, 60, "what ran runs again")
        # Only ends of the daemon that are asked for so are remembered: what stops by itself stays stopped.
        self.cli("stop", "--force", "paused")
        self.daemon.restart()
        self.assertEqual(states()["paused"], "Stopped")

    def test_shutdown_with_a_virtual_machine(self):
        _, vm = support.tiny_images()
        self.cli("admin", "init", "--auto")
        self.cli("image", "import", vm, "--alias", "tiny-vm")
        self.cli("launch", "tiny-vm", "v1", "--vm")
        self.cli("exec", "v1", "--", "sh", "-c", "echo kept > /root/kept; sync")
        pid = self.daemon.query("/1.0/instances/v1/state")["pid"]
        self.cli("admin", "shutdown", "--timeout", "60")
        self.assertEqual(self.daemon.process.wait(30), 0)
        self.assertFalse(os.path.exists(f"/proc/{pid}"))
        self.assertEqual(support.leftovers(self.daemon).get("processes"), None)
        self.daemon.start()
        status = lambda: self.daemon.query("/1.0/instances/v1")["status"]  # noqa: E731
        support.wait_until(lambda: status() == "Running", 60, "it runs again")
        self.assertEqual(self.cli("exec", "v1", "--", "cat", "/root/kept"), "kept\n")
        # One that does not listen is ended when its time is over.
        self.cli("pause", "v1")
        started = time.monotonic()
        self.cli("admin", "shutdown", "--timeout", "2")
        self.assertEqual(self.daemon.process.wait(30), 0)
        self.assertLess(time.monotonic() - started, 40)
        self.daemon.start()
        support.wait_until(lambda: status() == "Running", 60, "it runs again")

    def test_shutdown_waits_for_operations_for_so_long(self):
        container, _ = support.tiny_images()
        self.cli("admin", "init", "--auto")
        self.cli("image", "import", container, "--alias", "tiny")
        self.cli("launch", "tiny", "c1")

        def shut_down(seconds, *flags):
            session = subprocess.Popen([self.cli.program, "exec", "c1", "--", "sleep", str(seconds)], env=self.cli.environment(), stdin=subprocess.DEVNULL,
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            running = lambda: [o for o in (self.daemon.query("/1.0/operations?recursion=1") or {}).get("running", []) if o["class"] == "websocket"]  # noqa: E731
            support.wait_until(running, what="the command")
            began = time.monotonic()
            self.cli("admin", "shutdown", "--timeout", "5", *flags)
            self.assertEqual(self.daemon.process.wait(30), 0)
            session.wait(30)
            return time.monotonic() - began, session.returncode
        took, code = shut_down(4)
        self.assertGreater(took, 2)
        self.assertEqual(code, 0, "it came to its end")
        self.daemon.start()
        support.wait_until(lambda: self.daemon.query("/1.0/instances/c1")["status"] == "Running", 60, "it runs again")
        took, code = shut_down(1000, "--force")
        self.assertLess(took, 60)
        self.assertNotEqual(code, 0)
        self.daemon.start()
        support.wait_until(lambda: self.daemon.query("/1.0/instances/c1")["status"] == "Running", 60, "it runs again")
        self.cli("config", "set", "core.shutdown_timeout=0")
        self.assertIn("core.shutdown_action", self.cli.fails("config", "set", "core.shutdown_action=evacuate"))
        took, code = shut_down(1000)
        self.assertLess(took, 60)
        self.assertNotEqual(code, 0)
        self.daemon.start()
        support.wait_until(lambda: self.daemon.query("/1.0/instances/c1")["status"] == "Running", 60, "it runs again")

    def test_shutdown_by_force_and_over_the_network(self):
        self.assertIn("timeout", self.cli.fails("query", "-X", "PUT", "/internal/shutdown?timeout=x"))
        self.cli("admin", "shutdown", "--force")
        self.assertEqual(self.daemon.process.wait(30), 0)
        self.assertIn("doesn't appear to be started", self.cli.fails("admin", "shutdown"))
        self.daemon.start()

    def test_doctor_says_what_it_leaves(self):
        done = self.cli.run("admin", "doctor")
        self.assertIn("state directory", done.stdout)
        self.assertIn("--install belongs to --fix", self.cli.fails("admin", "doctor", "--install"))
        refused = subprocess.run(["setpriv", "--reuid", "65534", "--clear-groups", self.cli.program, "admin", "doctor", "--fix"], capture_output=True, text=True,
                                 env=self.cli.environment())
        if os.access(self.cli.program, os.X_OK) and "Permission denied" not in refused.stderr:
            self.assertIn("only root can mend", refused.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
