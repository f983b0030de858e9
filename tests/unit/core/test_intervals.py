"""Intervals over blocks: the hull of bootstrap, exact and effective-sample intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stormdrill.core.intervals import (
    DRAWS,
    MOST_BLOCKS,
    Blocks,
    Ints,
    block_count,
    block_of,
    draws,
    quantile_interval,
    rate_interval,
    share_interval,
)
from stormdrill.core.statistics import clopper_pearson

EVEN = np.full(20, 30)
PINNED = [[0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 1.0], [1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0]]


def test_the_draws_are_the_same_with_every_numpy() -> None:
    """Pinned: another stream of the bit generator would change every verdict.json."""
    times, again = draws(6, 7)
    assert times.shape == (DRAWS, 6)
    assert set((times.sum(axis=1) + again).tolist()) == {3.0}  # Student's t asks six blocks to be drawn three times
    assert [[*row, one] for row, one in zip(times[:3].tolist(), again[:3].tolist(), strict=True)] == PINNED


def test_a_window_without_a_failure_is_as_wide_as_its_count_allows() -> None:
    found = share_interval(EVEN, EVEN, 7)
    assert (found.value, found.high, found.n) == (1.0, 1.0, 600)
    assert found.low == clopper_pearson(600, 600)[0]


def test_an_interval_is_never_narrower_than_the_exact_one() -> None:
    good = EVEN.copy()
    good[[2, 7, 11]] -= 1
    found = share_interval(good, EVEN, 7)
    low, high = clopper_pearson(int(good.sum()), 600)
    assert found.low <= low
    assert found.high >= high


def test_failures_that_come_together_say_less_than_failures_spread_out() -> None:
    """One stall is n = 1, however many requests it caught."""
    spread, together = EVEN.copy(), EVEN.copy()
    spread -= 1
    together[4] -= 20
    apart, at_once = share_interval(spread, EVEN, 7), share_interval(together, EVEN, 7)
    assert apart.value == at_once.value
    assert at_once.low < apart.low - 0.02


def test_long_harm_says_less_than_the_same_harm_in_scattered_seconds() -> None:
    scattered, long = np.full(60, 30), np.full(60, 30)
    scattered[[3, 14, 22, 31, 47, 55]] -= 15
    long[20:26] -= 15
    total = np.full(60, 30)
    assert share_interval(long, total, 7).low < share_interval(scattered, total, 7).low


def test_without_samples_nothing_is_known() -> None:
    found = share_interval(np.zeros(5, np.int64), np.zeros(5, np.int64), 7)
    assert (found.low, found.high, found.n) == (0.0, 1.0, 0)
    nothing = quantile_interval(np.zeros(0, np.uint32), np.zeros(0, np.int64), 5, 0.95, 7)
    assert (nothing.low, nothing.high, nothing.n) == (0.0, math.inf, 0)


def test_surely_above_and_below_say_what_the_interval_says() -> None:
    good = EVEN.copy()
    good[::3] -= 2
    blocks = Blocks(EVEN, 7)
    found = blocks.interval(good)
    for limit in np.linspace(0.9, 1.0, 41)[:-1]:
        assert blocks.surely_above(good, limit) == (found.low > limit)
        assert blocks.surely_below(good, limit) == (found.high < limit)


@pytest.mark.parametrize(("n", "bounded"), [(72, True), (71, False)])
def test_a_p95_has_an_upper_bound_from_72_samples_on(n: int, bounded: bool) -> None:
    block = np.arange(n) % 20
    found = quantile_interval(np.arange(1000, 1000 + n).astype(np.uint32), block, 20, 0.95, 7)
    assert math.isfinite(found.high) == bounded


def test_a_quantiles_interval_is_the_share_question_turned_round() -> None:
    values = (np.arange(600) * 7919 % 600).astype(np.uint32)
    block = np.arange(600) // 30
    found = quantile_interval(values, block, 20, 0.9, 7)
    assert found.low <= found.value == 539 <= found.high

    def below(limit: float) -> Ints:
        return np.bincount(block[values < limit], minlength=20)

    blocks = Blocks(EVEN, 7)
    assert blocks.surely_above(below(found.high + 1), 0.9)
    assert not blocks.surely_above(below(found.high), 0.9)
    assert blocks.surely_below(below(found.low), 0.9)
    assert not blocks.surely_below(below(found.low + 1), 0.9)


def test_one_block_says_nothing_of_a_rates_spread() -> None:
    found = rate_interval(np.array([60]), 1.0, 7)
    assert (found.value, found.low, found.high) == (60.0, 0.0, math.inf)


def test_a_steady_rate_is_known_exactly_and_a_changing_one_is_not() -> None:
    assert rate_interval(EVEN, 1.0, 7).low == 30.0
    changing = np.tile([20, 40], 10)
    found = rate_interval(changing, 1.0, 7)
    assert found.low < 28 < found.value == 30.0 < 32 < found.high


def test_blocks_are_about_a_second_and_long_windows_get_longer_ones() -> None:
    assert (block_count(0.2), block_count(19.6), block_count(7200)) == (1, 20, MOST_BLOCKS)
    found = block_of(np.array([1000.0, 1999.9, 2000.0, 20_999.9]), 1000.0, 21_000.0, 20)
    assert found.tolist() == [0, 0, 1, 19]
