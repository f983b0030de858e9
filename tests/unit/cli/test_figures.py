"""Numbers on the terminal: a unit on each, and none that flatters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stormdrill.cli import figures


@pytest.mark.parametrize(
    ("percent", "shown"), [(100.0, "100%"), (99.97, "99.97%"), (99.2, "99.2%"), (0.0, "0%"), (0.004, "0.004%")]
)
def test_a_share_is_never_rounded_up_to_all_or_down_to_none(percent: float, shown: str) -> None:
    assert figures.share(percent) == shown


@given(st.floats(0, 100))
def test_only_all_reads_as_all_and_only_none_as_none(percent: float) -> None:
    shown = float(figures.share(percent).rstrip("%"))
    assert (shown == 100.0) == (percent == 100.0) or abs(percent - 100.0) < 1e-4
    assert (shown == 0.0) == (percent == 0.0) or percent < 1e-4


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (238.0, "ms", "238 ms"),
        (2.4, "s", "2.4 s"),
        (0.4, "s", "400 ms"),
        (60.0, "/s", "60/s"),
        (0.0, "", "0"),
        (4006.0, "", "4,006"),
        (None, "%", "–"),
    ],
)
def test_a_measured_value_carries_the_unit_that_was_asked_for(value: float | None, unit: str, shown: str) -> None:
    assert figures.measured(value, unit) == shown


def test_an_exact_count_has_no_interval() -> None:
    assert figures.interval(None, None, "") == ""
    assert figures.interval(98.1, 99.7, "%") == "[98.1, 99.7]"
    assert figures.interval(221.0, 262.0, "ms") == "[221, 262]"
