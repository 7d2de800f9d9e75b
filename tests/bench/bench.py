#!/usr/bin/env python3
"""Measures virga beside the bare tools and, where it is installed, beside the real incus daemon, on this machine in this run. Rounds are
interleaved, so that a busy moment hits all alike; medians, spread and ratios are printed, nothing is asserted.

usage: bench.py [--rounds N] [--only NAME,...] [--json FILE]      names: container vm stop idle files list
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../system"))
os.environ.setdefault("VIRGA_BIN", os.path.join(HERE, "../../build/release/bin"))
import support  # noqa: E402
from api import Api, ApiError  # noqa: E402


def timed(function):
    began = time.perf_counter()
    function()
    return (time.perf_counter() - began) * 1000


def summary(values):
    values = sorted(values)
    return {"median": statistics.median(values), "min": values[0], "max": values[-1], "n": len(values)}


class Table:
    def __init__(self):
        self.rows = []

    def add(self, name, unit, results, baseline=None, goal=None):
        """results: {who: [values]}; the ratio is to `baseline`."""
        for who, values in results.items():
            s = summary(values)
            base = summary(results[baseline])["median"] if baseline and baseline in results else None
            self.rows.append({"measure": name, "who": who, "unit": unit, **s, "ratio": s["median"] / base if base else None,
                              "difference": s["median"] - base if base else None, "goal": goal if who == "virga" else None})

    def show(self):
        print(f"\n{'measure':34} {'who':10} {'median':>10} {'min':>10} {'max':>10} {'n':>4} {'ratio':>7} {'diff':>9}  goal")
        for r in self.rows:
            ratio = f"{r['ratio']:.2f}" if r["ratio"] is not None else ""
            diff = f"{r['difference']:+.1f}" if r["difference"] is not None else ""
            print(f"{r['measure']:34} {r['who']:10} {r['median']:10.2f} {r['min']:10.2f} {r['max']:10.2f} {r['n']:4} {ratio:>7} {diff:>9}  {r['goal'] or ''} {r['unit']}")


class Bench:
    def __init__(self, rounds):
        self.rounds, self.table = rounds, Table()
        support.enter_private_namespaces()
        self.container_image, self.vm_image = support.tiny_images()
        self.daemon = support.Daemon()
        self.api = Api(self.daemon.socket)
        support.Client(self.daemon, "virga")("admin", "init", "--auto")
        self.container = self.api.import_image(self.container_image, "tiny-c")
        self.vm = self.api.import_image(self.vm_image, "tiny-v")

    def create(self, name, kind="container"):
        fingerprint = self.container if kind == "container" else self.vm
        self.api("POST", "/1.0/instances", {"name": name, "type": kind, "config": {"limits.memory": "128MiB"}, "source": {"type": "image", "fingerprint": fingerprint}})

    def state(self, name, action):
        self.api("PUT", f"/1.0/instances/{name}/state", {"action": action, "force": True})

    def delete(self, name):
        self.api("DELETE", f"/1.0/instances/{name}")

    # --- container create+start, beside the bare runtime on the same root with the same configuration
    def bench_container(self):
        self.create("warm")
        self.state("warm", "start")
        uuid = self.api("GET", "/1.0/instances/warm")["config"]["volatile.uuid"]
        bundle = os.path.join(self.daemon.state, "run", uuid)
        config = next((os.path.join(r, "config.json") for r, _, f in os.walk(bundle) if "config.json" in f), None)
        work = os.path.join(self.daemon.base, "bare")
        os.makedirs(os.path.join(work, "bundle"))
        spec = json.load(open(config))
        rootfs = spec["root"]["path"]
        spec["linux"]["cgroupsPath"] = "/virga-bench-bare"
        spec["process"]["terminal"] = False
        json.dump(spec, open(os.path.join(work, "bundle/config.json"), "w"))
        results = {"runc": [], "virga": []}

        def bare():
            subprocess.run(["runc", "--root", work + "/state", "create", "--bundle", work + "/bundle", "--pid-file", work + "/pid", "bare"], check=True,
                           stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            subprocess.run(["runc", "--root", work + "/state", "start", "bare"], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        def ours():
            self.create("bench")
            self.state("bench", "start")

        for _ in range(self.rounds):
            results["runc"].append(timed(bare))
            subprocess.run(["runc", "--root", work + "/state", "delete", "--force", "bare"], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            results["virga"].append(timed(ours))
            self.state("bench", "stop")
            self.delete("bench")
        assert rootfs
        self.state("warm", "stop")
        self.delete("warm")
        self.table.add("container create+start", "ms", results, "runc", "ratio <= 1.5")

    # --- VM start until its processors run, beside QEMU with the same arguments
    def bench_vm(self):
        self.create("vm", "virtual-machine")
        results = {"virga": [], "qemu": []}
        for _ in range(self.rounds):
            results["virga"].append(timed(lambda: self.state("vm", "start")))
            argv = self.qemu_arguments()
            self.state("vm", "stop")
            results["qemu"].append(self.bare_qemu(argv))
        self.delete("vm")
        self.table.add("VM start to running", "ms", results, "qemu", "diff <= 30")

    def qemu_arguments(self):
        pid = self.api("GET", "/1.0/instances/vm/state")["pid"]
        return open(f"/proc/{pid}/cmdline", "rb").read().rstrip(b"\0").decode().split("\0")

    def bare_qemu(self, argv):
        """QEMU with the same machine, its descriptors replaced by paths and its monitor on a socket of ours: until the monitor says it runs."""
        work = tempfile.mkdtemp(dir=self.daemon.base)
        disk = os.path.join(work, "disk.qcow2")
        image = os.path.join(self.daemon.state, "storage-pools/default/images", self.vm)
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", f"{image}/disk.qcow2", "-F", "qcow2", disk], check=True)
        keep, skip = [], {"-add-fd", "-chardev", "-mon", "-qmp", "-netdev", "-blockdev", "-device", "-serial", "-kernel", "-initrd", "-S", "-sandbox"}
        i = 0
        while i < len(argv):
            option = argv[i]
            has_value = i + 1 < len(argv) and not (argv[i + 1].startswith("-") and len(argv[i + 1]) > 1)
            if option not in skip:
                keep.append(option)
                if i > 0 and has_value:
                    keep.append(argv[i + 1])
            i += 2 if i > 0 and has_value else 1
        devices = ["-device", "virtio-rng-pci", "-device", "virtio-balloon-pci", "-device", "virtio-serial-pci", "-drive", f"file={disk},format=qcow2,if=virtio",
                   "-netdev", "hubport,id=n0,hubid=0", "-device", "virtio-net-pci,netdev=n0,romfile=", "-serial", "null"]
        monitor = os.path.join(work, "qmp")
        full = keep + devices + ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny", "-kernel", f"{image}/kernel", "-initrd", f"{image}/initrd",
                                 "-qmp", f"unix:{monitor},server=on,wait=off"]
        import socket
        began = time.perf_counter()
        process = subprocess.Popen(full, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=open(os.path.join(work, "err"), "wb"))
        while True:
            try:
                s = socket.socket(socket.AF_UNIX)
                s.connect(monitor)
                break
            except OSError:
                if process.poll() is not None:
                    raise RuntimeError(open(os.path.join(work, "err")).read())
                time.sleep(0.0005)
        f = s.makefile("rw")
        f.readline()
        for command in ("qmp_capabilities", "query-status"):
            f.write(json.dumps({"execute": command}) + "\n")
            f.flush()
            answer = json.loads(f.readline())
        assert answer["return"]["status"] == "running", answer
        took = (time.perf_counter() - began) * 1000
        process.kill()
        process.wait()
        shutil.rmtree(work)
        return took

    def bench_stop(self):
        results = {"container": [], "VM": []}
        self.create("sc")
        self.create("sv", "virtual-machine")
        for _ in range(self.rounds):
            for name, key in (("sc", "container"), ("sv", "VM")):
                self.state(name, "start")
                results[key].append(timed(lambda: self.state(name, "stop")))
        self.delete("sc")
        self.delete("sv")
        for key, values in results.items():
            self.table.add(f"forced stop of a {key}", "ms", {"virga": values}, goal="<= 60")

    def resident(self, pid):
        line = next(l for l in open(f"/proc/{pid}/status") if l.startswith("VmRSS"))
        return int(line.split()[1]) / 1024

    def bench_idle(self):
        idle = support.Daemon()
        try:
            values = {"virga": [self.resident(idle.process.pid)]}
            oracle = Oracle.start()
            if oracle:
                values["incus"] = [self.resident(oracle.pid)]
                oracle.stop()
            self.table.add("daemon idle, resident", "MiB", values, "incus", "<= 15")
        finally:
            idle.destroy()

    # --- 1 GiB into a container and out of it, beside cp and cat on the same file system; the daemon's memory meanwhile
    def bench_files(self, size=1 << 30):
        self.create("files")
        self.state("files", "start")
        virga = support.Client(self.daemon, "virga")
        # What is measured is neither the disk's first write of the source nor its compression: random bytes, read once before.
        source, copy = os.path.join(self.daemon.base, "source"), os.path.join(self.daemon.base, "copy")
        with open(source, "wb") as f:
            block = os.urandom(1 << 20)
            for _ in range(size >> 20):
                f.write(block)
        push, pull, resident = {"cp": [], "virga": []}, {"cat": [], "virga": []}, []
        for _ in range(max(3, self.rounds // 3)):
            push["cp"].append(timed(lambda: subprocess.run(["cp", source, copy], check=True)))
            push["virga"].append(timed(lambda: virga("file", "push", source, "files/root/copy")))
            resident.append(self.resident(self.daemon.process.pid))
            with open(os.devnull, "wb") as null:
                pull["cat"].append(timed(lambda: subprocess.run(["cat", copy], stdout=null, check=True)))
                argv = [virga.program, "file", "pull", "files/root/copy", "-"]
                pull["virga"].append(timed(lambda: subprocess.run(argv, stdout=null, check=True, env=virga.environment())))
            os.unlink(copy)
            virga("file", "delete", "files/root/copy")
        self.table.add("push 1 GiB into a container", "ms", push, "cp")
        self.table.add("pull 1 GiB out of a container", "ms", pull, "cat")
        self.table.add("daemon after 1 GiB pushed, resident", "MiB", {"virga": resident})
        os.unlink(source)
        self.state("files", "stop")
        self.delete("files")

    def bench_list(self, count=10_000):
        fake = support.Daemon(extra=["--fake-drivers"])
        try:
            api = Api(fake.socket)
            support.Client(fake, "virga")("admin", "init", "--auto")
            fingerprint = api.import_image(self.container_image, "tiny")
            operations = []
            for n in range(count):
                # Without NICs: a network of 254 addresses would be used up.
                operations.append(api("POST", "/1.0/instances", {"name": f"i{n:05}", "profiles": [], "devices": {"root": {"type": "disk", "path": "/", "pool": "default"}},
                                                                 "source": {"type": "image", "fingerprint": fingerprint}}, wait=False)["id"])
                if len(operations) >= 200:
                    for o in operations:
                        api.wait(o)
                    operations.clear()
            for o in operations:
                api.wait(o)
            values, sizes = [], []
            for _ in range(max(10, self.rounds)):
                began = time.perf_counter()
                status, body = api.raw("GET", "/1.0/instances?recursion=1")
                values.append((time.perf_counter() - began) * 1000)
                sizes.append(len(body))
            assert len(json.loads(body)["metadata"]) == count
            self.table.add(f"list of {count}, recursion=1", "ms", {"virga": values}, goal="<= 40")
            self.table.add(f"daemon with {count} instances", "MiB", {"virga": [self.resident(fake.process.pid)]})
            print(f"  the list is {sizes[0] / 1e6:.1f} MB")
        finally:
            fake.process.kill()
            fake.process.wait()
            shutil.rmtree(fake.base, ignore_errors=True)


class Oracle:
    """The real incus daemon, where it is installed, in a directory of its own."""

    def __init__(self, process, base):
        self.process, self.base, self.pid = process, base, process.pid

    @staticmethod
    def start():
        program = shutil.which("incusd") or ("/usr/libexec/incus/incusd" if os.path.exists("/usr/libexec/incus/incusd") else None)
        if program is None:
            return None
        base = tempfile.mkdtemp(prefix="incus-bench.")
        process = subprocess.Popen([program, "--logfile", base + "/log"], env=dict(os.environ, INCUS_DIR=base), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            try:
                Api(base + "/unix.socket", timeout=5)("GET", "/1.0")
                return Oracle(process, base)
            except Exception:
                time.sleep(0.2)
        print("  the real incus daemon did not start here: no figures beside it", file=sys.stderr)
        process.kill()
        process.wait()
        shutil.rmtree(base, ignore_errors=True)
        return None

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        support.unmount_below(self.base)
        shutil.rmtree(self.base, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--only", default="container,vm,stop,idle,files,list")
    parser.add_argument("--json")
    options = parser.parse_args()
    bench = Bench(options.rounds)
    try:
        for name in options.only.split(","):
            print(f"measuring {name} ...", file=sys.stderr)
            getattr(bench, "bench_" + name)()
    finally:
        bench.table.show()
        left = bench.daemon.destroy()
        if left:
            print(f"left behind: {left}", file=sys.stderr)
    if options.json:
        json.dump(bench.table.rows, open(options.json, "w"), indent=1)


if __name__ == "__main__":
    main()
