"""The request records: one header line of JSON, then 32 bytes an attempt, appended while the run goes on.

    offset  type     field
    0       uint64   intended_us   since the header's epoch_mono_ns; a request belongs to the phase of this time
    8       uint32   lag_us        the first attempt's sent - intended: what the generator was late
    12      uint32   latency_us    done - intended (for time-outs and unfinished ones: at least the deadline)
    16      uint32   job           the logical request's number, unique in the run
    20      uint16   status        HTTP status; 0 when there was no answer
    22      uint8    labels        index into the header's `labels`
    23      uint8    outcome       see Outcome
    24      uint32   sent_us       this attempt's sent - intended
    28      uint8    attempt       0 for the first
    29      uint8    flags         see Flag
    30      uint8    retry_after_s as the answer asked, 255 for longer; see Flag.RETRY_AFTER
    31      uint8    region        index into the header's `regions`: who served it; 255 when it wasn't told

A logical request has one row an attempt, of which the last one has the flag FINAL: that one is its outcome.
Header: {"format": "stormdrill-records/2", "worker", "boot_id", "epoch_mono_ns", "epoch_at", "loop", "regions",
"clock_error_ms", "labels": [{"labels": {"tier": "1", ...}, "deadline_ms": 1000}, ...]}.
Labels and regions that are learnt while it is written stand in a second line, `room` bytes of blanks that are filled
from the left, each before the records that use it: JSON texts, a tab after each. The header as it is read has them.
A file may end in a torn record when its writer was killed: readers drop the last incomplete one.
"""

from __future__ import annotations

import enum
import json
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NotRequired, TypedDict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FORMAT = "stormdrill-records/2"
RECORD = struct.Struct("<QIIIHBBIBBBB")
DTYPE = [
    ("intended_us", "<u8"),
    ("lag_us", "<u4"),
    ("latency_us", "<u4"),
    ("job", "<u4"),
    ("status", "<u2"),
    ("labels", "u1"),
    ("outcome", "u1"),
    ("sent_us", "<u4"),
    ("attempt", "u1"),
    ("flags", "u1"),
    ("retry_after_s", "u1"),
    ("region", "u1"),
]
UNTOLD = 255
"""The region of an attempt whose answer didn't tell it."""
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


class Flag(enum.IntFlag):
    """What else is known of one attempt."""

    FINAL = 1
    """The last one of its logical request, which had the outcome of this one."""
    RETRY_AFTER = 2
    """The answer said when to come back."""
    GARBLED = 4
    """It had a Retry-After that can't be read."""
    HEDGE = 8
    """Sent beside an attempt that had not ended."""


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
    regions: list[str]
    loop: str
    """open, or closed: users who wait for an answer before they ask again."""
    clock_error_ms: float
    """By how much the epoch may be off on the journal's clock; 0 for a worker of the same machine."""
    room: NotRequired[int]
    """Bytes of the second line, its end included; none without it."""


class Learnt(TypedDict, total=False):
    """One entry of the second line."""

    label: LabelClass
    region: str


class RecordWriter:
    """Appends records to one file. `add` only buffers; call `flush` at least every 100 ms.

    Standard library only, one file, one writer. Raises FileExistsError when the file is there already,
    and OSError when the disk is full: what was flushed before stays readable.
    """

    def __init__(  # noqa: PLR0913  (the fields of a header)
        self,
        path: str | os.PathLike[str],
        *,
        worker: int,
        boot_id: str,
        epoch_mono_ns: int,
        epoch_at: str,
        labels: Sequence[LabelClass],
        regions: Sequence[str] = (),
        loop: str = "open",
        clock_error_ms: float = 0.0,
        room: int = 0,
    ) -> None:
        """`room`: bytes kept for the labels and regions that `learn` is told later."""
        if len(labels) > MAX_CLASSES:
            raise ValueError(f"{len(labels)} kinds of requests do not fit in one byte; at most {MAX_CLASSES}")
        header: RecordHeader = {
            "format": FORMAT,
            "worker": worker,
            "boot_id": boot_id,
            "epoch_mono_ns": epoch_mono_ns,
            "epoch_at": epoch_at,
            "labels": list(labels),
            "regions": list(regions),
            "loop": loop,
            "clock_error_ms": clock_error_ms,
        }
        if room:
            header["room"] = room
        self._buffer = bytearray(json.dumps(header, ensure_ascii=False).encode() + b"\n")
        self._learnt_at, self._room_ends = len(self._buffer), len(self._buffer) + room - 1
        self._classes, self._regions = len(labels), len(regions)
        if room:
            self._buffer += b" " * (room - 1) + b"\n"
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        self.flush()

    def add(  # noqa: PLR0913  (the columns of a record)
        self,
        *,
        intended_us: int,
        lag_us: int,
        latency_us: int,
        job: int,
        status: int,
        labels: int,
        outcome: Outcome,
        sent_us: int | None = None,
        attempt: int = 0,
        flags: int = Flag.FINAL,
        retry_after_s: int = 0,
        region: int = UNTOLD,
    ) -> None:
        """Buffer one record. Durations beyond 71 minutes are stored as the largest that fits. Without `sent_us` the
        attempt was sent when the first one was."""
        self._buffer += RECORD.pack(
            intended_us,
            min(max(lag_us, 0), _UINT32_MAX),
            min(max(latency_us, 0), _UINT32_MAX),
            job & _UINT32_MAX,
            status,
            labels,
            outcome,
            min(max(lag_us if sent_us is None else sent_us, 0), _UINT32_MAX),
            min(attempt, 255),
            flags,
            min(retry_after_s, 255),
            region,
        )

    def learn_label(self, label: LabelClass) -> int | None:
        """Its index from now on; None when there is no room for it."""
        if self._classes >= MAX_CLASSES or not self._learn({"label": label}):
            return None
        self._classes += 1
        return self._classes - 1

    def learn_region(self, region: str) -> int | None:
        """As `learn_label`."""
        if self._regions >= UNTOLD or not self._learn({"region": region}):
            return None
        self._regions += 1
        return self._regions - 1

    def _learn(self, entry: Learnt) -> bool:
        text = json.dumps(entry).encode() + b"\t"
        if self._learnt_at + len(text) > self._room_ends:
            return False
        # At once, while the records that use it are still buffered.
        if os.pwrite(self._fd, text, self._learnt_at) < len(text):
            return False
        self._learnt_at += len(text)
        return True

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
        return _header(os.fspath(path), line, file)


def _header(path: str, line: bytes, file: BinaryIO) -> tuple[RecordHeader, int]:
    if not line.endswith(b"\n"):
        raise ValueError(f"{path}: no complete header line; its writer died before the first record")
    try:
        header: RecordHeader = json.loads(line)
        known = header["format"] == FORMAT
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a record file; expected a header with format {FORMAT}") from error
    if not known:
        raise ValueError(f"{path}: format {header['format']!r}; this version reads {FORMAT}")
    room = header.get("room", 0)
    if room:
        second = file.read(room)
        if len(second) != room:
            raise ValueError(f"{path}: its second line is incomplete; its writer died before the first record")
        _add_learnt(header, second)
    return header, len(line) + room


def _add_learnt(header: RecordHeader, line: bytes) -> None:
    """What stands behind the last tab is torn, or blank."""
    for text in line.split(b"\t")[:-1]:
        entry: Learnt = json.loads(text)
        if "label" in entry:
            header["labels"].append(entry["label"])
        elif "region" in entry:
            header["regions"].append(entry["region"])


def read_records(path: str | os.PathLike[str]) -> tuple[RecordHeader, NDArray[np.void]]:
    """Header and all complete records, as a structured array of `DTYPE`. A torn last record is left out."""
    import numpy as np

    header, start = read_header(path)
    whole = (os.path.getsize(path) - start) // RECORD.size  # noqa: PTH202  (one call for str and Path alike)
    return header, np.fromfile(path, dtype=np.dtype(DTYPE), count=whole, offset=start)
