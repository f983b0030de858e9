"""The request records: one header line of JSON, then 24 bytes a request, appended while the run goes on.

    offset  type     field
    0       uint64   intended_us   since the header's epoch_mono_ns; a request belongs to the phase of this time
    8       uint32   lag_us        sent - intended
    12      uint32   latency_us    done - intended (for time-outs and unfinished ones: at least the deadline)
    16      uint32   job           the logical request's number, unique in the run
    20      uint16   status        HTTP status; 0 when there was no answer
    22      uint8    labels        index into the header's `labels`
    23      uint8    outcome       see Outcome

Header: {"format": "stormdrill-records/1", "worker", "boot_id", "epoch_mono_ns", "epoch_at",
"labels": [{"labels": {"tier": "1", ...}, "deadline_ms": 1000}, ...]}.
A file may end in a torn record when its writer was killed: readers drop the last incomplete one.
"""

from __future__ import annotations

import enum
import json
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FORMAT = "stormdrill-records/1"
RECORD = struct.Struct("<QIIIHBB")
DTYPE = [
    ("intended_us", "<u8"),
    ("lag_us", "<u4"),
    ("latency_us", "<u4"),
    ("job", "<u4"),
    ("status", "<u2"),
    ("labels", "u1"),
    ("outcome", "u1"),
]
MAX_CLASSES = 256
"""A label class is one byte."""
_MAX_HEADER = 1 << 20
_UINT32_MAX = 0xFFFFFFFF


class Outcome(enum.IntEnum):
    """What became of one intended request."""

    ANSWERED = 0
    TIMED_OUT = 1
    """No answer within the client's limit."""
    REFUSED = 2
    """Connection refused, reset or cut."""
    UNFINISHED = 3
    """Still in flight when the generator ended; counts as a time-out."""
    DROPPED = 4
    """Never sent: the generator's pool was full. Any of these taints the evidence."""


class LabelClass(TypedDict):
    """What all requests of one stream have in common."""

    labels: dict[str, str]
    deadline_ms: float


class RecordHeader(TypedDict):
    """The first line of a record file."""

    format: str
    worker: int
    boot_id: str
    epoch_mono_ns: int
    epoch_at: str
    """UTC with offset, the wall clock at the epoch."""
    labels: list[LabelClass]


class RecordWriter:
    """Appends records to one file. `add` only buffers; call `flush` at least every 100 ms.

    Standard library only, one file, one writer. Raises FileExistsError when the file is there already,
    and OSError when the disk is full: what was flushed before stays readable.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        worker: int,
        boot_id: str,
        epoch_mono_ns: int,
        epoch_at: str,
        labels: Sequence[LabelClass],
    ) -> None:
        if len(labels) > MAX_CLASSES:
            raise ValueError(f"{len(labels)} kinds of requests do not fit in one byte; at most {MAX_CLASSES}")
        header: RecordHeader = {
            "format": FORMAT,
            "worker": worker,
            "boot_id": boot_id,
            "epoch_mono_ns": epoch_mono_ns,
            "epoch_at": epoch_at,
            "labels": list(labels),
        }
        self._buffer = bytearray(json.dumps(header, ensure_ascii=False).encode() + b"\n")
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        self.flush()

    def add(
        self, *, intended_us: int, lag_us: int, latency_us: int, job: int, status: int, labels: int, outcome: Outcome
    ) -> None:
        """Buffer one record. Durations beyond 71 minutes are stored as the largest that fits."""
        self._buffer += RECORD.pack(
            intended_us,
            min(max(lag_us, 0), _UINT32_MAX),
            min(max(latency_us, 0), _UINT32_MAX),
            job & _UINT32_MAX,
            status,
            labels,
            outcome,
        )

    def flush(self) -> None:
        """Hand what is buffered to the kernel: it survives the death of this process from here on."""
        while self._buffer:
            written = os.write(self._fd, self._buffer)
            del self._buffer[:written]

    def close(self) -> None:
        """Flush, and wait until it is on the disk."""
        self.flush()
        os.fsync(self._fd)
        os.close(self._fd)


def read_header(path: str | os.PathLike[str]) -> tuple[RecordHeader, int]:
    """The header and the offset of the first record. Raises ValueError when it isn't a record file."""
    with Path(path).open("rb") as file:
        line = file.readline(_MAX_HEADER)
    if not line.endswith(b"\n"):
        raise ValueError(f"{os.fspath(path)}: no complete header line; its writer died before the first record")
    try:
        header: RecordHeader = json.loads(line)
        known = header["format"] == FORMAT
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{os.fspath(path)}: not a record file; expected a header with format {FORMAT}") from error
    if not known:
        raise ValueError(f"{os.fspath(path)}: format {header['format']!r}; this version reads {FORMAT}")
    return header, len(line)


def read_records(path: str | os.PathLike[str]) -> tuple[RecordHeader, NDArray[np.void]]:
    """Header and all complete records, as a structured array of `DTYPE`. A torn last record is left out."""
    import numpy as np

    header, start = read_header(path)
    whole = (os.path.getsize(path) - start) // RECORD.size  # noqa: PTH202  (one call for str and Path alike)
    return header, np.fromfile(path, dtype=np.dtype(DTYPE), count=whole, offset=start)
