"""How long a queue took to drain: the value of an objective that had to hold within a time."""

from __future__ import annotations

from pathlib import Path

import pytest
from judging import evidence, one, with_events

from stormdrill.core.evidence import Evidence
from stormdrill.model import event as ev
from synthetic_run import comparison, objective

DRAINED = objective("recovery", comparison("queue_depth < 50 within 12s", "queue_depth", "<", 50.0, within_s=12.0))


def backlog(found: Evidence, drains_after_s: float) -> Evidence:
    """The same run, had the queue of gateway-us been deep for so long after the revert."""
    revert_ms = next(
        r.mono_ms for r in found.events if isinstance(r.event, ev.PhaseEntered) and r.event.phase == "recovery"
    )
    until_ms = revert_ms + drains_after_s * 1000

    def deep(recorded: ev.Recorded) -> ev.Recorded:
        event = recorded.event
        if not isinstance(event, ev.Reading) or (event.metric, event.instance) != ("queue_depth", "gateway-us"):
            return recorded
        if not revert_ms <= recorded.mono_ms <= until_ms:
            return recorded
        left = 400.0 - (recorded.mono_ms - revert_ms) / 1000
        return ev.Recorded(recorded.seq, recorded.at, recorded.mono_ms, ev.Reading("queue_depth", "gateway-us", left))

    return with_events(found, deep)


def test_the_drain_time_is_the_value_in_seconds_beside_what_was_asked(tmp_path: Path) -> None:
    verdict = one(backlog(evidence(tmp_path), 7.4), DRAINED)
    assert (verdict.verdict, verdict.unit, verdict.limit) == ("PASS", "s", 12.0)
    assert verdict.value == pytest.approx(7.2, abs=0.3)  # the last of the deep readings, which are 1 s apart
    assert "queue_depth < 50 held after 7" in verdict.sentence
    assert "(worst 400" in verdict.sentence


def test_a_queue_that_drains_too_late_fails_by_its_time(tmp_path: Path) -> None:
    verdict = one(backlog(evidence(tmp_path), 15.0), DRAINED)
    assert verdict.verdict == "FAIL"
    assert verdict.value is not None
    assert verdict.value > 12.0


def test_a_queue_that_never_drains_says_so(tmp_path: Path) -> None:
    verdict = one(backlog(evidence(tmp_path), 60.0), DRAINED)
    assert verdict.verdict == "FAIL"
    assert "did not hold at the end" in verdict.sentence


def test_a_queue_that_was_never_deep_took_no_time(tmp_path: Path) -> None:
    verdict = one(evidence(tmp_path), DRAINED)
    assert (verdict.verdict, verdict.value) == ("PASS", 0.0)


def test_without_fresh_readings_to_the_end_it_is_a_doubt_and_a_reason(tmp_path: Path) -> None:
    found = backlog(evidence(tmp_path), 3.0)
    last_ms = max(r.mono_ms for r in found.events if isinstance(r.event, ev.Reading)) - 6_000
    cut = with_events(found, lambda r: None if isinstance(r.event, ev.Reading) and r.mono_ms > last_ms else r)
    verdict = one(cut, DRAINED)
    assert verdict.verdict == "INCONCLUSIVE"
    assert "gave no fresh reading" in verdict.sentence
