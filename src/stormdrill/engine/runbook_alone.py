"""A runbook in a person's hands: run alone on a live system, with a record; gone on with after a crash; looked at."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from msgspec import Struct

from stormdrill import __version__
from stormdrill.engine.runbook import RunbookExecutor, RunbookOutcome, StepReport, Terms
from stormdrill.engine.runbook_calls import accepted, captured, look, ready
from stormdrill.engine.runbook_person import Person, Question
from stormdrill.engine.runbook_progress import Progress, progress_of
from stormdrill.engine.runbook_record import RunbookRecord
from stormdrill.errors import Problem, Refused
from stormdrill.model.event import RunStarted
from stormdrill.model.runbook import Runbook, Step
from stormdrill.ports import Caller, Sight
from stormdrill.redact import MASK
from stormdrill.spec.runbook import parse_runbook, read_runbook
from stormdrill.spec.runbook_body import Content, Program, read_body
from stormdrill.spec.runbook_parameters import resolve, typed
from stormdrill.spec.runbook_path import Missing
from stormdrill.spec.runbook_template import UnrenderableError
from stormdrill.store import journal, rundir
from stormdrill.store.identity import boot_id, own_identity

FILE = "runbook.md"
TARGET = "alone"
"""What `run-started` says instead of a target, in the record of a runbook without an experiment."""
EXIT_WITHIN_S = 900.0
LIVE_LIMIT_S = 5.0
_STATUS = {"done": "completed", "cancelled": "aborted"}


class AloneRun(Struct, frozen=True):
    """What running a runbook alone left."""

    outcome: str
    """done, failed, cancelled"""
    detail: str
    dir: Path
    head: str
    """Hash of the journal's last line."""
    steps: tuple[StepReport, ...]
    standing: tuple[str, ...]
    """Actions that still stand although the runbook did not end well: `runbook/<step>`."""


class Means(Struct, frozen=True):
    """What a runbook alone works with."""

    caller: Caller
    sight: Sight | None = None
    """None: the person is asked what their dashboard shows."""
    person: Person | None = None
    """None: unattended."""
    system: dict[str, str] = {}
    """`admin` and the like, for parameters with `from: system.…`."""


def run_alone(
    path: Path, settings: Mapping[str, str], means: Means, *, runs_dir: Path, terms: Terms | None = None
) -> AloneRun:
    """Run the runbook in `path` and leave its record in `runs_dir`. Raises Refused before anything is touched."""
    runbook = read_runbook(path)
    parameters = resolve(runbook, settings, system=means.system)
    terms = terms or Terms()
    unknown = sorted(terms.approved - {step.id for step in runbook.steps if step.approvals})
    if unknown:
        raise Refused(f"{', '.join(unknown)}: no step of {runbook.name} that needs an approval")
    run_dir = rundir.create(runs_dir, runbook.name)
    shutil.copyfile(path, run_dir / FILE)
    record = RunbookRecord.create(run_dir, terms.redactor)
    record.record(_run_started(runbook, run_dir, settings))
    return _carry_out(runbook, parameters, means, terms, record, run_dir, None)


def resume_alone(run_dir: Path, means: Means, *, terms: Terms | None = None, document: Path | None = None) -> AloneRun:
    """Go on where `run_dir` stopped: by run, step id and digest. Raises Refused when there is nothing to go on with.

    `document`: the runbook as it is kept now; refused when it changed since the run began.
    """
    terms = terms or Terms()
    events = [recorded.event for recorded in journal.salvage(run_dir / journal.NAME).events]
    progress = progress_of(events)
    started = next((event for event in events if isinstance(event, RunStarted)), None)
    if progress.started is None or started is None:
        raise Refused(f"{run_dir} holds no runbook that was started; nothing can be gone on with")
    if started.target != TARGET:
        raise Refused(f"{run_dir.name} is an experiment: its runbook ended with it, and what it did was undone")
    if progress.finished is not None and progress.finished.outcome == "done":
        raise Refused(f"{run_dir.name} was carried out to its end; start it anew with stormdrill runbook run")
    if progress.undone:
        steps = ", ".join(name.partition("/")[2] for name in progress.undone)
        raise Refused(f"{run_dir.name}: {steps} was undone meanwhile; start the runbook anew")
    runbook = _unchanged(run_dir, progress, document)
    masked = [name for name, value in progress.started.parameters.items() if MASK in value]
    if masked:
        raise Refused(f"{', '.join(masked)}: a secret that the record doesn't hold; start the runbook anew")
    record = RunbookRecord.resume(run_dir, terms.redactor, {name: progress.undos[name] for name in progress.armed})
    terms = replace(terms, trigger="resumed")
    return _carry_out(runbook, dict(progress.started.parameters), means, terms, record, run_dir, progress)


def _unchanged(run_dir: Path, progress: Progress, document: Path | None) -> Runbook:
    assert progress.started is not None
    name = f"{progress.started.runbook}.md"
    runbook = parse_runbook(name, (run_dir / FILE).read_text(encoding="utf-8"))
    if runbook.digest != progress.started.digest:
        raise Refused(f"{run_dir / FILE} is not what was started; restore it, or start the runbook anew")
    if document is not None and read_runbook(document).digest != runbook.digest:
        raise Refused(
            f"{document} has changed since {run_dir.name} began; go on with the copy in that directory, "
            "or start the runbook anew"
        )
    return runbook


def _run_started(runbook: Runbook, run_dir: Path, settings: Mapping[str, str]) -> RunStarted:
    own = own_identity()
    return RunStarted(
        run=run_dir.name,
        version=__version__,
        boot_id=boot_id(),
        title=runbook.title,
        experiment="",
        system=runbook.service,
        target=TARGET,
        seed=0,
        fast=False,
        settings=dict(settings),
        inputs={FILE: hashlib.sha256((run_dir / FILE).read_bytes()).hexdigest()},
        runner_pid=own.pid,
        runner_start_ticks=own.start_ticks,
        cores=len(os.sched_getaffinity(0)),
        kernel=platform.release(),
    )


def _carry_out(
    runbook: Runbook,
    parameters: Mapping[str, str],
    means: Means,
    terms: Terms,
    record: RunbookRecord,
    run_dir: Path,
    progress: Progress | None,
) -> AloneRun:
    if terms.exit_within_s is None:
        terms = replace(terms, exit_within_s=EXIT_WITHIN_S)
    executor = RunbookExecutor(
        runbook,
        parameters,
        keeper=record,
        caller=means.caller,
        sight=means.sight,
        person=means.person,
        terms=terms,
        progress=progress,
    )
    outcome = _until_ended(executor)
    if outcome.outcome == "done":
        for injection in record.armed:
            record.disarm(injection)
    else:
        _keep_or_undo(executor, means.person, outcome)
    head = record.close(_STATUS.get(outcome.outcome, "failed"), outcome.detail)
    if executor.defect is not None:
        raise executor.defect
    return AloneRun(outcome.outcome, outcome.detail, run_dir, head, outcome.steps, record.armed)


def _until_ended(executor: RunbookExecutor) -> RunbookOutcome:
    """In a thread, so that Ctrl-C cancels it after the call that is under way instead of tearing that call apart."""
    executor.start()
    while True:
        try:
            if executor.join(0.2):
                assert executor.outcome is not None
                return executor.outcome
        except KeyboardInterrupt:
            executor.cancel()


def _keep_or_undo(executor: RunbookExecutor, person: Person | None, outcome: RunbookOutcome) -> None:
    if not executor.armed or person is None or outcome.record_lost:
        return
    steps = ", ".join(name.partition("/")[2] for name in executor.armed)
    text = f"The runbook ended as {outcome.outcome}. Still standing: {steps}. Keep it as it is, or undo it in reverse?"
    question = Question("undo", executor.runbook.name, text, ("keep", "undo"))
    if executor.ask_afterwards(question) == "undo":
        executor.undo_all("person")


# --- looking without doing -------------------------------------------------------------------------------


class Finding(Struct, frozen=True):
    """One precondition, or one read-only look at the live system."""

    step: str
    ok: bool
    detail: str


def missing_tools(runbook: Runbook, which: Callable[[str], str | None] = shutil.which) -> list[Problem]:
    """Programs that its steps run and that are not on this machine."""
    found: dict[str, Problem] = {}
    blocks: list[tuple[str, str, int]] = [(step.kind, step.body, step.line) for step in runbook.steps]
    blocks += [("undo", undo.body, undo.line) for undo in runbook.undos]
    for kind, body, line in blocks:
        content = read_body(kind, body)[0]
        sources = [*content.requests, *(seen.source for seen in (*content.verifies, *content.waits))]
        sources += [one.source for one in (*content.captures, *content.readings) if one.source is not None]
        for source in sources:
            if isinstance(source, Program) and which(source.argv[0]) is None and source.argv[0] not in found:
                what = f"the program {source.argv[0]} is not on this machine"
                found[source.argv[0]] = Problem(f"{runbook.name}.md", line + source.line, 1, what, "install it first")
    return list(found.values())


def look_live(runbook: Runbook, parameters: Mapping[str, str], caller: Caller) -> list[Finding]:
    """Every check and every decision's readings, looked at once on the live system. Changes nothing."""
    context: dict[str, object] = {**typed(runbook.parameters, parameters), "captured": {}}
    found: list[Finding] = []
    for step in runbook.steps:
        if step.kind in {"check", "decision"}:
            try:
                found.append(_look(step, read_body(step.kind, step.body)[0], context, caller))
            except UnrenderableError as error:
                found.append(Finding(step.id, False, f"cannot be looked at beforehand: {error}"))
    return found


def _look(step: Step, content: Content, context: Mapping[str, object], caller: Caller) -> Finding:
    limit_s = min(step.timeout_s, LIVE_LIMIT_S)
    if step.kind == "check":
        asked = ready(content.requests[0], context)
        held, detail = accepted(asked, look(caller, asked, limit_s), content.expects, context)
        return Finding(step.id, held, detail)
    seen: list[str] = []
    for reading in content.readings:
        value, text = captured(caller, reading, None, context, limit_s)
        if isinstance(value, Missing):
            return Finding(step.id, False, f"{reading.name}: {value.detail}")
        seen.append(f"{reading.name} = {text}")
    return Finding(step.id, True, ", ".join(seen))
