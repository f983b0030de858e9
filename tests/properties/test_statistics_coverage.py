"""Intervals contain the truth as often as they say, on series whose requests are not independent.

A small, seeded part of `python -m bench.coverage`.
"""

from __future__ import annotations

import numpy as np
import pytest
from bench.coverage import SERIES, latencies, rates, relative, repeats, windows
from hypothesis import given, settings
from hypothesis import strategies as st

from stormdrill.core.intervals import share_interval
from stormdrill.core.statistics import clopper_pearson

RUNS = 60


@pytest.mark.parametrize("name", ["independent, 3% bad", "stalls of 0.25 s every 5 s", "waves, correlation 0.5"])
def test_at_least_nine_in_ten_minutes_contain_the_truth(name: str) -> None:
    found = windows(name, SERIES[name], 60.0, RUNS)
    assert min(found.covered) >= 0.9
    assert found.wrongly_passed <= 0.05


@pytest.mark.parametrize("correlation", [0.0, 0.5])
def test_latencies_and_rates_that_wander_are_covered_and_a_tenth_too_much_does_not_pass(correlation: float) -> None:
    for found in (latencies(correlation, 60.0, RUNS), rates(correlation, 60.0, RUNS)):
        assert min(found.covered) >= 0.9
        assert found.wrongly_passed <= 0.05


def test_the_difference_of_two_alike_windows_contains_nothing() -> None:
    """And is narrower than what two intervals that lie apart ask for, which held more often than was meant."""
    name = "waves, correlation 0.5"
    found = relative(SERIES[name], name, 20.0, RUNS)
    assert found.covered[1] >= found.covered[0] >= 0.9
    assert found.wrongly_passed <= 0.05


def test_runs_that_differ_are_covered_only_with_regard_to_that() -> None:
    found = repeats(5, 0.7, RUNS)
    assert found.covered[0] >= 0.85
    assert found.covered[0] > found.covered[1]
    assert min(repeats(5, 0.3, RUNS).covered) >= 0.85


def test_the_naive_interval_would_not_contain_it() -> None:
    """Why all this is done: requests of one stall share their luck."""
    dice = np.random.Generator(np.random.Philox(key=5))
    series = SERIES["stalls of 0.5 s every 10 s"]
    naive = 0
    for _ in range(RUNS):
        at_s = dice.random(1800) * 60
        bad = series.bad(at_s, 60.0, dice)
        low, high = clopper_pearson(int((~bad).sum()), len(bad))
        naive += low <= series.truth() <= high
    assert naive / RUNS < 0.5


BLOCKS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=24)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(BLOCKS, st.data())
def test_one_more_bad_request_never_raises_an_end(blocks: list[tuple[int, int]], data: st.DataObject) -> None:
    """Wherever it falls. Both ends only fall, so no objective's word ever improves."""
    good = np.array([min(pair) for pair in blocks])
    total = np.array([max(pair) for pair in blocks])
    before = share_interval(good, total, 7)
    possible = np.flatnonzero(good)
    for _ in range(6):
        if not len(possible):
            return
        good = good.copy()
        good[data.draw(st.sampled_from(possible.tolist()))] -= 1
        after = share_interval(good, total, 7)
        assert after.low <= before.low + 1e-12
        assert after.high <= before.high + 1e-12
        assert after.low <= after.value <= after.high
        before, possible = after, np.flatnonzero(good)
