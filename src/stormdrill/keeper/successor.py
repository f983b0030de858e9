"""What whoever takes a run over says of it: why, and since when what it finds undone has been so."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

CAUSES = {"runner": "keeper-gone", "recover": "recover", "keeper": "abort"}
"""Of its reverts, by who takes over."""


def reason(by: str, status: str) -> str:
    """`status`: how the record says that the run had ended; empty where it says nothing of an end."""
    if by == "runner":
        return "the keeper was killed; the runner took the journal over"
    if by == "keeper":
        return "a defect in the keeper; it ended the run"
    if status:
        return f"recovered; the run had ended {status}"
    return "runner and keeper were both killed; recovered"


class Ended(NamedTuple):
    """When a cause was gone that somebody else had ended."""

    mono_ms: float
    """On the record's own monotonic clock."""
    at: str
    """UTC, as they wrote it down."""
    after_ms: float | None
    """Since the record's own revert had first begun; None where it hadn't."""


def ended_by_others(at: str, called: tuple[float, str] | None, begun: str) -> Ended | None:
    """What somebody else wrote down of its end, `at`, as a moment of the record: as far from the inject call as the
    two clocks say, and never before it. So it holds after this machine was started anew, too. `called`: that call,
    monotonic and UTC; None where there was none. `begun`: when this record's revert first began, UTC. None where
    nobody else did, or a person has written something else there."""
    try:
        ended = datetime.fromisoformat(at)
        if called is None or ended.tzinfo is None:
            return None
        lasted_ms = max(0.0, (ended - datetime.fromisoformat(called[1])).total_seconds() * 1000)
        after_ms = (ended - datetime.fromisoformat(begun)).total_seconds() * 1000 if begun else -1.0
    except (ValueError, TypeError):
        return None
    return Ended(called[0] + lasted_ms, at, round(after_ms, 3) if after_ms >= 0 else None)
