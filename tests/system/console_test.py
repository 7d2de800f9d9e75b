"""Consoles and screens with both command lines."""
import json
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import time
import unittest

import support


class Terminal:
    """A command line on a pseudo-terminal, as a person has it."""

    def __init__(self, cli, *args):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(cli.program, [cli.program, *args], cli.environment())
        self.seen = b""

    def wait_for(self, text, timeout=60):
        deadline = time.monotonic() + timeout
        while text not in self.seen:
            ready, _, _ = select.select([self.fd], [], [], max(0, deadline - time.monotonic()))
            if not ready:
                raise AssertionError(f"{text!r} was not seen: {self.seen[-2000:]!r}")
            try:
                piece = os.read(self.fd, 65536)
            except OSError:
                piece = b""
            if not piece:
                raise AssertionError(f"ended before {text!r}: {self.seen[-2000:]!r}")
            self.seen += piece
        self.seen = self.seen.split(text, 1)[1]

    def type(self, text):
        os.write(self.fd, text)

    def detach(self):
        """As a person types it: two keys."""
        self.type(b"\x01")
        time.sleep(0.2)
        self.type(b"q")

    def ended(self, timeout=30):
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if select.select([self.fd], [], [], 0.1)[0]:
                try:
                    os.read(self.fd, 65536)
                except OSError:
                    pass
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid != 0:
                return os.waitstatus_to_exitcode(status)
        raise AssertionError("the command line goes on")

    def close(self):
        try:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass
        os.close(self.fd)


class Console(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        support.enter_private_namespaces()
        container, vm = support.tiny_images()
        cls.daemon = support.Daemon()
        cls.virga = support.Client(cls.daemon, "virga")
        cls.incus = support.Client(cls.daemon, "incus")
        cls.virga("admin", "init", "--auto")
        cls.virga("image", "import", container, "--alias", "tiny")
        cls.virga("image", "import", vm, "--alias", "tiny")

    @classmethod
    def tearDownClass(cls):
        left = cls.daemon.destroy()
        if left:
            raise AssertionError(f"left behind: {left}")

    def terminal(self, cli, *args):
        t = Terminal(cli, *args)
        self.addCleanup(t.close)
        t.wait_for(b"To detach")
        return t

    def console_of(self, name):
        """Two watchers, one of each command line, see the same console and both may type."""
        self.shell_on_console(name)
        a, b = self.terminal(self.virga, "console", name), self.terminal(self.incus, "console", name)
        a.type(b"\r")
        self.say(a, name, b"first")
        b.wait_for(b"first-42")
        self.say(b, name, b"second")
        a.wait_for(b"second-42")
        b.detach()
        self.assertEqual(b.ended(), 0)
        self.say(a, name, b"third")
        self.daemon.restart()
        a.close = lambda: None
        c = self.terminal(self.virga, "console", name)
        self.say(c, name, b"fourth")
        c.detach()
        self.assertEqual(c.ended(), 0)
        for cli in (self.virga, self.incus):
            self.assertIn("third-42", cli("console", name, "--show-log"))
        self.daemon.query(f"/1.0/instances/{name}/console", "DELETE")
        self.assertNotIn("third-42", self.virga.run("console", name, "--show-log").stdout)
        log = os.path.join(self.daemon.state, "logs", name, "console.log")
        self.assertLess(os.path.getsize(log), 100)

    def shell_on_console(self, name):
        """The tiny images have none there."""
        self.virga("exec", name, "--", "sh", "-c", "setsid sh -i </dev/console >/dev/console 2>&1 &")

    def say(self, terminal, name, word):
        """Types a command whose output is not what was typed."""
        terminal.type(b"echo " + word + b"-$((40+2))\r")
        terminal.wait_for(word + b"-42")

    def test_container(self):
        self.virga("launch", "tiny", "c1")
        self.console_of("c1")
        self.virga("stop", "--force", "c1")
        self.assertIn("not running", self.virga.fails("console", "c1"))

    def test_virtual_machine(self):
        self.virga("launch", "tiny", "v1", "--vm")
        self.console_of("v1")
        self.assertIn("no screen", self.virga.fails("screenshot", "v1", "-"))

    def test_force_ends_others(self):
        self.virga("launch", "tiny", "c2")
        self.shell_on_console("c2")
        a = self.terminal(self.virga, "console", "c2")
        b = self.terminal(self.virga, "console", "c2", "--force")
        a.ended()
        self.say(b, "c2", b"mine")

    def test_the_log_keeps_its_bound(self):
        self.virga("launch", "tiny", "c3")
        self.virga("exec", "c3", "--", "sh", "-c", "dd if=/dev/zero bs=64k count=160 2>/dev/null | tr '\\0' x > /dev/console; echo end > /dev/console")
        log = os.path.join(self.daemon.state, "logs", "c3", "console.log")
        support.wait_until(lambda: "end" in self.virga("console", "c3", "--show-log"), 30, "end of the output")
        self.assertLessEqual(os.path.getsize(log), 1 << 20)

    def test_wrong_requests(self):
        self.virga("launch", "tiny", "c4")
        for body, word in (({"type": "tty"}, "type"), ({"width": -1}, "width"), ({"height": 100000}, "height"), ({"force": "yes"}, "force"), ({"unknown": 1}, "unknown"),
                           ({"type": "vga"}, "screen"), ({"type": "vga", "protocol": "rdp"}, "protocol")):
            with self.assertRaises(support.CommandFailed) as failed:
                self.daemon.query("/1.0/instances/c4/console", "POST", body)
            self.assertIn(word, str(failed.exception), body)

    def firmware_image(self):
        """A machine that boots by firmware; its disk is empty, so what is on the screen is the firmware's."""
        base = os.path.join(self.daemon.base, "firmware")
        os.makedirs(base)
        with open(os.path.join(base, "metadata.yaml"), "w") as f:
            f.write("architecture: x86_64\ncreation_date: 1700000000\nproperties:\n  description: empty\n")
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", os.path.join(base, "rootfs.img"), "64M"], check=True)
        tar = os.path.join(base, "image.tar")
        subprocess.run(["tar", "-C", base, "-cf", tar, "metadata.yaml", "rootfs.img"], check=True)
        self.virga("image", "import", tar, "--alias", "empty")

    def test_screen(self):
        self.firmware_image()
        self.virga("launch", "empty", "v2", "--vm", "-c", "security.secureboot=false", "-d", "root,size=64MiB")
        path = os.path.join(self.daemon.base, "shot.png")

        def shot():
            self.virga("screenshot", "v2", path)
            data = support.contents(path)
            self.assertEqual(data[:8], b"\x89PNG\r\n\x1a\n")
            return data
        width, height = struct.unpack(">II", shot()[16:24])
        self.assertGreaterEqual(width, 320)
        self.assertGreaterEqual(height, 200)
        # Something is drawn in the end: the picture is not that of an empty screen any more.
        support.wait_until(lambda: len(shot()) > 4000, 120, "firmware on the screen")
        self.daemon.restart()
        shot()
        for protocol, hello, answer in (("spice", b"REDQ" + struct.pack("<III", 2, 2, 18) + struct.pack("<IBBIII", 0, 1, 0, 0, 0, 18), b"REDQ"), ("vnc", b"", b"RFB ")):
            viewer = subprocess.Popen([self.virga.program, "console", "v2", "--type", "vga", "--protocol", protocol], env={**self.virga.environment(), "DISPLAY": ""}, stderr=subprocess.PIPE, text=True)
            try:
                viewer.stderr.readline()
                address = viewer.stderr.readline().strip()
                for _ in range(2):  # several channels, a connection each
                    with socket.socket(socket.AF_UNIX) as s:
                        s.settimeout(30)
                        s.connect(address)
                        s.sendall(hello)
                        self.assertEqual(s.recv(4), answer)
            finally:
                viewer.send_signal(signal.SIGINT)
                viewer.wait(30)
                viewer.stderr.close()
        # The stock client finds the same behind its own socket.
        stock = subprocess.Popen([self.incus.program, "console", "v2", "--type", "vga"], env={**self.incus.environment(), "PATH": "/nonexistent"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            address = ""
            while "spice+unix://" not in address:
                address = stock.stdout.readline()
                self.assertTrue(address, "no address")
            with socket.socket(socket.AF_UNIX) as s:
                s.settimeout(30)
                s.connect(address.strip().split("spice+unix://")[1])
                s.sendall(b"REDQ" + struct.pack("<III", 2, 2, 18) + struct.pack("<IBBIII", 0, 1, 0, 0, 0, 18))
                self.assertEqual(s.recv(4), b"REDQ")
        finally:
            stock.kill()
            stock.wait()
            stock.stdout.close()


if __name__ == "__main__":
    unittest.main()
