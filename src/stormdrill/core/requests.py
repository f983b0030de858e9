"""Requests as a table that is cut without being copied: a column is gathered when it is first asked for.

A window of ten million requests in the order of their intended start is a pair of bounds, and its columns are views.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

_S = TypeVar("_S", bound=np.generic)
Column = NDArray[np.generic]
Run = tuple[int, int]
"""Bounds of rows that are in the order of their intended start."""
CHUNK = 1 << 16
"""Rows that are looked at together where each needs a few numbers: they stay in the processor's cache."""

# What became of a request; the numbers of store.records.Outcome, which lies above this room. A test compares them.
ANSWERED, TIMED_OUT, REFUSED, UNFINISHED, DROPPED = range(5)
# And what else is known of an attempt: store.records.Flag.
FINAL, RETRY_AFTER, GARBLED, HEDGE = 1, 2, 4, 8
UNTOLD = 255
MOST_US = 2**32 - 1


class Kind(Struct, frozen=True):
    """What all requests of one stream have in common."""

    labels: dict[str, str]
    deadline_ms: float


class Requests:
    """Every intended request of all workers, or every attempt at them; a column each. Not to be written to."""

    def __init__(
        self,
        count: int,
        make: Callable[[str], Column],
        kinds: tuple[Kind, ...],
        regions: tuple[str, ...] = (),
        runs: tuple[Run, ...] | None = None,
    ) -> None:
        """`make`: a column by its name, asked for once. `runs` cover all rows; None: they are in no known order."""
        self._count = count
        self._make = make
        self._made: dict[str, Column] = {}
        self._runs = runs
        self.kinds = kinds
        self.regions = regions

    def __len__(self) -> int:
        return self._count

    def _whole(self, name: str) -> Column:
        found = self._made.get(name)
        if found is None:
            found = self._made[name] = self._make(name)
        return found

    def _column(self, name: str, dtype: type[_S]) -> NDArray[_S]:
        return self._whole(name)  # type: ignore[return-value]  # who made it knows its type

    # --- columns ---------------------------------------------------------------------------------------------

    @property
    def at_ms(self) -> NDArray[np.float64]:
        """Intended start on the journal's monotonic clock."""
        return self._column("at_ms", np.float64)

    @property
    def kind(self) -> NDArray[np.uint16]:
        """Index into `kinds`, in as few bits as hold it: widen it before you reckon with it."""
        return self._column("kind", np.uint16)

    @property
    def lag_us(self) -> NDArray[np.uint32]:
        return self._column("lag_us", np.uint32)

    @property
    def latency_us(self) -> NDArray[np.uint32]:
        return self._column("latency_us", np.uint32)

    @property
    def job(self) -> NDArray[np.uint32]:
        return self._column("job", np.uint32)

    @property
    def status(self) -> NDArray[np.uint16]:
        return self._column("status", np.uint16)

    @property
    def outcome(self) -> NDArray[np.uint8]:
        return self._column("outcome", np.uint8)

    @property
    def sent_us(self) -> NDArray[np.uint32]:
        """When this attempt was sent, from the intended start on."""
        return self._column("sent_us", np.uint32)

    @property
    def attempt(self) -> NDArray[np.uint8]:
        return self._column("attempt", np.uint8)

    @property
    def flags(self) -> NDArray[np.uint8]:
        """Of `store.records.Flag`."""
        return self._column("flags", np.uint8)

    @property
    def retry_after_s(self) -> NDArray[np.uint8]:
        return self._column("retry_after_s", np.uint8)

    @property
    def region(self) -> NDArray[np.uint8]:
        """Index into `regions`; beyond them: not told."""
        return self._column("region", np.uint8)

    # --- parts -----------------------------------------------------------------------------------------------

    def where(self, mask: NDArray[np.bool_] | NDArray[np.intp]) -> Requests:
        """Those for which it is true; or those with these numbers, in that order."""
        if mask.dtype != np.bool_:
            return self._taken(mask.astype(np.intp, copy=False), None)
        if mask.all():
            return self
        chosen = np.flatnonzero(mask)  # gathering by numbers costs a fifth of gathering by a mask
        one_run = self._runs is not None and len(self._runs) <= 1
        return self._taken(chosen, ((0, len(chosen)),) if one_run else None)

    def _taken(self, chosen: NDArray[np.intp], runs: tuple[Run, ...] | None) -> Requests:
        return Requests(len(chosen), lambda name: self._whole(name).take(chosen), self.kinds, self.regions, runs)

    def between(self, start_ms: float, end_ms: float) -> Requests:
        """Those whose intended start lies in it, the end excluded."""
        if self._runs is None:
            return self.where((self.at_ms >= start_ms) & (self.at_ms < end_ms))
        cuts = []
        for begin, end in self._runs:
            found = np.searchsorted(self.at_ms[begin:end], (start_ms, end_ms)) + begin
            cuts.append((int(found[0]), max(int(found[0]), int(found[1]))))
        return self._cut(cuts)

    def _cut(self, cuts: list[Run]) -> Requests:
        """Some of its runs, each a piece of one."""
        kept = [cut for cut in cuts if cut[1] > cut[0]]
        runs, count = [], 0
        for begin, end in kept:
            runs.append((count, count + end - begin))
            count += end - begin

        def make(name: str) -> Column:
            whole = self._whole(name)
            if len(kept) == 1:
                return whole[kept[0][0] : kept[0][1]]
            return np.concatenate([whole[begin:end] for begin, end in kept]) if kept else whole[:0]

        return Requests(count, make, self.kinds, self.regions, tuple(runs))

    @property
    def ordered(self) -> Requests:
        """In the order of their intended start."""
        if self._runs is not None and len(self._runs) <= 1:
            return self
        return self.where(np.argsort(self.at_ms, kind="stable"))

    def labelled(self, labels: dict[str, str]) -> Requests:
        """Those whose labels contain all of `labels`."""
        fits = np.array([labels.items() <= kind.labels.items() for kind in self.kinds], dtype=np.bool_)
        return self if fits.all() else self.where(fits.take(self.kind))

    @property
    def logical(self) -> Requests:
        """One row a logical request: its last attempt, which is its outcome."""
        return self.where(self._by_chunk(lambda part: (part.flags & FINAL) != 0))

    def decided_by(self, at_ms: float, patience_us: NDArray[np.float64] | float) -> Requests:
        """Without those whose fate was still open at `at_ms`: in flight, and not yet for `patience_us`."""
        mask = np.ones(len(self), np.bool_)
        first = self._first_open(at_ms, float(np.max(patience_us, initial=0.0)))
        part = self._cut([(first, len(self))])
        patient = patience_us if isinstance(patience_us, float) else np.asarray(patience_us)[first:]
        ended = part.at_ms + part.judged_latency_us / 1000 <= at_ms
        mask[first:] = ended | ((at_ms - part.at_ms) * 1000 >= patient)
        return self.where(mask)

    def _first_open(self, at_ms: float, patience_us: float) -> int:
        """All before it are overdue, whatever became of them."""
        if self._runs is None or len(self._runs) != 1:
            return 0
        return int(np.searchsorted(self.at_ms, at_ms - patience_us / 1000 - 1.0))

    # --- what became of them ---------------------------------------------------------------------------------

    def _by_chunk(self, told: Callable[[Requests], NDArray[np.bool_]]) -> NDArray[np.bool_]:
        found = np.empty(len(self), np.bool_)
        for begin in range(0, len(self), CHUNK):
            end = min(begin + CHUNK, len(self))
            found[begin:end] = told(self._cut([(begin, end)]))
        return found

    @property
    def rejected(self) -> NDArray[np.bool_]:
        """Answered with 429 or 503: turned away."""
        return self._by_chunk(lambda part: (part.outcome == ANSWERED) & ((part.status == 429) | (part.status == 503)))

    @property
    def acknowledged(self) -> NDArray[np.bool_]:
        """Answered with 2xx, however late."""
        return self._by_chunk(_acknowledged)

    @property
    def timed_out(self) -> NDArray[np.bool_]:
        return self._by_chunk(_timed_out)

    @property
    def admitted(self) -> NDArray[np.bool_]:
        """What latency is measured over: answered with 2xx, or not at all. Quick rejections flatter nobody."""
        return self._by_chunk(lambda part: _acknowledged(part) | _timed_out(part))

    @property
    def good(self) -> NDArray[np.bool_]:
        """2xx within the deadline."""
        return self._by_chunk(lambda part: _acknowledged(part) & (part.latency_us <= part.deadline_us))

    @property
    def deadline_us(self) -> NDArray[np.float64]:
        deadlines = np.array([kind.deadline_ms * 1000 for kind in self.kinds], dtype=np.float64)
        return deadlines.take(self.kind) if len(deadlines) else np.zeros(0)

    @property
    def judged_latency_us(self) -> NDArray[np.float64]:
        """From the intended start; of a time-out at least its deadline."""
        latency_us = self.latency_us.astype(np.float64)
        late = np.flatnonzero(self.timed_out)
        if len(late):
            deadlines = np.array([kind.deadline_ms * 1000 for kind in self.kinds], dtype=np.float64)
            latency_us[late] = np.maximum(latency_us[late], deadlines.take(self.kind[late]))
        return latency_us

    @property
    def judged_us(self) -> NDArray[np.uint32]:
        """The same in whole microseconds, 71 minutes at most: for quantiles."""
        late = np.flatnonzero(self.timed_out)
        if not len(late):
            return self.latency_us
        latency_us = self.latency_us.copy()
        whole = np.array([min(kind.deadline_ms * 1000, MOST_US) for kind in self.kinds]).astype(np.uint32)
        latency_us[late] = np.maximum(latency_us[late], whole.take(self.kind[late]))
        return latency_us


def _acknowledged(part: Requests) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (part.outcome == ANSWERED) & (part.status >= 200) & (part.status < 300)
    return found


def _timed_out(part: Requests) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (part.outcome == TIMED_OUT) | (part.outcome == UNFINISHED)
    return found
