#!/usr/bin/env python3
"""Runs the system tests: every tests/system/*_test.py in a process of its own, as unittest; those that name a CLIENT once for each command
line. Counts as the others do.

usage: run_system.py [--bin DIRECTORY] [--filter TEXT] [--counts FILE] [--timeout SECONDS]
"""
import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

TOP = pathlib.Path(__file__).resolve().parents[2]


def run(path, client, bin_directory, timeout):
    """(passed, failed, skipped)"""
    name = path.stem + (f" ({client})" if client else "")
    if client == "incus" and shutil.which("incus") is None:
        print(f"skip {name:40} the incus client is not installed: ./dev deps --tests", flush=True)
        return 0, 0, 1
    env = dict(os.environ, VIRGA_BIN=str(bin_directory), PYTHONUNBUFFERED="1", **({"VIRGA_CLIENT": client} if client else {}))
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, str(path)], cwd=path.parent, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True, errors="replace")
    try:
        text, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.terminate()
        try:
            text, _ = process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            text, _ = process.communicate()
        text += f"\n{name}: ended after {timeout:.0f} s\n"
    ran = sum(int(n) for n in re.findall(r"^Ran (\d+) tests? in", text, re.M))
    outcome = re.findall(r"^(?:OK|FAILED)(?: \((.*)\))?$", text, re.M)
    counts = {k: int(v) for group in outcome for k, v in re.findall(r"(\w+)=(\d+)", group)}
    failed = counts.get("failures", 0) + counts.get("errors", 0) + counts.get("successes", 0)
    skipped = counts.get("skipped", 0)
    if process.returncode != 0 and failed == 0:
        failed = 1
    passed = max(ran - failed - skipped, 0)
    print(f"{'FAIL' if failed else 'ok':4} {name:40} {passed:4} passed {failed:3} failed {skipped:3} skipped {time.monotonic() - began:7.1f} s", flush=True)
    if failed:
        print("\n".join(text.splitlines()[-300:]), flush=True)
    elif skipped:
        print("\n".join(f"  {line}" for line in text.splitlines() if "skipped" in line), flush=True)
    return passed, failed, skipped


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--bin", type=pathlib.Path, default=TOP / "build/debug/bin")
    p.add_argument("--filter", default="")
    p.add_argument("--counts", type=pathlib.Path)
    p.add_argument("--timeout", type=float, default=900)
    args = p.parse_args()
    total = (0, 0, 0)
    for path in sorted((TOP / "tests/system").glob("*_test.py")):
        if args.filter not in path.stem:
            continue
        for client in ("virga", "incus") if "VIRGA_CLIENT" in path.read_text() else (None,):
            total = tuple(a + b for a, b in zip(total, run(path, client, args.bin.resolve(), args.timeout)))
    if args.counts:
        args.counts.write_text("{} {} {}\n".format(*total))
    return 1 if total[1] else 0


if __name__ == "__main__":
    sys.exit(main())
