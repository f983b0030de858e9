"""A run directory as the review sees it: whatever of it is there. What is missing is said, never invented."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

from stormdrill.core.evidence import RecordFile, requests_of
from stormdrill.core.telling import Ending, Endings
from stormdrill.core.windows import WHOLE, Span, first_inject, phases
from stormdrill.errors import JournalBroken, Refused
from stormdrill.model.event import Armed, Event, Injected, PhaseEntered, Recorded, RunStarted
from stormdrill.model.plan import Plan
from stormdrill.model.verdict import Verdict
from stormdrill.review.series import Requests, tiered
from stormdrill.store.evidence import read_record_files
from stormdrill.store.journal import salvage

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
    records: tuple[RecordFile, ...]
    requests: Requests
    front: Front | None
    """None when the run directory has no runbook."""
    missing: tuple[str, ...]
    """Sentences: what could not be read, and what that means for this review."""
    by_type: dict[type[Event], tuple[Recorded, ...]]
    spans: tuple[Span, ...]
    """The phases as they are judged: fault from when the first is in force, nothing after an abort."""
    inject: Recorded | None
    """The first of the plan's faults in force: the trigger, from which times count."""
    endings: dict[int, Ending] = {}
    """What befell instances that stormdrill did not do, by the event that tells it."""

    @property
    def injects(self) -> bool:
        """False where nothing was to be injected: the load is the trigger, and comes with the fault phase."""
        return self.plan is None or bool(self.plan.injections)

    @property
    def since(self) -> str:
        """What times count from, for a sentence: `From …`."""
        said = {PhaseEntered: "the fault phase's beginning", Injected: "when the first fault was in force"}
        return said.get(type(self.inject.event), "the first inject") if self.inject else "the first inject"

    def all(self, kind: type[_E]) -> tuple[tuple[Recorded, _E], ...]:
        """Events of exactly this type, with their envelopes, as observed."""
        return tuple((row, row.event) for row in self.by_type.get(kind, ()))  # type: ignore[misc]  # sorted by type

    def first(self, kind: type[_E]) -> tuple[Recorded, _E] | None:
        return next(iter(self.all(kind)), None)

    def armed(self, injection: str) -> Armed | None:
        return next((event for _, event in self.all(Armed) if event.injection == injection), None)

    def instance_of(self, injection: str) -> str:
        found = self.armed(injection)
        return found.instance if found else injection.rpartition("/")[2]

    def fault_of(self, injection: str) -> str:
        found = self.armed(injection)
        return found.fault if found else injection.partition("/")[0]

    def mechanism_of(self, injection: str) -> str:
        found = self.armed(injection)
        return found.mechanism if found else ""

    @property
    def started(self) -> RunStarted | None:
        found = self.first(RunStarted)
        return found[1] if found else None


def read(run_dir: Path) -> Source:
    """Raises Refused when the directory holds no journal: without one there is nothing to review."""
    missing: list[str] = []
    events, head = _journal(run_dir / "journal.ndjson", missing)
    plan = _decode(run_dir / "plan.json", Plan, missing, "phases, limits and faults are not shown")
    verdict = _decode(run_dir / "verdict.json", Verdict, missing, "this run has not been judged: stormdrill judge")
    records = read_record_files(run_dir, sorted((run_dir / "load").glob("*.records")), missing.append, {})
    runbook = run_dir / "runbook.md"
    by_type: dict[type[Event], list[Recorded]] = {}
    for recorded in events:
        by_type.setdefault(type(recorded.event), []).append(recorded)
    started = next((row.event.run for row in events if isinstance(row.event, RunStarted)), run_dir.name)
    fold = Endings(plan.system if plan else None)
    seen = [(recorded.seq, fold.see(recorded)) for recorded in events]
    return Source(
        run=verdict.run if verdict and verdict.run else started,
        events=events,
        head=head,
        plan=plan,
        verdict=verdict,
        records=records,
        requests=tiered(requests_of(records).logical),
        front=front_matter(runbook.read_text(encoding="utf-8", errors="replace")) if runbook.is_file() else None,
        missing=tuple(missing),
        by_type={kind: tuple(rows) for kind, rows in by_type.items()},
        spans=tuple(span for name, span in phases(plan, events).items() if name != WHOLE) if plan else (),
        inject=first_inject(plan, events) if plan else None,
        endings={seq: ending for seq, ending in seen if ending is not None},
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
