"""Prints what the kernel counts for the processes that bear a tag among their arguments, as JSON: how many, their CPU
time, their memory. Itself left out.

Imports nothing of stormdrill, so that its text can be run by any python3 (`python3 -c TEXT TAG`).
"""

from __future__ import annotations

import json
import mmap
import os
import sys
from pathlib import Path


def bears(pid: str, tag: str) -> bool:
    return tag.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()


def main(words: list[str]) -> int:
    tag, count, ticks, pages = words[0], 0, 0, 0
    for pid in (one.name for one in Path("/proc").glob("[0-9]*") if one.name != str(os.getpid())):
        try:
            if not bears(pid, tag):
                continue
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            held = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            continue  # it has ended meanwhile, or is somebody else's
        if fields[0] in "ZX":
            continue
        count, pages = count + 1, pages + held
        ticks += int(fields[11]) + int(fields[12])
    cpu_s = ticks / os.sysconf("SC_CLK_TCK")
    sys.stdout.write(json.dumps({"count": count, "cpu_s": cpu_s, "mb": pages * mmap.PAGESIZE / (1 << 20)}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
