"""What a verdict rests on, as values: the plan, the journal's events, the request records, the job ledger."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from stormdrill.model.event import Recorded
from stormdrill.model.plan import Plan
from stormdrill.ports import LedgerRow

_S = TypeVar("_S", bound=np.generic)
# What became of a request; the numbers of store.records.Outcome, which lies above this room. A test compares them.
ANSWERED, TIMED_OUT, REFUSED, UNFINISHED, DROPPED = range(5)
# And what else is known of an attempt: store.records.Flag.
FINAL, RETRY_AFTER, GARBLED, HEDGE = 1, 2, 4, 8
UNTOLD = 255


class Kind(Struct, frozen=True):
    """What all requests of one stream have in common."""

    labels: dict[str, str]
    deadline_ms: float


class RecordFile(Struct, frozen=True):
    """One generator worker's records."""

    file: str
    """Relative to the run directory, as the journal names it."""
    boot_id: str
    epoch_mono_ns: int
    kinds: tuple[Kind, ...]
    rows: NDArray[np.void]
    """Of `store.records.DTYPE`."""
    torn: bool = False
    """It ended in half a record."""
    intact: bool = True
    """False: its SHA-256 isn't the one that was journalled."""
    regions: tuple[str, ...] = ()
    """What the rows' `region` counts into."""
    closed_loop: bool = False
    """Users waited for answers before they asked again: what was slow was asked less."""
    clock_error_ms: float = 0.0
    """By how much its times may be off on the journal's clock."""


class Evidence(Struct, frozen=True):
    """A run directory, read."""

    plan: Plan
    events: tuple[Recorded, ...]
    records: tuple[RecordFile, ...]
    ledger: tuple[LedgerRow, ...] | None
    """None: nobody wrote down what the system says of its jobs."""
    problems: tuple[str, ...] = ()
    """What could not be read, in sentences."""


class Requests(Struct, frozen=True):
    """Every intended request of all workers, or every attempt at them; a column each, in no particular order."""

    at_ms: NDArray[np.float64]
    """Intended start on the journal's monotonic clock."""
    kind: NDArray[np.int64]
    """Index into `kinds`."""
    kinds: tuple[Kind, ...]
    lag_us: NDArray[np.uint32]
    latency_us: NDArray[np.uint32]
    job: NDArray[np.uint32]
    status: NDArray[np.uint16]
    outcome: NDArray[np.uint8]
    sent_us: NDArray[np.uint32]
    """When this attempt was sent, from the intended start on."""
    attempt: NDArray[np.uint8]
    flags: NDArray[np.uint8]
    """Of `store.records.Flag`."""
    retry_after_s: NDArray[np.uint8]
    region: NDArray[np.uint8]
    """Index into `regions`; beyond them: not told."""
    regions: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.at_ms)

    def where(self, mask: NDArray[np.bool_]) -> Requests:
        return Requests(
            self.at_ms[mask], self.kind[mask], self.kinds, self.lag_us[mask], self.latency_us[mask],
            self.job[mask], self.status[mask], self.outcome[mask], self.sent_us[mask], self.attempt[mask],
            self.flags[mask], self.retry_after_s[mask], self.region[mask], self.regions,
        )  # fmt: skip

    @property
    def logical(self) -> Requests:
        """One row a logical request: its last attempt, which is its outcome."""
        final = (self.flags & FINAL) != 0
        return self if final.all() else self.where(final)

    @property
    def rejected(self) -> NDArray[np.bool_]:
        """Answered with 429 or 503: turned away."""
        found: NDArray[np.bool_] = (self.outcome == ANSWERED) & ((self.status == 429) | (self.status == 503))
        return found

    def between(self, start_ms: float, end_ms: float) -> Requests:
        return self.where((self.at_ms >= start_ms) & (self.at_ms < end_ms))

    def labelled(self, labels: dict[str, str]) -> Requests:
        """Those whose labels contain all of `labels`."""
        if not labels:
            return self
        fits = np.array([labels.items() <= kind.labels.items() for kind in self.kinds], dtype=np.bool_)
        return self.where(fits[self.kind]) if len(fits) else self

    @property
    def deadline_us(self) -> NDArray[np.float64]:
        deadlines = np.array([kind.deadline_ms * 1000 for kind in self.kinds], dtype=np.float64)
        return deadlines[self.kind] if len(deadlines) else np.zeros(0)

    @property
    def acknowledged(self) -> NDArray[np.bool_]:
        """Answered with 2xx, however late."""
        found: NDArray[np.bool_] = (self.outcome == ANSWERED) & (self.status >= 200) & (self.status < 300)
        return found

    @property
    def timed_out(self) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = (self.outcome == TIMED_OUT) | (self.outcome == UNFINISHED)
        return found

    @property
    def admitted(self) -> NDArray[np.bool_]:
        """What latency is measured over: answered with 2xx, or not at all. Quick rejections flatter nobody."""
        return self.acknowledged | self.timed_out

    @property
    def judged_latency_us(self) -> NDArray[np.float64]:
        """From the intended start; of a time-out at least its deadline."""
        latency_us = self.latency_us.astype(np.float64)
        return np.where(self.timed_out, np.maximum(latency_us, self.deadline_us), latency_us)

    def decided_by(self, at_ms: float, patience_us: NDArray[np.float64] | float) -> Requests:
        """Without those whose fate was still open at `at_ms`: in flight, and not yet for `patience_us`."""
        ended = self.at_ms + self.judged_latency_us / 1000 <= at_ms
        overdue = (at_ms - self.at_ms) * 1000 >= patience_us
        return self.where(ended | overdue)

    @property
    def good(self) -> NDArray[np.bool_]:
        """2xx within the deadline."""
        return self.acknowledged & (self.latency_us <= self.deadline_us)


def requests_of(records: Sequence[RecordFile]) -> Requests:
    """All workers' attempts in one table, each with its own epoch and labels."""
    kinds: list[Kind] = []
    regions = tuple(dict.fromkeys(region for record in records for region in record.regions))
    columns: dict[str, list[NDArray[np.generic]]] = {}
    for record in records:
        rows = record.rows
        known = rows["labels"] < len(record.kinds)
        rows = rows if known.all() else rows[known]
        columns.setdefault("at_ms", []).append(record.epoch_mono_ns / 1e6 + rows["intended_us"] / 1000.0)
        columns.setdefault("kind", []).append(rows["labels"].astype(np.int64) + len(kinds))
        for name in (
            "lag_us", "latency_us", "job", "status", "outcome", "sent_us", "attempt", "flags", "retry_after_s",
        ):  # fmt: skip
            columns.setdefault(name, []).append(rows[name])
        known_regions = np.full(UNTOLD + 1, UNTOLD, dtype=np.uint8)
        known_regions[: len(record.regions)] = [regions.index(region) for region in record.regions]
        columns.setdefault("region", []).append(known_regions[rows["region"]])
        kinds.extend(record.kinds)

    def column(name: str, dtype: type[_S]) -> NDArray[_S]:
        parts = columns.get(name, [])
        if not parts:
            return np.zeros(0, dtype=dtype)
        return np.ascontiguousarray(np.concatenate(parts) if len(parts) != 1 else parts[0], dtype=dtype)

    return Requests(
        column("at_ms", np.float64),
        column("kind", np.int64),
        tuple(kinds),
        column("lag_us", np.uint32),
        column("latency_us", np.uint32),
        column("job", np.uint32),
        column("status", np.uint16),
        column("outcome", np.uint8),
        column("sent_us", np.uint32),
        column("attempt", np.uint8),
        column("flags", np.uint8),
        column("retry_after_s", np.uint8),
        column("region", np.uint8),
        regions,
    )
