"""Runbooks without an experiment: the executor, and what makes its calls."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stormdrill.engine.runbook import StepReport, Terms
    from stormdrill.engine.runbook_alone import AloneRun, Finding, Means
    from stormdrill.engine.runbook_person import Person
    from stormdrill.errors import Problem

OnStep = Callable[["StepReport"], None]


def run(
    path: Path,
    settings: Mapping[str, str],
    *,
    approved: Collection[str],
    person: Person | None,
    runs_dir: Path,
    on_step: OnStep,
) -> AloneRun:
    """Execute the runbook in `path` and leave its record in `runs_dir`. Raises Refused before anything is touched."""
    from stormdrill.engine.runbook_alone import run_alone

    return run_alone(path, settings, _means(person), runs_dir=runs_dir, terms=_terms(approved, on_step))


def resume(run_dir: Path, *, approved: Collection[str], person: Person | None, on_step: OnStep) -> AloneRun:
    """Go on where the record ends. Raises Refused when there is nothing to go on with."""
    from stormdrill.engine.runbook_alone import resume_alone

    return resume_alone(run_dir, _means(person), terms=_terms(approved, on_step))


def check(path: Path) -> Sequence[Problem]:
    """What would stop it on this machine. Raises Refused with everything that is wrong in the file itself."""
    from stormdrill.engine.runbook_alone import missing_tools
    from stormdrill.spec.runbook import read_runbook

    return missing_tools(read_runbook(path))


def look(path: Path, settings: Mapping[str, str]) -> Sequence[Finding]:
    """Its checks and its decisions' readings on the live system, once, changing nothing. Raises Refused."""
    from stormdrill.engine.runbook_alone import look_live
    from stormdrill.probes.call import Calls
    from stormdrill.spec.runbook import read_runbook
    from stormdrill.spec.runbook_parameters import resolve

    runbook = read_runbook(path)
    return look_live(runbook, resolve(runbook, settings), Calls())


def _means(person: Person | None) -> Means:
    from stormdrill.engine.runbook_alone import Means
    from stormdrill.probes.call import Calls

    return Means(caller=Calls(), person=person)


def _terms(approved: Collection[str], on_step: OnStep) -> Terms:
    from stormdrill.engine.runbook import Terms

    return Terms(approved=frozenset(approved), on_step=on_step)
