"""A fault on many hops is one fault: some of them may be idle while it lasts."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from judging import evidence, judged, with_events
from msgspec.structs import replace

from stormdrill.core.evidence import Evidence
from stormdrill.model import event as ev
from stormdrill.model.mechanism import Toxic


def cut(found: Evidence) -> Evidence:
    """The same run, as if its region had been cut instead of frozen."""
    injections = tuple(
        replace(item, mechanism="cut", how=Toxic((f"edge-1>{item.instance}",), "cut")) for item in found.plan.injections
    )
    return replace(found, plan=replace(found.plan, injections=injections))


def unseen(found: Evidence, *instances: str) -> Evidence:
    names = {item.id for item in found.plan.injections if not instances or item.instance in instances}

    def change(recorded: ev.Recorded) -> ev.Recorded | None:
        event = recorded.event
        return None if isinstance(event, ev.EffectObserved) and event.injection in names else recorded

    return with_events(found, change)


def test_hops_that_nobody_used_meanwhile_were_cut_with_the_others(tmp_path: Path) -> None:
    verdict = judged(unseen(cut(evidence(tmp_path)), "cpu-eu"))
    assert [fault.bit for fault in verdict.faults] == [True, True, True]
    idle = next(fault for fault in verdict.faults if fault.target == "cpu-eu")
    assert "nothing passed the hops of cpu-eu" in idle.detail
    assert idle.effect_ms is None


def test_a_cut_that_held_nothing_back_anywhere_did_not_bite(tmp_path: Path) -> None:
    verdict = judged(unseen(cut(evidence(tmp_path))))
    assert [fault.bit for fault in verdict.faults] == [False, False, False]
    assert verdict.verdict == "INCONCLUSIVE"


@pytest.mark.parametrize("outcome", ["failed", "doubtful"])
def test_others_do_not_vouch_for_a_cut_whose_call_did_not_come_through(tmp_path: Path, outcome: str) -> None:
    """It was reverted at once: nobody knows that it was ever in force."""

    def failed(recorded: ev.Recorded) -> ev.Recorded:
        event = recorded.event
        if isinstance(event, ev.Injected) and event.injection.endswith("cpu-eu"):
            changed = ev.Injected(event.injection, outcome, "refused", event.took_ms)
            return ev.Recorded(recorded.seq, recorded.at, recorded.mono_ms, changed)
        return recorded

    verdict = judged(with_events(unseen(cut(evidence(tmp_path)), "cpu-eu"), failed))
    assert [fault.bit for fault in verdict.faults if fault.target == "cpu-eu"] == [False]
    assert verdict.verdict == "INCONCLUSIVE"


@pytest.mark.parametrize(("lasted_s", "word"), [(29.0, "PASS"), (5.0, "INCONCLUSIVE")])
def test_a_run_in_which_one_of_many_harms_ended_early_does_not_pass(tmp_path: Path, lasted_s: float, word: str) -> None:
    found = evidence(tmp_path)
    began = {e.injection: r.mono_ms for r in found.events if isinstance(e := r.event, ev.InjectStarted)}

    def early(recorded: ev.Recorded) -> ev.Recorded:
        event = recorded.event
        if isinstance(event, ev.RevertStarted) and event.injection.endswith("cpu-eu"):
            return ev.Recorded(recorded.seq, recorded.at, began[event.injection] + 1000 * lasted_s, event)
        return recorded

    verdict = judged(with_events(found, early))
    assert verdict.verdict == word
    said = [why for why in verdict.reasons if "region-loss on cpu-eu lasted" in why]
    assert said == ([] if word == "PASS" else ["region-loss on cpu-eu lasted 5 of 30 s"])


@pytest.mark.parametrize(("lasted_s", "word"), [(29.0, "PASS"), (5.0, "INCONCLUSIVE")])
def test_what_has_to_be_started_first_ended_early_by_its_time_in_force(
    tmp_path: Path, lasted_s: float, word: str
) -> None:
    """Half a minute of starting is none of its time."""
    found = evidence(tmp_path)
    one = next(item.id for item in found.plan.injections if item.id.endswith("cpu-eu"))
    late = tuple(replace(item, starts_up=item.id == one) for item in found.plan.injections)
    began = next(r.mono_ms for r in found.events if isinstance(e := r.event, ev.InjectStarted) and e.injection == one)
    answered_ms = began + 30_000.0

    def later(recorded: ev.Recorded) -> ev.Recorded:
        event, at_ms = recorded.event, recorded.mono_ms
        if isinstance(event, ev.Injected) and event.injection == one:
            at_ms = answered_ms
        if isinstance(event, ev.RevertStarted) and event.injection == one:
            at_ms = answered_ms + 1000 * lasted_s
        return ev.Recorded(recorded.seq, recorded.at, at_ms, event)

    verdict = judged(with_events(replace(found, plan=replace(found.plan, injections=late)), later))
    said = [why for why in verdict.reasons if "region-loss on cpu-eu lasted" in why]
    assert said == ([] if word == "PASS" else ["region-loss on cpu-eu lasted 5 of 30 s"])


def test_a_halt_that_nobody_saw_is_not_vouched_for_by_others(tmp_path: Path) -> None:
    verdict = judged(unseen(evidence(tmp_path), "cpu-eu"))
    assert [fault.bit for fault in verdict.faults if fault.target == "cpu-eu"] == [False]


def test_what_a_fault_came_to_is_part_of_its_verdict_and_changes_nothing_of_it(tmp_path: Path) -> None:
    came_to = "1 of 2 pods stayed on n1 until the end: shop/web-1"

    def stayed(recorded: ev.Recorded) -> ev.Recorded:
        event = recorded.event
        if isinstance(event, ev.RevertVerified) and event.injection.endswith("cpu-eu"):
            event = dataclasses.replace(event, came_to=came_to)
        return ev.Recorded(recorded.seq, recorded.at, recorded.mono_ms, event)

    before = judged(evidence(tmp_path))
    verdict = judged(with_events(evidence(tmp_path), stayed))
    assert verdict.verdict == before.verdict == "PASS"
    assert [fault.target for fault in verdict.faults if came_to in fault.detail] == ["cpu-eu"]
