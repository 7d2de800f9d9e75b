#!/usr/bin/env python3
"""Fails where a file is opened or a program is run outside of io/, which is the one place that knows how to do it safely: symlinks and
fifos refused, descriptors close-on-exec, no shell."""
import pathlib
import re
import sys

SRC = pathlib.Path(__file__).resolve().parents[2] / "src"
FORBIDDEN = re.compile(r"(?<![\w.>:])(?:::(?:open|openat|openat2|creat|opendir|freopen)\s*\(|(?:std::|::)?(?:fopen|popen|system|execl\w*|execv\w*|posix_spawn\w*)\s*\(|"
                       r"std::(?:i|o)?fstream\b)")
# Who may, and why. Tests may too.
EXCEPTIONS = {
    "io/": "this is the place",
    "base/fault.cc": "fault points, in test builds only; base knows no io",
    "apps/virga-shim/": "a small static program that links nothing of ours",
    "apps/virga-agent/": "a small static program that runs inside the guest",
    "apps/virga/": "the command line opens files its own user names, as that user",
    "drivers/image/confined/worker/": "runs shut in by seccomp and Landlock; its descriptors are all it has",
}


def without_comments_and_strings(text):
    text = re.sub(r'"(?:\\.|[^"\\\n])*"', '""', text)
    return re.sub(r"//[^\n]*", "", text)


def main():
    bad = files = 0
    for path in sorted([*SRC.rglob("*.cc"), *SRC.rglob("*.h")]):
        file = path.relative_to(SRC).as_posix()
        if re.search(r"_test[._]|_fixture[._]", path.name) or any(file.startswith(e) for e in EXCEPTIONS):
            continue
        files += 1
        for number, line in enumerate(without_comments_and_strings(path.read_text()).splitlines(), 1):
            for found in FORBIDDEN.finditer(line):
                print(f"src/{file}:{number}: {found.group(0).strip('( ')}: use io/file.h, io/beneath.h or io/process.h")
                bad += 1
    print(f"raw calls: {files} files, {bad} wrong")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
