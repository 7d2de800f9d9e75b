#!/usr/bin/env python3
"""Runs gtest programs one after the other, shows what failed or was skipped and why, and counts.

usage: run_gtests.py [--counts FILE] [--timeout SECONDS] PROGRAM...
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time


def run(program, timeout):
    """(passed, failed, skipped, text)"""
    with tempfile.TemporaryDirectory() as directory:
        report = pathlib.Path(directory) / "report.json"
        began, environment = time.monotonic(), dict(os.environ, GTEST_BRIEF="1")
        try:
            r = subprocess.run([program, f"--gtest_output=json:{report}"], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                               timeout=timeout, env=environment)
            text, code = r.stdout + r.stderr, r.returncode
        except subprocess.TimeoutExpired as e:
            text, code = (e.stdout or b"").decode(errors="replace") + f"\n{program}: killed after {timeout} s\n", -9
        passed = failed = skipped = 0
        reasons = []
        if report.exists():
            for suite in json.loads(report.read_text())["testsuites"]:
                for test in suite["testsuite"]:
                    if test.get("failures"):
                        failed += 1
                    elif test.get("result") == "SKIPPED":
                        skipped += 1
                        reasons.append(f"  skipped {suite['name']}.{test['name']}")
                    else:
                        passed += 1
        if code == 0 and not report.exists():
            failed, text = 1, text + f"\n{program}: ended without a report of its tests\n"
        if code != 0 and failed == 0:
            failed, text = 1, text + f"\n{program}: ended with code {code}\n"  # crashed, or a sanitizer spoke at the end
        name = os.path.basename(program)
        print(f"{'FAIL' if failed else 'ok':4} {name:32} {passed:4} passed {failed:3} failed {skipped:3} skipped {time.monotonic() - began:7.1f} s", flush=True)
        if failed or skipped:
            print("\n".join(reasons))
            print("\n".join(text.splitlines()[-200:]) if failed else "\n".join(line for line in text.splitlines() if "skip" in line.lower() or "need" in line.lower()))
        return passed, failed, skipped


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--counts", type=pathlib.Path)
    p.add_argument("--timeout", type=float, default=300)
    p.add_argument("programs", nargs="+")
    args = p.parse_args()
    total = [0, 0, 0]
    for program in args.programs:
        total = [a + b for a, b in zip(total, run(program, args.timeout))]
    if args.counts:
        args.counts.write_text("{} {} {}\n".format(*total))
    return 1 if total[1] else 0


if __name__ == "__main__":
    sys.exit(main())
