"""Following a record file that still grows, for guards and the live view."""

from __future__ import annotations

import os
from collections import deque
from typing import TYPE_CHECKING

from stormdrill.store.records import DTYPE, RECORD, RecordHeader, read_header

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

KEEP_S = 120.0
"""How far back rows are kept in memory; the file has them all."""


class RecordTail:
    """Reads what was appended since the last look. A file that isn't there yet has no rows."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.header: RecordHeader | None = None
        self._offset = 0
        self._chunks: deque[NDArray[np.void]] = deque()

    def since(self, mono_s: float) -> NDArray[np.void]:
        """Rows that were recorded as done at or after `mono_s` (monotonic clock), in the order of their ends."""
        import numpy as np

        fresh = self._read()
        if fresh.size:
            self._chunks.append(fresh)
        if self.header is None:
            return np.empty(0, dtype=np.dtype(DTYPE))
        newest_us = max((int(_done_us(chunk).max()) for chunk in self._chunks), default=0)
        while self._chunks and int(_done_us(self._chunks[0]).max()) < newest_us - KEEP_S * 1e6:
            self._chunks.popleft()
        from_us = mono_s * 1e6 - self.header["epoch_mono_ns"] / 1e3
        wanted = [chunk[_done_us(chunk) >= from_us] for chunk in self._chunks]
        return np.concatenate(wanted) if wanted else np.empty(0, dtype=np.dtype(DTYPE))

    def _read(self) -> NDArray[np.void]:
        import numpy as np

        if self.header is None:
            try:
                self.header, self._offset = read_header(self.path)
            except (OSError, ValueError):
                # Not there yet, or its first line is still being written.
                return np.empty(0, dtype=np.dtype(DTYPE))
        whole = (os.path.getsize(self.path) - self._offset) // RECORD.size  # noqa: PTH202
        fresh = np.fromfile(self.path, dtype=np.dtype(DTYPE), count=whole, offset=self._offset)
        self._offset += fresh.size * RECORD.size
        return fresh


def _done_us(rows: NDArray[np.void]) -> NDArray[np.int64]:
    done: NDArray[np.int64] = rows["intended_us"].astype("int64") + rows["latency_us"]
    return done
