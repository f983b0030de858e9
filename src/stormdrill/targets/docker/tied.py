"""Runs one program that ends with whoever started it, and with all that it has started in its session: a plugin of a
command line is a child of that, and would go on making containers after the keeper has removed those that it found."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys

from stormdrill.keeper import procfs

_PR_SET_PDEATHSIG = 1
_KILL_LIMIT_S = 2.0


def main(words: list[str]) -> int:
    """The program's exit code. `words`: the pid of who started this, and the program's arguments."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(words[0]):  # it died before the line above
        return 1
    try:
        return subprocess.run(words[1:], check=False).returncode
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while others := _others():
            if procfs.kill_until_gone(others, _KILL_LIMIT_S):
                break


def _others() -> list[procfs.Identity]:
    """What lives in this session besides this process, which leads it."""
    found = [item for item in procfs.snapshot().values() if item.session == os.getsid(0) and item.pid != os.getpid()]
    return [
        procfs.Identity(item.pid, item.start_ticks, procfs.boot_id())
        for item in found
        if item.state not in procfs.GONE_STATES
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
