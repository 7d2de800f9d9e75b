#!/usr/bin/env python3
"""Makes doc/reference: commands from the command line, configuration keys from the daemon's own tables, the API from api/openapi.yaml.

usage: reference.py [--bin DIRECTORY] [--check]     --check: writes nothing, says what is not current
"""
import argparse
import difflib
import http.client
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile

TOP = pathlib.Path(__file__).resolve().parents[2]
OUT = TOP / "doc/reference"
MADE = "<!-- made from the program by ./dev docs -->\n\n"
TITLES = {"instance": "Instances and profiles", "server": "The server", "project": "Projects", "image": "Images"}


class Connection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=60)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


def all_keys(programs):
    """What GET /1.0/metadata/configuration says; of a daemon without real guests."""
    with tempfile.TemporaryDirectory(prefix="virga-docs.") as state:
        daemon = subprocess.Popen([programs / "virgad", "--fake-drivers", "--state-dir", state + "/s"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            path = state + "/s/unix.socket"
            ready = subprocess.run([programs / "virga", "admin", "waitready", "--timeout", "60"], env={**os.environ, "VIRGA_SOCKET": path, "HOME": state}, capture_output=True)
            if ready.returncode != 0:
                raise SystemExit(f"virgad does not start: {ready.stderr.decode()}")
            connection = Connection(path)
            connection.request("GET", "/1.0/metadata/configuration")
            return json.loads(connection.getresponse().read())["metadata"]["configs"]
        finally:
            daemon.terminate()
            daemon.wait(30)


def cell(text):
    return str(text).replace("|", "\\|").replace("<", "\\<").replace("\n", " ")


def title_of(group):
    if group in TITLES:
        return TITLES[group]
    noun, _, kind = group.partition("-")
    return {"network": "Networks of type {}", "storage": "Storage pools with the driver {}", "device": "Devices of type {}"}.get(noun, group.capitalize() + "{}").format(kind)


def configuration(configs):
    out = [MADE + "# Configuration keys\n\nA key that is not listed is refused, with the nearest that is. `virga config set`, `virga profile set`, `virga network set` and so on\n"
           "set them; in completion they appear with their meaning.\n"]
    for group in sorted(configs, key=lambda g: (g != "instance", g != "server", g)):
        out.append(f"\n## {title_of(group)}\n")
        extra = group == "instance"
        out.append("\n| Key | Type | Default | Meaning |" + (" For | Takes effect |" if extra else "") + "\n|---|---|---|---|" + ("---|---|" if extra else "") + "\n")
        for section in configs[group].values():
            for entry in section["keys"]:
                for key, about in entry.items():
                    row = [f"`{cell(key)}`", cell(about["type"]), cell(about.get("defaultdesc", "")) or "-", cell(about["shortdesc"])]
                    if extra:
                        row += [about.get("condition") or "both kinds", "at once" if about.get("liveupdate") == "yes" else "at the next start"]
                    out.append("| " + " | ".join(row) + " |\n")
    return "".join(out)


def api(document):
    out = [MADE + "# The REST API\n\nThe whole description, with the fields of all bodies and answers, is `api/openapi.yaml`. An answer is `sync` with `metadata`, `async` with an\n"
           "operation that can be waited for, or `error` with a message that names the field. Try a path with `virga query PATH`.\n"]
    tags = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            tags.setdefault(operation["tags"][0], []).append((path, method.upper(), operation))
    for tag in sorted(tags, key=lambda t: (t != "server", t)):
        out.append(f"\n## {tag.capitalize()}\n\n| Path | Method | What it does |\n|---|---|---|\n")
        for path, method, operation in tags[tag]:
            parameters = [p["$ref"].rsplit("/", 1)[1] if "$ref" in p else p["name"] for p in operation.get("parameters", []) if p.get("in") != "path"]
            more = f" Parameters: {', '.join(f'`{p}`' for p in parameters)}." if parameters else ""
            out.append(f"| `{path}` | {method} | {cell(operation['summary'])}{more} |\n")
    return "".join(out)


def pages(programs):
    import yaml  # from ./dev deps --tests
    out = {"configuration.md": configuration(all_keys(programs)), "api.md": api(yaml.safe_load((TOP / "api/openapi.yaml").read_text()))}
    with tempfile.TemporaryDirectory(prefix="virga-docs.") as work:
        subprocess.run([programs / "virga", "manpage", "--quiet", "--format", "md", work], check=True, env={**os.environ, "HOME": work})
        for page in sorted(pathlib.Path(work).glob("*.md")):
            out[f"commands/{page.name}"] = page.read_text()
    return out


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--bin", type=pathlib.Path, default=TOP / "build/debug/bin")
    p.add_argument("--check", action="store_true")
    a = p.parse_args()
    wanted = pages(a.bin.resolve())
    there = {str(f.relative_to(OUT)) for f in OUT.rglob("*.md")} - {"README.md"} if OUT.is_dir() else set()
    stale = 0
    for name in sorted(there | set(wanted)):
        path = OUT / name
        before = path.read_text() if path.exists() else ""
        after = wanted.get(name, "")
        if before == after:
            continue
        stale += 1
        if a.check:
            diff = difflib.unified_diff(before.splitlines(), after.splitlines(), f"doc/reference/{name}", "as it should be", n=0, lineterm="")
            print("\n".join(list(diff)[:20]))
        elif name not in wanted:
            path.unlink()
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(after)
    print(f"{len(wanted)} pages, {stale} {'not current: ./dev docs' if a.check else 'changed'}" if stale or not a.check else f"{len(wanted)} pages, all current")
    return 1 if a.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
