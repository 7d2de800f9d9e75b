"""The packages: made from what is built, installed in a Debian made by mmdebstrap, used, removed, purged. Skipped where the archive cannot be
reached. VIRGA_DEBIAN_MIRROR names another archive."""
import glob
import os
import shutil
import subprocess
import tempfile
import unittest

import support

MIRROR = os.environ.get("VIRGA_DEBIAN_MIRROR", "http://deb.debian.org/debian")
PATIENCE = 420  # for apt, on a slow network


def run(*argv, timeout=PATIENCE, **options):
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, **options)


class PackageTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        if shutil.which("mmdebstrap") is None:
            raise unittest.SkipTest("mmdebstrap is not installed: ./dev deps --tests")
        cls.base = tempfile.mkdtemp(prefix="virga-package.")
        cls.addClassCleanup(shutil.rmtree, cls.base, ignore_errors=True)
        os.chmod(cls.base, 0o755)
        made = run(os.path.join(support.TOP, "share/packages/build"), "--build", os.path.dirname(support.BIN), "--out", f"{cls.base}/out", env={**os.environ, "VIRGA_PACKAGE_COMPRESSION": "none"})
        if made.returncode != 0:
            raise AssertionError(made.stdout + made.stderr)
        cls.packages = {os.path.basename(p).split("_")[0]: p for p in made.stdout.split()}
        cls.root = f"{cls.base}/root"
        try:
            boot = run("mmdebstrap", "--mode=root", "--variant=minbase", "--aptopt=APT::Install-Recommends \"false\"", "--dpkgopt=force-unsafe-io", "bookworm", cls.root, MIRROR)
        except subprocess.TimeoutExpired:
            raise unittest.SkipTest(f"{MIRROR} takes longer than {PATIENCE} s")
        if boot.returncode != 0:
            raise unittest.SkipTest(f"{MIRROR} cannot be used: {(boot.stderr.strip().splitlines() or ['no output'])[-1]}")

    def inside(self, *argv, ok=True, timeout=PATIENCE):
        # A process namespace of its own: a purge ends processes by what it sees in /proc.
        done = run("unshare", "--mount", "--pid", "--fork", "--net", "--mount-proc=" + self.root + "/proc", "chroot", self.root, *argv, timeout=timeout,
                   env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive", "HOME": "/root"})
        if ok:
            self.assertEqual(done.returncode, 0, f"{argv}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
        return done

    def files(self):
        """What a package could leave behind."""
        out = set()
        for top in ("etc", "usr", "lib", "var/lib/virga", "run"):
            for root, dirs, names in os.walk(os.path.join(self.root, top)):
                out |= {os.path.relpath(os.path.join(root, n), self.root) for n in names + dirs if "virga" in os.path.join(root, n).removeprefix(self.root)}
        return out

    def test_contents(self):
        for name, wanted in (("virga", ("./usr/libexec/virga/virgad", "./lib/systemd/system/virgad.service", "./usr/lib/tmpfiles.d/virga.conf", "./etc/default/virgad",
                                        "./usr/share/virga/images/build-tiny")),
                             ("virga-client", ("./usr/bin/virga", "./usr/share/bash-completion/completions/virga", "./usr/share/man/man1/virga-launch.1.gz")),
                             ("virga-agent", ("./usr/libexec/virga/virga-agent", "./lib/systemd/system/virga-agent.service"))):
            listed = run("dpkg-deb", "--contents", self.packages[name]).stdout
            for path in wanted:
                self.assertIn(f" {path}\n", listed)
            self.assertNotRegex(listed.replace(" root/root ", ""), r"^\S+ +[a-z]+/[a-z]+ ")

    def test_install_use_remove_purge(self):
        before = self.files()
        for path in self.packages.values():
            shutil.copy(path, os.path.join(self.root, "root"))
        # The chroot has a network of its own without a way out: what apt needs is fetched from outside of it.
        names = [os.path.basename(p) for p in self.packages.values()]
        shutil.copy("/etc/resolv.conf", f"{self.root}/etc/resolv.conf")
        outside = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive"}
        updated = run("chroot", self.root, "apt-get", "update", "-q", env=outside)
        if updated.returncode != 0 or "Failed to fetch" in updated.stderr:
            self.skipTest(f"{MIRROR} cannot be used: {updated.stderr.strip().splitlines()[-1]}")
        fetched = run("chroot", self.root, "apt-get", "install", "-y", "-q", "--no-install-recommends", "--download-only", *[f"./root/{n}" for n in names], env=outside)
        self.assertEqual(fetched.returncode, 0, fetched.stdout[-2000:] + fetched.stderr)
        self.inside("apt-get", "install", "-y", "-q", "--no-install-recommends", *[f"./root/{n}" for n in names])

        self.assertRegex(self.inside("virga", "version").stdout, r"Client version: \S+")
        self.assertIn("QEMU", self.inside("virga", "admin", "doctor", ok=False).stdout)
        self.assertIn("virgad runs", self.inside("/usr/libexec/virga/virgad", "--help").stdout)
        self.assertIn("launch", self.inside("bash", "-c", ". /usr/share/bash-completion/completions/virga; COMP_WORDS=(virga la); COMP_CWORD=1; _virga; echo ${COMPREPLY[@]}").stdout)
        self.assertEqual(self.inside("getent", "group", "virga").stdout.split(":")[0], "virga")
        self.assertTrue(os.path.islink(f"{self.root}/etc/systemd/system/multi-user.target.wants/virgad.service"))
        self.assertEqual(os.stat(f"{self.root}/var/lib/virga").st_mode & 0o777, 0o711)
        # The daemon starts where it was installed, and answers.
        started = self.inside("bash", "-c", "/usr/libexec/virga/virgad --fake-drivers & virga admin waitready --timeout 60 && virga storage create p1 dir && virga storage list --format csv; "
                              "code=$?; kill $!; wait $!; exit $code")
        self.assertIn("p1,dir", started.stdout)

        # What guests have is kept by a removal, and goes with a purge.
        kept = f"{self.root}/var/lib/virga/storage-pools/p1"
        self.assertTrue(os.path.isdir(kept))
        self.inside("dpkg", "--remove", "virga")
        self.assertTrue(os.path.isdir(kept))
        self.inside("dpkg", "--purge", "virga", "virga-agent", "virga-client")
        self.assertEqual(self.files() - before, set())
        self.assertNotEqual(self.inside("getent", "group", "virga", ok=False).returncode, 0)

    def test_scripts_are_plain(self):
        for script in glob.glob(os.path.join(support.TOP, "share/packages/*.p*")):
            self.assertEqual(run("sh", "-n", script).returncode, 0, script)


if __name__ == "__main__":
    unittest.main(verbosity=2)
