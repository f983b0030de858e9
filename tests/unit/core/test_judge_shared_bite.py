"""A fault on many hops is one fault: some of them may be idle while it lasts."""

from __future__ import annotations

from pathlib import Path

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


def test_a_halt_that_nobody_saw_is_not_vouched_for_by_others(tmp_path: Path) -> None:
    verdict = judged(unseen(evidence(tmp_path), "cpu-eu"))
    assert [fault.bit for fault in verdict.faults if fault.target == "cpu-eu"] == [False]
