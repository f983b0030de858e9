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
import struct

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
