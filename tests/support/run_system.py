#!/usr/bin/env python3
"""Runs the system tests: every tests/system/*_test.py in a process of its own, as unittest, once for each of the settings that its line
"VARIANTS: NAME=VALUE ..." gives. Two at a time: each has its own directory and namespaces. Counts as the others do.

usage: run_system.py [--bin DIRECTORY] [--filter TEXT] [--counts FILE] [--timeout SECONDS] [--jobs N]
"""
import argparse
import concurrent.futures
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

TOP = pathlib.Path(__file__).resolve().parents[2]


def run(path, variant, bin_directory, timeout):
    """(passed, failed, skipped)"""
    key, _, value = variant.partition("=")
    name = path.stem + (f" ({value})" if value else "")
    if variant == "VIRGA_CLIENT=incus" and shutil.which("incus") is None:
        print(f"skip {name:40} the incus client is not installed: ./dev deps --tests", flush=True)
        return 0, 0, 1
    env = dict(os.environ, VIRGA_BIN=str(bin_directory), PYTHONUNBUFFERED="1", **({key: value} if key else {}))
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
    if failed == 0 and (process.returncode != 0 or ran + skipped == 0):
        failed = 1  # it ended badly, or has no test that was run: nothing was shown
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
    p.add_argument("--timeout", type=float, default=3000)
    p.add_argument("--jobs", type=int, default=2)
    args = p.parse_args()
    runs = []
    for path in sorted((TOP / "tests/system").glob("*_test.py")):
        if args.filter in path.stem:
            variants = re.search(r"^VARIANTS: (.*)$", path.read_text(), re.M)
            runs += [(path, v) for v in (variants.group(1).split() if variants else [""])]
    if not runs:
        print(f"no system test matches '{args.filter}'")
    # The long ones first, so that none of them is alone at the end.
    runs.sort(key=lambda r: "kill" not in r[0].stem)
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        results = list(pool.map(lambda r: run(*r, args.bin.resolve(), args.timeout), runs))
    total = tuple(map(sum, zip((0, 0, 0), *results)))
    if args.counts:
        args.counts.write_text("{} {} {}\n".format(*total))
    return 1 if total[1] else 0


if __name__ == "__main__":
    sys.exit(main())
