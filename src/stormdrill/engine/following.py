"""The runner reads the run's state from the journal itself, so that what it decides on is what is written."""

from __future__ import annotations

import os
from pathlib import Path

from stormdrill.model.event import Recorded
from stormdrill.store.journal import parse_line

CHUNK_BYTES = 1 << 20


class JournalFollower:
    """Gives each complete line once, in order of writing."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._rest = b""

    def new(self) -> list[Recorded]:
        found: list[Recorded] = []
        while chunk := os.read(self._descriptor, CHUNK_BYTES):
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            found.extend(parse_line(line) for line in lines)
        return found

    def close(self) -> None:
        os.close(self._descriptor)
