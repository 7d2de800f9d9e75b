"""Aliases and completion: in the real shells, against a fake daemon."""
import os
import pty
import re
import select
import shutil
import subprocess
import time
import unittest

from test_cli import PATIENCE, VIRGA, Case


class Aliases(Case):
    def test_add_use_rename_remove(self):
        self.api.routes["GET /1.0/profiles"] = []
        self.ok("alias", "add", "pl", "profile list --project @ARG1@")
        self.ok("pl", "p1")
        self.assertIn("project=p1", self.api.requests[-1][1])
        self.assertIn("pl,profile list --project @ARG1@,user\n", self.ok("alias", "list", "--format", "csv"))
        self.assertIn("needs 1 arguments, 0 given", self.fails(1, "pl"))
        self.assertIn("already exists", self.fails(1, "alias", "add", "pl", "list"))
        self.ok("alias", "rename", "pl", "profiles of")
        self.ok("profiles", "of", "p2")
        self.assertIn("project=p2", self.api.requests[-1][1])
        self.ok("alias", "remove", "profiles of")
        self.assertIn('unknown command "profiles"', self.fails(1, "profiles", "of", "p2"))
        self.assertIn("doesn't exist", self.fails(1, "alias", "remove", "pl"))

    def test_built_in_ones_are_listed_and_stay(self):
        self.assertIn("ps,list,built-in\n", self.ok("alias", "list", "--format", "csv"))
        self.assertIn("is built in", self.fails(1, "alias", "remove", "ps"))

    def test_an_alias_may_have_the_name_of_the_command_that_it_calls(self):
        self.api.routes["GET /1.0/profiles"] = []
        done = self.run_virga("alias", "add", "profile", "profile list --project px @ARGS@")
        self.assertEqual((done.returncode, done.stderr), (0, 'The command "profile" is hidden by this alias from now on\n'))
        self.ok("profile")
        self.assertIn("project=px", self.api.requests[-1][1])

    def test_target_is_refused_where_there_is_no_cluster(self):
        self.assertIn("must be a cluster", self.fails(1, "launch", "tiny", "c1", "--target", "n2"))
        self.assertEqual(self.api.requests, [])


class Completion(Case):
    def setUp(self):
        super().setUp()
        instances = [{"name": n, "status": "Running"} for n in ("web1", "web2", "db")]
        self.api.routes["GET /1.0/instances"] = instances
        self.api.routes["GET /1.0/profiles"] = [{"name": "small"}, {"name": "hostile\x1b[31m\nx"}]
        self.api.routes["GET /1.0/instances/web1"] = {"name": "web1", "devices": {"eth0": {"type": "nic"}, "root": {"type": "disk"}}}
        self.api.routes["GET /1.0/metadata/configuration"] = {"configs": {"instance": {"all": {"keys": [{"limits.cpu": {"shortdesc": "processors"}}, {"limits.memory": {}}]}}}}
        self.env["PATH"] = os.path.dirname(VIRGA) + ":" + os.environ["PATH"]

    def bash(self, line):
        """What bash would offer for a line, word by word as it takes it apart."""
        words = line.replace(":", " : ").replace("=", " = ").split(" ")
        words = [w for i, w in enumerate(words) if w or i == len(words) - 1]
        script = (f"source <('{VIRGA}' completion bash); COMP_WORDS=({' '.join(repr(w) for w in words)}); COMP_CWORD={len(words) - 1}; "
                  "_virga; printf '%s\\n' \"${COMPREPLY[@]}\"")
        done = subprocess.run(["bash", "--norc", "-c", script], env=self.env, capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual(done.stderr, "")
        return done.stdout.split()

    def test_bash(self):
        self.assertEqual(self.bash("virga sta"), ["start"])
        self.assertEqual(self.bash("virga start w"), ["web1", "web2"])
        self.assertEqual(self.bash("virga start web1 w"), ["web2"])
        self.assertEqual(self.bash("virga start local:w"), ["web1", "web2"])
        self.assertEqual(self.bash("virga config set web1 limits.c"), ["limits.cpu="])
        self.assertEqual(self.bash("virga config device remove web1 "), ["eth0", "root"])
        self.assertEqual(self.bash("virga list --format c"), ["compact", "csv"])
        self.assertEqual(self.bash("virga list --format=j"), ["json"])

    def test_names_of_others_stay_one_line_of_text(self):
        out = self.ok("__complete", "--", "profile", "show", "h")
        self.assertEqual(out, "hostile\\x1b[31m\\nx\n")

    def test_without_a_daemon_there_are_commands_still(self):
        self.env["VIRGA_SOCKET"] = "/nonexistent/socket"
        self.assertEqual(self.ok("__complete", "--", "start", "w"), "")
        self.assertIn("start\t", self.ok("__complete", "--", "sta"))

    @unittest.skipUnless(shutil.which("fish"), "fish is not installed")
    def test_fish(self):
        script = f"'{VIRGA}' completion fish | source; complete -C 'virga start w'"
        done = subprocess.run(["fish", "--no-config", "-c", script], env=self.env, capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual((done.stdout, done.stderr), ("web1\tRunning\nweb2\tRunning\n", ""))

    @unittest.skipUnless(shutil.which("zsh"), "zsh is not installed")
    def test_zsh(self):
        pid, terminal = pty.fork()
        if pid == 0:
            os.execvpe("zsh", ["zsh", "-f", "-i"], {**self.env, "TERM": "dumb", "PS1": "> "})
        self.addCleanup(os.close, terminal)
        seen = ""

        def read_until(text):
            nonlocal seen
            end = time.monotonic() + PATIENCE
            while text not in re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]|[\r\x07]", "", seen):
                self.assertLess(time.monotonic(), end, repr(seen))
                if select.select([terminal], [], [], 1)[0]:
                    seen += os.read(terminal, 4096).decode(errors="replace")

        setup = f"autoload -U compinit && compinit -u -D && source <('{VIRGA}' completion zsh) && echo rea''dy\n"
        os.write(terminal, setup.encode())
        read_until("ready")
        os.write(terminal, b"echo virga sta\t")
        os.write(terminal, b"\x15virga start d\t")
        read_until("virga start db")
        os.write(terminal, b"\x15exit\n")
        os.waitpid(pid, 0)


class Reference(Case):
    def test_pages_are_good_manual_pages(self):
        out = os.path.join(self.directory.name, "man")
        self.ok("manpage", out)
        pages = os.listdir(out)
        self.assertGreater(len(pages), 80)
        for page in ("virga.1", "virga-config-device-add.1"):
            self.assertIn(page, pages)
        if shutil.which("groff"):
            done = subprocess.run(["groff", "-man", "-Tutf8", "-ww", "-z", *(os.path.join(out, p) for p in pages)], capture_output=True, text=True)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("one of: man, md", self.fails(1, "manpage", "--format", "pdf", out))


class Terminal(Case):
    def test_lists_fit_the_terminal_and_have_colours_unless_refused(self):
        self.api.routes["GET /1.0/instances"] = [{"name": "web", "status": "Running", "status_code": 103, "type": "container", "description": "word " * 40}]
        for extra, coloured in (({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)):
            out = self.on_terminal({**self.env, **extra}, "list", "-c", "nsd", columns=60)
            self.assertEqual("\x1b[32m" in out, coloured, out)
            for line in out.replace("\x1b[32m", "").replace("\x1b[0m", "").splitlines():
                self.assertLessEqual(len(line), 60, out)
        self.assertNotIn("\x1b", self.ok("list", "-c", "nsd"))

    def on_terminal(self, env, *words, columns):
        pid, terminal = pty.fork()
        if pid == 0:
            os.execve("/bin/sh", ["sh", "-c", f'stty cols {columns}; exec "$@"', "sh", VIRGA, *words], env)
        out = b""
        while True:
            try:
                part = os.read(terminal, 65536)
            except OSError:
                break
            if not part:
                break
            out += part
        os.close(terminal)
        os.waitpid(pid, 0)
        return out.decode()


if __name__ == "__main__":
    unittest.main()
