"""What every step works with: the record, the caller, the eyes, the clock, and the ways to be stopped."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from stormdrill.engine.runbook_person import Person, Question
from stormdrill.errors import StormdrillError
from stormdrill.model.event import Event, StepStarted
from stormdrill.model.runbook import Runbook, Step
from stormdrill.ports import Caller, Keeper, Sight
from stormdrill.redact import Redactor
from stormdrill.spec.runbook_template import Value

LOOK_LIMIT_S = 2.0
"""What one look may take while something is waited for: a frozen server must not eat the whole time-out."""
LAST_LOOK_S = 0.5
"""What the last look may take beyond the time-out: a look cut short would say nothing about what it looks at."""
LOOK_EVERY_S = 0.2


class RecordLostError(Exception):
    """The journal no longer takes events: nothing more may be executed."""


class HaltedError(Exception):
    """Cancelled by another thread, or the runbook's time is over."""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one attempt at a step."""

    outcome: str
    """ok, failed, timed-out, skipped, cancelled, unknown"""
    detail: str = ""
    captured: Mapping[str, str] = field(default_factory=dict)
    """Name → JSON text."""
    goes_to: str = ""


@dataclass(slots=True)
class Hands:
    runbook: Runbook
    keeper: Keeper
    caller: Caller
    sight: Sight | None
    person: Person | None
    parameters: Mapping[str, Value]
    approved: frozenset[str] = frozenset()
    deadline_s: float | None = None
    """On the clock below; None: none."""
    undo_until_s: float | None = None
    """Until when an action's undo waits for the keeper to execute it by itself; None: for an hour."""
    approval_expires_s: float = 900.0
    redactor: Redactor = field(default_factory=Redactor)
    clock: Callable[[], float] = time.monotonic
    cancelled: threading.Event = field(default_factory=threading.Event)
    captured: dict[str, Value] = field(default_factory=dict)
    armed: list[str] = field(default_factory=list)
    """Injections of this runbook that wait to be undone, oldest first."""
    undos: dict[str, list[dict[str, object]]] = field(default_factory=dict)
    granted: dict[str, tuple[str, float]] = field(default_factory=dict)
    """Step → digest and time of a person's approval."""
    kept: set[str] = field(default_factory=set)
    """Captured before this step was first executed: what is there now may be the step's own doing."""
    begun: bool = False
    """Whether the present attempt is in the record."""

    @property
    def context(self) -> dict[str, object]:
        return {**self.parameters, "captured": dict(self.captured)}

    def record(self, event: Event) -> None:
        """Raises RecordLostError when it could not be written, whatever the reason."""
        try:
            self.keeper.record(event, self.clock() * 1000)
        except (StormdrillError, OSError, ValueError) as error:
            raise RecordLostError(str(error)) from error

    def begin(self, step: Step, attempt: int, text: str, captured: Mapping[str, str] | None = None) -> None:
        """Write down what is about to be executed; after this returns it may be."""
        self.check()
        self.record(
            StepStarted(
                step=step.id,
                kind=step.kind,
                attempt=attempt,
                text=self.redactor.text(text),
                digest=digest_of(text),
                risk=step.risk,
                captured={name: self.redactor.text(value) for name, value in (captured or {}).items()},
            )
        )
        self.begun = True

    def check(self) -> None:
        """Raises HaltedError when it is time to stop."""
        if self.cancelled.is_set():
            raise HaltedError("cancelled")
        if self.deadline_s is not None and self.clock() >= self.deadline_s:
            raise HaltedError("the runbook's time is over")

    def pause(self, seconds: float) -> None:
        """Wait, and wake up at once when cancelled. Raises HaltedError."""
        if self.deadline_s is not None:
            seconds = min(seconds, max(0.0, self.deadline_s - self.clock()))
        self.cancelled.wait(seconds)
        self.check()

    def until(self, limit_s: float, ask: Callable[[float], tuple[bool, str]]) -> tuple[bool, str]:
        """Ask again and again until it holds or `limit_s` is over; returns the last answer. Raises HaltedError."""
        end = self.clock() + limit_s
        while True:
            self.check()
            left = max(LAST_LOOK_S, end - self.clock())
            held, detail = ask(min(left, LOOK_LIMIT_S))
            if held or self.clock() >= end:
                return held, detail
            self.pause(min(LOOK_EVERY_S, max(0.0, end - self.clock())))

    def ask(self, question: Question, timeout_s: float) -> str | None:
        """A person's answer; None without one. Raises HaltedError when cancelled meanwhile."""
        if self.person is None:
            return None
        if self.deadline_s is not None:
            timeout_s = min(timeout_s, max(0.0, self.deadline_s - self.clock()))
        answer = self.person.ask(question, timeout_s, self.cancelled)
        self.check()
        return answer if answer in question.choices else None


def digest_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
