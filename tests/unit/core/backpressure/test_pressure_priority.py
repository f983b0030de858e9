"""Who is turned away first: by tier, never the other way round, the first tier hardly ever."""

from __future__ import annotations

import numpy as np
from msgspec.structs import replace
from pressing import checked, named

from stormdrill.core.evidence import Evidence, Kind
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
    assert checked(simulate(blind=True), "priority", first="20%").verdict == "INCONCLUSIVE"


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
