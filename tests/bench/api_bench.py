#!/usr/bin/env python3
"""Requests a second, latencies, event fan-out and memory of virga's daemon beside the real incus daemon, on this machine in this run. Both serve the
same number of stopped containers with the same shape; virga on its fake drivers, incus from rows put into its database. Rounds are interleaved, so
that a busy moment hits both alike: the ratios count, not the absolute numbers. Nothing is asserted.

usage: api_bench.py [--rounds N] [--seconds S] [--counts 1000,10000] [--json FILE]
"""
import argparse
import json
import os
import statistics
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import bench  # noqa: E402  (sets VIRGA_BIN to the release build)
import support  # noqa: E402
from api import Api  # noqa: E402

SEED = """
WITH RECURSIVE n(i) AS (SELECT {first} UNION ALL SELECT i+1 FROM n WHERE i < {last}) INSERT INTO instances (node_id, name, architecture, type, ephemeral,
 creation_date, stateful, last_use_date, description, project_id, expiry_date) SELECT node_id, 'i' || substr('00000' || n.i, -5), architecture, type,
 ephemeral, creation_date, stateful, last_use_date, description, project_id, expiry_date FROM n, instances WHERE name = 'e1';
INSERT INTO instances_config (instance_id, key, value) SELECT i.id, c.key, CASE WHEN c.key LIKE 'volatile.uuid%' THEN lower(hex(randomblob(4)) || '-' ||
 hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 1, 3) || '-a' || substr(hex(randomblob(2)), 1, 3) || '-' || hex(randomblob(6))) ELSE c.value END
 FROM instances i, instances_config c JOIN instances e ON c.instance_id = e.id WHERE e.name = 'e1' AND i.name >= '{name}' AND i.name <> 'e1';
INSERT INTO instances_profiles (instance_id, profile_id, apply_order) SELECT i.id, p.profile_id, p.apply_order FROM instances i, instances_profiles p
 JOIN instances e ON p.instance_id = e.id WHERE e.name = 'e1' AND i.name >= '{name}' AND i.name <> 'e1';
"""


class Side:
    """One of the two daemons: where it listens, and how it gets more instances."""

    def __init__(self, name, socket, pid):
        self.name, self.socket, self.pid, self.count = name, socket, pid, 0

    def resident(self):
        line = next(l for l in open(f"/proc/{self.pid}/status") if l.startswith("VmRSS"))
        return int(line.split()[1]) / 1024


class Virga(Side):
    def __init__(self, image):
        self.daemon = support.Daemon(extra=["--fake-drivers"])
        super().__init__("virga", self.daemon.socket, self.daemon.process.pid)
        self.api = Api(self.socket)
        virga = support.Client(self.daemon, "virga")
        virga("admin", "init", "--auto")
        virga("profile", "device", "remove", "default", "eth0")  # the other side has no NICs either
        self.fingerprint = self.api.import_image(image, "tiny")

    def grow(self, count):
        pending = []
        for n in range(self.count, count):
            pending.append(self.api("POST", "/1.0/instances", {"name": f"i{n:05}", "source": {"type": "image", "fingerprint": self.fingerprint}}, wait=False)["id"])
            if len(pending) >= 200 or n == count - 1:
                for operation in pending:
                    self.api.wait(operation)
                pending.clear()
        self.count = count

    def stop(self):
        self.daemon.process.kill()
        self.daemon.process.wait()
        support.unmount_below(self.daemon.base)
        subprocess.run(["rm", "-rf", "--one-file-system", self.daemon.base], check=False)


class Incus(Side):
    def __init__(self, oracle):
        self.oracle = oracle
        super().__init__("incus", oracle.base + "/unix.socket", oracle.pid)
        api = Api(self.socket)
        api("POST", "/1.0/storage-pools", {"name": "default", "driver": "dir"})
        api("PUT", "/1.0/profiles/default", {"description": "", "config": {}, "devices": {"root": {"type": "disk", "path": "/", "pool": "default"}}})
        api("POST", "/1.0/instances", {"name": "e1", "source": {"type": "none"}})

    def grow(self, count):
        first = max(self.count, 1)
        sql = SEED.format(first=first, last=count - 1, name=f"i{first:05}")
        env = dict(os.environ, INCUS_DIR=self.oracle.base, INCUS_CONF=self.oracle.base)
        subprocess.run(["incus", "admin", "sql", "global", "-"], input=sql, text=True, env=env, check=True, capture_output=True)
        self.count = count

    def stop(self):
        self.oracle.stop()


class Run:
    def __init__(self, options, sides, load):
        self.options, self.sides, self.load, self.rows = options, sides, load, []

    def call(self, side, *arguments):
        out = subprocess.run([self.load, arguments[0], side.socket, *map(str, arguments[1:])], capture_output=True, text=True)
        if out.returncode != 0:
            raise RuntimeError(f"{side.name}: {out.stderr}")
        return json.loads(out.stdout)

    def interleaved(self, label, goal, arguments, show):
        """The medians of each side over all rounds."""
        results = {side.name: [] for side in self.sides}
        for _ in range(self.options.rounds):
            for side in self.sides:
                results[side.name].append(self.call(side, *arguments))
        row = {"measure": label, "goal": goal}
        for name, values in results.items():
            row[name] = {key: statistics.median(v[key] for v in values) for key in show}
        if "incus" in row:
            row["ratio"] = row["virga"]["rate"] / row["incus"]["rate"]
        self.rows.append(row)
        self.print(row)

    @staticmethod
    def print(row):
        def cells(name):
            r = row.get(name)
            return f"{r['rate']:>10.2f}/s {r['p50_ms']:>9.2f} {r['p99_ms']:>9.2f}" if r else f"{'':>32}"
        ratio = f"{row['ratio']:8.1f}x" if "ratio" in row else ""
        print(f"{row['measure']:44} {cells('virga')} {cells('incus')} {ratio}  {row['goal']}", flush=True)

    def measure(self, path, label, goal, connections=(1, 16, 64)):
        for n in connections:
            self.interleaved(f"{label}, {n} conn", goal, ("get", path, n, self.options.seconds), ("rate", "p50_ms", "p99_ms"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--counts", default="1000,10000")
    parser.add_argument("--json")
    options = parser.parse_args()
    support.enter_private_namespaces()
    image, _ = support.tiny_images()
    virga = Virga(image)
    load = os.path.join(virga.daemon.base, "load")
    subprocess.run([os.environ.get("CXX", "clang++-19"), "-std=c++23", "-O2", "-o", load, os.path.join(HERE, "load.cc")], check=True)
    oracle = bench.Oracle.start()
    sides = [virga] + ([Incus(oracle)] if oracle else [])
    if not oracle:
        print("beside incus: skipped, the package incus-base is not installed or its daemon does not start here")
    run = Run(options, sides, load)
    try:
        print(f"{'measure':44} {'virga':>12} {'p50':>9} {'p99':>9} {'incus':>12} {'p50':>9} {'p99':>9}    ratio  goal")
        run.measure("/1.0", "GET /1.0", ">= 10x")
        run.interleaved("event to 100 listeners", ">= 10x", ("events", 100, 30), ("rate", "p50_ms", "p99_ms"))
        for count in map(int, options.counts.split(",")):
            for side in sides:
                side.grow(count)
            run.measure("/1.0/instances/i00001", f"one instance of {count}", ">= 10x")
            goal = ">= 20x" if count >= 10_000 else ">= 10x"
            for recursion in (0, 1, 2):
                # The real daemon closes connections when it is to make ten thousand objects sixteen times at once.
                connections = (1, 16, 64) if count * (recursion + 1) <= 2_000 else (1, 16) if recursion < 1 else (1,)
                run.measure(f"/1.0/instances?recursion={recursion}", f"list of {count}, recursion={recursion}", goal, connections)
            for side in sides:
                row = {"measure": f"resident with {count} instances, MiB", side.name: side.resident(), "goal": "< 60 MiB" if count >= 10_000 else ""}
                run.rows.append(row)
                print(f"{side.name}: {row['measure']}: {side.resident():.1f}  {row['goal'] if side is virga else ''}", flush=True)
    finally:
        for side in sides:
            side.stop()
    if options.json:
        json.dump(run.rows, open(options.json, "w"), indent=1)


if __name__ == "__main__":
    main()
