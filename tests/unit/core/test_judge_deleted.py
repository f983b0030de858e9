"""A system that somebody deletes meanwhile is no longer what is measured: nothing seen since then speaks either way."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judging import evidence, judged, one, with_events
from msgspec.structs import replace

from stormdrill.core.evidence import Evidence
from stormdrill.model import event as ev
from synthetic_run import comparison, objective

WHY = "the namespace shop is being deleted by somebody"
LOOKED_MS = 2500.0
"""Before somebody saw it to be deleted it was last seen to be there."""


def edge_ms(found: Evidence, phase: str) -> float:
    return next(r.mono_ms for r in found.events if isinstance(e := r.event, ev.PhaseEntered) and e.phase == phase)


def stopped(found: Evidence, at_ms: float, *, by: str = "deleted", looked_ms: float = LOOKED_MS) -> Evidence:
    """The same run, ended at that time; without a runbook, whose verdict is its own."""
    plan = replace(found.plan, experiment=replace(found.plan.experiment, runbook=None))
    kept = [r for r in found.events if r.mono_ms <= at_ms and not isinstance(r.event, ev.RunEnded)]
    kept += [ev.Recorded(r.seq, r.at, at_ms, r.event) for r in found.events if r.mono_ms > at_ms and tidies(r.event)]
    well = at_ms - looked_ms if by == "deleted" else None
    more = (ev.AbortRequested(by, WHY, well), ev.PhaseEntered("end", 0.0), ev.RunEnded("aborted", WHY))
    last = found.events[-1]
    ended = [ev.Recorded(last.seq + n, last.at, at_ms, event) for n, event in enumerate(more, 1)]
    return replace(found, plan=plan, events=(*kept, *ended))


def tidies(event: ev.Event) -> bool:
    """Whoever stops reverts, and closes what was recorded."""
    return isinstance(event, ev.RevertStarted | ev.Reverted | ev.RevertVerified | ev.LoadEnded | ev.RecordClosed)


@pytest.mark.parametrize("phase", ["baseline", "fault", "recovery"])
def test_the_run_is_invalid_wherever_it_was_and_says_why(tmp_path: Path, phase: str) -> None:
    found = evidence(tmp_path)
    verdict = judged(stopped(found, edge_ms(found, phase) + 3000.0))
    assert (verdict.status, verdict.verdict) == ("aborted", "INVALID")
    assert verdict.sentence.startswith(f"the run was not finished: what it drilled was taken away ({WHY})")


@pytest.mark.parametrize("by", ["person", "signal", "cluster"])
def test_who_only_stops_the_run_leaves_what_was_seen_to_be_believed(tmp_path: Path, by: str) -> None:
    found = evidence(tmp_path)
    verdict = judged(stopped(found, edge_ms(found, "fault") + 3000.0, by=by))
    assert (verdict.status, verdict.verdict) == ("aborted", "INCONCLUSIVE")
    assert "INVALID" not in {one.verdict for one in verdict.objectives}


def test_what_breaks_while_it_is_deleted_has_not_failed(tmp_path: Path) -> None:
    """A reading that is seen broken stays broken, but of something else."""
    found = evidence(tmp_path)
    at_ms = edge_ms(found, "fault") + 3000.0
    asked = objective("fault", comparison("workers > 2", "workers", ">", 2.0))
    last = found.events[-1]
    reading = ev.Recorded(last.seq, last.at, at_ms - 100.0, ev.Reading("workers", "region-eu", 0.0, {}))
    for by, word in (("person", "FAIL"), ("deleted", "INVALID")):
        broken = with_events(stopped(found, at_ms, by=by), lambda r: r, (reading,))
        verdict = one(broken, asked)
        assert verdict.verdict == word, verdict.sentence
    assert WHY in verdict.sentence


def test_what_had_failed_before_has_failed(tmp_path: Path) -> None:
    found = evidence(tmp_path, "fail")
    at_ms = edge_ms(found, "recovery") + 5000.0
    verdict = judged(stopped(found, at_ms, looked_ms=2000.0))
    assert verdict.verdict == "FAIL"
    assert any(WHY in why for why in verdict.reasons)


def test_between_the_last_look_and_the_next_nobody_knows(tmp_path: Path) -> None:
    """What ended after it was last seen to be there may have been of something else."""
    found = evidence(tmp_path)
    edge = edge_ms(found, "recovery")

    def words(looked_ms: float) -> set[str]:
        verdict = judged(stopped(found, edge + 2000.0, looked_ms=looked_ms))
        return {one.verdict for one in verdict.objectives if one.phase.startswith("fault")}

    assert "INVALID" not in words(1000.0)
    assert words(15_000.0) == {"INVALID"}


@settings(max_examples=15, deadline=None)
@given(scenario=st.sampled_from(["pass", "fail", "no-alert"]), after_ms=st.floats(500.0, 60_000.0))
def test_whenever_it_is_deleted_nothing_passes_and_what_was_over_before_stands(
    tmp_path_factory: pytest.TempPathFactory, scenario: str, after_ms: float
) -> None:
    found = evidence(tmp_path_factory.mktemp("deleted"), scenario)
    at_ms = min(edge_ms(found, "baseline") + after_ms, found.events[-1].mono_ms)
    verdict, other = judged(stopped(found, at_ms)), judged(stopped(found, at_ms, by="person"))
    assert verdict.verdict in ("INVALID", "FAIL")
    for mine, theirs in zip(verdict.objectives, other.objectives, strict=True):
        assert mine.verdict in (theirs.verdict, "INVALID")
    if verdict.verdict == "FAIL":
        assert other.verdict == "FAIL"
