"""What a run showed. `verdict.json` is this, computed by `core.judge` from the run directory alone."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Word = Literal["PASS", "FAIL", "INVALID", "INCONCLUSIVE"]
WORST_FIRST: tuple[Word, ...] = ("FAIL", "INVALID", "INCONCLUSIVE", "PASS")


class ObjectiveVerdict(Struct, frozen=True):
    name: str
    """The expression as written."""
    phase: str
    """The window's text: `fault after 10s`."""
    verdict: Word
    value: float | None
    low: float | None
    high: float | None
    """95% interval, two-sided; None for exact counts."""
    limit: float
    unit: str
    n: int
    sentence: str
    """For a person: "98.1% [97.0, 98.9] of 2,412 tier-1 requests succeeded during the fault; 98% was asked"."""
    events: tuple[int, ...] = ()
    """Sequence numbers of the journal events that it rests on."""


class Figure(Struct, frozen=True):
    """One number of a backpressure check, as shown."""

    name: str
    """`capacity`, `goodput at 2 x capacity`, `depth of gateway-eu`."""
    value: float | None
    low: float | None = None
    high: float | None = None
    """95% interval, two-sided; None for what was counted or read."""
    limit: float | None = None
    """None: nothing is asked of it."""
    unit: str = ""
    n: int = 0


class CheckVerdict(Struct, frozen=True):
    """What one backpressure check found."""

    name: str
    """The check's word: `goodput-plateau`."""
    verdict: Word
    sentence: str
    figures: tuple[Figure, ...] = ()
    events: tuple[int, ...] = ()


class FaultVerdict(Struct, frozen=True):
    name: str
    """The fault's word."""
    target: str
    """The instance."""
    exposed: bool
    bit: bool
    effect_ms: float | None
    """From the inject call to the witness that saw it bite."""
    reverted: bool
    revert_ms: float | None
    detail: str
    events: tuple[int, ...] = ()
    users_ms: float | None = None
    """From when the fault is in force to the first request that was surely worse off than before; None: nothing was
    felt, or it is not known. The same for all instances of one fault. Never part of the verdict."""
    users: str = ""
    """The same in a sentence."""


class LoadVerdict(Struct, frozen=True):
    scheduled: int
    sent: int
    dropped: int
    unfinished: int
    lag_p99_ms: float
    valid: bool
    reason: str


class StepVerdict(Struct, frozen=True):
    step: str
    kind: str
    outcome: str
    took_ms: float


class RunbookVerdict(Struct, frozen=True):
    name: str
    verdict: Word
    started_by: str
    steps: tuple[StepVerdict, ...]
    sentence: str


class Times(Struct, frozen=True):
    """Seconds from when the first fault is in force; None where it did not happen. Unattended, these are machine
    times."""

    bit_s: float | None = None
    detect_s: float | None = None
    """TTD: to the first alert that the experiment names."""
    mitigate_s: float | None = None
    """TTM: to the moment from which the fault objectives held, while the cause was still there."""
    reverted_s: float | None = None
    recover_s: float | None = None
    """TTR: to the moment from which the recovery objectives held again."""


class Verdict(Struct, frozen=True):
    run: str
    status: Literal["completed", "aborted", "dirty", "failed"]
    verdict: Word
    sentence: str
    """Why, in one sentence."""
    objectives: tuple[ObjectiveVerdict, ...]
    faults: tuple[FaultVerdict, ...]
    load: LoadVerdict | None
    runbook: RunbookVerdict | None
    times: Times
    backpressure: tuple[CheckVerdict, ...] = ()
    reasons: tuple[str, ...] = ()
    """Everything else that weighed on the verdict: no healthy baseline, host starved, guard tripped …"""
