"""What was to answer a fault has nothing to answer where nobody saw one bite: that is no failure of the system's."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judging import Change, evidence, judged, named, with_events

from stormdrill.model import event as ev

NOBODY = "region-loss was not seen to bite: there was nothing to answer"


def unseen(*instances: str) -> Change:
    """Without what was seen of the fault on these; on none, of all."""

    def change(recorded: ev.Recorded) -> ev.Recorded | None:
        event = recorded.event
        mine = isinstance(event, ev.EffectObserved) and (not instances or event.injection.split("/")[1] in instances)
        return None if mine else recorded

    return change


@pytest.mark.parametrize("scenario", ["no-alert", "no-runbook-start"])
def test_where_nobody_saw_it_bite_neither_alert_nor_runbook_has_failed(tmp_path: Path, scenario: str) -> None:
    found = evidence(tmp_path, scenario)
    assert judged(found).verdict == "FAIL"
    verdict = judged(with_events(found, unseen()))
    assert verdict.verdict == "INCONCLUSIVE"
    assert verdict.runbook is not None
    assert verdict.runbook.verdict == "INCONCLUSIVE"
    assert NOBODY in verdict.runbook.sentence
    if scenario == "no-alert":
        alert = named(verdict, "alert(")
        assert (alert.verdict, NOBODY in alert.sentence) == ("INCONCLUSIVE", True)


def test_what_else_was_asked_fails_as_it_did(tmp_path: Path) -> None:
    found = evidence(tmp_path, "fail")
    before = {one.name: one.verdict for one in judged(found).objectives}
    assert "FAIL" in before.values()
    assert {one.name: one.verdict for one in judged(with_events(found, unseen())).objectives} == before


def test_an_alert_that_came_too_late_has_come(tmp_path: Path) -> None:
    found = evidence(tmp_path, alert_after_s=14.0)
    assert named(judged(with_events(found, unseen())), "alert(").verdict == "FAIL"


@settings(max_examples=20, deadline=None)
@given(seen=st.sets(st.integers(0, 2)))
def test_a_missing_alert_is_a_failure_exactly_if_anything_bit(
    tmp_path_factory: pytest.TempPathFactory, seen: set[int]
) -> None:
    found = evidence(tmp_path_factory.mktemp("bites"), "no-alert")
    instances = [one.instance for one in found.plan.injections]
    away = [name for number, name in enumerate(instances) if number not in seen]
    verdict = judged(with_events(found, unseen(*away))) if away else judged(found)
    word = "FAIL" if seen else "INCONCLUSIVE"
    assert named(verdict, "alert(").verdict == word
    assert verdict.runbook is not None
    assert verdict.runbook.verdict == word
