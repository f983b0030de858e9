"""Takes memory at a steady slope up to a ceiling, in pages that are really written, and keeps it.

The pace is the clock's: what a slow moment missed is made up, so that the slope is that of the whole time. The
ceiling is for all that this process holds, its interpreter included. Imports nothing of stormdrill, so that its text
can be run by any python3 (`python3 -c TEXT …`). Where memory ends, it is the first that the kernel kills, unless it is
`--spared`.
"""

from __future__ import annotations

import argparse
import mmap
import os
import select
import sys
import time
from collections.abc import Callable
from pathlib import Path

MB = 1 << 20
TURN_S = 0.02
CHUNK = b"\x5a" * MB
FIRST_TO_DIE = "1000"
"""Everybody may raise their own score, and no size of another process outweighs this one."""


def resident_bytes() -> int:
    """What the kernel says that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


def room(size: int) -> mmap.mmap:
    """Address space for all that will be taken. Huge pages would take more than what is written."""
    space = mmap.mmap(-1, size)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        space.madvise(mmap.MADV_NOHUGEPAGE)
    return space


def deserted() -> bool:
    """Whether whoever could write to it has closed that."""
    return bool(select.select([0], [], [], 0)[0]) and not os.read(0, 1024)


def leak(
    slope_bytes_per_s: float, ceiling_bytes: int, deadline_s: float, parent: int, over: Callable[[], bool]
) -> None:
    """Returns at the deadline, or when whoever started it is gone: another process, or what `over` asks."""
    began_s = time.monotonic()
    most = (ceiling_bytes - resident_bytes()) // mmap.PAGESIZE * mmap.PAGESIZE - MB
    if most <= 0:
        sys.stderr.write(
            f"leak: {ceiling_bytes / MB:.0f} MB is less than an interpreter holds; give a higher ceiling\n"
        )
        raise SystemExit(2)
    space = room(most)
    taken = 0
    while (after_s := time.monotonic() - began_s) < deadline_s and os.getppid() == parent and not over():
        due = min(most, int(slope_bytes_per_s * after_s) // mmap.PAGESIZE * mmap.PAGESIZE)
        while taken < due:
            step = min(due - taken, MB)
            space[taken : taken + step] = CHUNK[:step]
            taken += step
        time.sleep(TURN_S if taken < most else 0.2)


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="leak", description=__doc__)
    parser.add_argument("--mb-per-s", type=float, required=True)
    parser.add_argument("--ceiling-mb", type=float, required=True)
    parser.add_argument("--deadline-s", type=float, required=True, help="it ends by itself after this long")
    parser.add_argument("--spared", action="store_true", help="somebody else is to be killed before it")
    parser.add_argument("--while-stdin", action="store_true", help="end when nobody can write to it any more")
    parser.add_argument("--tag", default="", help="means nothing: by this it is found among other processes")
    asked = parser.parse_args(words)
    if not asked.spared:
        Path("/proc/self/oom_score_adj").write_text(FIRST_TO_DIE)
    over = deserted if asked.while_stdin else bool
    leak(asked.mb_per_s * MB, int(asked.ceiling_mb * MB), asked.deadline_s, os.getppid(), over)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
