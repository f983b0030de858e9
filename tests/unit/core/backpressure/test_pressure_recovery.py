"""With the same load as before the trigger it serves as before, soon and for good; or it is said how it did not."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace

from pressing import checked, named, with_fault
from stormdrill.core.evidence import Evidence
from stormdrill.model.profile import Piece, Stage
from stormdrill.store.records import Outcome
from synthetic_overload import Simulated, simulate

SURGE = {"steps": (), "every_s": 1.0, "after_s": 25.0}
TRIGGER_END_S = 2.0 + 8.0 + 10.0 + 10.0
WORD = "recovery"


def spoilt(found: Simulated | Evidence, start_s: float, end_s: float, share: float = 1.0) -> Evidence:
    """The same run, in which requests intended then timed out."""
    evidence = found.evidence if isinstance(found, Simulated) else found
    rows = evidence.records[0].rows.copy()
    hit = (rows["intended_us"] >= start_s * 1e6) & (rows["intended_us"] < end_s * 1e6)
    hit &= np.arange(len(rows)) % 100 < share * 100
    rows["outcome"][hit], rows["status"][hit] = Outcome.TIMED_OUT, 0
    return replace(evidence, records=(replace(evidence.records[0], rows=rows),))


def test_a_sound_system_recovers_at_once() -> None:
    found = checked(simulate(**SURGE), WORD)
    assert found.verdict == "PASS"
    assert "recovered" in found.sentence


def test_what_stays_down_and_comes_back_at_a_lower_load_is_metastable() -> None:
    found = checked(simulate(metastable=True), WORD)
    assert found.verdict == "FAIL"
    assert found.sentence.startswith("metastable: after a surge to 192/s for 10 s on 64/s it stayed down")
    assert "it recovers only below 64/s (0.6" in found.sentence
    assert "of capacity), at 25.6/s (0.2" in found.sentence
    assert "of capacity" in found.sentence
    assert named(found, "load at which it recovers from surge 1").value == pytest.approx(25.6)
    assert named(found, "time to recover from surge 1").value is None


def test_what_comes_back_at_no_load_that_was_tried_is_not_called_metastable() -> None:
    down = spoilt(simulate(**SURGE), TRIGGER_END_S, 90.0)
    found = checked(down, WORD)
    assert found.verdict == "FAIL"
    assert "metastable" not in found.sentence
    assert "nor at any lower load, down to 25.6/s" in found.sentence


@pytest.mark.parametrize(("late_s", "word"), [(0.0, "PASS"), (6.0, "PASS"), (16.0, "FAIL")])
def test_recovering_late_is_late_and_told_in_seconds(late_s: float, word: str) -> None:
    found = checked(spoilt(simulate(**SURGE), TRIGGER_END_S, TRIGGER_END_S + late_s), WORD)
    assert found.verdict == word
    took = named(found, "time to recover from surge 1").value
    assert took is not None
    assert abs(took - late_s) <= 1.0
    if word == "FAIL":
        assert "only after" in found.sentence
        assert "metastable" not in found.sentence


def test_falling_back_after_it_had_recovered_is_no_recovery() -> None:
    long = {**SURGE, "after_s": 70.0}
    found = checked(spoilt(simulate(**long), TRIGGER_END_S + 50.0, TRIGGER_END_S + 52.0), WORD)
    assert found.verdict in ("FAIL", "INCONCLUSIVE")
    again = checked(spoilt(simulate(**long), TRIGGER_END_S + 50.0, TRIGGER_END_S + 56.0, 0.8), WORD)
    assert again.verdict == "FAIL"


def test_how_soon_is_the_experiments_to_say() -> None:
    late = spoilt(simulate(**SURGE), TRIGGER_END_S, TRIGGER_END_S + 16.0)
    assert checked(late, WORD, within="18s").verdict != "FAIL"


def test_looking_for_less_than_it_may_take_shows_nothing() -> None:
    found = checked(simulate(**SURGE), WORD, within="30s")
    assert found.verdict == "INCONCLUSIVE"
    assert "lengthen it" in found.sentence


def test_what_was_down_before_has_nothing_to_come_back_to() -> None:
    found = checked(spoilt(simulate(**SURGE), 0.0, 20.0, 0.6), WORD)
    assert found.verdict == "INCONCLUSIVE"
    assert "nothing to come back to" in found.sentence


def test_a_run_that_was_stopped_in_the_surge_has_not_recovered() -> None:
    found = checked(simulate(**SURGE, stop_at_s=25.0), WORD)
    assert found.verdict == "INCONCLUSIVE"


def test_tainted_evidence_is_invalid() -> None:
    assert checked(simulate(metastable=True, hogs=True), WORD).verdict == "INVALID"


@pytest.mark.parametrize(("down", "word"), [(False, "PASS"), (True, "FAIL")])
def test_a_fault_without_stages_is_judged_from_the_last_revert_on(down: bool, word: str) -> None:
    quiet = simulate(steps=(), episode=False, every_s=1.0).evidence
    plan = replace(quiet.plan, experiment=replace(quiet.plan.experiment))
    evidence = with_fault(replace(quiet, plan=plan), 12.0, 29.5)
    spoiled = spoilt(evidence, 12.0, 36.0 if down else 29.5)
    found = checked(spoiled, WORD, within="1s")
    assert found.verdict == word
    assert "the fault" in found.sentence


def sweep(found: Simulated, *ill: int) -> Evidence:
    """Three surges in one run, ever longer; from those numbered in `ill` it didn't come back while it was looked at."""
    stages, at_s = [], 10.0
    for episode, trigger_s in enumerate((2.0, 4.0, 8.0), 1):
        for role, length_s, factor in (("base", 8.0, 0.8), ("trigger", trigger_s, 2.0), ("after", 16.0, 0.8)):
            stages.append(Stage(role, at_s, at_s + length_s, factor, episode))  # type: ignore[arg-type]
            at_s += length_s
    evidence = found.evidence
    assert evidence.plan.profile is not None
    profile = replace(evidence.plan.profile, stages=tuple(stages), shape=(Piece(0.0, 1.0),))
    evidence = replace(evidence, plan=replace(evidence.plan, profile=profile))
    for stage in stages:
        if stage.role == "trigger" or (stage.role == "after" and stage.episode in ill):
            evidence = spoilt(evidence, stage.start_s, stage.end_s)
    return evidence


def test_a_sweep_tells_each_surge_and_the_boundary() -> None:
    base = simulate(steps=(0.8,), step_s=90.0, episode=False, every_s=1.0)
    found = checked(sweep(base, 3), WORD, within="2s")
    assert found.verdict == "FAIL"
    assert "recovered from 2 of 3 triggers" in found.sentence
    assert "recovers from 128/s for 4 s, not from 128/s for 8 s" in found.sentence
    assert {f"goodput after surge {number}, of before" for number in (1, 2, 3)} <= {one.name for one in found.figures}
    sound = checked(sweep(base), WORD, within="2s")
    assert sound.verdict == "PASS"
    assert "recovered from 3 of 3 triggers" in sound.sentence


def test_the_load_at_which_it_recovers_lies_below_the_lowest_at_which_it_did_not() -> None:
    """Two lower loads were tried, and only the lower one helped."""
    evidence = simulate(metastable=True).evidence
    assert evidence.plan.profile is not None
    *before, down = evidence.plan.profile.stages
    middle_s = (down.start_s + down.end_s) / 2
    higher = replace(down, end_s=middle_s, factor=0.6)
    lower = replace(down, start_s=middle_s)
    profile = replace(evidence.plan.profile, stages=(*before, higher, lower))
    tried = spoilt(replace(evidence, plan=replace(evidence.plan, profile=profile)), higher.start_s, higher.end_s)
    found = checked(tried, WORD)
    assert "it recovers only below 38.4/s" in found.sentence
    assert "at 25.6/s" in found.sentence


def test_over_several_surges_the_boundary_is_told_and_the_worst_of_them() -> None:
    found = checked(simulate(steps=(), episodes=4, metastable=True, every_s=1.0), WORD)
    assert found.verdict == "FAIL"
    assert found.sentence.startswith("recovered from 0 of 4 triggers; at 64/s it does not recover from 192/s for 10 s")
    assert found.sentence.count("metastable") == 1
    assert found.sentence.endswith("and 3 more")
