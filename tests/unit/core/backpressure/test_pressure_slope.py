"""Growth is a slope with an interval: noise is no growth, and growth is not overlooked."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pressing import checked
from stormdrill.core.backpressure.slope import Slope, fewest, theil_sen
from synthetic_overload import simulate


def wandering(n: int, memory: float, seed: int) -> np.ndarray:
    """A queue that stays as it is for a while, and has nowhere to go."""
    dice = np.random.Generator(np.random.Philox(key=seed))
    steps, level, found = dice.normal(size=n + 200), 0.0, []
    for step in steps:
        level = memory * level + math.sqrt(1 - memory**2) * step
        found.append(level)
    return np.array(found[200:])


@pytest.mark.parametrize("memory", [0.0, 0.5, 0.7, 0.85])
@pytest.mark.parametrize("n", [10, 20, 40])
def test_a_sound_queue_looks_like_growing_in_at_most_one_of_twenty_runs(n: int, memory: float) -> None:
    at_s = np.arange(float(n))
    alarms = sum(theil_sen(at_s, wandering(n, memory, seed)).low > 0 for seed in range(200))
    assert alarms <= 10


@pytest.mark.parametrize("n", [20, 40])
def test_what_grows_by_ten_times_its_noise_is_found(n: int) -> None:
    at_s = np.arange(float(n))
    found = [theil_sen(at_s, wandering(n, 0.7, seed) + 10 * at_s / n) for seed in range(100)]
    assert sum(one.low > 0 for one in found) >= 90


def test_a_straight_line_has_its_slope_at_both_ends() -> None:
    at_s = np.arange(20.0)
    found = theil_sen(at_s, 3.0 + 0.25 * at_s)
    assert found.low == pytest.approx(0.25)
    assert found.value == pytest.approx(0.25)
    assert found.high == pytest.approx(0.25)


def test_readings_may_come_in_any_order_and_at_any_distance() -> None:
    at_s = np.array([9.0, 0.0, 1.5, 7.2, 3.0, 4.0, 4.5, 11.0, 12.0, 13.0, 2.0, 20.0])
    found = theil_sen(at_s, 2 * at_s)
    assert found.value == pytest.approx(2.0)


def test_one_wild_reading_in_ten_moves_nothing_to_speak_of() -> None:
    at_s = np.arange(20.0)
    values = np.full(20, 7.0)
    values[[4, 18]] = 900.0
    found = theil_sen(at_s, values)
    assert found.value == 0
    assert found.low <= 0


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_too_few_readings_bound_nothing(n: int) -> None:
    found = theil_sen(np.arange(float(n)), np.arange(float(n)))
    assert (found.low, found.high) == (-math.inf, math.inf)
    assert found.n == n


def test_readings_of_one_moment_bound_nothing() -> None:
    found = theil_sen(np.zeros(5), np.arange(5.0))
    assert (found.low, found.high) == (-math.inf, math.inf)


def test_the_fewest_are_those_with_which_both_ends_are_bounded() -> None:
    for every_s in (0.25, 1.0, 5.0):
        least = fewest(every_s)
        at_s = np.arange(float(least)) * every_s
        assert math.isfinite(theil_sen(at_s, at_s).low)
        assert math.isinf(theil_sen(at_s[:-1], at_s[:-1]).low)


def test_readings_that_are_hardly_alike_say_more() -> None:
    at_s, values = np.arange(20.0), wandering(20, 0.0, 4)
    near, far = theil_sen(at_s, values, 6.0), theil_sen(at_s * 100, values, 6.0)
    assert 100 * (far.high - far.low) < near.high - near.low


def test_many_readings_are_as_quick_as_few_and_say_the_same() -> None:
    at_s = np.arange(50_000.0)
    found = theil_sen(at_s, 0.5 * at_s + np.sin(at_s))
    assert found == Slope(
        pytest.approx(0.5, rel=1e-3), pytest.approx(0.5, rel=1e-2), pytest.approx(0.5, rel=1e-2), 50_000
    )


@pytest.mark.parametrize("memory_s", [60.0, 3600.0, 1e9])
def test_a_queue_that_never_forgets_needs_more_readings_than_there_are(memory_s: float) -> None:
    found = simulate(steps=(), every_s=1.0)
    needed = fewest(1.0, memory_s)
    assert needed > 10
    verdict = checked(found, "bounded-queue", remembers=f"{memory_s:.0f}s")
    assert verdict.verdict == "INCONCLUSIVE"
    assert f"{needed} are the fewest" in verdict.sentence
