"""The purge of the package while guests of both kinds run: the script that dpkg calls, in namespaces of its own, and what it must not leave behind.
Not on a machine where virga is installed: the script would mean that one."""
import os
import shutil
import signal
import subprocess
import unittest

import support
from api import Api

STATE = "/var/lib/virga"
SCRIPTS = os.path.join(support.TOP, "share/packages")


def is_installed():
    return os.path.exists("/usr/libexec/virga/virgad") or os.path.exists("/etc/systemd/system/virgad.service") or subprocess.run(["getent", "group", "virga"], capture_output=True).returncode == 0


class Installed(support.Daemon):
    """A daemon whose state lies where the package has it."""

    def __init__(self, base):
        self.base, self.state = base, STATE
        self.socket = os.path.join(STATE, "unix.socket")
        self.extra, self.process = [], None
        self.log = os.path.join(base, "virgad.log")
        self.start()


@unittest.skipIf(is_installed(), "virga is installed on this machine")
class Purge(unittest.TestCase):
    def setUp(self):
        support.enter_private_namespaces()
        self.base = os.path.realpath(os.path.join(support.CACHE, f"purge.{os.getpid()}"))
        os.makedirs(os.path.join(self.base, "state"))
        os.chmod(self.base, 0o711)
        os.chmod(os.path.join(self.base, "state"), 0o711)
        self.addCleanup(shutil.rmtree, self.base, ignore_errors=True)
        # Whatever this machine has below /var/lib is out of sight.
        subprocess.run(["mount", "-t", "tmpfs", "none", "/var/lib"], check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", "/var/lib"])
        os.mkdir(STATE)
        subprocess.run(["mount", "--bind", os.path.join(self.base, "state"), STATE], check=True)
        self.daemon = Installed(self.base)
        self.addCleanup(self.end)
        self.cli = support.Client(self.daemon, "virga")

    def end(self):
        if self.daemon.process.poll() is None:
            self.daemon.kill()
        support.end_processes_of(STATE + "/")
        support.unmount_below(STATE)

    def script(self, name, *arguments):
        done = subprocess.run(["sh", os.path.join(SCRIPTS, name), *arguments], capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_purge_with_guests_that_run(self):
        api = Api(self.daemon.socket)
        before = support.links()
        self.cli("admin", "init", "--auto")
        for name, image in zip(("tiny", "tiny-vm"), support.tiny_images()):
            api.import_image(image, name)
        self.cli("launch", "tiny", "c1")
        self.cli("launch", "tiny-vm", "v1", "--vm")
        self.cli("exec", "v1", "--", "true")
        self.cli("exec", "c1", "--", "sh", "-c", "sleep 1000 >/dev/null 2>&1 &")
        pids = [api("GET", f"/1.0/instances/{name}/state")["pid"] for name in ("c1", "v1")]
        tag = support.cgroup_tag(pids[0])
        self.assertTrue(support.cgroups(tag))
        # Removed: the daemon goes, the guests run on and are found again.
        self.script("virga.prerm", "remove")
        self.daemon.process.send_signal(signal.SIGTERM)
        self.daemon.process.wait(30)
        self.script("virga.postrm", "remove")
        self.assertTrue(all(os.path.exists(f"/proc/{pid}") for pid in pids))
        self.daemon.start()
        self.assertEqual([api("GET", f"/1.0/instances/{name}/state")["pid"] for name in ("c1", "v1")], pids)
        # Purged. Who only names the place is not ended with it.
        bystander = subprocess.Popen(["sh", "-c", "sleep 1000; :", STATE + "/"], start_new_session=True)
        self.addCleanup(bystander.wait)
        self.addCleanup(os.killpg, bystander.pid, signal.SIGKILL)
        self.daemon.process.send_signal(signal.SIGTERM)
        self.daemon.process.wait(30)
        self.script("virga.postrm", "purge")
        self.assertIsNone(bystander.poll(), "a process that is not ours was ended")
        support.wait_until(lambda: not [p for p in pids if os.path.exists(f"/proc/{p}") and self.state_of(p) != "Z"], 20, "the guests' end")
        self.assertEqual(set(support.processes_naming(STATE + "/")) - {bystander.pid}, set())
        self.assertEqual(support.mounts_below(STATE), [])
        self.assertEqual(support.links() - before, set())
        self.assertNotIn("virga", subprocess.run(["nft", "list", "tables"], capture_output=True, text=True).stdout)
        self.assertEqual(os.listdir(STATE), [])
        support.wait_until(lambda: not support.cgroups(tag), 20, "the control groups' end")

    @staticmethod
    def state_of(pid):
        try:
            return support.contents(f"/proc/{pid}/stat").decode().rsplit(")", 1)[1].split()[0]
        except OSError:
            return "Z"


if __name__ == "__main__":
    unittest.main(verbosity=2)
