"""Whether a run directory is what was recorded: the chain, and every file whose hash the journal carries."""

from __future__ import annotations

import hashlib
from pathlib import Path

from stormdrill.errors import JournalBroken, Problem
from stormdrill.model.event import LoadEnded, RecordClosed, Recorded, RunEnded, RunStarted
from stormdrill.store.journal import NAME, Salvage, salvage

ELSEWHERE = "restore the directory from where it was kept; a verdict computed from it proves nothing"


def verify(run_dir: Path, expected_head: str = "") -> list[Problem]:
    """Everything that doesn't hold; empty when the record is whole.

    The chain alone cannot show a change to the journal's last line, nor lines cut from its end after `run-ended`
    was: give the head that was printed when the run ended to have that checked too: its short form, or a prefix of
    at least 8 digits.
    """
    path = run_dir / NAME
    try:
        found = salvage(path)
    except JournalBroken as error:
        return [Problem(str(path), 0, 0, str(error), ELSEWHERE)]
    problems = list(found.problems)
    problems += _end_problems(path, found, expected_head)
    problems += _file_problems(run_dir, found.events)
    return problems


def _end_problems(path: Path, found: Salvage, expected_head: str) -> list[Problem]:
    problems = []
    last = found.seq
    if found.torn:
        problems.append(Problem(str(path), last + 1, 1, "the last line is torn", "stormdrill recover"))
    ended = [recorded.seq for recorded in found.events if isinstance(recorded.event, RunEnded)]
    if not ended:
        problems.append(
            Problem(str(path), 0, 0, "the run isn't ended: it is going on, or both its processes were killed")
        )
    elif ended[-1] != last:
        problems.append(Problem(str(path), last, 1, "lines follow the end of the run", ELSEWHERE))
    if expected_head and not _is_head(expected_head.lower(), found.head):
        problems.append(Problem(str(path), last, 1, f"the head is {found.head}, not {expected_head}", ELSEWHERE))
    return problems


def _is_head(expected: str, head: str) -> bool:
    """A prefix of at least 8 digits, or the short form in which the end of a run shows it."""
    start, dots, end = expected.partition("…")
    if dots:
        return len(start) >= 4 and len(end) >= 2 and head.startswith(start) and head.endswith(end)
    return len(expected) >= 8 and head.startswith(expected)


def _file_problems(run_dir: Path, events: list[Recorded]) -> list[Problem]:
    problems = []
    closed: set[str] = set()
    for recorded in events:
        event = recorded.event
        if isinstance(event, RunStarted):
            for name, digest in event.inputs.items():
                problems += _compare(run_dir, name, digest)
        elif isinstance(event, RecordClosed):
            closed.add(event.file)
            problems += _compare(run_dir, event.file, event.sha256)
    # where the one who would have closed them was killed, records are incomplete, and nobody altered them
    ends = [recorded.event.status for recorded in events if isinstance(recorded.event, RunEnded)]
    cut_short = ends[-1:] != ["completed"] and not any(isinstance(one.event, LoadEnded) for one in events)
    for path in sorted(run_dir.glob("load/*.records")):
        name = str(path.relative_to(run_dir))
        if name not in closed and not cut_short:
            problems.append(Problem(name, 0, 0, "the journal doesn't know this record file, or it was never closed"))
    return problems


def _compare(run_dir: Path, name: str, digest: str) -> list[Problem]:
    if Path(name).is_absolute() or ".." in Path(name).parts:
        return [Problem(name, 0, 0, "the journal names a file outside of the run directory", ELSEWHERE)]
    try:
        with (run_dir / name).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return [Problem(name, 0, 0, f"cannot be read: {error.strerror}", ELSEWHERE)]
    if found != digest:
        return [Problem(name, 0, 0, f"was changed: its SHA-256 is {found}, the journal says {digest}", ELSEWHERE)]
    return []
