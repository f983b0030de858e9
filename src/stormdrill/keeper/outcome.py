"""How one undo came out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

DONE, FAILED, SUPERSEDED = "done", "failed", "superseded"


class Outcome(NamedTuple):
    word: str
    """done, failed or superseded."""
    detail: str
    seen: str = ""
    """Who saw that the cause is gone, when somebody other than the answer to the call did."""
    at: str = ""
    """UTC, where somebody else had done it before, and wrote down when."""
    by: str = ""
    """Who that was: its clock told `at`."""


def combine(outcomes: Iterable[Outcome]) -> Outcome:
    """The outcome of one injection's whole undo: failed if any part failed, superseded if all were, seen if all are."""
    parts = list(outcomes)
    words = {part.word for part in parts}
    word = FAILED if FAILED in words else SUPERSEDED if words == {SUPERSEDED} else DONE
    seen = ", ".join(dict.fromkeys(part.seen for part in parts)) if all(part.seen for part in parts) else ""
    last = max(parts, key=lambda part: part.at) if parts and all(part.at for part in parts) else None
    at, by = (last.at, last.by) if last else ("", "")
    return Outcome(word, "; ".join(dict.fromkeys(part.detail for part in parts)) or "nothing to undo", seen, at, by)


def disbelieved(outcome: Outcome, moot: str) -> Outcome:
    """The outcome of an undo after which a look saw the cause still there, where nobody will look again: its own answer
    proves nothing any more. `moot`: why nothing is left to undo once the run's own things are ended."""
    if moot or outcome.seen or outcome.word == FAILED:
        return outcome
    return Outcome(FAILED, f"{outcome.detail}; it was still there after such an undo, and nobody has looked since")
