"""What the workers leave behind, counted from their files and not from what they said: the events of the load's end."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from stormdrill.load.messages import Ended
from stormdrill.model.event import Event, LoadEnded, RecordClosed
from stormdrill.store.records import Flag, Outcome, read_records

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Left(Struct, frozen=True):
    """One worker at its end."""

    name: str
    path: Path
    ended: Ended | None
    """None: it was lost, or it never began."""
    scheduled: int
    """By its last word, if it said nothing at its end."""
    detail: str = ""
    """Why it was lost, or what else is to be known."""


def close_records(directory: Path, left: Sequence[Left]) -> Sequence[Event]:
    """`load-ended` with the sums, and a `record-closed` for each file that is there."""
    several = len(left) > 1
    sums = {"scheduled": 0, "sent": 0, "dropped": 0, "unfinished": 0, "users": 0, "fewest_users": 0}
    lags: list[NDArray[np.uint32]] = []
    closed: list[Event] = []
    lost, details = 0, []
    for worker in left:
        rows = _final_rows(worker.path)
        detail, complete = worker.detail, worker.ended is not None
        if worker.ended is not None:
            sums["users"] += worker.ended.users
            sums["fewest_users"] += worker.ended.fewest_users
        if rows is not None:
            dropped = int((rows["outcome"] == Outcome.DROPPED).sum())
            sent = len(rows) - dropped
            ended = worker.ended
            if ended is not None and (ended.sent, ended.dropped) != (sent, dropped):
                complete = False
                detail = (
                    f"the file holds {sent} sent and {dropped} dropped, "
                    f"the generator counted {ended.sent} and {ended.dropped}"
                )
            sums["scheduled"] += ended.scheduled if ended else max(sent + dropped, worker.scheduled)
            sums["sent"] += sent
            sums["dropped"] += dropped
            sums["unfinished"] += int((rows["outcome"] == Outcome.UNFINISHED).sum())
            lags.append(rows["lag_us"][rows["outcome"] != Outcome.DROPPED])
        elif worker.ended is not None and worker.ended.scheduled:
            complete = False
            detail = f"it scheduled {worker.ended.scheduled}, and its file is gone or cannot be read"
            sums["scheduled"] += worker.ended.scheduled
        if worker.path.exists():
            digest, size = _digest(worker.path)
            name = worker.path.relative_to(directory).as_posix()
            closed.append(RecordClosed(file=name, sha256=digest, bytes=size, complete=complete))
        lost += not complete
        if detail:
            details.append(f"{worker.name}: {detail}" if several else detail)
    if not closed and not details:
        details.append("it never began")
    return LoadEnded(lag_p99_ms=_p99_ms(lags), lost_workers=lost, detail="; ".join(details), **sums), *closed


def told(ended: Ended) -> str:
    """What else is to be known of a worker that ended as it should."""
    parts = []
    if ended.fewest_users < ended.users:
        parts.append(f"{ended.users - ended.fewest_users} of {ended.users} users stopped by themselves")
    if ended.failovers:
        parts.append(f"{ended.failovers} requests were refused by one entry and answered by the next")
    if ended.errors:
        times = "once" if ended.errors == 1 else f"{ended.errors} times"
        parts.append(f"the locustfile went wrong {times}: {ended.first_error}")
    return "; ".join(parts)


def _final_rows(path: Path) -> NDArray[np.void] | None:
    """One row a logical request; None when there is no readable file."""
    try:
        _, rows = read_records(path)
    except (OSError, ValueError):
        return None
    final: NDArray[np.void] = rows[(rows["flags"] & Flag.FINAL) != 0]
    return final


def _p99_ms(lags: Sequence[NDArray[np.uint32]]) -> float:
    import numpy as np

    every = np.concatenate(lags) if lags else np.zeros(0)
    # The "higher" of two neighbours: a lag that was really seen, and never a flattering one.
    return round(float(np.quantile(every, 0.99, method="higher")) / 1e3, 3) if every.size else 0.0


def _digest(path: Path) -> tuple[str, int]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return digest.hexdigest(), file.tell()
