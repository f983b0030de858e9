"""Readings as series: what one metric of one instance was, over time; and what counters have counted.

Every reading is exact and lies at its own moment. What happened between two of them isn't known, and is not made up.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from stormdrill.core.case import Case
from stormdrill.core.judge_readings import STALE_INTERVALS, USUAL_INTERVAL_MS
from stormdrill.core.windows import Span, all_of
from stormdrill.model.event import Reading

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Series(Struct, frozen=True):
    """Readings of one metric, one instance, one set of labels, in the order of time; those without a value left out."""

    instance: str
    labels: dict[str, str]
    at_ms: Floats
    values: Floats
    seqs: Ints
    """Of the journal events."""
    asked_every_ms: float = 0.0
    """How far apart it was asked, whether or not it told anything; 0: not known."""

    def __len__(self) -> int:
        return len(self.at_ms)

    @property
    def name(self) -> str:
        """`gateway-eu`, `gateway-eu, pool=gpu`."""
        said = [self.instance or "the system", *(f"{key}={value}" for key, value in sorted(self.labels.items()))]
        return ", ".join(said)

    @property
    def every_ms(self) -> float:
        """How far apart readings usually are."""
        gaps = [float(gap) for gap in np.diff(self.at_ms) if gap > 0]
        return statistics.median(gaps) if gaps else USUAL_INTERVAL_MS

    def where(self, mask: NDArray[np.bool_]) -> Series:
        return Series(
            self.instance, self.labels, self.at_ms[mask], self.values[mask], self.seqs[mask], self.asked_every_ms
        )

    def within(self, start_ms: float, end_ms: float) -> Series:
        """Both edges belong to it."""
        return self.where((self.at_ms >= start_ms) & (self.at_ms <= end_ms))


def series_of(case: Case, metric: str) -> tuple[Series, ...]:
    """In the order of their names; none for an empty metric. NaN and infinities are readings that tell nothing."""
    found: dict[tuple[str, tuple[tuple[str, str], ...]], list[tuple[float, int, float]]] = {}
    asked: dict[str, set[float]] = {}
    for recorded, reading in all_of(case.events, Reading) if metric else []:
        if reading.metric != metric:
            continue
        asked.setdefault(reading.instance, set()).add(recorded.mono_ms)
        if reading.value is None or not np.isfinite(reading.value):
            continue
        key = (reading.instance, tuple(sorted(reading.labels.items())))
        found.setdefault(key, []).append((recorded.mono_ms, recorded.seq, reading.value))
    return tuple(
        Series(
            instance,
            dict(labels),
            np.array([row[0] for row in rows], np.float64),
            np.array([row[2] for row in rows], np.float64),
            np.array([row[1] for row in rows], np.int64),
            _usual_gap_ms(asked[instance]),
        )
        for (instance, labels), rows in ((key, sorted(rows)) for key, rows in sorted(found.items()))
    )


def _usual_gap_ms(at_ms: Iterable[float]) -> float:
    gaps = np.diff(sorted(at_ms))
    return float(np.median(gaps)) if len(gaps) else 0.0


def mute(case: Case, metric: str) -> tuple[str, ...]:
    """Of each instance that was asked for a metric and never told a value: that it didn't, in words."""
    asked, told = set(), set()
    for _, reading in all_of(case.events, Reading) if metric else []:
        if reading.metric == metric:
            asked.add(reading.instance)
            if reading.value is not None and np.isfinite(reading.value):
                told.add(reading.instance)
    return tuple(f"{name or 'the system'} never told {metric}" for name in sorted(asked - told)) if told else ()


class Total(Struct, frozen=True):
    """Several series added up, at every moment when one of them was read."""

    at_ms: Floats
    values: Floats

    def within(self, start_ms: float, end_ms: float) -> Floats:
        """The values that were read in that stretch, the end excluded."""
        return self.values[np.searchsorted(self.at_ms, start_ms) : np.searchsorted(self.at_ms, end_ms)]

    def at(self, at_ms: float) -> float | None:
        """What was last read by then; None before the first reading."""
        place = int(np.searchsorted(self.at_ms, at_ms, side="right")) - 1
        return float(self.values[place]) if place >= 0 else None


def total_of(series: Sequence[Series]) -> Total:
    """Each series counts with what was last read of it, from its first reading on."""
    moments = np.unique(np.concatenate([one.at_ms for one in series])) if series else np.zeros(0)
    added = np.zeros(len(moments))
    for one in series:
        place = np.searchsorted(one.at_ms, moments, side="right") - 1
        added += np.where(place >= 0, one.values[np.maximum(place, 0)], 0.0)
    return Total(moments, added)


class Counted(Struct, frozen=True):
    """How much a counter grew between each two readings."""

    from_ms: Floats
    to_ms: Floats
    grown: Floats


def counted(series: Series, start_ms: float, end_ms: float) -> Counted:
    """Between readings that both lie in the stretch. A counter that is lower than before began again at zero."""
    inside = series.within(start_ms, end_ms)
    grown = np.diff(inside.values)
    grown = np.where(grown < 0, inside.values[1:], grown) if len(inside) else grown
    return Counted(inside.at_ms[:-1], inside.at_ms[1:], grown)


def grown_by_block(all_series: Sequence[Series], span: Span, blocks: int) -> Ints:
    """What several counters have counted, by the block in which it was read."""
    width_ms = max((span.end_ms - span.start_ms) / blocks, 1e-9)
    found = np.zeros(blocks)
    for series in all_series:
        of_it = counted(series, span.start_ms, span.end_ms)
        block = np.clip(((of_it.to_ms - span.start_ms) / width_ms).astype(np.int64), 0, blocks - 1)
        found += np.bincount(block, weights=of_it.grown, minlength=blocks)
    return np.rint(found).astype(np.int64)


def silence(case: Case, series: Series, span: Span) -> str:
    """Why a series can't speak for the whole stretch: nothing fresh for too long, while nothing kept it from telling.
    Empty when it can."""
    edges = [span.start_ms, *(t for t in series.at_ms.tolist() if span.start_ms < t < span.end_ms), span.end_ms]
    halted = case.halted(series.instance)
    gaps = [(earlier, later) for earlier, later in pairwise(edges)]
    for from_ms, to_ms in halted:
        gaps = [piece for a, b in gaps for piece in ((a, min(b, from_ms)), (max(a, to_ms), b)) if piece[1] > piece[0]]
    longest_ms = max((later - earlier for earlier, later in gaps), default=0.0)
    # who is asked every second and answers now and then is not one that is asked now and then
    due_ms = min(series.every_ms, series.asked_every_ms) if series.asked_every_ms > 0 else series.every_ms
    if longest_ms <= STALE_INTERVALS * due_ms:
        return ""
    return f"{series.name} gave no fresh reading for {longest_ms / 1000:.1f} s"
