"""What the review says of a backlog: how deep, and how long it took to drain."""

from __future__ import annotations

from pathlib import Path

from review_runs import judged, make

from stormdrill.model import event as ev
from stormdrill.review import render
from synthetic_run import change_journal, read_events


def drained(run: Path, after_s: float) -> str:
    """The review of the same run, had gateway-us been behind for so long after the revert."""
    events = read_events(run)
    revert_ms = next(at for at, event in events if isinstance(event, ev.PhaseEntered) and event.phase == "recovery")

    def deep(at_ms: float, event: ev.Event) -> ev.Event:
        ours = isinstance(event, ev.Reading) and (event.metric, event.instance) == ("queue_depth", "gateway-us")
        return (
            ev.Reading("queue_depth", "gateway-us", 212.0)
            if ours and 0 <= at_ms - revert_ms < after_s * 1000
            else event
        )

    change_journal(run, [(at_ms, deep(at_ms, event)) for at_ms, event in events])
    return render(judged(run)).markdown.read_text(encoding="utf-8")


def test_the_deepest_queue_and_its_drain_are_stated_with_where_and_when(tmp_path: Path) -> None:
    text = drained(make(tmp_path / "run"), 7.0)
    assert "| Deepest queue | 212 on gateway-us at " in text
    assert "2 at most in the baseline" in text
    assert "| Queues drained | 6." in text


def test_a_queue_that_is_still_deep_at_the_end_is_not_called_drained(tmp_path: Path) -> None:
    assert "| Queues drained | not by the end" in drained(make(tmp_path / "run"), 90.0)


def test_a_queue_that_was_back_before_the_revert_says_that(tmp_path: Path) -> None:
    assert "| Queues drained | before the revert" in drained(make(tmp_path / "run"), 0.0)
