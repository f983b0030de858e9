"""A fault that somebody took away before its time is no test: what was seen from then on speaks neither way."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judging import evidence, judged, with_events
from msgspec.structs import replace

from stormdrill.core.evidence import Evidence
from stormdrill.model import event as ev
from stormdrill.model.verdict import Verdict

AFTER_MS = 1200.0


def began_ms(found: Evidence, name: str) -> float:
    return next(r.mono_ms for r in found.events if isinstance(e := r.event, ev.InjectStarted) and e.injection == name)


def touched(
    found: Evidence,
    *,
    gone: bool = True,
    after_ms: float = AFTER_MS,
    well_ms: float | None = None,
    edited: bool = False,
    at_revert: bool = False,
    more: tuple[ev.Event, ...] = (),
) -> Verdict:
    name = found.plan.injections[0].id
    at_ms, last = began_ms(found, name) + after_ms, found.events[-1]
    what = (name, gone, "the API server", "nodes/n1: spec.taints is absent", after_ms, well_ms)
    said = ev.CauseChanged(*what, edited=edited, at_revert=at_revert)
    events = [replace_at(last, number, at_ms, event) for number, event in enumerate((said, *more), 1)]
    return judged(with_events(found, lambda recorded: recorded, events))


def replace_at(last: ev.Recorded, number: int, at_ms: float, event: ev.Event) -> ev.Recorded:
    return ev.Recorded(last.seq + number, last.at, at_ms, event)


def without_runbook(found: Evidence) -> Evidence:
    plan = replace(found.plan, experiment=replace(found.plan.experiment, runbook=None))
    gone = ev.RunbookStarted | ev.RunbookFinished | ev.StepStarted | ev.StepFinished
    kept = tuple(recorded for recorded in found.events if not isinstance(recorded.event, gone))
    return replace(found, plan=plan, events=kept)


@pytest.mark.parametrize("scenario", ["pass", "no-alert"])
def test_a_fault_that_somebody_took_away_neither_passes_nor_fails(tmp_path: Path, scenario: str) -> None:
    found = without_runbook(evidence(tmp_path, scenario))
    assert judged(found).verdict == ("PASS" if scenario == "pass" else "FAIL")
    verdict = touched(found)
    said = f"region-loss on {found.plan.injections[0].instance} was taken away 1.2 s after it began, by somebody else"
    assert verdict.verdict == "INVALID"
    assert said in verdict.sentence
    assert said in verdict.reasons
    assert any(said in fault.detail and "spec.taints is absent" in fault.detail for fault in verdict.faults)
    assert {one.verdict for one in verdict.objectives if one.phase.startswith("baseline")} == {"PASS"}
    # an event's own number stands for the sentence
    assert any(found.events[-1].seq + 1 in fault.events for fault in verdict.faults)


def test_an_alert_that_fired_before_that_has_answered(tmp_path: Path) -> None:
    found = without_runbook(evidence(tmp_path))
    verdict = touched(found, after_ms=5000.0)
    words = {one.verdict for one in verdict.objectives if one.name.startswith("alert(")}
    assert words == {"PASS"}
    assert verdict.verdict == "INVALID"


def test_what_was_changed_in_part_is_no_pass(tmp_path: Path) -> None:
    verdict = touched(without_runbook(evidence(tmp_path)), gone=False)
    assert verdict.verdict == "INCONCLUSIVE"
    assert "was changed 1.2 s after it began, by somebody else" in verdict.sentence


def test_what_failed_under_a_fault_that_was_changed_in_part_has_failed(tmp_path: Path) -> None:
    assert touched(without_runbook(evidence(tmp_path, "no-alert")), gone=False).verdict == "FAIL"


def step(kind: str, outcome: str = "ok") -> tuple[ev.Event, ...]:
    begun = ev.StepStarted("set-right", kind, 1, "kubectl rollout undo", "", "low")
    return (begun, ev.StepFinished("set-right", outcome, "", {}, "", 1.0))


@pytest.mark.parametrize(
    ("mechanism", "steps", "word"),
    [
        ("nodes", step("manual"), "PASS"),
        ("nodes", step("manual", "skipped"), "INVALID"),
        ("nodes", step("action"), "INVALID"),
        ("nodes", step("check"), "INVALID"),
        ("rollout", step("action"), "PASS"),
        ("rollout", step("manual"), "PASS"),
        ("rollout", step("wait-until"), "INVALID"),
        ("rollout", (), "INVALID"),
    ],
)
def test_a_runbook_may_take_the_cause_away_where_a_step_of_it_could_have(
    tmp_path: Path, mechanism: str, steps: tuple[ev.Event, ...], word: str
) -> None:
    """That is what some are for: its hands can't be told from others. But no action of a runbook opens nodes."""
    found = without_runbook(evidence(tmp_path))
    first, *others = found.plan.injections
    plan = replace(found.plan, injections=(replace(first, mechanism=mechanism), *others))
    verdict = touched(replace(found, plan=plan), after_ms=5000.0, more=steps)
    assert verdict.verdict == word
    by = "after the runbook had begun its step set-right" if word == "PASS" else "by somebody else"
    assert any(f"taken away 5 s after it began, {by}" in fault.detail for fault in verdict.faults)


def test_a_runbook_that_has_only_started_excuses_nobody(tmp_path: Path) -> None:
    assert touched(evidence(tmp_path), after_ms=5000.0).verdict == "INVALID"


def lasted_ms(found: Evidence) -> float:
    """From its inject call to its revert."""
    name = found.plan.injections[0].id
    begun = [r.mono_ms for r in found.events if isinstance(e := r.event, ev.RevertStarted) and e.injection == name]
    return min(begun) - began_ms(found, name)


def test_what_is_gone_once_the_revert_has_begun_is_its_doing(tmp_path: Path) -> None:
    found = without_runbook(evidence(tmp_path))
    verdict = touched(found, after_ms=lasted_ms(found))
    assert verdict.verdict == "PASS"
    assert not any("taken away" in fault.detail for fault in verdict.faults)


@pytest.mark.parametrize("by", ["cluster", "person"])
def test_whoever_stops_the_run_in_the_cluster_has_it_reverted_there(tmp_path: Path, by: str) -> None:
    verdict = touched(without_runbook(evidence(tmp_path)), more=(ev.AbortRequested(by, "stopped"),))
    assert verdict.verdict == "INCONCLUSIVE"
    assert not any("taken away" in fault.detail for fault in verdict.faults)


@pytest.mark.parametrize(("gone", "word"), [(True, "INVALID"), (False, "INCONCLUSIVE")])
def test_what_its_undo_finds_changed_weighs_though_no_look_had_seen_it(tmp_path: Path, gone: bool, word: str) -> None:
    """The last second of a fault: who took it away then has taken it away."""
    found = without_runbook(evidence(tmp_path))
    end_ms = lasted_ms(found)
    verdict = touched(found, gone=gone, after_ms=end_ms, well_ms=end_ms - 900.0, at_revert=True)
    what = "taken away" if gone else "changed"
    assert verdict.verdict == word
    assert f"was {what} in the last 0.9 s before its revert, by somebody else" in verdict.sentence
    words = {one.phase.partition(" ")[0]: one.verdict for one in verdict.objectives if "alert" not in one.name}
    assert words["baseline"] == "PASS"
    assert {words["fault"], words["recovery"]} == ({"INVALID"} if gone else {"PASS"})


def test_what_was_over_when_it_was_last_seen_in_force_stands(tmp_path: Path) -> None:
    """An alert that was due by then is late, whatever somebody did since."""
    found = without_runbook(evidence(tmp_path, "no-alert"))
    end_ms = lasted_ms(found)
    verdict = touched(found, after_ms=end_ms, well_ms=end_ms - 900.0, at_revert=True)
    assert {one.verdict for one in verdict.objectives if one.name.startswith("alert(")} == {"FAIL"}
    assert verdict.verdict == "FAIL"


def test_what_was_due_between_the_last_good_look_and_the_first_bad_one_is_not_known(tmp_path: Path) -> None:
    found = without_runbook(evidence(tmp_path, "no-alert"))

    def word(well_ms: float) -> str:
        verdict = touched(found, after_ms=10_400.0, well_ms=well_ms)
        (alert,) = {one.verdict for one in verdict.objectives if one.name.startswith("alert(")}
        return alert

    assert word(10_200.0) == "FAIL", "it was due after 10 s"
    assert word(9_500.0) == "INVALID"


def test_what_somebody_edited_is_not_known_to_have_been_in_force(tmp_path: Path) -> None:
    verdict = touched(without_runbook(evidence(tmp_path, "fail")), edited=True)
    assert verdict.verdict == "INVALID"
    assert "was edited 1.2 s after it began, by somebody else" in verdict.sentence


def test_a_step_of_the_runbook_excuses_what_its_undo_finds_too(tmp_path: Path) -> None:
    found = without_runbook(evidence(tmp_path))
    end_ms = lasted_ms(found)
    verdict = touched(found, after_ms=end_ms, well_ms=end_ms - 900.0, at_revert=True, more=step("manual"))
    assert verdict.verdict == "PASS"
    assert any("in the last 0.9 s before its revert, after the runbook" in fault.detail for fault in verdict.faults)


@settings(max_examples=15, deadline=None)
@given(scenario=st.sampled_from(["pass", "fail", "no-alert"]), unknown_ms=st.floats(1.0, 28_000.0), gone=st.booleans())
def test_what_only_its_undo_saw_is_no_pass_and_counts_from_the_last_look_that_saw_it_well(
    tmp_path_factory: pytest.TempPathFactory, scenario: str, unknown_ms: float, gone: bool
) -> None:
    """As if it had been seen then: what isn't known speaks for nobody."""
    found = without_runbook(evidence(tmp_path_factory.mktemp("undo"), scenario))
    end_ms = lasted_ms(found)
    well_ms = max(1.0, end_ms - unknown_ms)
    late = touched(found, gone=gone, after_ms=end_ms, well_ms=well_ms, at_revert=True)
    seen = touched(found, gone=gone, after_ms=well_ms)
    assert late.verdict == seen.verdict != "PASS"
    assert [one.verdict for one in late.objectives] == [one.verdict for one in seen.objectives]


@settings(max_examples=15, deadline=None)
@given(scenario=st.sampled_from(["pass", "fail", "no-alert"]), after_ms=st.floats(1.0, 28_000.0), gone=st.booleans())
def test_whenever_it_was_there_is_no_pass_and_what_came_before_the_fault_stands(
    tmp_path_factory: pytest.TempPathFactory, scenario: str, after_ms: float, gone: bool
) -> None:
    found = without_runbook(evidence(tmp_path_factory.mktemp("hands"), scenario))
    before, verdict = judged(found), touched(found, gone=gone, after_ms=after_ms)
    assert verdict.verdict != "PASS"
    due = scenario == "no-alert" and after_ms >= 10_000.0  # it stood as long as the alert had time
    assert not gone or verdict.verdict == ("FAIL" if due else "INVALID")
    earlier = [one for one in before.objectives if one.phase.startswith("baseline")]
    assert [one for one in verdict.objectives if one.phase.startswith("baseline")] == earlier
    assert gone or verdict.objectives == before.objectives
