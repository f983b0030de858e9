"""Intervals over blocks of time: what requests, which are not independent, allow to be claimed.

A window is cut into blocks of about one second; requests of one second share their luck, those of different seconds
less so. An interval is 95%, two-sided, and the hull of

- Clopper–Pearson over the requests: the floor on the width, and all that is left when nothing went wrong;
- block bootstraps: blocks drawn with replacement, 2.5% and 97.5% quantiles of the draws. Over blocks of one second, and
  of two, four and eight while there are six of them, because harm that lasts makes neighbours alike. To the blocks that
  were seen comes one more that could have been: for the lower end a second worst one, for the upper end a second best
  (one stall is n = 1: it might as well have been two or none). Few blocks are drawn fewer times, as Student's t asks.

Every part only falls when a request turns bad: more harm never makes an interval better.

The draws come from a counter-based bit generator's raw stream, which is stable over versions of numpy, and the sums
over blocks are sums of whole numbers: the same input gives the same interval to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from stormdrill.core.statistics import TAIL, beta_cdf, clopper_pearson, student_t

BLOCK_S = 1.0
DRAWS = 2000
MOST_BLOCKS = 600
"""Longer windows get longer blocks: as honest, and the draws stay small."""
WIDTHS = (1, 2, 4, 8)
"""Blocks that a block of the bootstrap spans."""
FEWEST_WIDE = 6
PIECE = 1 << 15
"""Values that are counted together where a quantile is looked for."""
FEW = 20
"""Fewer blocks than this are drawn fewer times, as Student's t asks: the spread of few is underestimated."""

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


def block_of(at_ms: Floats, start_ms: float, end_ms: float, blocks: int) -> NDArray[np.uint16]:
    """The block of each moment of the window."""
    found = np.empty(len(at_ms), np.uint16)
    scale = blocks / max(end_ms - start_ms, 1e-9)
    for begin in range(0, len(at_ms), PIECE):
        part = at_ms[begin : begin + PIECE]
        found[begin : begin + PIECE] = np.clip(((part - start_ms) * scale).astype(np.int64), 0, blocks - 1)
    return found


@lru_cache(maxsize=12)
def draws(blocks: int, seed: int) -> tuple[Floats, Floats]:
    """How often each block is drawn, a row a draw; and how often the one that could have been as well."""
    few = (student_t(10**6) / student_t(blocks - 1)) ** 2 * (blocks - 1) / blocks if blocks < FEW else 1.0
    drawn, columns = max(1, round(blocks * few)), blocks + 1
    raw = np.random.Philox(key=seed & (2**64 - 1)).random_raw(DRAWS * drawn)
    picked = ((raw >> np.uint64(32)) * np.uint64(columns)) >> np.uint64(32)
    picked += np.repeat(np.arange(DRAWS, dtype=np.uint64) * np.uint64(columns), drawn)
    times = np.bincount(picked.astype(np.int64), minlength=DRAWS * columns).reshape(DRAWS, columns)
    return times[:, :-1].astype(np.float64), times[:, -1].astype(np.float64)


def _sums(times: Floats, of_block: Ints) -> Floats:
    """A sum a draw. Not by BLAS: its threads cost more than they save here, thirty times so on a busy machine."""
    found: Floats = np.einsum("ij,j->i", times, of_block.astype(np.float64))
    return found


class Resampled:
    """The draws of one block width over a window's requests, asked for any part of them that is good."""

    def __init__(self, total: Ints, width: int, seed: int) -> None:
        self._starts = np.arange(0, len(total), width)
        self._of_block = np.add.reduceat(total, self._starts)
        self._times, again = draws(len(self._starts), seed)
        again = again * (int(total.sum()) / len(self._starts))
        self._asked = self._of_block > 0
        drawn = _sums(self._times, self._of_block) + again
        empty = drawn == 0  # nothing but blocks without a request: it says the worst, and the best
        self._again, self._total = np.where(empty, 1.0, again), np.where(empty, 1.0, drawn)
        self._cut = math.floor(TAIL * DRAWS)

    def ends(self, good: Ints) -> tuple[float, float]:
        """The 2.5% quantile of the draws with the worst block again, the 97.5% quantile of those with the best."""
        seen, worst, best = self._sums(good)
        low = np.partition((seen + worst * self._again) / self._total, self._cut)
        high = np.partition((seen + best * self._again) / self._total, DRAWS - 1 - self._cut)
        return float(low[self._cut]), float(high[DRAWS - 1 - self._cut])

    def above(self, good: Ints, share: float) -> bool:
        """Whether the lower end lies above `share`."""
        seen, worst, _ = self._sums(good)
        return int(np.count_nonzero((seen + worst * self._again) / self._total <= share)) <= self._cut

    def below(self, good: Ints, share: float) -> bool:
        """Whether the upper end lies below `share`."""
        seen, _, best = self._sums(good)
        return int(np.count_nonzero((seen + best * self._again) / self._total >= share)) <= self._cut

    def _sums(self, good: Ints) -> tuple[Floats, float, float]:
        of_block = np.add.reduceat(good, self._starts)
        shares = of_block[self._asked] / self._of_block[self._asked]
        return _sums(self._times, of_block), float(shares.min()), float(shares.max())


class Blocks:
    """A window's requests, block by block: what share of them is good, with what certainty."""

    def __init__(self, total: Ints, seed: int) -> None:
        self.n = int(total.sum())
        self._resampled: list[Resampled] = []
        for width in WIDTHS:
            if not self.n or len(total) < 2 or (width > 1 and len(total) // width < FEWEST_WIDE):
                break
            self._resampled.append(Resampled(total, width, seed))

    def ends(self, good: Ints) -> list[tuple[float, float]]:
        """Of every bootstrap; none where there is but one block."""
        return [resampled.ends(good) for resampled in self._resampled]

    def interval(self, good: Ints) -> Interval:
        """As shares of 1."""
        count = int(good.sum())
        if not self.n:
            return Interval(math.nan, 0.0, 1.0, 0)
        ends = [clopper_pearson(count, self.n)]
        if 0 < count < self.n:
            ends += self.ends(good)
        return Interval(count / self.n, min(low for low, _ in ends), max(high for _, high in ends), self.n)

    def surely_above(self, good: Ints, share: float) -> bool:
        """Whether the whole interval lies above `share`; cheaper than the interval."""
        count = int(good.sum())
        if count <= share * self.n or beta_cdf(share, count, self.n - count + 1) >= TAIL:
            return False
        return count == self.n or all(resampled.above(good, share) for resampled in self._resampled)

    def surely_below(self, good: Ints, share: float) -> bool:
        """Whether the whole interval lies below `share`."""
        count = int(good.sum())
        if count >= share * self.n or beta_cdf(share, count + 1, self.n - count) <= 1 - TAIL:
            return False
        return count == 0 or all(resampled.below(good, share) for resampled in self._resampled)


def share_interval(good: Ints, total: Ints, seed: int) -> Interval:
    """The share of good requests, given the good and all of each block."""
    return Blocks(total, seed).interval(good)


def quantile_interval(
    values: NDArray[np.uint32], block: Ints | NDArray[np.uint16], blocks: int, share: float, seed: int
) -> Interval:
    """The quantile of whole numbers below which `share` of them lie.

    Turned round from shares, so that "the whole interval is below L" and "surely more than `share` of them are below
    L" are one and the same statement.
    """
    n = len(values)
    if not n:
        return Interval(math.nan, 0.0, math.inf, 0)
    packed = np.empty(n, np.uint64)
    for begin in range(0, n, PIECE):
        part = slice(begin, begin + PIECE)
        packed[part] = (values[part].astype(np.uint64) << np.uint64(10)) | block[part].astype(np.uint64)
    packed.sort()
    first = _Firsts(packed, blocks)
    total = first.of(n)
    asked = Blocks(total, seed)
    of_first = first.of

    rank = min(n, max(1, math.ceil(round(share * n, 6))))
    above = _first(rank, n + 1, lambda count: asked.surely_above(of_first(count), share))
    below = _first(0, rank, lambda count: not asked.surely_below(of_first(count), share))
    high = float(packed[above - 1] >> np.uint64(10)) if above <= n else math.inf
    low = float(packed[below - 1] >> np.uint64(10)) if below > 0 else 0.0
    return Interval(float(packed[rank - 1] >> np.uint64(10)), low, high, n)


class _Firsts:
    """Into which blocks the smallest values fall, however many of them are asked for: sums over pieces are kept."""

    def __init__(self, packed: NDArray[np.uint64], blocks: int) -> None:
        """`packed`: in order, each with its block in the lowest ten bits."""
        self._packed, self._blocks = packed, blocks
        self._sums = [np.zeros(blocks, np.int64)]
        for begin in range(0, len(packed) - PIECE + 1, PIECE):
            self._sums.append(self._sums[-1] + self._count(begin, begin + PIECE))

    def _count(self, begin: int, end: int) -> Ints:
        return np.bincount((self._packed[begin:end] & np.uint64(1023)).astype(np.int64), minlength=self._blocks)

    def of(self, count: int) -> Ints:
        """How many of the `count` smallest values each block has."""
        whole = count // PIECE
        return self._sums[whole] + self._count(whole * PIECE, count)


def _first(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """The smallest number of [low, high) for which `holds`, `high` when there is none."""
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low


def difference(one: Interval, other: Interval, factor: float) -> Interval:
    """`one - factor * other` of two independent estimates, by the ends of both intervals (square and add: Newcombe,
    Statistics in Medicine 17, 1998; Zou and Donner, 27, 2008).

    Both ends only fall when `one` or its ends fall, so more harm never makes it better. It is narrower than asking that
    the two intervals lie apart, which at equal widths asks for 1.4 times the distance.
    """
    value = one.value - factor * other.value
    down = math.hypot(one.value - one.low, factor * (other.high - other.value))
    up = math.hypot(one.high - one.value, factor * (other.value - other.low))
    n = min(one.n, other.n)
    if math.isnan(value) or math.isnan(down) or math.isnan(up):
        return Interval(math.nan, -math.inf, math.inf, n)
    return Interval(value, value - down, value + up, n)


def rate_interval(counts: Ints, width_s: float, seed: int) -> Interval:
    """Events a second, given those of each block of `width_s`. One block says nothing of the spread."""
    blocks, n = len(counts), int(counts.sum())
    rate = n / (blocks * width_s)
    if blocks < 2:
        return Interval(rate, 0.0, math.inf, n)
    ends = Blocks(np.ones(blocks, np.int64), seed).ends(counts)
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    return Interval(rate, min(low / width_s, rate), max(high / width_s, rate), n)
