#!/usr/bin/env python3
"""Runs every fuzz target for a while, two at a time, from the seeds in tests/fuzz/corpus. What it finds lies in build/fuzz/found.

usage: run_fuzz.py [--bin DIRECTORY] [--seconds N] [--filter TEXT] [--counts FILE]
"""
import argparse
import concurrent.futures
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

TOP = pathlib.Path(__file__).resolve().parents[2]


def run(program, seconds, found):
    """Whether the target found nothing."""
    seeds = TOP / "tests/fuzz/corpus" / program.name.removesuffix("_fuzz")
    with tempfile.TemporaryDirectory(prefix="virga-fuzz.") as work:
        # What it learns goes into the first directory; the seeds stay as they are.
        argv = [program, f"-max_total_time={seconds}", "-rss_limit_mb=1024", "-timeout=10", "-print_final_stats=1", f"-artifact_prefix={found}/{program.name}-", work]
        try:
            done = subprocess.run([str(a) for a in argv + ([seeds] if seeds.is_dir() else [])], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                                  timeout=seconds + 120)
            text, code = done.stderr, done.returncode
        except subprocess.TimeoutExpired as error:
            text, code = f"it did not end\n{error.stderr or ''}", 1
    runs = re.search(r"number_of_executed_units: (\d+)", text)
    print(f"{'ok' if code == 0 else 'FAIL':4} {program.name:20} {int(runs[1]) if runs else 0:10} inputs", flush=True)
    if code != 0:
        print("\n".join(text.splitlines()[-40:]), flush=True)
    return code == 0


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--bin", type=pathlib.Path, default=TOP / "build/fuzz/bin")
    p.add_argument("--seconds", type=int, default=60)
    p.add_argument("--filter", default="")
    p.add_argument("--counts", type=pathlib.Path)
    a = p.parse_args()
    programs = [f for f in sorted(a.bin.glob("*_fuzz")) if a.filter in f.name]
    found = a.bin.parent / "found"
    shutil.rmtree(found, ignore_errors=True)
    found.mkdir()
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda f: run(f.resolve(), a.seconds, found), programs))
    passed = sum(results)
    if a.counts:
        a.counts.write_text(f"{passed} {len(results) - passed} 0\n")
    if not results:
        print(f"no fuzz targets in {a.bin}: ./dev build fuzz fuzzers", file=sys.stderr)
    return 0 if results and passed == len(results) else 1


if __name__ == "__main__":
    sys.exit(main())
