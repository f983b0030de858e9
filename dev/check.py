"""`make check`: every check, two at a time, one line each; what a failing one printed stands below its line."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

BIN = Path(sys.executable).parent


class Check(NamedTuple):
    name: str
    argv: tuple[str, ...]


CHECKS = (
    Check("types", ("mypy",)),
    Check(
        "docs", ("python", "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", "tests/docs", "tests/style")
    ),
    Check("imports", ("lint-imports", "--no-cache")),
    Check("format", ("ruff", "format", "--check", ".")),
    Check("lint", ("ruff", "check", ".")),
    Check("dead code", ("python", "dev/dead_code.py")),
)


def run(check: Check) -> tuple[Check, int, str, float]:
    started = time.monotonic()
    done = subprocess.run(
        [str(BIN / check.argv[0]), *check.argv[1:]],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return check, done.returncode, done.stdout, time.monotonic() - started


def main() -> int:
    failed = 0
    with ThreadPoolExecutor(2) as pool:
        for check, code, output, took_s in pool.map(run, CHECKS):
            print(f"  {check.name:<10} {'ok' if code == 0 else 'FAILED':<7} {took_s:5.1f} s", flush=True)
            if code:
                failed += 1
                print(output, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
