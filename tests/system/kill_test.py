"""kill -9 of the daemon at every boundary of every operation, and again during the recovery that follows: guests that ran run on, nothing
half-made is visible, nothing is left behind, and a second try succeeds. VIRGA_KILL_KINDS names the kinds,
VIRGA_KILL_OPERATIONS the operations; needs a build with fault points.

VARIANTS: VIRGA_KILL_KINDS=container VIRGA_KILL_KINDS=virtual-machine
"""
import json
import os
import subprocess
import sys
import unittest

import support
from api import Api, ApiError, Disconnected

KINDS = os.environ.get("VIRGA_KILL_KINDS", "container,virtual-machine").split(",")


class World:
    """A daemon, a witness of each kind that must live through everything, and the operations under test."""

    def __init__(self):
        support.enter_private_namespaces()
        self.images = dict(zip(("container", "virtual-machine"), support.tiny_images()))
        self.daemon = support.Daemon()
        self.api = Api(self.daemon.socket)
        support.Client(self.daemon, "virga")("admin", "init", "--auto")
        self.api("POST", "/1.0/projects", {"name": "other", "config": {"features.images": "false", "features.profiles": "false"}})
        self.fingerprints = {}
        for kind in KINDS:
            self.fingerprints[kind] = self.api.import_image(self.images[kind], f"tiny-{kind}")
            self.create(kind, self.witness(kind))
            self.state(self.witness(kind), "start")
            self.run_in(self.witness(kind))
        self.pids = {kind: self.pid(self.witness(kind)) for kind in KINDS}
        self.baseline = support.leftovers(self.daemon)
        self.tag = support.cgroup_tag(next(iter(self.pids.values())))
        self.baseline_cgroups = support.cgroups(self.tag)

    @staticmethod
    def witness(kind):
        return "witness-" + kind[0]

    def create(self, kind, name):
        return self.api("POST", "/1.0/instances", {"name": name, "type": kind, "config": {"limits.memory": "96MiB"},
                                                   "source": {"type": "image", "fingerprint": self.fingerprints[kind]}})

    def state(self, name, action, force=True):
        return self.api("PUT", f"/1.0/instances/{name}/state", {"action": action, "force": force, "timeout": 60})

    def pid(self, name):
        return self.api("GET", f"/1.0/instances/{name}/state")["pid"]

    def status(self, name, project="default"):
        return self.api("GET", f"/1.0/instances/{name}?project={project}")["status"]

    def run_in(self, name):
        """exec through the command line, which is what users have."""
        out = support.Client(self.daemon, "virga")("exec", name, "--", "echo", "works", timeout=90)
        assert out.strip() == "works", out

    # --- operations: prepare, run, and what must be true after a recovery and after success
    def operations(self, kind):
        api, name = self.api, "victim"
        url = f"/1.0/instances/{name}"

        def absent(n):
            assert not api.exists(f"/1.0/instances/{n}"), f"{n} is visible"

        def stopped(n):
            assert self.status(n) == "Stopped", self.status(n)

        def remove(n):
            if not api.exists(f"/1.0/instances/{n}"):
                return
            if self.status(n) != "Stopped":
                self.state(n, "stop")
            api("DELETE", f"/1.0/instances/{n}")

        def prepared(running=False):
            self.create(kind, name)
            if running:
                self.state(name, "start")

        def either(*checks):
            errors = []
            for check in checks:
                try:
                    return check()
                except AssertionError as error:
                    errors.append(str(error))
            raise AssertionError(" nor ".join(errors))

        def retry(action, done):
            """Unless recovery has finished it, the operation must work now."""
            try:
                done()
            except (AssertionError, ApiError):
                action()
                done()

        def exists_stopped():
            assert api.exists(url), "absent"
            stopped(name)

        def running():
            assert self.status(name) == "Running", self.status(name)

        create = lambda: self.create(kind, name)
        start = lambda: self.state(name, "start")
        stop = lambda: self.state(name, "stop")
        delete = lambda: api("DELETE", url)
        rename = lambda: api("POST", url, {"name": "renamed"})

        def renamed():
            absent(name)
            stopped("renamed")

        yield "create", lambda: None, create, lambda: either(lambda: absent(name), exists_stopped), lambda: retry(create, exists_stopped), lambda: remove(name)
        yield ("start", prepared, start, lambda: either(lambda: stopped(name), running), lambda: (retry(start, running), self.run_in(name)), lambda: remove(name))
        yield ("stop", lambda: prepared(True), stop, lambda: either(lambda: stopped(name), running), lambda: retry(stop, lambda: stopped(name)), lambda: remove(name))
        yield "delete", prepared, delete, lambda: either(lambda: absent(name), lambda: stopped(name)), lambda: retry(delete, lambda: absent(name)), lambda: remove(name)
        yield ("rename", prepared, rename, lambda: either(renamed, lambda: (stopped(name), absent("renamed"))), lambda: retry(rename, renamed),
               lambda: (remove(name), remove("renamed")))
        yield from self.move_operation(kind, prepared, either, retry, remove)
        yield from self.snapshot_operations(kind, name, url, prepared, remove, either, retry)
        # Of a guest that runs: it must not be left standing still.
        copy = lambda: api("POST", "/1.0/instances", {"name": name, "source": {"type": "copy", "source": self.witness(kind)}})

        def copied():
            exists_stopped()
            assert self.status(self.witness(kind)) == "Running", self.status(self.witness(kind))
            self.run_in(self.witness(kind))

        def not_copied():
            absent(name)
            self.run_in(self.witness(kind))

        yield "copy", lambda: None, copy, lambda: either(copied, not_copied), lambda: retry(copy, copied), lambda: remove(name)
        yield from self.import_operation(kind)

    def move_operation(self, kind, prepared, either, retry, remove):
        """Into another project, where it starts."""
        api, name, there = self.api, "victim", "/1.0/instances/victim?project=other"
        here = f"/1.0/instances/{name}"

        def stayed():
            assert api.exists(here) and not api.exists(there), "it is in both projects or in none"
            assert self.status(name) == "Stopped", self.status(name)

        def moved():
            assert api.exists(there) and not api.exists(here), "it is in both projects or in none"
            assert self.status(name, "other") == "Stopped", self.status(name, "other")

        def works():
            url = "/1.0/instances/victim/state?project=other"
            api("PUT", url, {"action": "start"})
            api("PUT", url, {"action": "stop", "force": True})

        def clean():
            remove(name)
            if api.exists(there):
                if self.status(name, "other") != "Stopped":
                    api("PUT", "/1.0/instances/victim/state?project=other", {"action": "stop", "force": True})
                api("DELETE", there)

        move = lambda: api("POST", here, {"name": name, "project": "other", "migration": True})
        yield "move", prepared, move, lambda: either(stayed, moved), lambda: (retry(move, moved), works()), clean

    def snapshot_operations(self, kind, name, url, prepared, remove, either, retry):
        """What the guest wrote is what tells a snapshot that was half taken, or a root that was half restored."""
        api, cli = self.api, support.Client(self.daemon, "virga")

        def write(text):
            cli("exec", name, "--", "sh", "-c", f"echo {text} > /root/x; sync", timeout=120)

        def read():
            return cli("exec", name, "--", "cat", "/root/x", timeout=120).strip()

        def snapshots():
            return [s["name"] for s in api("GET", f"{url}/snapshots?recursion=1")]

        def expect(value, wanted):
            assert value == wanted, f"{value} instead of {wanted}"

        def begin(*kept):
            prepared(True)
            for text in kept:
                write(text)
                api("POST", f"{url}/snapshots", {"name": text})
            write("last")

        def runs(text="last"):
            expect(self.status(name), "Running")
            expect(read(), text)
            write(text)

        def whole(*wanted):
            """Each snapshot that is listed can be gone back to, and the volume has no other."""
            def check():
                expect(snapshots(), list(wanted))
                volume = f"{self.daemon.state}/storage-pools/default/{kind}s/{name}"
                if kind == "container":
                    there = sorted(os.listdir(f"{volume}/snapshots")) if os.path.isdir(f"{volume}/snapshots") else []
                else:
                    text = support.contents(f"{volume}/disk.json").decode() if os.path.exists(f"{volume}/disk.json") else '{"snapshots":{}}'
                    there = sorted(json.loads(text)["snapshots"])
                expect(there, sorted(wanted))
            return check

        take = lambda: api("POST", f"{url}/snapshots", {"name": "last"})
        restore = lambda: api("PUT", url, {"restore": "one"})
        delete = lambda: api("DELETE", f"{url}/snapshots/one")
        rename = lambda: api("POST", f"{url}/snapshots/one", {"name": "uno"})

        def go_back(snapshot, text):
            api("PUT", url, {"restore": snapshot})
            runs(text)

        yield ("snapshot", lambda: begin("one"), take, lambda: (runs(), either(whole("one"), whole("one", "last"))),
               lambda: (retry(take, whole("one", "last")), write("later"), go_back("last", "last"), go_back("one", "one")), lambda: remove(name))

        def back():
            if self.status(name) != "Running":
                self.state(name, "start")
            either(lambda: expect(read(), "one"), lambda: expect(read(), "last"))

        yield ("restore", lambda: begin("one", "two"), restore, lambda: (whole("one", "two")(), back()),
               lambda: (go_back("one", "one"), go_back("two", "two")), lambda: remove(name))
        yield ("snapshot-delete", lambda: begin("one", "two"), delete, lambda: (runs(), either(whole("one", "two"), whole("two"))),
               lambda: (retry(delete, whole("two")), go_back("two", "two")), lambda: remove(name))
        yield ("snapshot-rename", lambda: begin("one"), rename, lambda: (runs(), either(whole("one"), whole("uno"))),
               lambda: (retry(rename, whole("uno")), go_back("uno", "one")), lambda: remove(name))

    def import_operation(self, kind):
        """A second image that differs by a byte of its file only: its metadata tarball is packed anew."""
        path = self.variant(kind)
        alias = f"again-{kind}"
        alias_url = f"/1.0/images/aliases/{alias}"

        def fingerprint():
            return self.api("GET", alias_url)["target"]

        def all_or_nothing():
            listed = self.api("GET", "/1.0/images")
            if self.api.exists(alias_url):
                assert any(i.endswith(fingerprint()) for i in listed), "alias without image"
                assert len(listed) == len(KINDS) + 1, listed
            else:
                assert len(listed) == len(KINDS), listed

        def again():
            if not self.api.exists(alias_url):
                self.api.import_image(path, alias)
            assert self.api.exists(alias_url)

        def clean():
            if self.api.exists(alias_url):
                self.api("DELETE", f"/1.0/images/{fingerprint()}")

        yield "import", lambda: None, lambda: self.api.import_image(path, alias), all_or_nothing, again, clean

    def variant(self, kind):
        out = os.path.join(self.daemon.base, f"variant-{kind}.tar")
        if not os.path.exists(out):
            work = os.path.join(self.daemon.base, f"variant-{kind}")
            os.mkdir(work)
            subprocess.run(["tar", "-C", work, "-xf", self.images[kind]], check=True)
            with open(os.path.join(work, "metadata.yaml"), "a") as f:
                f.write("\n")
            subprocess.run(["tar", "-C", work, "-cf", out, *sorted(os.listdir(work))], check=True)
            subprocess.run(["rm", "-rf", work], check=True)
        return out

    # --- checks
    def check_world(self, where):
        for kind in KINDS:
            assert self.pid(self.witness(kind)) == self.pids[kind], f"{where}: {self.witness(kind)} is another process"

    def check_clean(self, where):
        left, groups = support.leftovers(self.daemon), support.cgroups(self.tag)
        for key in set(left) | set(self.baseline):
            extra = set(left.get(key, [])) - set(self.baseline.get(key, []))
            assert not extra, f"{where}: left behind in {key}: {extra}"
        assert not set(groups) - set(self.baseline_cgroups), f"{where}: control groups left: {set(groups) - set(self.baseline_cgroups)}"


def points_of(path):
    if not os.path.exists(path):
        return []
    with open(path) as f:
        names = [line.strip() for line in f]
    os.unlink(path)
    counted, out = {}, []
    for n in names:
        counted[n] = counted.get(n, 0) + 1
        out.append(f"{n}#{counted[n]}")
    return out


class KillTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.world = World()
        cls.record = os.path.join(cls.world.daemon.base, "points")

    @classmethod
    def tearDownClass(cls):
        left = cls.world.daemon.destroy()
        if left:
            raise AssertionError(f"left behind: {left}")

    def attempt(self, run):
        try:
            run()
        except (Disconnected, ApiError, support.CommandFailed):
            pass

    def one(self, label, point, operation, recovery_point=None):
        w = self.world
        name, prepare, run, after, retry, clean = operation
        where = f"{label}, killed at {point}" + (f" and at {recovery_point}" if recovery_point else "")
        prepare()
        w.daemon.kill()
        w.daemon.start(env={"VIRGA_FAULT_KILL": point})
        self.attempt(run)
        self.assertTrue(w.daemon.wait_dead(60), f"{where}: the daemon lives on")
        if recovery_point:
            w.daemon.start(env={"VIRGA_FAULT_KILL": recovery_point}, wait=False)
            self.assertTrue(w.daemon.wait_dead(60), f"{where}: the daemon lives on")
        w.daemon.start()
        try:
            w.check_world(where)
            after()
            retry()
            clean()
            w.check_clean(where)
        except (AssertionError, ApiError, support.CommandFailed) as error:
            self.attempt(clean)  # the next case begins from a clean state
            raise AssertionError(f"{where}: {error}\n{w.daemon.tail(15)}") from error

    def record_points(self, operation):
        """What a run without a kill passes."""
        w = self.world
        name, prepare, run, after, retry, clean = operation
        prepare()
        w.daemon.kill()
        w.daemon.start(env={"VIRGA_FAULT_LOG": self.record})
        points_of(self.record)
        run()
        points = points_of(self.record)
        w.daemon.kill()
        w.daemon.start()
        clean()
        return points

    def record_recovery(self, point, operation):
        w = self.world
        name, prepare, run, after, retry, clean = operation
        prepare()
        w.daemon.kill()
        w.daemon.start(env={"VIRGA_FAULT_KILL": point})
        self.attempt(run)
        w.daemon.wait_dead(60)
        w.daemon.start(env={"VIRGA_FAULT_LOG": self.record})
        points = points_of(self.record)
        w.daemon.kill()
        w.daemon.start()
        retry()
        clean()
        return points

    def kind(self, kind):
        only = os.environ.get("VIRGA_KILL_OPERATIONS", "").split(",")
        for operation in self.world.operations(kind):
            if only != [""] and operation[0] not in only:
                continue
            label = f"{operation[0]} of a {kind}"
            points = self.record_points(operation)
            self.assertGreaterEqual(len(points), 4, f"{label} passes fault points")
            for point in points:
                with self.subTest(operation=label, point=point):
                    self.one(label, point, operation)
            # Recovery has the most to do when everything but the outcome is done.
            late = [p for p in points if ".outcome.before" in p][-1]
            recovery = self.record_recovery(late, operation)
            self.assertTrue(recovery, f"{label}: recovery passes fault points")
            for point in recovery:
                with self.subTest(operation=label, point=late, recovery=point):
                    self.one(label, late, operation, point)
            print(f"  {label}: {len(points)} points, {len(recovery)} during recovery", file=sys.stderr)
        for kind_ in KINDS:
            self.world.run_in(self.world.witness(kind_))

    def test_every_operation_at_every_point(self):
        for kind in KINDS:
            self.kind(kind)


if __name__ == "__main__":
    unittest.main(verbosity=2)
