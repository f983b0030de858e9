"""Who is turned away first: by tier, never the other way round, the first tier hardly ever."""

from __future__ import annotations

import numpy as np
from msgspec.structs import replace

from pressing import checked, named
from stormdrill.core.backpressure.priority import Admission, difference
from stormdrill.core.evidence import Evidence, Kind
from stormdrill.core.intervals import share_interval
from stormdrill.store.records import Outcome
from synthetic_overload import simulate


def with_kinds(found: Evidence, *labels: dict[str, str]) -> Evidence:
    kinds = tuple(Kind(label, old.deadline_ms) for label, old in zip(labels, found.records[0].kinds, strict=True))
    return replace(found, records=(replace(found.records[0], kinds=kinds),))


def with_rows(found: Evidence, rows: np.ndarray) -> Evidence:
    return replace(found, records=(replace(found.records[0], rows=rows),))


def test_shedding_from_below_passes() -> None:
    found = checked(simulate(), "priority")
    assert found.verdict == "PASS"
    shares = [named(found, f"tier {tier} admitted").value for tier in "123"]
    assert shares == sorted(shares, reverse=True)


def test_shedding_whoever_comes_fails_by_the_first_tier() -> None:
    found = checked(simulate(blind=True), "priority")
    assert found.verdict == "FAIL"
    assert "tier 1 alone" in found.sentence
    assert "99% was asked" in found.sentence


def test_shedding_from_above_fails_as_upside_down() -> None:
    found = checked(simulate(inverted=True), "priority")
    assert found.verdict == "FAIL"
    assert "priorities are upside down" in found.sentence


def test_a_load_that_makes_nobody_choose_shows_nothing() -> None:
    found = checked(simulate(steps=(0.25, 0.5), episode=False), "priority")
    assert found.verdict == "INCONCLUSIVE"
    assert "never made the system choose" in found.sentence


def test_one_tier_is_told_from_none() -> None:
    same = {"tier": "1"}
    found = checked(with_kinds(simulate().evidence, same, same, same), "priority")
    assert found.verdict == "INCONCLUSIVE"
    assert "fewer than two tiers" in found.sentence


def test_tiers_of_which_every_second_request_is_let_in_are_treated_alike() -> None:
    evidence = simulate().evidence
    rows = evidence.records[0].rows.copy()
    rows["outcome"], rows["status"] = Outcome.ANSWERED, np.where(np.arange(len(rows)) % 2, 200, 429)
    found = checked(with_rows(evidence, rows), "priority", capacity="20/s", margin="20%")
    assert found.verdict == "FAIL"
    assert "treated alike" in found.sentence


def test_of_a_first_tier_that_alone_is_too_much_nothing_can_be_shown() -> None:
    found = checked(simulate(), "priority", capacity="5/s")
    assert found.verdict == "INCONCLUSIVE"
    assert "tier 1 alone asked for more than 5/s as the experiment says" in found.sentence


def test_the_first_tiers_share_is_the_experiments_to_say() -> None:
    evidence = simulate().evidence
    rows = evidence.records[0].rows.copy()
    rows["status"][np.flatnonzero(rows["labels"] == 0)[::20]] = 429
    assert checked(with_rows(evidence, rows), "priority").verdict == "FAIL"
    assert checked(with_rows(evidence, rows), "priority", first="85%").verdict == "PASS"


def test_too_few_of_the_first_tier_to_show_it_are_said_to_be() -> None:
    found = checked(
        simulate(rate_per_s=30.0, slots=6, queue_limit=20, steps=(0.5, 1.0, 3.0), episode=False), "priority"
    )
    assert found.verdict == "INCONCLUSIVE"
    assert "368 requests are the fewest" in found.sentence


def test_what_was_never_sent_was_neither_let_in_nor_turned_away() -> None:
    evidence = simulate().evidence
    rows = evidence.records[0].rows.copy()
    before = named(checked(evidence, "priority"), "tier 1 admitted").n
    rows["outcome"][np.flatnonzero(rows["labels"] == 0)[::7]] = Outcome.DROPPED
    found = checked(with_rows(evidence, rows), "priority")
    assert found.verdict == "INVALID"
    assert named(found, "tier 1 admitted").n < before


def test_words_are_tiers_too_and_numbers_go_by_their_size() -> None:
    found = with_kinds(simulate().evidence, {"tier": "2"}, {"tier": "10"}, {"tier": "gold"})
    names = [figure.name for figure in checked(found, "priority").figures]
    assert names[:3] == ["tier 2 admitted", "tier 10 admitted", "tier gold admitted"]


def test_a_common_fate_hides_no_inversion() -> None:
    """Each share is known badly, because some seconds let nobody in; which tier is preferred is known well."""
    evidence = simulate(blind=True).evidence
    rows = evidence.records[0].rows.copy()
    rows["outcome"], rows["status"] = Outcome.ANSWERED, 200
    closed = (rows["intended_us"] // 1_000_000) % 2 == 0
    first = (rows["labels"] == 0) & (np.arange(len(rows)) % 4 == 0)
    rows["status"][closed | first] = 429
    found = checked(with_rows(evidence, rows), "priority", capacity="20/s")
    assert found.verdict == "FAIL"
    assert "upside down" in found.sentence


def test_one_more_of_the_first_tier_turned_away_never_raises_the_difference() -> None:
    dice = np.random.Generator(np.random.Philox(key=3))
    for _ in range(40):
        total = dice.integers(1, 30, 9)
        good, other = dice.integers(0, total + 1), dice.integers(0, total + 1)
        below = Admission("2", 1.0, share_interval(other, total, 7), other, total)
        before = difference(Admission("1", 1.0, share_interval(good, total, 7), good, total), below, 7)
        place = int(np.argmax(good))
        if not good[place]:
            continue
        good[place] -= 1
        after = difference(Admission("1", 1.0, share_interval(good, total, 7), good, total), below, 7)
        assert after[0] <= before[0] + 1e-9
        assert after[1] <= before[1] + 1e-9
