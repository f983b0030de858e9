"""How a run ended, for a person and for a program."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from stormdrill.cli import figures
from stormdrill.cli.checks import check_lines, check_objects
from stormdrill.cli.whys import whys
from stormdrill.core import telling
from stormdrill.errors import Problem
from stormdrill.model.units import DURATION, parse_duration
from stormdrill.model.verdict import ObjectiveVerdict, Verdict

SPLIT = re.compile(r"(?P<subject>(?:[^{<>=]|\{[^}]*\})*?)\s*(?P<asked>(?:<=|>=|<|>|=|\bwithin\b).*)")
WITHIN = re.compile(rf" within (?P<by>{DURATION.pattern})$")
UNIT = re.compile(r"(\d)(ms|s|m|h)\b")
EXACT = {"jobs_lost": "jobs lost", "jobs_doubled": "jobs doubled", "jobs_strayed": "jobs strayed"}
EXIT_DIRTY = 5


class Ended(Protocol):
    """What this module needs of a run that ended; `api.RunResult` has it."""

    @property
    def run(self) -> str: ...
    @property
    def dir(self) -> Path: ...
    @property
    def verdict(self) -> Verdict: ...
    @property
    def exit_code(self) -> int: ...
    @property
    def head(self) -> str: ...
    @property
    def note(self) -> str: ...
    @property
    def problems(self) -> Sequence[Problem]: ...


def table_lines(verdict: Verdict, width: int = 100) -> list[str]:
    """The objectives: asked and measured side by side, figures right-aligned, the ones that didn't hold named."""
    head = ("", "", "", "asked", "measured", "95% interval", "n")
    rows = [head, *(_row(one) for one in verdict.objectives)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = []
    for row in rows:
        cells = [f"{row[0]:<{max(4, widths[0])}}", f"{row[1]:<{widths[1]}}", f"{row[2]:<{widths[2]}}"]
        cells += [f"{text:>{size}}" for text, size in zip(row[3:], widths[3:], strict=True)]
        lines.append(f"  {'  '.join(cells)}".rstrip())
    if max(len(line) for line in lines) <= width:
        return lines
    return _stacked(verdict)


def _row(one: ObjectiveVerdict) -> tuple[str, ...]:
    subject, asked = _asked(one)
    word = "" if one.verdict == "PASS" else one.verdict
    return (
        word,
        subject,
        telling.phase(one.phase),
        asked,
        f"{'after ' if _held_from(one) else ''}{figures.measured(one.value, _unit(one))}",
        figures.interval(one.low, one.high, _unit(one)),
        figures.count(one.n) if one.n else "",
    )


def _stacked(verdict: Verdict) -> list[str]:
    """For a narrow terminal: an objective a block."""
    lines = []
    for one in verdict.objectives:
        word, subject, phase, asked, measured, interval, n = _row(one)
        lines.append(f"  {word or 'PASS':<5} {subject}, {phase}")
        lines.append(f"        asked {asked}, measured {measured} {interval}{f', n {n}' if n else ''}".rstrip())
    return lines


def _asked(one: ObjectiveVerdict) -> tuple[str, str]:
    match = SPLIT.fullmatch(one.name)
    if match is None:
        return one.name, ""
    subject, asked = match["subject"], UNIT.sub(r"\1 \2", match["asked"])
    if asked.startswith("within"):
        return subject, f"< {asked.removeprefix('within').strip()}"
    return EXACT.get(subject, subject), asked.removeprefix("= ") if subject in EXACT else asked


def _held_from(one: ObjectiveVerdict) -> bool:
    """Whether what was measured is the time from which on it held, and no reading: the drain of a queue."""
    within = WITHIN.search(one.name)
    by_time = within is not None and one.unit == "s" and one.limit == parse_duration(within["by"])
    return by_time and bool(one.value) and not one.name.startswith("alert(")


def _unit(one: ObjectiveVerdict) -> str:
    return one.unit or ("s" if one.name.startswith("alert(") else "")


def verdict_lines(verdict: Verdict, width: int = 100) -> list[str]:
    """The verdict and its one sentence first, then the table, then why."""
    word = verdict.verdict if verdict.status == "completed" else f"{verdict.verdict} ({verdict.status})"
    lines = textwrap.wrap(verdict.sentence, width, initial_indent=f"  {word:<6} ", subsequent_indent=" " * 9)
    lines = lines or [f"  {word}"]
    if verdict.objectives:
        lines += ["", *table_lines(verdict, width)]
    if verdict.backpressure:
        lines += ["", *check_lines(verdict.backpressure, width)]
    felt = dict.fromkeys((one.name, one.users) for one in verdict.faults if one.users)
    if felt:
        lines.append("")
    for name, users in felt:
        text = f"{name}: {users}" if len(felt) > 1 else users
        lines += textwrap.wrap(text, width, initial_indent="  users    ", subsequent_indent=" " * 11)
    reasons = whys(verdict)
    if reasons:
        lines.append("")
    for why in reasons:
        lines += textwrap.wrap(why, width, initial_indent="         - ", subsequent_indent=" " * 11)
    return lines


def closing_lines(ended: Ended, width: int = 100) -> list[str]:
    """The verdict, where the review and the record are, and what to do next. The last thing that a run prints. What was
    refused while it was set up came to nothing that could be judged."""
    if ended.problems and ended.exit_code != EXIT_DIRTY:
        lines = ["", *(f"  refused  {problem}" for problem in ended.problems)]
        return [*lines, "", "  Nothing was injected, and what had been set up is taken away.", _record(ended)]
    review = "review.html" if (ended.dir / "review.html").exists() else "review.md"
    lines = ["", *verdict_lines(ended.verdict, width), ""]
    if (ended.dir / review).exists():
        lines.append(f"  review   {near(ended.dir / review)}")
    if ended.note:
        lines.append(f"  review   none: {ended.note}")
    lines.append(_record(ended))
    if ended.exit_code == EXIT_DIRTY:
        lines += ["", *dirty_lines(ended)]
    return lines


def _record(ended: Ended) -> str:
    head = f"   head {ended.head[:4]}…{ended.head[-2:]}" if ended.head else ""
    return f"  record   {near(ended.dir)}{head}   stormdrill verify {ended.run}"


def dirty_lines(ended: Ended) -> list[str]:
    """What could not be shown to be reverted, where it is, and how to mend it."""
    left = [one for one in ended.verdict.faults if not one.reverted]
    lines = [f"  DIRTY    {one.name} on {one.target}: {one.detail}" for one in left]
    return [*lines, f"  mend     stormdrill recover {ended.run}"]


def result_object(ended: Ended) -> dict[str, object]:
    """What `--json` prints: the contract's keys, and no others; `problems` where it was refused while it was set up."""
    verdict = ended.verdict
    load, runbook = verdict.load, verdict.runbook
    return {
        "run": ended.run,
        "dir": str(ended.dir),
        "status": verdict.status,
        "verdict": verdict.verdict,
        "objectives": [
            {
                "name": one.name,
                "phase": one.phase,
                "verdict": one.verdict,
                "value": one.value,
                "low": one.low,
                "high": one.high,
                "limit": one.limit,
                "n": one.n,
            }
            for one in verdict.objectives
        ],
        "backpressure": check_objects(verdict.backpressure),
        "faults": [
            {
                "name": one.name,
                "target": one.target,
                "effect_ms": one.effect_ms,
                "reverted": one.reverted,
                "revert_ms": one.revert_ms,
            }
            for one in verdict.faults
        ],
        "load": None
        if load is None
        else {
            "scheduled": load.scheduled,
            "sent": load.sent,
            "dropped": load.dropped,
            "lag_p99_ms": load.lag_p99_ms,
        },
        "runbook": None
        if runbook is None
        else {
            "name": runbook.name,
            "verdict": runbook.verdict,
            "steps": [{"step": one.step, "kind": one.kind, "outcome": one.outcome} for one in runbook.steps],
        },
        "review": {"markdown": _if_there(ended.dir / "review.md"), "html": _if_there(ended.dir / "review.html")},
        **({"problems": [problem._asdict() for problem in ended.problems]} if ended.problems else {}),
    }


def refusal_object(problems: Sequence[Problem]) -> dict[str, object]:
    """The same keys for a run that was refused or broke off, and `problems`: stdout always holds one object."""
    return {
        "run": None,
        "dir": None,
        "status": "failed",
        "verdict": None,
        "objectives": [],
        "backpressure": [],
        "faults": [],
        "load": None,
        "runbook": None,
        "review": None,
        "problems": [problem._asdict() for problem in problems],
    }


def _if_there(place: Path) -> str | None:
    return str(place) if place.exists() else None


def near(place: Path) -> str:
    """The path as short as it can be written from here."""
    relative = os.path.relpath(place)
    return str(place) if relative.startswith("..") else relative
