"""What a check says in the end: intervals against limits, the worst of several parts, taints, figures as shown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from stormdrill.core.case import Case
from stormdrill.core.evidence import Requests
from stormdrill.core.intervals import Interval, Ints, block_count, block_of
from stormdrill.core.sentences import interval_text, quantity
from stormdrill.core.validity import Taint
from stormdrill.core.windows import Span
from stormdrill.model.verdict import WORST_FIRST, CheckVerdict, Figure, Word

DIGITS = 6
"""Of every figure that is written down: what differs beyond them is the machine's, not the system's."""
MOST_BLOCKS = 1000
"""Of all windows that are looked at together: what the intervals of quantiles can tell apart."""
MOST_US = 2**32 - 1
"""The largest whole number of which quantiles are taken: it stands for what never came to an end."""
CUT_SHORT = "the run was stopped before that was over"


class Part(Struct, frozen=True):
    """One thing that a check asks, and what came out."""

    word: Word
    text: str


def at_least(interval: Interval, limit: float) -> Word:
    """PASS when the whole interval is at or above the limit, FAIL when it is wholly below."""
    if not interval.n or math.isnan(interval.value):
        return "INCONCLUSIVE"
    return "PASS" if interval.low >= limit else "FAIL" if interval.high < limit else "INCONCLUSIVE"


def at_most(interval: Interval, limit: float) -> Word:
    """PASS when the whole interval is at or below the limit, FAIL when it is wholly above."""
    if not interval.n or math.isnan(interval.value):
        return "INCONCLUSIVE"
    return "PASS" if interval.high <= limit else "FAIL" if interval.low > limit else "INCONCLUSIVE"


def ratio(of: Interval, to: Interval) -> Interval:
    """Of two independent estimates: on logarithms the squares of the two half-intervals add up (the method of
    variance estimates recovery). Each end only falls when an end of `of` does."""
    if not to.value or math.isnan(of.value) or math.isnan(to.value):
        return Interval(math.nan, 0.0, math.inf, 0)
    value, n = of.value / to.value, min(of.n, to.n)
    low = 0.0 if of.low <= 0 or math.isinf(to.high) else value * math.exp(-_apart(of.value, of.low, to.high, to.value))
    if of.value <= 0:
        high = of.high / to.low if to.low > 0 else math.inf
    elif to.low <= 0 or math.isinf(of.high):
        high = math.inf
    else:
        high = value * math.exp(_apart(of.high, of.value, to.value, to.low))
    return Interval(value, low, high, n)


def _apart(a: float, b: float, c: float, d: float) -> float:
    return math.hypot(math.log(a / b), math.log(c / d))


def worst(words: Iterable[Word]) -> Word:
    """INCONCLUSIVE for none: nothing was asked of anything."""
    found = set(words)
    return next((word for word in WORST_FIRST if word in found), "INCONCLUSIVE")


def percent(interval: Interval) -> Interval:
    return Interval(interval.value * 100, interval.low * 100, interval.high * 100, interval.n)


def scaled(interval: Interval, factor: float) -> Interval:
    """What stands for "never" is unbounded."""

    def of(value: float) -> float:
        return math.inf if value >= MOST_US else value * factor

    return Interval(of(interval.value), of(interval.low), of(interval.high), interval.n)


def told(interval: Interval, unit: str) -> str:
    """`91% [88, 94]`, as a person reads it."""
    if not interval.n or math.isnan(interval.value):
        return "unknown"
    return quantity(interval.value, unit) + interval_text(interval.low, interval.high)


def figure(name: str, interval: Interval, unit: str, limit: float | None = None) -> Figure:
    """With its interval; no value without samples."""
    known = bool(interval.n) and not math.isnan(interval.value)
    return Figure(
        name,
        shown(interval.value) if known else None,
        shown(interval.low) if known else None,
        shown(interval.high) if known else None,
        shown(limit),
        unit,
        interval.n,
    )


def plain(name: str, value: float | None, unit: str = "", limit: float | None = None, n: int = 0) -> Figure:
    """What was counted or read."""
    return Figure(name, shown(value), None, None, shown(limit), unit, n)


def shown(value: float | None) -> float | None:
    """Rounded to the digits that are written down; None for what is unbounded."""
    if value is None or not math.isfinite(value):
        return None
    return value if value == 0 else round(value, DIGITS - 1 - math.floor(math.log10(abs(value))))


def taints_of(case: Case, spans: Sequence[Span], *, from_records: bool = True) -> tuple[Taint, ...]:
    """Each reason once, over all windows that were looked at."""
    found: dict[tuple[str, str], Taint] = {}
    for span in spans:
        for taint in case.validity.of(span, from_records=from_records):
            found.setdefault((taint.source, taint.reason), taint)
    return tuple(found.values())


def concluded(
    case: Case,
    word: str,
    parts: Sequence[Part],
    figures: Sequence[Figure],
    spans: Sequence[Span],
    *,
    from_records: bool = True,
    events: Iterable[int] = (),
) -> CheckVerdict:
    """The worst part's word; the parts that have it speak first. Tainted evidence is INVALID whatever it shows; of a
    window that was cut short nothing is said for sure."""
    found = worst(part.word for part in parts)
    ordered = [part.text for part in parts if part.word == found] + [part.text for part in parts if part.word != found]
    sentence = "; ".join(dict.fromkeys(text for text in ordered if text))
    if found in ("PASS", "FAIL") and not all(span.complete for span in spans):
        found, sentence = "INCONCLUSIVE", f"{CUT_SHORT}: {sentence}"
    taints = taints_of(case, spans, from_records=from_records)
    if taints:
        found, sentence = "INVALID", f"not to be believed: {taints[0].reason}. {sentence}"
    seqs = {*events, *(seq for span in spans for seq in span.events), *(seq for one in taints for seq in one.events)}
    return CheckVerdict(word, found, sentence, tuple(figures), tuple(sorted(seqs)))


def unseen(word: str, why: str) -> CheckVerdict:
    """What could not be judged at all."""
    return CheckVerdict(word, "INCONCLUSIVE", why)


class Pool(Struct, frozen=True):
    """Requests of several windows, judged together: a block never spans two of them."""

    requests: Requests
    block: Ints
    blocks: int

    def counts(self, mask: NDArray[np.bool_]) -> Ints:
        """How many of each block are so."""
        found: Ints = np.bincount(self.block[mask], minlength=self.blocks)
        return found


def pooled(requests: Requests, spans: Sequence[Span]) -> tuple[Pool, ...]:
    """One pool a window, its blocks numbered on; `concatenated` puts columns together."""
    most, first, found = max(1, MOST_BLOCKS // max(1, len(spans))), 0, []
    for span in spans:
        inside = requests.between(span.start_ms, span.end_ms)
        blocks = min(block_count(span.length_s), most)
        block = block_of(inside.at_ms, span.start_ms, span.end_ms, blocks).astype(np.int64) + first
        found.append(Pool(inside, block, blocks))
        first += blocks
    return tuple(found)


def evened(totals: Ints) -> Ints:
    """For each block the number of the one that it is part of, so that none has less than half of what a block has on
    the average: of a second in which three were turned away, all three late, nobody may conclude that a second is as a
    rule like that."""
    least, number, held = totals.sum() / max(1, len(totals)) / 2, 0, 0
    found = np.zeros(len(totals), np.int64)
    for index, total in enumerate(totals.tolist()):
        found[index] = number
        held += total
        if held >= least and held:
            number, held = number + 1, 0
    return np.minimum(found, max(0, number - 1)) if held < least else found  # what is left over joins the last


def merged(counts: Ints, parts: Ints) -> Ints:
    """The counts of blocks that were put together."""
    found: Ints = np.bincount(parts, weights=counts).astype(np.int64)
    return found


def together(pools: Sequence[Pool], masks: Sequence[NDArray[np.bool_]]) -> Ints:
    """The counts of all pools' blocks, in order."""
    total = sum(pool.blocks for pool in pools)
    blocks = [pool.block[mask] for pool, mask in zip(pools, masks, strict=True)]
    found: Ints = np.bincount(np.concatenate(blocks), minlength=total) if blocks else np.zeros(1, np.int64)
    return found
