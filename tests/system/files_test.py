"""Files of instances with both command lines, in both kinds of guest; and what a guest may try (S16)."""
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
import unittest
import unittest.mock
import urllib.parse

import support


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=120)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(120)
        self.sock.connect(self.path)


class Files(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        support.enter_private_namespaces()
        container, vm = support.tiny_images()
        cls.daemon = support.Daemon()
        cls.virga = support.Client(cls.daemon, "virga")
        cls.clients = [cls.virga, support.Client(cls.daemon, "incus")]
        cls.virga("admin", "init", "--auto")
        cls.virga("image", "import", container, "--alias", "tiny")
        cls.virga("image", "import", vm, "--alias", "tiny")
        cls.virga("launch", "tiny", "c1")
        cls.virga("create", "tiny", "c2")
        cls.work = os.path.join(cls.daemon.base, "work")
        os.makedirs(cls.work)

    @classmethod
    def tearDownClass(cls):
        left = cls.daemon.destroy()
        if left:
            raise AssertionError(f"left behind: {left}")

    def request(self, method, name, path, body=None, headers=None):
        connection = UnixConnection(self.daemon.socket)
        connection.request(method, f"/1.0/instances/{name}/files?path={urllib.parse.quote(path)}", body=body, headers=headers or {})
        response = connection.getresponse()
        data = response.read()
        connection.close()
        return response, data

    def local(self, name, text="hello\n", mode=0o644):
        path = os.path.join(self.work, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as f:
            f.write(text)
        os.chmod(path, mode)
        return path

    def life_of_a_file(self, cli, name):
        there = f"{name}/root/{cli.name}"
        cli("file", "push", self.local("a", "one\n", 0o640), f"{there}-a")
        self.assertEqual(cli("file", "pull", f"{there}-a", "-"), "one\n")
        response, _ = self.request("HEAD", name, f"/root/{cli.name}-a")
        self.assertEqual((response.status, response.headers["X-Incus-mode"], response.headers["X-Incus-uid"], response.headers["X-Incus-type"]), (200, "0640", "0", "file"))
        cli("file", "push", self.local("b", "two\n"), f"{there}-b/c/d", "-p", "--uid", "7", "--gid", "8", "--mode", "0600")
        response, body = self.request("GET", name, f"/root/{cli.name}-b/c/d")
        self.assertEqual((body, response.headers["X-Incus-uid"], response.headers["X-Incus-gid"], response.headers["X-Incus-mode"]), (b"two\n", "7", "8", "0600"))
        cli("file", "edit", f"{there}-b/c/d", input="three\n")
        response, body = self.request("GET", name, f"/root/{cli.name}-b/c/d")
        self.assertEqual((body, response.headers["X-Incus-uid"], response.headers["X-Incus-mode"]), (b"three\n", "7", "0600"))

        tree = os.path.join(self.work, "tree")
        shutil.rmtree(tree, ignore_errors=True)
        self.local("tree/x/y", "deep")
        os.makedirs(os.path.join(tree, "empty"))
        os.symlink("x/y", os.path.join(tree, "link"))
        cli("file", "push", "-r", tree, f"{there}-b/")
        back = os.path.join(self.work, f"back-{cli.name}-{name}")
        os.makedirs(back)
        cli("file", "pull", "-r", f"{there}-b/tree", back)
        self.assertEqual(support.contents(f"{back}/tree/x/y"), b"deep")
        self.assertTrue(os.path.isdir(f"{back}/tree/empty"))
        self.assertEqual(os.readlink(f"{back}/tree/link"), "x/y")

        cli("file", "create", f"{there}-made", "--mode", "0604")
        cli("file", "create", "--type=directory", f"{there}-dir")
        cli("file", "create", "--type=symlink", f"{there}-dir/l", "/etc/passwd")
        listed = json.loads(self.request("GET", name, f"/root/{cli.name}-dir")[1])
        self.assertEqual(listed["metadata"], ["l"])
        cli.fails("file", "delete", f"{there}-dir")
        cli("file", "delete", f"{there}-dir/l", f"{there}-dir", f"{there}-made")
        cli("file", "delete", "-f", f"{there}-b")
        cli.fails("file", "pull", f"{there}-b", "-")

    def test_running_container(self):
        for cli in self.clients:
            with self.subTest(client=cli.name):
                self.life_of_a_file(cli, "c1")
        self.virga("file", "push", self.local("seen", "x"), "c1/tmp/seen", "--uid", "33", "--gid", "33")
        self.assertEqual(self.virga("exec", "c1", "--", "stat", "-c", "%u %g %s", "/tmp/seen").strip(), "33 33 1")

    def test_stopped_container(self):
        for cli in self.clients:
            with self.subTest(client=cli.name):
                self.life_of_a_file(cli, "c2")
        self.assertEqual([m for m in support.mounts_below(self.daemon.state) if "/c2/" in m], [], "nothing stays mounted")
        self.virga("file", "push", self.local("before", "made while stopped"), "c2/root/before", "--uid", "5")
        self.virga("start", "c2")
        self.assertEqual(self.virga("exec", "c2", "--", "cat", "/root/before"), "made while stopped")
        self.assertEqual(self.virga("exec", "c2", "--", "stat", "-c", "%u", "/root/before").strip(), "5")
        self.virga("stop", "--force", "c2")

    def test_virtual_machine(self):
        self.virga("launch", "tiny", "v1", "--vm")
        for cli in self.clients:
            with self.subTest(client=cli.name):
                self.life_of_a_file(cli, "v1")
        self.virga("stop", "--force", "v1")
        for cli in self.clients:
            for words in (("pull", "v1/etc/passwd", "-"), ("push", self.local("late"), "v1/root/late"), ("delete", "v1/etc/passwd"), ("create", "v1/root/late")):
                error = cli.fails("file", *words)
                self.assertIn("stopped", error)
                self.assertIn("start the instance first", error)
        response, body = self.request("GET", "v1", "/etc/passwd")
        self.assertEqual(response.status, 501, body)
        self.assertIn("start the instance first", json.loads(body)["error"])

    def test_append_and_errors(self):
        self.request("POST", "c1", "/root/log", b"a", {"X-Incus-type": "file"})
        self.request("POST", "c1", "/root/log", b"b", {"X-Incus-type": "file", "X-Incus-write": "append"})
        self.assertEqual(self.request("GET", "c1", "/root/log")[1], b"ab")
        for headers, path, status, word in (({"X-Incus-uid": "4294967295"}, "/root/x", 400, "X-Incus-uid"), ({"X-Incus-uid": "-1"}, "/root/x", 400, "X-Incus-uid"),
                                            ({"X-Incus-gid": "99999999999999999999"}, "/root/x", 400, "X-Incus-gid"), ({"X-Incus-mode": "10000"}, "/root/x", 400, "X-Incus-mode"),
                                            ({"X-Incus-mode": "rwx"}, "/root/x", 400, "X-Incus-mode"), ({"X-Incus-type": "device"}, "/root/x", 400, "X-Incus-type"),
                                            ({"X-Incus-write": "no"}, "/root/x", 400, "X-Incus-write"), ({}, "", 400, "path"), ({}, "/none/x", 404, "/none/x"),
                                            ({}, "/root", 400, "directory"), ({}, "/" + "a" * 5000, 400, "path")):
            response, body = self.request("POST", "c1", path, b"x", headers)
            self.assertEqual(response.status, status, (headers, path[:40], body))
            self.assertIn(word, json.loads(body)["error"], headers)
        self.assertEqual(self.request("GET", "c1", "/root/x")[0].status, 404, "nothing was created")

    def test_proc_and_special_files_never_block(self):
        self.virga("exec", "c1", "--", "sh", "-c", "mkfifo /root/fifo; ln -sf /dev/null /root/null; ln -sf /proc/self/fd/0 /root/fd")
        for path in ("/root/fifo", "/dev/null", "/dev/tty", "/root/fd"):
            started = time.monotonic()
            response, body = self.request("GET", "c1", path)
            self.assertIn(response.status, (200, 400, 403, 404), (path, body))
            response, body = self.request("POST", "c1", path, b"x")
            self.assertIn(response.status, (400, 403, 404), (path, body))
            self.assertLess(time.monotonic() - started, 20, path)
        self.assertIn(b"processor", self.request("GET", "c1", "/proc/cpuinfo")[1])
        self.assertEqual(self.request("GET", "c1", "/proc/kmsg")[0].status // 100, 4)

    def test_a_guest_that_swaps_directories_for_links_leads_nowhere(self):
        canary = os.path.join(self.work, "canary")
        os.makedirs(canary, exist_ok=True)
        os.chmod(canary, 0o777)
        self.virga("exec", "c1", "--", "sh", "-c", f"mkdir -p /root/swap/real; ln -sfn {canary} /root/swap/link; ln -sfn ../../../../../../..{canary} /root/swap/up")
        swapper = subprocess.Popen([self.virga.program, "exec", "c1", "--", "sh", "-c", "cd /root/swap; i=0; while [ $i -lt 100000 ]; do mv -T real d 2>/dev/null; mv -T link real 2>/dev/null; "
                                    "mv -T real link 2>/dev/null; mv -T d real 2>/dev/null; i=$((i+1)); done"], env=self.virga.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 15
            rounds = 0
            while time.monotonic() < deadline:
                for path in ("/root/swap/real/f", "/root/swap/link/f", "/root/swap/up/f"):
                    self.request("POST", "c1", path, b"guest")
                    self.request("GET", "c1", path)
                    self.request("DELETE", "c1", path)
                rounds += 1
            self.assertGreater(rounds, 5)
        finally:
            swapper.kill()
            swapper.wait()
        self.assertEqual(os.listdir(canary), [])

    def test_a_killed_daemon_leaves_no_mount(self):
        self.virga("create", "tiny", "c3")
        for point in ("instance-files.1.root.after", "instance-files.2.serve.after", "instance-files.3.detach.before"):
            self.daemon.stop()
            self.daemon.start(env={"VIRGA_FAULT_KILL": point})
            self.virga.run("file", "pull", "c3/etc/passwd", "-")
            self.assertTrue(self.daemon.wait_dead(30), f"{point} was not reached")
            self.daemon.start()
            self.assertEqual([m for m in support.mounts_below(self.daemon.state) if "/c3/" in m], [], point)
            self.assertIn("root", self.virga("file", "pull", "c3/etc/passwd", "-"))
        self.virga("delete", "c3")

    def test_sftp_as_a_plain_stream(self):
        for name in ("c1", "c2"):
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(30)
            sock.connect(self.daemon.socket)
            sock.sendall(f"GET /1.0/instances/{name}/sftp HTTP/1.1\r\nHost: x\r\nUpgrade: sftp\r\nConnection: Upgrade\r\n\r\n".encode())
            answer = b""
            while b"\r\n\r\n" not in answer:
                answer += sock.recv(1)
            self.assertIn(b"101", answer.split(b"\r\n")[0])
            self.assertIn(b"Upgrade: sftp", answer)
            sock.sendall(b"\0\0\0\5\1\0\0\0\3")
            self.assertEqual(sock.recv(4096)[4:9], b"\2\0\0\0\3")
            sock.close()

    def test_what_serves_the_files_can_do_little_else(self):
        for name in ("c1", "c2"):
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(self.daemon.socket)
                sock.sendall(f"GET /1.0/instances/{name}/sftp HTTP/1.1\r\nHost: x\r\nUpgrade: sftp\r\nConnection: Upgrade\r\n\r\n\0\0\0\5\1\0\0\0\3".encode())
                sock.recv(1)
                argument = "running" if name == "c1" else "stopped"
                servers = [pid for pid in filter(str.isdigit, os.listdir("/proc")) if os.path.exists(f"/proc/{pid}/cmdline")
                           and support.contents(f"/proc/{pid}/cmdline").startswith(os.path.join(support.BIN, "virga-files").encode() + b"\0" + argument.encode())]
                mine = [pid for pid in servers if f"PPid:\t{self.daemon.process.pid}\n" in support.contents(f"/proc/{pid}/status").decode()]
                self.assertEqual(len(mine), 1)
                status = dict(line.split(":\t", 1) for line in support.contents(f"/proc/{mine[0]}/status").decode().splitlines() if ":\t" in line)
                for capabilities in ("CapEff", "CapPrm", "CapBnd"):
                    self.assertEqual(int(status[capabilities], 16), 0x1f, "those that files need: chown to fsetid")
                self.assertEqual(status["NoNewPrivs"], "1")
                self.assertGreaterEqual(int(status["Uid"].split()[0]), 1_000_000, "root of the guest, nobody on the host")
                for space in ("user", "mnt", "net", "ipc"):
                    self.assertNotEqual(os.readlink(f"/proc/{mine[0]}/ns/{space}"), os.readlink(f"/proc/self/ns/{space}"))
                self.assertEqual(len(os.listdir(f"/proc/{mine[0]}/fd")), 4, "its streams and the root of the guest")
                self.assertNotIn("virga-files", self.virga("exec", "c1", "--", "ps"), "the guest does not see it")
            support.wait_until(lambda: not os.path.exists(f"/proc/{mine[0]}"), 20, "its end with the connection")

    def test_a_mount_by_sshfs(self):
        if shutil.which("sshfs") is None or not os.path.exists("/dev/fuse"):
            self.skipTest("there is no sshfs here, or no FUSE: ./dev deps --tests")
        for cli in self.clients:
            for name in ("c1", "c2"):  # one runs, one is stopped
                with self.subTest(client=cli.name, instance=name):
                    here = os.path.join(self.work, f"mounted-{cli.name}-{name}")
                    os.makedirs(here)
                    mount = subprocess.Popen([cli.program, "file", "mount", f"{name}/root", here], env=cli.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                             stderr=subprocess.STDOUT, text=True)
                    try:
                        support.wait_until(lambda: os.path.ismount(here) or mount.poll() is not None, 20, "the mount")
                        self.assertIsNone(mount.poll(), mount.stdout.read() if mount.poll() is not None else "")
                        with open(f"{here}/note", "w") as f:
                            f.write("over fuse\n" * 1000)
                        os.makedirs(f"{here}/a/b")
                        os.rename(f"{here}/note", f"{here}/a/b/note")
                        os.symlink("b/note", f"{here}/a/link")
                        os.chmod(f"{here}/a/b/note", 0o640)
                        self.assertEqual(support.contents(f"{here}/a/link"), b"over fuse\n" * 1000)
                        response, body = self.request("GET", name, "/root/a/b/note")
                        self.assertEqual((body, response.headers["X-Incus-mode"]), (b"over fuse\n" * 1000, "0640"))
                        self.assertEqual(sorted(os.listdir(f"{here}/a")), ["b", "link"])
                        shutil.rmtree(f"{here}/a")
                    finally:
                        mount.send_signal(signal.SIGINT)
                        try:
                            mount.wait(20)
                        except subprocess.TimeoutExpired:
                            mount.kill()
                            mount.wait()
                        mount.stdout.close()
                        ended = not os.path.ismount(here)
                        subprocess.run(["umount", "-l", here], stderr=subprocess.DEVNULL)
                    self.assertTrue(ended, "it is unmounted with the command")
        left = [c for c in support.processes_naming(self.work).values() if c.startswith("sshfs")]
        self.assertEqual(left, [])

    def test_the_stock_client_serves_a_mount(self):
        if shutil.which("sftp") is None:
            self.skipTest("there is no sftp client here")
        incus = self.clients[1]
        server = subprocess.Popen([incus.program, "file", "mount", "c1", "--listen", "127.0.0.1:0", "--no-auth"], env=incus.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            line = server.stdout.readline()
            port = line.strip().rsplit(":", 1)[-1].split()[0].strip("'\"")
            out = subprocess.run(["sftp", "-P", port, "-oStrictHostKeyChecking=no", "-oUserKnownHostsFile=/dev/null", "127.0.0.1"],
                                 input="ls /etc\nget /etc/passwd " + os.path.join(self.work, "got") + "\nput " + self.local("put", "by sftp") + " /root/put\n", capture_output=True, text=True, timeout=60)
            self.assertIn("/etc/passwd", out.stdout, (line, out.stderr))
            self.assertIn(b"root", support.contents(os.path.join(self.work, "got")))
            self.assertEqual(self.virga("exec", "c1", "--", "cat", "/root/put"), "by sftp")
        finally:
            server.terminate()
            server.wait()
            server.stdout.close()


class Mounts(unittest.TestCase):
    def test_a_mount_of_what_is_not_there_ends(self):
        """sshfs waits for the other side: it must hear that nobody will come."""
        support.enter_private_namespaces()
        daemon = support.Daemon()
        self.addCleanup(daemon.destroy)
        programs, target = os.path.join(daemon.base, "programs"), os.path.join(daemon.base, "mnt")
        os.makedirs(programs)
        os.makedirs(target)
        with open(os.path.join(programs, "sshfs"), "w") as f:
            f.write("#!/bin/sh\nexec cat >/dev/null\n")
        os.chmod(f.name, 0o755)
        with unittest.mock.patch.dict(os.environ, PATH=f"{programs}:{os.environ['PATH']}"):
            said = support.Client(daemon, "virga").fails("file", "mount", "nobody/", target, timeout=60)
        self.assertIn("nobody", said)


if __name__ == "__main__":
    unittest.main()
