#!/usr/bin/env python3
"""The command line against a fake daemon: output, exit codes, what it sends, and that hostile text stays text.

VIRGA names the program (default: build/debug/bin/virga of this tree)."""
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from fake_api import Answer, FakeApi, WebSocket  # noqa: E402

TREE = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../.."))
VIRGA = os.path.abspath(os.environ.get("VIRGA", os.path.join(TREE, "build/debug/bin/virga")))
PATIENCE = 60


class Case(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.TemporaryDirectory()
        self.api = FakeApi(os.path.join(self.directory.name, "s"))
        self.env = {**os.environ, "VIRGA_SOCKET": self.api.path, "HOME": self.directory.name, "TZ": "UTC", "TERM": "xterm"}
        self.env.pop("XDG_CONFIG_HOME", None)

    def tearDown(self):
        self.api.close()
        self.directory.cleanup()

    def run_virga(self, *words, stdin=""):
        return subprocess.run([VIRGA, *words], input=stdin, env=self.env, capture_output=True, text=True, timeout=PATIENCE)

    def start_virga(self, *words, **options):
        process = subprocess.Popen([VIRGA, *words], env=self.env, **options)
        self.addCleanup(process.kill)
        return process

    def wait_until_handled(self, process, number):
        """The moment a handler is in place is seen only from outside."""
        for _ in range(PATIENCE * 100):
            with open(f"/proc/{process.pid}/status") as file:
                caught = next(line for line in file if line.startswith("SigCgt:"))
            if int(caught.split()[1], 16) >> (number - 1) & 1:
                return
            self.assertIsNone(process.poll(), "it ended early")
            time.sleep(0.01)
        self.fail("no signal handler")

    def ok(self, *words, stdin=""):
        done = self.run_virga(*words, stdin=stdin)
        self.assertEqual((done.returncode, done.stderr), (0, ""), (words, self.api.requests[-1:]))
        return done.stdout

    def fails(self, code, *words, stdin=""):
        done = self.run_virga(*words, stdin=stdin)
        self.assertEqual(done.returncode, code, done)
        return done.stderr

    def sent(self, method, path):
        """The body of the last such request."""
        for m, target, _, body in reversed(self.api.requests):
            if m == method and target.split("?")[0] == path:
                return json.loads(body)
        self.fail(f"{method} {path} was not sent")


class Basics(Case):
    def test_exit_codes_and_hints(self):
        self.assertIn("Did you mean this?\n\tlist\n", self.fails(1, "lisst"))
        self.assertEqual(self.fails(1, "list", "--bad"), "Error: unknown flag: --bad\n\nvirga list --help shows the flags there are\n")
        self.assertIn("Usage: virga rename", self.fails(1, "rename", "a"))
        self.assertIn('The remote "far" doesn\'t exist', self.fails(1, "info", "far:c1"))
        self.env["VIRGA_SOCKET"] = "/nonexistent/socket"
        message = self.fails(1, "list")
        self.assertIn("doesn't appear to be started (socket path: /nonexistent/socket)", message)
        self.assertIn("Client version", self.ok("version"))
        self.assertIn("still not running after 1s", self.fails(1, "admin", "waitready", "-t", "1"))
        with socket.socket(socket.AF_UNIX) as hanging:
            self.env["VIRGA_SOCKET"] = os.path.join(self.directory.name, "hanging")
            hanging.bind(self.env["VIRGA_SOCKET"])
            hanging.listen(8)
            self.assertIn("still not running after 1s", self.fails(1, "admin", "waitready", "-t", "1"))

    def test_help_is_there_for_every_command(self):
        self.assertIn("Available Commands:", self.ok())
        self.assertIn("Usage:\n  virga launch ", self.ok("launch"))
        self.assertEqual(self.ok("help", "config", "device"), self.ok("config", "device", "--help"))

    def test_errors_of_the_server_are_printed(self):
        self.assertEqual(self.fails(1, "profile", "show", "x"), "Error: not found\n")
        self.api.routes["GET /1.0/profiles/x"] = Answer.error(500, "boom \x1b[31m\u202e")
        self.assertEqual(self.fails(1, "profile", "show", "x"), "Error: boom \\x1b[31m\\u202e\n")

    def test_project(self):
        self.api.routes["GET /1.0/projects/p1"] = {"name": "p1"}
        self.api.routes["GET /1.0/profiles"] = []
        self.ok("profile", "list")
        self.assertNotIn("project=", self.api.requests[-1][1])
        self.ok("project", "switch", "p1")
        self.ok("profile", "list")
        self.assertIn("project=p1", self.api.requests[-1][1])
        self.ok("profile", "list", "--project", "default")
        self.assertIn("project=default", self.api.requests[-1][1])


class Hostile(Case):
    """S18 of the threat list: names, descriptions and logs with control characters are shown, not obeyed."""

    EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e"

    def assert_harmless(self, text):
        for character in text:
            self.assertTrue(character in "\n\t" or (ord(character) >= 32 and not 0x7F <= ord(character) < 0xA0 and character != "\u202e"), repr(text))

    def test_lists_and_infos(self):
        instance = {"name": self.EVIL, "description": self.EVIL, "status": "Running", "type": "container", "profiles": [self.EVIL], "created_at": self.EVIL,
                    "state": {"network": {self.EVIL: {"addresses": [{"family": "inet", "address": self.EVIL, "scope": "global"}]}}, "disk": {self.EVIL: {"usage": 5}}}}
        self.api.routes["GET /1.0/instances"] = [instance]
        self.api.routes["GET /1.0/instances/c1"] = instance
        for words in (["list"], ["list", "-c", "ndP4"], ["list", "-f", "csv"], ["list", "-f", "json"], ["list", "-f", "yaml"], ["info", "c1"], ["config", "show", "c1"],
                      ["query", "/1.0/instances"]):
            self.assert_harmless(self.ok(*words))

    def test_logs(self):
        self.api.routes["GET /1.0/instances/c1"] = {"name": "c1", "status": "Stopped", "type": "container", "state": {}}
        self.api.routes["GET /1.0/instances/c1/logs/lxc.log"] = self.EVIL
        self.assert_harmless(self.ok("info", "c1", "--show-log"))

    def test_odd_answers_are_errors(self):
        for body in ([], "x", {"type": "sync", "metadata": 7}, {"type": 5}):
            self.api.routes["GET /1.0/instances"] = Answer(200, body)
            self.assertTrue(self.fails(1, "list").startswith("Error: "), body)


class Operations(Case):
    def finish(self, code=200, error="", metadata=None, resources=None):
        ended = {"id": "op", "status_code": code, "err": error, "metadata": metadata or {}, "resources": resources or {}}
        self.api.routes["GET /1.0/operations/op/wait"] = ended
        self.api.routes["GET /1.0/operations/op"] = ended

    def test_launch(self):
        self.api.routes["GET /1.0/images/aliases/tiny"] = {"name": "tiny"}
        self.api.routes["POST /1.0/instances"] = Answer.operation()
        self.api.routes["GET /1.0/instances/clever-name"] = {"name": "clever-name", "expanded_devices": {"eth0": {"type": "nic"}}}
        self.api.routes["PUT /1.0/instances/clever-name/state"] = Answer.operation()
        self.finish(resources={"instances": ["/1.0/instances/clever-name"]})
        self.assertEqual(self.ok("launch", "tiny", "-c", "limits.cpu=2"), "Launching the instance\nInstance name is: clever-name\n")
        self.assertEqual(self.sent("POST", "/1.0/instances")["source"], {"type": "image", "alias": "tiny"})
        self.assertEqual(self.sent("PUT", "/1.0/instances/clever-name/state")["action"], "start")
        self.assertEqual(self.ok("launch", "tiny", "-q"), "")

    def test_failed_operations(self):
        self.api.routes["PUT /1.0/instances/c1/state"] = Answer.operation()
        self.api.routes["GET /1.0/instances/c1"] = {"name": "c1"}
        self.finish(400, "no space left")
        message = self.fails(1, "start", "c1")
        self.assertTrue(message.startswith("Error: no space left\n"), message)
        self.assertIn("virga info --show-log c1", message)

    def test_several_instances_are_all_tried(self):
        self.api.routes["PUT /1.0/instances/c2/state"] = Answer.operation()
        self.api.routes["PUT /1.0/instances/c1/state"] = Answer.error(400, "already stopped")
        self.finish()
        self.assertEqual(self.fails(1, "stop", "c1", "c2"), "c1: error: already stopped\n\nError: Some instances failed to stop\n")
        self.assertEqual(self.sent("PUT", "/1.0/instances/c2/state"), {"action": "stop", "timeout": -1, "force": False, "stateful": False})

    def test_interrupt_cancels(self):
        self.api.routes["GET /1.0/instances/c1"] = {"name": "c1"}
        self.api.routes["PUT /1.0/instances/c1/state"] = Answer.operation()
        cancelled, waiting = threading.Event(), threading.Event()

        def wait(_):
            waiting.set()
            cancelled.wait(PATIENCE)
            return {"id": "op", "status_code": 401, "err": ""}

        self.api.routes["GET /1.0/operations/op/wait"] = wait
        self.api.routes["DELETE /1.0/operations/op"] = lambda _: cancelled.set()
        process = self.start_virga("stop", "c1", stderr=subprocess.PIPE, text=True)
        self.assertTrue(waiting.wait(PATIENCE))
        self.wait_until_handled(process, signal.SIGINT)
        process.send_signal(signal.SIGINT)
        _, message = process.communicate(timeout=PATIENCE)
        self.assertEqual((process.returncode, message), (130, "Error: the operation was cancelled\n"))


class Documents(Case):
    def setUp(self):
        super().setUp()
        self.api.routes["GET /1.0/profiles/p"] = {"config": {"a": "1"}, "description": "", "devices": {}, "name": "p", "used_by": None}

    def editor(self, script):
        path = os.path.join(self.directory.name, "editor")
        with open(path, "w") as file:
            file.write("#!/bin/sh\n" + script)
        os.chmod(path, 0o755)
        self.env["EDITOR"] = path
        self.env.pop("VISUAL", None)

    def test_set_sends_the_etag(self):
        self.ok("profile", "set", "p", "b=2", "c=x=y")
        method, _, headers, body = self.api.requests[-1]
        self.assertEqual((method, headers["if-match"]), ("PUT", "abc"))
        self.assertEqual(json.loads(body), {"config": {"a": "1", "b": "2", "c": "x=y"}, "description": "", "devices": {}})
        self.assertIn("not currently set", self.fails(1, "profile", "unset", "p", "nope"))

    def test_edit_from_a_pipe(self):
        self.ok("profile", "edit", "p", stdin="config:\n  a: 7\nname: p\n")
        self.assertEqual(self.sent("PUT", "/1.0/profiles/p"), {"config": {"a": "7"}})
        self.assertIn("line", self.fails(1, "profile", "edit", "p", stdin="a: [\n"))
        self.assertIn("nothing is changed", self.fails(1, "profile", "edit", "p", stdin=""))

    def test_a_text_that_does_not_parse_is_offered_again_as_it_was_left(self):
        self.editor('if grep -q BROKEN "$1"; then sed -i "s/BROKEN: \\[/description: mended/" "$1"; else echo "BROKEN: [" > "$1"; fi\n')
        pid, terminal = pty.fork()
        if pid == 0:
            os.execve(VIRGA, [VIRGA, "profile", "edit", "p"], self.env)
        text = b""
        while b"Press enter" not in text:
            text += os.read(terminal, 4096)
        self.assertIn(b"Config parsing error", text)
        os.write(terminal, b"\n")
        _, status = os.waitpid(pid, 0)
        os.close(terminal)
        self.assertEqual(os.waitstatus_to_exitcode(status), 0)
        self.assertEqual(self.sent("PUT", "/1.0/profiles/p"), {"description": "mended"})

    def test_nothing_is_sent_when_nothing_changed(self):
        self.editor("true\n")
        pid, terminal = pty.fork()
        if pid == 0:
            os.execve(VIRGA, [VIRGA, "profile", "edit", "p"], self.env)
        _, status = os.waitpid(pid, 0)
        os.close(terminal)
        self.assertEqual(os.waitstatus_to_exitcode(status), 0)
        self.assertNotIn("PUT", [r[0] for r in self.api.requests])


class Exec(Case):
    def setUp(self):
        super().setUp()
        self.ended = threading.Event()
        self.result = {"id": "op", "status_code": 200, "err": "", "metadata": {"return": 0}}
        self.control, self.input, self.resized = [], [], threading.Event()
        self.api.routes["GET /1.0/operations/op/wait"] = self.wait
        self.api.sockets.update(zero=self.read_input, ctl=self.read_control)

    def wait(self, _):
        self.ended.wait(PATIENCE)
        return self.result

    def read_input(self, socket):
        while (message := socket.read())[0] == WebSocket.BINARY:
            self.input.append(message[1])
        if message[0] == WebSocket.TEXT:
            self.input.append(None)  # the end of input
            self.ended.set()

    def read_control(self, socket):
        while (message := socket.read())[0] == WebSocket.TEXT:
            self.control.append(json.loads(message[1]))
            self.resized.set()

    def say(self, data, last=False):
        def serve(socket):
            for piece in data:
                socket.send(WebSocket.BINARY, piece)
            socket.send(WebSocket.TEXT)
            socket.read()  # the client's goodbye
            if last:
                self.ended.set()

        return serve

    def separate(self, out, err):
        self.api.routes["POST /1.0/instances/c1/exec"] = Answer.operation(metadata={"fds": {"0": "zero", "1": "one", "2": "two", "control": "ctl"}})
        self.api.sockets.update(one=self.say(out), two=self.say(err))

    def test_streams_are_apart_and_the_code_is_the_commands(self):
        self.separate([b"out", b"put\x1b[m\n", b"x" * 300_000], [b"oops\n"])
        self.result["metadata"]["return"] = 42
        done = self.run_virga("exec", "c1", "--env", "A=b", "--user", "5", "--cwd", "/tmp", "--", "cmd", "-x", stdin="typed")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (42, "output\x1b[m\n" + "x" * 300_000, "oops\n"))
        self.assertEqual((b"".join(self.input[:-1]), self.input[-1]), (b"typed", None))
        sent = self.sent("POST", "/1.0/instances/c1/exec")
        self.assertEqual((sent["command"], sent["user"], sent["cwd"], sent["interactive"], sent["environment"]["A"]), (["cmd", "-x"], 5, "/tmp", False, "b"))

    def test_a_command_that_does_not_exist(self):
        self.separate([], [])
        self.result.update(status_code=400, err="Command not found", metadata={"return": 127})
        done = self.run_virga("exec", "c1", "--", "nope")
        self.assertEqual((done.returncode, done.stderr), (127, "Error: Command not found\n"))

    def test_signals_go_to_the_command(self):
        self.separate([], [])
        process = self.start_virga("exec", "c1", "--", "sleep", "9", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.wait_until_handled(process, signal.SIGUSR1)
        process.send_signal(signal.SIGUSR1)
        self.assertTrue(self.resized.wait(PATIENCE))
        self.assertIn({"command": "signal", "signal": int(signal.SIGUSR1)}, self.control)
        self.result["metadata"]["return"] = 143
        self.ended.set()
        process.communicate(timeout=PATIENCE)
        self.assertEqual(process.returncode, 143)

    def test_terminals_are_raw_and_follow_their_size(self):
        self.api.routes["POST /1.0/instances/c1/exec"] = Answer.operation(metadata={"fds": {"0": "tty", "control": "ctl"}})
        typed = threading.Event()

        def serve(socket):
            socket.send(WebSocket.BINARY, b"ready")
            self.input.append(socket.read()[1])
            typed.set()
            self.resized.wait(PATIENCE)
            socket.send(WebSocket.CLOSE, struct_close())
            socket.read()
            self.ended.set()

        self.api.sockets["tty"] = serve
        pid, terminal = pty.fork()
        if pid == 0:
            os.execve(VIRGA, [VIRGA, "exec", "c1", "sh"], self.env)
        text = b""
        while b"ready" not in text:
            text += os.read(terminal, 4096)
        os.write(terminal, b"\x03")  # not an interrupt for us: the terminal is raw
        self.assertTrue(typed.wait(PATIENCE))
        self.assertEqual(self.input, [b"\x03"])
        subprocess.run(["stty", "rows", "40", "cols", "100"], stdin=terminal, check=True)
        self.assertTrue(self.resized.wait(PATIENCE))
        self.assertEqual(self.control[-1], {"command": "window-resize", "args": {"width": "100", "height": "40"}})
        _, status = os.waitpid(pid, 0)
        os.close(terminal)
        self.assertEqual(os.waitstatus_to_exitcode(status), 0)
        self.assertTrue(self.sent("POST", "/1.0/instances/c1/exec")["interactive"])


def struct_close():
    return b"\x03\xe8"


class Init(Case):
    def test_auto_makes_what_is_missing(self):
        self.api.routes["GET /1.0/profiles/default"] = {"config": {}, "description": "", "devices": {"root": {"type": "disk", "path": "/", "pool": "old"}}}
        out = self.ok("admin", "init", "--auto", "--network-address", "::1")
        self.assertEqual(out, "Storage pool default created\nNetwork virgabr0 created\nProfile default updated\n")
        self.assertEqual(self.sent("PUT", "/1.0")["config"], {"core.https_address": "[::1]:8443"})
        self.assertEqual(self.sent("PUT", "/1.0/profiles/default")["devices"],
                         {"root": {"type": "disk", "path": "/", "pool": "old"}, "eth0": {"type": "nic", "name": "eth0", "network": "virgabr0"}})

    def test_auto_leaves_alone_what_is_there(self):
        self.api.routes["GET /1.0/storage-pools/default"] = {"name": "default", "driver": "dir"}
        self.api.routes["GET /1.0/networks/virgabr0"] = {"name": "virgabr0", "managed": True}
        self.api.routes["GET /1.0/profiles/default"] = {"config": {}, "description": "", "devices": {"root": {}, "eth0": {}}}
        self.assertEqual(self.ok("admin", "init", "--auto"), "")
        self.assertEqual({r[0] for r in self.api.requests}, {"GET"})


class Monitor(Case):
    def test_events(self):
        event = {"type": "lifecycle", "timestamp": "2026-01-31T12:00:00Z", "metadata": {"action": "instance-started", "source": "/1.0/instances/c1"}}

        def serve(socket):
            socket.send(WebSocket.TEXT, json.dumps(event).encode())
            socket.send(WebSocket.CLOSE)
            socket.read()

        self.api.sockets["/1.0/events"] = serve
        done = self.run_virga("monitor", "--type", "lifecycle", "--pretty")
        self.assertIn('msg="Action: instance-started, Source: /1.0/instances/c1', done.stdout)
        self.assertEqual((done.returncode, done.stderr), (1, "Error: the daemon closed the event stream\n"))
        self.assertIn("type=lifecycle", self.api.requests[-1][1])


if __name__ == "__main__":
    unittest.main()
