"""What whoever takes a run over says of it: why, and since when what it finds undone has been so."""

from __future__ import annotations

from datetime import datetime

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


def seen_after_ms(since: str, at: str, otherwise: float) -> float:
    """From when the revert had first begun (the record had ended, where nobody had begun) to when somebody else wrote
    down that it was done, by the clocks of both; `otherwise` where nobody else did. Both are UTC."""
    try:
        took = datetime.fromisoformat(at) - datetime.fromisoformat(since)
    except ValueError:  # nobody did, or a person has written something else there
        return otherwise
    return round(max(0.0, took.total_seconds() * 1000), 3)
