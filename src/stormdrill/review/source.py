"""A run directory as the review sees it: whatever of it is there. What is missing is said, never invented."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np

from stormdrill.core.evidence import Kind, RecordFile, requests_of
from stormdrill.errors import JournalBroken, Refused
from stormdrill.model.event import Event, PhaseEntered, Recorded, RunStarted
from stormdrill.model.plan import Plan
from stormdrill.model.verdict import Verdict
from stormdrill.review.series import Requests, tiered
from stormdrill.store.journal import salvage
from stormdrill.store.records import DTYPE, FORMAT, RECORD

_T = TypeVar("_T")
_E = TypeVar("_E", bound=Event)
_TOLD = 5


class Front(msgspec.Struct, frozen=True):
    """What the runbook's front matter says of itself; empty where it doesn't."""

    title: str = ""
    owner: str = ""
    severity: str = ""
    escalation: str = ""
    exit: str = ""


class Source(msgspec.Struct, frozen=True):
    run: str
    events: tuple[Recorded, ...]
    """Ordered by when they were observed; ties by sequence number."""
    head: str
    """SHA-256 of the journal's last whole line."""
    plan: Plan | None
    verdict: Verdict | None
    requests: Requests
    front: Front | None
    """None when the run directory has no runbook."""
    missing: tuple[str, ...]
    """Sentences: what could not be read, and what that means for this review."""

    def all(self, kind: type[_E]) -> tuple[tuple[Recorded, _E], ...]:
        return tuple((recorded, recorded.event) for recorded in self.events if isinstance(recorded.event, kind))

    def first(self, kind: type[_E]) -> tuple[Recorded, _E] | None:
        return next(iter(self.all(kind)), None)

    @property
    def started(self) -> RunStarted | None:
        found = self.first(RunStarted)
        return found[1] if found else None

    @property
    def phases(self) -> tuple[tuple[str, float, float, int], ...]:
        """Name, start and end in monotonic ms, and the event's number; the last phase of a cut run ends with it."""
        entered = self.all(PhaseEntered)
        last = max((recorded.mono_ms for recorded in self.events), default=0.0)
        ends = [recorded.mono_ms for recorded, _ in entered[1:]] + [last]
        return tuple(
            (event.phase, recorded.mono_ms, max(end, recorded.mono_ms), recorded.seq)
            for (recorded, event), end in zip(entered, ends, strict=True)
            if event.phase != "end"
        )


def read(run_dir: Path) -> Source:
    """Raises Refused when the directory holds no journal: without one there is nothing to review."""
    missing: list[str] = []
    events, head = _journal(run_dir / "journal.ndjson", missing)
    plan = _decode(run_dir / "plan.json", Plan, missing, "what was planned is not shown")
    verdict = _decode(run_dir / "verdict.json", Verdict, missing, "this run has not been judged: stormdrill judge")
    runbook = run_dir / "runbook.md"
    return Source(
        run=verdict.run
        if verdict
        else next((e.event.run for e in events if isinstance(e.event, RunStarted)), run_dir.name),
        events=events,
        head=head,
        plan=plan,
        verdict=verdict,
        requests=_records(run_dir, missing),
        front=front_matter(runbook.read_text(encoding="utf-8", errors="replace")) if runbook.is_file() else None,
        missing=tuple(missing),
    )


def _decode(path: Path, kind: type[_T], missing: list[str], without: str) -> _T | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        missing.append(f"{path.name} is not in the run directory: {without}.")
    except (msgspec.DecodeError, OSError) as error:
        missing.append(f"{path.name} cannot be read ({error}): {without}.")
    return None


def _journal(path: Path, missing: list[str]) -> tuple[tuple[Recorded, ...], str]:
    try:
        found = salvage(path)
    except JournalBroken as error:
        raise Refused(f"{error}; a review needs a run directory with its journal") from error
    if found.torn:
        missing.append(f"The journal ends in a torn line of {len(found.torn)} bytes, which is left out.")
    missing += [f"Journal line {problem.line}: {problem.what}." for problem in found.problems[:_TOLD]]
    if len(found.problems) > _TOLD:
        missing.append(f"{len(found.problems) - _TOLD} more problems in the journal: stormdrill verify lists them.")
    return tuple(sorted(found.events, key=lambda recorded: (recorded.mono_ms, recorded.seq))), found.head


def _records(run_dir: Path, missing: list[str]) -> Requests:
    files = []
    for path in sorted((run_dir / "load").glob("*.records")):
        try:
            with path.open("rb") as file:
                header = json.loads(file.readline())
                body = file.read()
            if header["format"] != FORMAT:
                raise ValueError(f"format {header['format']!r}, not {FORMAT!r}")
            rows = np.frombuffer(body[: len(body) // RECORD.size * RECORD.size], dtype=DTYPE)
            kinds = tuple(Kind(entry["labels"], float(entry["deadline_ms"])) for entry in header["labels"])
            files.append(RecordFile(f"load/{path.name}", header["boot_id"], header["epoch_mono_ns"], kinds, rows))
        except (OSError, ValueError, KeyError, TypeError) as error:
            missing.append(f"load/{path.name} cannot be read ({error}) and is left out.")
    return tiered(requests_of(files))


def front_matter(markdown: str) -> Front:
    """The front matter's plain entries. It was checked when the run was planned; what isn't text is left empty."""
    found: dict[str, str] = {}
    lines = markdown.splitlines()
    start = 1 if lines and lines[0].strip() == "---" else 0
    for line in lines[start:]:
        if line.strip() == "---":
            return Front(**{key: value for key, value in found.items() if key in Front.__struct_fields__})
        key, colon, value = line.partition(":")
        if colon and key.isidentifier():
            found[key] = value.strip().strip("\"'")
    return Front()
