"""The executor: carries one runbook out, step by step, everything written down before it is done.

Runs in a thread of its own beside the conductor (`start`), or in the caller's (`run`). It never decides when a runbook
starts, and never undoes unasked but for `on_failure=rollback`: the conductor, or a person, calls `undo_all`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from msgspec import Struct

from stormdrill.engine.runbook_action import redo_unknown, run_action
from stormdrill.engine.runbook_hands import LOOK_LIMIT_S, HaltedError, Hands, RecordLostError, Result
from stormdrill.engine.runbook_person import Person, Question
from stormdrill.engine.runbook_progress import (
    EXIT,
    GOOD,
    Progress,
    following,
    next_step,
    step_of,
    surely_not_done,
)
from stormdrill.engine.runbook_steps import Runner, run_check, run_decision, run_manual, run_wait, wait_for
from stormdrill.errors import StormdrillError
from stormdrill.model.event import RunbookFinished, RunbookStarted, StepFinished
from stormdrill.model.runbook import Runbook, Step
from stormdrill.ports import Caller, Keeper, Sight
from stormdrill.redact import Redactor
from stormdrill.spec.runbook_body import ENDINGS, Content, read_body
from stormdrill.spec.runbook_parameters import typed
from stormdrill.spec.runbook_template import UnrenderableError

RETRY_AFTER_S = 1.0
GRACE_S = 2.0
"""Beyond a call's own limit, for what is written around it."""
_RUNNERS: dict[str, Runner] = {
    "check": run_check,
    "action": run_action,
    "decision": run_decision,
    "wait-until": run_wait,
    "manual": run_manual,
}


class StepReport(Struct, frozen=True):
    """One finished attempt, as the record has it."""

    step: str
    kind: str
    outcome: str
    detail: str
    took_ms: float


class RunbookOutcome(Struct, frozen=True):
    outcome: str
    """done, failed, cancelled"""
    detail: str
    steps: tuple[StepReport, ...]
    took_ms: float
    record_lost: bool = False
    """True: it stopped because the journal could not be written."""


@dataclass(frozen=True, slots=True)
class Terms:
    """Under which conditions a runbook is carried out."""

    trigger: str = "by hand"
    approved: frozenset[str] = frozenset()
    """Steps whose approval was given beforehand."""
    deadline_s: float | None = None
    """A point on `clock` at which it is cancelled; None: none."""
    undo_until_s: float | None = None
    """A point on `clock` at which the keeper undoes its actions by itself; None: an hour after each."""
    exit_within_s: float | None = None
    """How long the exit criterion is waited for after the last step; None: it isn't (the objectives judge it)."""
    approval_expires_s: float = 900.0
    redactor: Redactor = field(default_factory=Redactor)
    on_step: Callable[[StepReport], None] = lambda report: None
    """Called in the executor's thread after each attempt."""
    clock: Callable[[], float] = time.monotonic


class RunbookExecutor:
    """One run of one runbook. `parameters` are resolved (`spec.runbook_parameters.resolve`)."""

    def __init__(
        self,
        runbook: Runbook,
        parameters: Mapping[str, str],
        *,
        keeper: Keeper,
        caller: Caller,
        sight: Sight | None = None,
        person: Person | None = None,
        terms: Terms | None = None,
        progress: Progress | None = None,
    ) -> None:
        """`sight` None: only a person can say whether an expression holds. `person` None: unattended.

        `progress`: go on from there.
        """
        self.runbook = runbook
        self.terms = terms or Terms()
        self._parameters = dict(parameters)
        self._progress = progress
        self._contents: dict[str, Content] = {step.id: read_body(step.kind, step.body)[0] for step in runbook.steps}
        self._hands = Hands(
            runbook=runbook,
            keeper=keeper,
            caller=caller,
            sight=sight,
            person=person,
            parameters=typed(runbook.parameters, parameters),
            approved=self.terms.approved,
            deadline_s=self.terms.deadline_s,
            undo_until_s=self.terms.undo_until_s,
            approval_expires_s=self.terms.approval_expires_s,
            redactor=self.terms.redactor,
            clock=self.terms.clock,
        )
        self._visits: dict[str, int] = {}
        if progress is not None:
            self._visits = dict(progress.visits)
            self._hands.captured.update(progress.captured)
            self._hands.armed.extend(progress.armed)
            self._hands.undos.update(progress.undos)
        self.defect: Exception | None = None
        """What broke in stormdrill itself, when the outcome says so."""
        self._reports: list[StepReport] = []
        self._thread: threading.Thread | None = None
        self._outcome: RunbookOutcome | None = None
        self._at = ""
        self._running = False
        self._ended = threading.Event()

    # --- from other threads ------------------------------------------------------------------------------

    def start(self) -> None:
        """Run in a thread of its own."""
        self._running = True
        self._thread = threading.Thread(target=self.run, name=f"runbook-{self.runbook.name}", daemon=True)
        self._thread.start()

    def join(self, timeout_s: float) -> bool:
        """True when it has ended."""
        if self._thread is not None:
            self._thread.join(timeout_s)
        return self._outcome is not None

    def cancel(self) -> None:
        """Ends after the call that is under way, at the latest at that call's own limit."""
        self._hands.cancelled.set()

    @property
    def outcome(self) -> RunbookOutcome | None:
        """None while it runs."""
        return self._outcome

    @property
    def reports(self) -> tuple[StepReport, ...]:
        return tuple(self._reports)

    @property
    def at(self) -> str:
        """The step that is under way; empty before the first and after the last."""
        return self._at

    @property
    def armed(self) -> tuple[str, ...]:
        """What `undo_all` would undo, oldest first."""
        return tuple(self._hands.armed)

    def undo_all(self, cause: str) -> list[tuple[str, str]]:
        """Undo this runbook's actions, the last one first; (injection, outcome) each.

        While it runs it is cancelled, and the call that is under way is waited for: an undo that overtakes its action
        would leave the action standing. An undo that fails doesn't keep the others from being tried.
        """
        if self._outcome is None:
            self.cancel()
        if self._running:
            steps = [step.timeout_s for step in self.runbook.steps if step.kind in {"check", "action", "decision"}]
            self._ended.wait(max([*steps, LOOK_LIMIT_S]) + GRACE_S)
        return self._undo_armed(cause)

    def _undo_armed(self, cause: str) -> list[tuple[str, str]]:
        results: list[tuple[str, str]] = []
        for name in reversed(self._hands.armed):
            try:
                results.append((name, self._hands.keeper.revert(name, cause)))
            except (StormdrillError, OSError) as error:
                results.append((name, f"failed: {error}"))
        failed = [name for name, outcome in results if outcome.startswith("failed")]
        self._hands.armed[:] = [name for name in self._hands.armed if name in failed]
        return results

    def ask_afterwards(self, question: Question, timeout_s: float = 300.0) -> str | None:
        """A person's answer after the end; None without a person or an answer."""
        person = self._hands.person
        answer = person.ask(question, timeout_s, threading.Event()) if person is not None else None
        return answer if answer in question.choices else None

    # --- running -----------------------------------------------------------------------------------------

    def run(self) -> RunbookOutcome:
        """Carry it out in this thread. Never raises for what the world does; the outcome says it."""
        self._running = True
        began = self._hands.clock()
        lost = False
        try:
            self._announce()
            outcome, detail = self._flow()
            if outcome == "done" and self.terms.exit_within_s is not None:
                outcome, detail = self._exit(self.terms.exit_within_s)
        except RecordLostError as error:
            outcome, detail, lost = (
                "failed",
                f"the record cannot be written, so nothing more is executed: {error}",
                True,
            )
        except Exception as error:  # the outcome must be set, or the conductor would wait for ever
            self.defect = error
            outcome, detail = "failed", f"a defect of stormdrill: {error!r}"
        self._at = ""
        took_ms = (self._hands.clock() - began) * 1000
        if not lost:
            try:
                self._hands.record(RunbookFinished(self.runbook.name, outcome, self._clean(detail), took_ms))
            except RecordLostError as error:
                lost, detail = True, f"{detail}; its end could not be written: {error}"
        self._outcome = RunbookOutcome(outcome, detail, tuple(self._reports), took_ms, lost)
        self._running = False
        self._ended.set()
        return self._outcome

    def _announce(self) -> None:
        shown = {name: self._clean(value) for name, value in self._parameters.items()}
        attended = self._hands.person is not None
        self._hands.record(RunbookStarted(self.runbook.name, self.runbook.digest, self.terms.trigger, shown, attended))

    def _clean(self, text: str) -> str:
        return self._hands.redactor.text(text)

    def _flow(self) -> tuple[str, str]:
        id = next_step(self.runbook, self._progress) if self._progress else self.runbook.steps[0].id
        resumed = self._progress.open if self._progress else None
        while id not in ENDINGS:
            step = step_of(self.runbook, id)
            self._at = id
            unknown = resumed is not None and resumed.step == id
            fresh = self._progress is None or surely_not_done(step, self._progress)
            self._hands.kept = set(resumed.captured) if unknown and resumed and not fresh else set()
            if not unknown:
                self._visits[id] = self._visits.get(id, 0) + 1
            if step.at_most and self._visits[id] > step.at_most:
                return "failed", f"{id} ran {step.at_most} times, which is as often as it may"
            first = resumed.attempt + 1 if unknown and resumed else 1
            result = self._attempts(step, first, unknown=unknown)
            resumed = None
            if result.outcome == "cancelled":
                return "cancelled", f"{id}: {result.detail}"
            id = self._next(step, result)
            if id == "stop":
                return "failed", f"{step.id}: {result.detail}"
        return ("done", "") if id == "done" else ("failed", "it ended with stop")

    def _next(self, step: Step, result: Result) -> str:
        if result.goes_to:
            return result.goes_to
        if result.outcome in GOOD:
            return following(self.runbook, step.id)
        if step.on_failure == "rollback":
            self._undo_armed("rollback")
        return "stop"

    def _attempts(self, step: Step, first: int, *, unknown: bool) -> Result:
        """The step with its repetitions; each attempt is written down."""
        last = first + step.retry
        for attempt in range(first, last + 1):
            result = self._attempt(step, attempt, unknown=unknown and attempt == first, last=attempt == last)
            if result.outcome in {*GOOD, "cancelled"} or attempt == last:
                return result
            try:
                self._hands.pause(RETRY_AFTER_S)
            except HaltedError as error:
                return Result("cancelled", str(error))
        raise AssertionError("there is always a last attempt")

    def _attempt(self, step: Step, attempt: int, *, unknown: bool, last: bool) -> Result:
        began = self._hands.clock()
        self._hands.begun = False
        try:
            result = self._execute(step, attempt, unknown=unknown)
        except HaltedError as error:
            result = Result("cancelled", str(error))
        except UnrenderableError as error:
            result = Result("failed", f"{error}; nothing was done")
        if result.outcome != "cancelled" and (last or result.outcome in GOOD):
            result = Result(result.outcome, result.detail, result.captured, self._goes(step, result))
        self._finish(step, attempt, result, (self._hands.clock() - began) * 1000)
        return result

    def _execute(self, step: Step, attempt: int, *, unknown: bool) -> Result:
        content = self._contents[step.id]
        done_before = self._progress is not None and not surely_not_done(step, self._progress)
        if unknown and step.kind == "action" and done_before:
            decided = redo_unknown(self._hands, step, content, attempt)
            if decided is not None:
                return decided
        return _RUNNERS[step.kind](self._hands, step, content, attempt)

    def _goes(self, step: Step, result: Result) -> str:
        """Where a result leads when not simply to the next step."""
        if result.outcome in GOOD:
            return result.goes_to or step.then
        if step.on_failure == "continue":
            return following(self.runbook, step.id)
        return "" if step.on_failure in {"stop", "rollback"} else step.on_failure

    def _finish(self, step: Step, attempt: int, result: Result, took_ms: float) -> None:
        if not self._hands.begun and result.outcome == "cancelled":
            return
        if not self._hands.begun:
            self._hands.begin(step, attempt, step.body)
        detail = self._clean(result.detail)
        shown = {name: self._clean(value) for name, value in result.captured.items()}
        self._hands.record(StepFinished(step.id, result.outcome, detail, shown, result.goes_to, took_ms))
        report = StepReport(step.id, step.kind, result.outcome, detail, took_ms)
        self._reports.append(report)
        self.terms.on_step(report)

    def _exit(self, limit_s: float) -> tuple[str, str]:
        """The exit criterion, as a step of its own in the record."""
        text = self.runbook.exit.text
        step = Step(id=EXIT, kind="wait-until", body=text, line=0, timeout_s=limit_s)
        began = self._hands.clock()
        self._at, self._hands.begun = EXIT, False
        try:
            self._hands.begin(step, 1, text)
            result = wait_for(self._hands, step, self.runbook.exit)
        except HaltedError as error:
            result = Result("cancelled", str(error))
        self._finish(step, 1, result, (self._hands.clock() - began) * 1000)
        if result.outcome == "ok":
            return "done", ""
        outcome = "cancelled" if result.outcome == "cancelled" else "failed"
        return outcome, f"the exit criterion {text} was not reached: {result.detail}"
