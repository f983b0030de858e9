"""What a verdict rests on, as values: the plan, the journal's events, the request records, the job ledger."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from stormdrill.core import requests as _requests
from stormdrill.core.requests import Column, Kind, Requests, Run
from stormdrill.core.rows import Rows
from stormdrill.model.event import Recorded
from stormdrill.model.plan import Plan
from stormdrill.ports import LedgerRow

ANSWERED, TIMED_OUT, REFUSED = _requests.ANSWERED, _requests.TIMED_OUT, _requests.REFUSED
UNFINISHED, DROPPED = _requests.UNFINISHED, _requests.DROPPED
FINAL, RETRY_AFTER, GARBLED, HEDGE = _requests.FINAL, _requests.RETRY_AFTER, _requests.GARBLED, _requests.HEDGE
UNTOLD = _requests.UNTOLD
__all__ = [
    "ANSWERED", "DROPPED", "FINAL", "GARBLED", "HEDGE", "REFUSED", "RETRY_AFTER", "TIMED_OUT", "UNFINISHED", "UNTOLD",
    "Evidence", "Kind", "RecordFile", "Requests", "requests_of",
]  # fmt: skip


class RecordFile(Struct, frozen=True):
    """One generator worker's records."""

    file: str
    """Relative to the run directory, as the journal names it."""
    boot_id: str
    epoch_mono_ns: int
    kinds: tuple[Kind, ...]
    rows: Rows
    """An attempt each, in the order of their intended start; a structured array of the file's own fields does too."""
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


def requests_of(records: Sequence[RecordFile]) -> Requests:
    """All workers' attempts in one table, each with its own epoch and labels."""
    kinds: list[Kind] = []
    regions = tuple(dict.fromkeys(region for record in records for region in record.regions))
    parts: list[_Part] = []
    for record in records:
        rows = Rows.of(record.rows)
        known = rows["labels"] < len(record.kinds)
        rows = rows if known.all() else rows[known]
        parts.append(_Part(rows, record, len(kinds), _regions_of(record, regions)))
        kinds.extend(record.kinds)
    count = sum(len(part.rows) for part in parts)

    def make(name: str) -> Column:
        if len(parts) == 1:
            return parts[0].column(name)
        return np.concatenate([part.column(name) for part in parts]) if parts else _nothing(name)

    return Requests(count, make, tuple(kinds), regions, _runs(parts))


def _nothing(name: str) -> Column:
    return np.zeros(0, np.float64 if name == "at_ms" else np.uint8)


class _Part(Struct, frozen=True):
    """One file's share of the table."""

    rows: Rows
    record: RecordFile
    first_kind: int
    regions: NDArray[np.uint8]
    """From the file's numbers to the table's."""

    def column(self, name: str) -> Column:
        if name == "at_ms":
            at_ms: NDArray[np.float64] = self.rows["intended_us"] / 1000.0
            at_ms += self.record.epoch_mono_ns / 1e6
            return at_ms
        if name == "kind":
            labels = self.rows["labels"]
            return labels + np.uint16(self.first_kind) if self.first_kind else labels
        if name == "region":
            return self.regions.take(self.rows["region"])
        return self.rows[name]


def _regions_of(record: RecordFile, regions: tuple[str, ...]) -> NDArray[np.uint8]:
    found = np.full(UNTOLD + 1, UNTOLD, dtype=np.uint8)
    found[: len(record.regions)] = [regions.index(region) for region in record.regions]
    return found


def _runs(parts: Sequence[_Part]) -> tuple[Run, ...] | None:
    """Where each file's rows lie; None when one isn't in the order of the intended starts."""
    runs, count = [], 0
    for part in parts:
        at_us = part.rows["intended_us"]
        if not bool((at_us[1:] >= at_us[:-1]).all()):
            return None
        if len(at_us):
            runs.append((count, count + len(at_us)))
        count += len(at_us)
    return tuple(runs)
