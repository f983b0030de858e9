"""Each reason is told once, whatever number of objectives it weighs on."""

from __future__ import annotations

from stormdrill.cli.whys import told_once

STARVED = "not to be believed: other programs starved this machine for {} of 20 s. 100% of {} requests succeeded"


def test_a_reason_that_several_share_is_told_once_and_counted() -> None:
    said = [STARVED.format("6.5", 10), "p95 was 3 s; < 1 s was asked", STARVED.format(7, 20), STARVED.format(8, 30)]
    found = told_once("another sentence", said)
    assert found == [f"{said[0]}; so it is with 2 others, see the review", said[1]]


def test_what_the_verdict_itself_says_is_not_said_again() -> None:
    said = [STARVED.format(7, 20), STARVED.format(8, 30)]
    assert told_once(said[0], said) == ["1 other can't be believed for the same reason; the review has each"]


def test_different_reasons_stay_apart() -> None:
    late = "not to be believed: the generator was late: lag p99 9.0 ms. 100% of 20 requests succeeded"
    assert told_once("", [STARVED.format(7, 20), late]) == [STARVED.format(7, 20), late]
