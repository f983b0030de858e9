"""A terminal for exec with tty: one pair of ends, sizes, the hang-up."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import struct
import termios
from typing import IO


class Terminal:
    def __init__(self) -> None:
        ours, self._theirs = pty.openpty()
        self._ours = os.fdopen(ours, "r+b", buffering=0)

    def ends(self) -> dict[str, int]:
        return {"stdin": self._theirs, "stdout": self._theirs, "stderr": self._theirs}

    def input(self) -> IO[bytes]:
        return self._ours

    def output(self) -> IO[bytes]:
        return self._ours

    def resize(self, asked: bytes) -> None:
        with contextlib.suppress(ValueError, KeyError):
            size = json.loads(asked)
            fcntl.ioctl(self._theirs, termios.TIOCSWINSZ, struct.pack("HHHH", size["Height"], size["Width"], 0, 0))

    def hang_up(self) -> None:
        """Nobody of the command is left: readers see the end."""
        with contextlib.suppress(OSError):
            os.close(self._theirs)
