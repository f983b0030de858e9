"""Exact intervals of shares, and how many samples a claim needs."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest

from stormdrill.core.statistics import beta_cdf, clopper_pearson, minimum_samples, student_t


@pytest.mark.parametrize(("share", "fewest"), [(0.95, 72), (0.98, 183), (0.99, 368), (0.999, 3688), (1 - 0.02, 183)])
def test_the_fewest_samples_are_those_of_the_published_table(share: float, fewest: int) -> None:
    assert minimum_samples(share) == fewest


@pytest.mark.parametrize("share", [0.1, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999])
def test_the_fewest_samples_pass_and_one_less_does_not(share: float) -> None:
    fewest = minimum_samples(share)
    assert clopper_pearson(fewest, fewest)[0] > share
    assert clopper_pearson(fewest - 1, fewest - 1)[0] <= share


def test_no_number_of_samples_shows_always() -> None:
    with pytest.raises(ValueError, match="100%"):
        minimum_samples(1.0)


def test_the_interval_ends_where_the_binomial_tails_do() -> None:
    """By definition: at the ends, seeing as many or more (as few or fewer) has a probability of 2.5%."""

    def at_least(k: int, n: int, p: float) -> float:
        return sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1))

    for good, n in ((3, 10), (47, 50), (195, 200), (1, 40)):
        low, high = clopper_pearson(good, n)
        assert at_least(good, n, low) == pytest.approx(0.025, abs=1e-9)
        assert 1 - at_least(good + 1, n, high) == pytest.approx(0.025, abs=1e-9)


def test_all_and_none_have_one_open_end() -> None:
    assert clopper_pearson(600, 600) == (pytest.approx(0.99387, abs=1e-5), 1.0)
    assert clopper_pearson(0, 10) == (0.0, pytest.approx(0.3085, abs=1e-4))
    assert clopper_pearson(0, 0) == (0.0, 1.0)


def test_students_t_is_that_of_the_tables() -> None:
    for df, value in ((1, 12.706), (4, 2.776), (9, 2.262), (19, 2.093), (59, 2.001)):
        assert student_t(df) == pytest.approx(value, abs=1e-3)
    assert student_t(0) == math.inf


def test_the_beta_function_is_symmetric_and_grows() -> None:
    values = [beta_cdf(x / 20, 3.5, 1.25) for x in range(21)]
    assert values == sorted(values)
    assert beta_cdf(0.3, 2.0, 5.0) == pytest.approx(1 - beta_cdf(0.7, 5.0, 2.0), abs=1e-12)


def test_planning_can_ask_without_loading_numpy() -> None:
    code = "import sys, stormdrill.core.statistics; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
