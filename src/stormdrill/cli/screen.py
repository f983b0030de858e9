"""Where lines go: how wide to write, and what becomes of them when nobody is there any more."""

from __future__ import annotations

import shutil
from typing import TextIO

PLAIN_WIDTH = 100
WIDEST = 120
NARROWEST = 40


class Sink:
    """A stream that outlives its reader: once the terminal was closed or the pipe's reader left, it swallows all.

    A run, its revert and its exit code matter more than their picture.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self.gone = False

    def write(self, text: str) -> int:
        if not self.gone:
            try:
                self._out.write(text)
            except (OSError, ValueError):
                self.gone = True
        return len(text)

    def flush(self) -> None:
        if not self.gone:
            try:
                self._out.flush()
            except (OSError, ValueError):
                self.gone = True

    def isatty(self) -> bool:
        return not self.gone and self._out.isatty()

    def fileno(self) -> int:
        return self._out.fileno()

    @property
    def encoding(self) -> str:
        return getattr(self._out, "encoding", None) or "utf-8"


def width_of(out: TextIO) -> int:
    """Columns to write to: the terminal's, within reason; without a terminal a fixed width."""
    if not out.isatty():
        return PLAIN_WIDTH
    return max(NARROWEST, min(WIDEST, shutil.get_terminal_size((PLAIN_WIDTH, 24)).columns))
