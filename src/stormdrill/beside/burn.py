"""Burns whole cores until its deadline: one process a core, which end with the first."""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import time

_PR_SET_PDEATHSIG = 1


def burn(deadline_s: float, parent: int) -> None:
    """Returns at the deadline, or when the parent is gone."""
    end_s = time.monotonic() + deadline_s
    while time.monotonic() < end_s and os.getppid() == parent:
        for _ in range(200_000):
            pass


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="burn", description=__doc__)
    parser.add_argument("--cores", type=int, required=True)
    parser.add_argument("--deadline-s", type=float, required=True, help="it ends by itself after this long")
    parser.add_argument("--tag", default="", help="means nothing: by this it is found among other processes")
    asked = parser.parse_args(words)
    parent, own = os.getppid(), os.getpid()
    for _ in range(asked.cores - 1):
        if os.fork() == 0:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            burn(asked.deadline_s, own)
            os._exit(0)
    burn(asked.deadline_s, parent)
    return 0
