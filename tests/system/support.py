"""What the system tests share: a real daemon in a private directory, network namespace and mount namespace, the real clients, and a scan for
whatever a test may have left behind. Needs root."""
import ctypes
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.environ.get("VIRGA_BIN", os.path.join(TOP, "build/debug/bin"))
CACHE = os.environ.get("VIRGA_TEST_CACHE", os.path.expanduser("~/.cache/virga-test"))


def enter_private_namespaces():
    """Mounts and networks of a test are invisible to the host and end with the test."""
    tiny_images()  # may fetch packages, for which there is a network only now
    libc = ctypes.CDLL(None, use_errno=True)
    CLONE_NEWNS, CLONE_NEWNET, MS_REC, MS_PRIVATE = 0x20000, 0x40000000, 0x4000, 1 << 18
    if libc.unshare(CLONE_NEWNS | CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare (root is needed)")
    libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


class CommandFailed(Exception):
    def __init__(self, argv, result):
        super().__init__(f"{' '.join(argv)}: code {result.returncode}\n{result.stdout}\n{result.stderr}")
        self.result = result


class Client:
    """One of the two command lines: `virga`, or the stock `incus`."""

    def __init__(self, daemon, name):
        self.daemon, self.name = daemon, name
        self.config = tempfile.mkdtemp(prefix="client.", dir=daemon.base)
        self.program = shutil.which("incus") if name == "incus" else os.path.join(BIN, "virga")

    def environment(self):
        env = dict(os.environ, HOME=self.config, INCUS_CONF=self.config, INCUS_SOCKET=self.daemon.socket, VIRGA_SOCKET=self.daemon.socket, LC_ALL="C.UTF-8")
        env.setdefault("TERM", "xterm")
        return env

    def run(self, *args, input=None, timeout=180, binary=False):
        """The finished process, whatever its exit code."""
        argv = [self.program, *args]
        return subprocess.run(argv, input=input, stdin=subprocess.DEVNULL if input is None else None, capture_output=True, text=not binary, timeout=timeout,
                              env=self.environment())

    def __call__(self, *args, input=None, timeout=180):
        """Standard output; any exit code but 0 is a failure."""
        result = self.run(*args, input=input, timeout=timeout)
        if result.returncode != 0:
            raise CommandFailed([self.name, *args], result)
        return result.stdout

    def fails(self, *args, input=None, timeout=180):
        """Standard error of a command that must fail."""
        result = self.run(*args, input=input, timeout=timeout)
        if result.returncode == 0:
            raise AssertionError(f"{self.name} {' '.join(args)} should have failed: {result.stdout}")
        return result.stderr

    def json(self, *args, timeout=180):
        return json.loads(self(*args, "--format", "json", timeout=timeout))


class Daemon:
    """virgad in a directory of its own."""

    def __init__(self, extra=(), env=None):
        self.base = tempfile.mkdtemp(prefix="virga-test.")
        os.chmod(self.base, 0o711)
        self.state = os.path.join(self.base, "state")
        self.socket = os.path.join(self.state, "unix.socket")
        self.extra, self.process = list(extra), None
        self.log = os.path.join(self.base, "virgad.log")
        self.start(env=env)

    def start(self, env=None, wait=True, extra=()):
        argv = [os.path.join(BIN, "virgad"), "--state-dir", self.state, "--verbose", *self.extra, *extra]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=dict(os.environ, **(env or {})), start_new_session=True)
        if wait:
            self.wait_ready()

    def wait_ready(self, timeout=60):
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"virgad ended with {self.process.returncode}:\n{self.tail()}")
            probe = subprocess.run([os.path.join(BIN, "virga"), "admin", "waitready", "--timeout", "20"], env=dict(os.environ, VIRGA_SOCKET=self.socket, HOME=self.base),
                                   capture_output=True, text=True)
            if probe.returncode == 0:
                return
        raise AssertionError(f"virgad is not ready after {timeout} s:\n{self.tail()}")

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self, timeout=30):
        self.process.terminate()
        self.process.wait(timeout)

    def restart(self, env=None):
        self.kill()
        self.start(env=env)

    def wait_dead(self, timeout=60):
        """For fault points that kill the daemon. False when it lives on."""
        try:
            self.process.wait(timeout)
            return True
        except subprocess.TimeoutExpired:
            return False

    def tail(self, lines=40):
        with open(self.log, errors="replace") as f:
            return "".join(f.readlines()[-lines:])

    def query(self, path, method="GET", data=None):
        argv = [os.path.join(BIN, "virga"), "query", "-X", method, path]
        if data is not None:
            argv += ["-d", json.dumps(data)]
        result = subprocess.run(argv, env=dict(os.environ, VIRGA_SOCKET=self.socket, HOME=self.base), capture_output=True, text=True, timeout=120)
        if result.returncode != 0:
            raise CommandFailed(argv, result)
        return json.loads(result.stdout) if result.stdout.strip() else None

    def destroy(self, client=None):
        """Ends guests and daemon, checks that nothing is left, removes the directory."""
        try:
            if self.process.poll() is not None:
                self.start()
            listed = self.query("/1.0/instances?recursion=1&all-projects=true") or []
            cli = Client(self, "virga")
            for project in {i["project"] for i in listed}:
                names = [i["name"] for i in listed if i["project"] == project]
                cli("delete", "--force", "--project", project, *names)
            left = leftovers(self, instances=False)
            self.stop()
            return left
        finally:
            if self.process.poll() is None:
                self.kill()
            end_processes_of(self.state)
            unmount_below(self.base)
            shutil.rmtree(self.base, ignore_errors=True)


# --- what may be left behind ---------------------------------------------------------------------------------------------------------------

def mounts_below(path):
    with open("/proc/self/mountinfo") as f:
        return [line.split()[4] for line in f if line.split()[4].startswith(path + "/")]


def unmount_below(path):
    for mount in sorted(mounts_below(path), key=len, reverse=True):
        subprocess.run(["umount", "-l", mount], stderr=subprocess.DEVNULL)


def processes_naming(path):
    """Processes whose command line or environment names the state directory, with the daemon itself left out by its caller."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                cmdline = f.read().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if path in cmdline:
            found[int(pid)] = cmdline.strip()
    return found


def end_processes_of(path):
    for pid in processes_naming(path):
        if pid != os.getpid():
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass


def cgroup_tag(pid):
    """The daemon's own part of the control groups of a guest's process: virga/TAG/UUID."""
    with open(f"/proc/{pid}/cgroup") as f:
        for line in f:
            parts = line.strip().split("/")
            if "virga" in parts:
                return parts[parts.index("virga") + 1]
    raise AssertionError(f"process {pid} is in no control group of virga's")


def cgroups(tag):
    """Every control group of one daemon's guests, in whichever hierarchy; others may run on this host."""
    return [root for root, _, _ in os.walk("/sys/fs/cgroup") if f"/virga/{tag}/" in root]


def links():
    out = subprocess.run(["ip", "-j", "link"], capture_output=True, text=True, check=True).stdout
    return {link["ifname"] for link in json.loads(out)}


def leftovers(daemon, instances=True):
    """Everything that belongs to guests: compare before and after, or expect none at all."""
    found = {
        "mounts": sorted(m for m in mounts_below(daemon.state) if instances or "/containers/" in m or "/virtual-machines/" in m),
        "processes": sorted(c for p, c in processes_naming(daemon.state).items() if p != daemon.process.pid and "dnsmasq" not in c and "unittest" not in c),
        "nics": sorted(l for l in links() if l.startswith("vg")),
        "run": sorted(os.listdir(os.path.join(daemon.state, "run"))) if os.path.isdir(os.path.join(daemon.state, "run")) else [],
        "volumes": [],
        "journal": [],
        "uploads": sorted(n for n in os.listdir(os.path.join(daemon.state, "images")) if n.startswith(".")) if os.path.isdir(os.path.join(daemon.state, "images")) else [],
    }
    pools = os.path.join(daemon.state, "storage-pools")
    for pool in os.listdir(pools) if os.path.isdir(pools) else []:
        for kind in ("containers", "virtual-machines"):
            directory = os.path.join(pools, pool, kind)
            if os.path.isdir(directory):
                found["volumes"] += [f"{kind}/{n}" for n in sorted(os.listdir(directory))]
        for root, dirs, files in os.walk(os.path.join(pools, pool)):
            if root.count("/") - pools.count("/") > 3:
                dirs[:] = []
            found["volumes"] += [os.path.join(root, n) for n in dirs + files if n.startswith((".new", ".stage", ".tmp"))]
    return {k: v for k, v in found.items() if v}


def wait_until(condition, timeout=30, what="condition"):
    """Polls a fact of the outside world that has no event to wait for."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"{what} did not become true within {timeout} s")


def contents(path):
    with open(path, "rb") as f:
        return f.read()


def tiny_images():
    """The two images `tiny`, built once from Debian packages and kept in a cache for each version of their sources. Returns the two paths."""
    script = os.path.join(TOP, "share/images/build-tiny")
    agent = os.path.join(BIN, "virga-agent")
    sources = [script, agent]
    for root, dirs, names in os.walk(os.path.join(TOP, "share/images/tiny")):
        dirs.sort()
        sources += [os.path.join(root, n) for n in sorted(names)]
    digest = hashlib.sha256(b"".join(map(contents, sources))).hexdigest()
    out = os.path.join(CACHE, f"tiny-{digest[:16]}")
    os.makedirs(CACHE, exist_ok=True)
    with open(os.path.join(CACHE, "lock"), "w") as lock:  # several tests begin at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(out):
            unfinished = tempfile.mkdtemp(prefix="unfinished.", dir=CACHE)
            try:
                subprocess.run([script, "--agent", agent, "--out", unfinished, "--cache", os.path.join(CACHE, "packages")], check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr)
                os.rename(unfinished, out)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
    return [os.path.join(out, "tiny-container.tar.gz"), os.path.join(out, "tiny-virtual-machine.tar.gz")]
