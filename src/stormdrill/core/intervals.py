"""Intervals over blocks of time: what requests, which are not independent, allow to be claimed.

A window is cut into blocks of about one second; requests of one second share their luck, those of different seconds
less so. Every interval is the hull of three, each 95% and two-sided:

- the block bootstrap: blocks drawn with replacement, 2.5% and 97.5% quantiles of the draws;
- Clopper–Pearson over the requests: the floor on the width, and all that is left when nothing went wrong;
- Clopper–Pearson over the *effective* number of requests (Korn and Graubard 1998): the design effect comes from the
  variance between blocks, Student's t accounts for few of them, wider blocks and the correlation of neighbours for
  what lasts longer than a second.

The draws come from a counter-based bit generator's raw stream, which is stable over versions of numpy, and all
sums are sums of whole numbers: the same input gives the same interval to the last bit.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from stormdrill.core.statistics import TAIL, beta_cdf, clopper_pearson, student_t

BLOCK_S = 1.0
DRAWS = 2000
MOST_BLOCKS = 600
"""Longer windows get longer blocks: as honest, and the draws stay small."""
_MOST_CORRELATION = 0.8
_FEWEST_WIDE = 6

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Interval(Struct, frozen=True):
    """A value and what 95% of such intervals contain; an end that the samples don't bound is infinite."""

    value: float
    low: float
    high: float
    n: int


def block_count(length_s: float) -> int:
    """Into how many blocks a window of that length is cut."""
    return max(1, min(MOST_BLOCKS, round(length_s / BLOCK_S)))


def block_of(at_ms: Floats, start_ms: float, end_ms: float, blocks: int) -> Ints:
    """The block of each moment of the window."""
    found = ((at_ms - start_ms) * (blocks / max(end_ms - start_ms, 1e-9))).astype(np.int64)
    return np.clip(found, 0, blocks - 1)


@lru_cache(maxsize=4)
def draws(blocks: int, seed: int) -> Floats:
    """How often each block is drawn, a row a draw: `DRAWS` × `blocks`."""
    raw = np.random.Philox(key=seed & (2**64 - 1)).random_raw(DRAWS * blocks)
    picked = ((raw >> np.uint64(32)) * np.uint64(blocks)) >> np.uint64(32)
    picked += np.repeat(np.arange(DRAWS, dtype=np.uint64) * np.uint64(blocks), blocks)
    times = np.bincount(picked.astype(np.int64), minlength=DRAWS * blocks)
    return times.reshape(DRAWS, blocks).astype(np.float64)


class Share:
    """A share of good requests, from the good and all of each block."""

    def __init__(self, good: Ints, total: Ints, seed: int) -> None:
        self.good, self.n = int(good.sum()), int(total.sum())
        self.effective = _effective(good, total)
        self._drawn: tuple[Floats, Floats] | None = None
        if 0 < self.good < self.n and len(total) > 1:
            times = draws(len(total), seed)
            self._drawn = times @ good, times @ total

    def interval(self) -> Interval:
        """As shares of 1."""
        if not self.n:
            return Interval(math.nan, 0.0, 1.0, 0)
        share = self.good / self.n
        ends = [clopper_pearson(self.good, self.n)]
        if self.effective < self.n:
            ends.append(clopper_pearson(share * self.effective, self.effective))
        if self._drawn is not None:
            good, total = self._drawn
            drawn = np.sort(good[total > 0] / total[total > 0])
            ends.append(_middle(drawn))
        return Interval(share, min(low for low, _ in ends), max(high for _, high in ends), self.n)

    def surely_above(self, share: float) -> bool:
        """Whether the whole interval lies above `share`; cheaper than the interval."""
        if self.good <= share * self.n or beta_cdf(share, self.good, self.n - self.good + 1) >= TAIL:
            return False
        few = self.effective
        ours = self.good / self.n
        if few < self.n and beta_cdf(share, ours * few, few - ours * few + 1) >= TAIL:
            return False
        return not self._drawn_beyond(share, 1)

    def surely_below(self, share: float) -> bool:
        """Whether the whole interval lies below `share`."""
        if self.good >= share * self.n or beta_cdf(share, self.good + 1, self.n - self.good) <= 1 - TAIL:
            return False
        few = self.effective
        ours = self.good / self.n
        if few < self.n and beta_cdf(share, ours * few + 1, few - ours * few) <= 1 - TAIL:
            return False
        return not self._drawn_beyond(share, -1)

    def _drawn_beyond(self, share: float, sign: int) -> bool:
        """Whether the bootstrap's own interval reaches to the other side of `share`."""
        if self._drawn is None:
            return False
        good, total = self._drawn
        wrong = np.count_nonzero((sign * (good - share * total) <= 0) & (total > 0))
        return bool(wrong > _cut(int(np.count_nonzero(total))))


def _cut(drawn: int) -> int:
    """How many draws each tail leaves out."""
    return math.floor(TAIL * drawn)


def _middle(drawn: Floats) -> tuple[float, float]:
    """The ends of the middle 95% of sorted draws."""
    cut = _cut(len(drawn))
    return float(drawn[cut]), float(drawn[len(drawn) - 1 - cut])


def _effective(good: Ints, total: Ints) -> float:
    """How many independent requests would say as much as these; never more than there are.

    The least of what blocks of one, two, four and eight seconds say, as long as there are six of them: what ties
    requests together over seconds shows in the wider ones.
    """
    n, all_good = int(total.sum()), int(good.sum())
    if len(total) < 2 or all_good in (0, n):
        return float(n)
    few = _independent(good, total, neighbours=True)
    for width in (2, 4, 8):
        if len(total) // width < _FEWEST_WIDE:
            break
        starts = np.arange(0, len(total), width)
        wide = np.add.reduceat(good, starts), np.add.reduceat(total, starts)
        few = min(few, _independent(*wide, neighbours=False))
    return few


def _independent(good: Ints, total: Ints, *, neighbours: bool) -> float:
    n, blocks = int(total.sum()), len(total)
    share = int(good.sum()) / n
    rest = good - share * total
    squares = _inflated(rest) if neighbours else math.fsum((rest * rest).tolist())
    between = squares * blocks / (blocks - 1) / n**2
    effect = between / (share * (1 - share) / n)
    if effect <= 1:
        return float(n)
    return float(min(n, n / effect * (student_t(10**6) / student_t(blocks - 1)) ** 2))


def _inflated(rest: Floats) -> float:
    """The sum of squares, larger where neighbouring blocks go the same way."""
    squares = math.fsum((rest * rest).tolist())
    if squares <= 0:
        return 0.0
    correlation = math.fsum((rest[1:] * rest[:-1]).tolist()) / squares
    correlation = min(max(correlation, 0.0), _MOST_CORRELATION)
    return squares * (1 + correlation) / (1 - correlation)


def share_interval(good: Ints, total: Ints, seed: int) -> Interval:
    """The share of good requests, given the good and all of each block."""
    return Share(good, total, seed).interval()


def quantile_interval(values: NDArray[np.uint32], block: Ints, blocks: int, share: float, seed: int) -> Interval:
    """The quantile of whole numbers below which `share` of them lie.

    Turned round from shares, so that "the whole interval is below L" and "surely more than `share` of them are below
    L" are one and the same statement.
    """
    n = len(values)
    if not n:
        return Interval(math.nan, 0.0, math.inf, 0)
    packed = np.sort((values.astype(np.uint64) << np.uint64(10)) | block.astype(np.uint64))
    ordered, where = packed >> np.uint64(10), (packed & np.uint64(1023)).astype(np.int64)
    total = np.bincount(where, minlength=blocks)

    def of_first(count: int) -> Share:
        if 2 * count < n:
            return Share(np.bincount(where[:count], minlength=blocks), total, seed)
        return Share(total - np.bincount(where[count:], minlength=blocks), total, seed)

    rank = min(n, max(1, math.ceil(round(share * n, 6))))
    above = _first(rank, n + 1, lambda count: of_first(count).surely_above(share))
    below = _first(0, rank, lambda count: not of_first(count).surely_below(share))
    high = float(ordered[above - 1]) if above <= n else math.inf
    low = float(ordered[below - 1]) if below > 0 else 0.0
    return Interval(float(ordered[rank - 1]), low, high, n)


def _first(low: int, high: int, holds) -> int:  # type: ignore[no-untyped-def]  # (int) -> bool
    """The smallest number of [low, high) for which `holds`, `high` when there is none."""
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low


def rate_interval(counts: Ints, width_s: float, seed: int) -> Interval:
    """Events a second, given those of each block of `width_s`. One block says nothing of the spread."""
    blocks, n = len(counts), int(counts.sum())
    rate = n / (blocks * width_s)
    if blocks < 2:
        return Interval(rate, 0.0, math.inf, n)
    drawn = np.sort(draws(blocks, seed) @ counts) / (blocks * width_s)
    low, high = _middle(drawn)
    spread = math.sqrt(_inflated(counts.astype(np.float64) - n / blocks) / (blocks - 1) / blocks) / width_s
    half = student_t(blocks - 1) * spread
    return Interval(rate, max(0.0, min(low, rate - half)), max(high, rate + half), n)
