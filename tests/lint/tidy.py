#!/usr/bin/env python3
"""Runs clang-tidy over what has changed since it was last found clean. A result is kept under a hash of the file, of all our headers it
includes, of the checks and of the flags, so a second run costs a second. With a time budget the rest is left to the next run, and said.

usage: tidy.py BUILD_DIRECTORY [--budget SECONDS] [--jobs N] [--counts FILE] [FILE...]
"""
import argparse
import concurrent.futures
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import time

TOP = pathlib.Path(__file__).resolve().parents[2]
TIDY = "clang-tidy-19"
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "virga/tidy"


def included_headers(build):
    """Object file -> files of ours that it was built from, as ninja remembers them."""
    out, current = {}, None
    for line in subprocess.run(["ninja", "-C", build, "-t", "deps"], capture_output=True, text=True, check=True).stdout.splitlines():
        if line.startswith("    "):
            path = (build / line.strip()).resolve()
            if current is not None and TOP / "src" in path.parents:
                current.append(path)
        elif line:
            current = out.setdefault(line.split(":")[0], []) if "(VALID)" in line else None
    return out


def key_of(entry, headers, version, contents):
    def content(path):
        if path not in contents:
            contents[path] = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "absent"
        return contents[path]

    h = hashlib.sha256()
    flags = entry["command"].replace(str(TOP), "").split(" -o ")[0].split()
    for part in [version, content(TOP / ".clang-tidy"), *[f for f in flags if "CCACHE" not in f], *[content(p) for p in sorted({pathlib.Path(entry["file"]), *headers})]]:
        h.update(part.encode() + b"\0")
    return h.hexdigest()


def check(build, file):
    r = subprocess.run([TIDY, "-p", build, "--quiet", file], capture_output=True, text=True)
    return r.returncode == 0, "\n".join(line for line in r.stdout.splitlines() if not line.startswith("["))


def main():
    p = argparse.ArgumentParser()
    p.add_argument("build", type=pathlib.Path)
    p.add_argument("--budget", type=float, default=0, help="seconds; 0: no limit")
    p.add_argument("--jobs", type=int, default=os.cpu_count() or 2)
    p.add_argument("--counts", type=pathlib.Path)
    p.add_argument("files", nargs="*")
    args = p.parse_args()
    build = args.build.resolve()
    only = {str(pathlib.Path(f).resolve()) for f in args.files}
    version = subprocess.run([TIDY, "--version"], capture_output=True, text=True, check=True).stdout
    headers, contents, todo, cached = included_headers(build), {}, [], 0
    CACHE.mkdir(parents=True, exist_ok=True)
    for entry in json.loads((build / "compile_commands.json").read_text()):
        file = pathlib.Path(entry["file"])
        if TOP / "src" not in file.parents and TOP / "tests" not in file.parents or only and str(file) not in only:
            continue
        key = key_of(entry, headers.get(entry.get("output", ""), []), version, contents)
        if (CACHE / key).exists():
            cached += 1
        else:
            todo.append((file, key))
    todo.sort(key=lambda item: -item[0].stat().st_mtime)  # what was just edited first
    began, failed, passed, left = time.monotonic(), 0, cached, 0
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        def work(item):
            if args.budget and time.monotonic() - began > args.budget:
                return item, None, ""
            return item, *check(build, str(item[0]))

        for (file, key), clean, text in pool.map(work, todo):
            if clean is None:
                left += 1
            elif clean:
                passed += 1
                (CACHE / key).touch()
            else:
                failed += 1
                print(text.replace(str(TOP) + "/", ""), flush=True)
    print(f"clang-tidy: {passed} clean ({cached} of them as before), {failed} with findings, {left} left for the next run")
    if left:
        print(f"  the time budget of {args.budget:.0f} s ran out; run 'tests/lint/tidy.py {args.build}' for all")
    if args.counts:
        args.counts.write_text(f"{passed} {failed} {left}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
