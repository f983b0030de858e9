"""Harm guards: an objective beyond a limit for a time stops the run. So does having nothing fresh to look at."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from stormdrill.core.fold import State
from stormdrill.engine.supervised import OnDefect, Supervised, raise_in_thread
from stormdrill.model.event import ConditionHeld, Event, GuardTripped, Warned
from stormdrill.model.expression import AlertWithin, Expression
from stormdrill.model.plan import Plan
from stormdrill.ports import Held

EVERY_S = 0.2
BLIND_S = 4.0
"""Two of the longest intervals between readings and a request's usual time-out: no fresh reading for so long trips."""


def armed(plan: Plan, state: State, now_ms: float) -> bool:
    """From the first injection to the planned end of recovery. What may follow only waits for accepted jobs: nobody
    asks for anything any more, so nothing fresh is no sign of harm."""
    if state.phase != "recovery":
        return state.phase == "fault"
    return now_ms < state.phases["recovery"] + plan.length_s("recovery") * 1000


class Polled(Protocol):
    """What `LiveSight` offers: it reads on only when polled."""

    def poll(self) -> None: ...
    def evaluate(self, expression: Expression) -> Held: ...


class Guards(Supervised):
    """Looks five times a second while `armed()` says that harm is being done; trips once."""

    def __init__(
        self,
        guards: Sequence[Expression],
        sight: Polled,
        *,
        armed: Callable[[], bool],
        record: Callable[[Event, float | None], object],
        trip: Callable[[str], object],
        trigger: Expression | None,
        shown: Mapping[str, Expression],
        show: Callable[[Mapping[str, float]], None],
        on_defect: OnDefect = raise_in_thread,
    ) -> None:
        super().__init__("guards", on_defect)
        self._guards = guards
        self._sight = sight
        self._armed = armed
        self._record = record
        self._trip = trip
        self._trigger = trigger
        self._shown = shown
        self._show = show
        self._broken = [_Spell() for _ in guards]
        self._blind = [_Spell() for _ in guards]
        self._triggering = _Spell()

    def _run(self) -> None:
        while not self._stop.wait(EVERY_S):
            if self.look(time.monotonic()):
                return

    def look(self, now_s: float) -> bool:
        """One look, at this moment of the monotonic clock. True once a guard has tripped: then there is no more."""
        self._sight.poll()
        self._show(self._figures())
        if not self._armed():
            for spell in (*self._broken, *self._blind, self._triggering):
                spell.lasts_s(False, now_s)
            return False
        self._look_for_trigger(now_s)
        return any(self._tripped(index, guard, now_s) for index, guard in enumerate(self._guards))

    def _figures(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for name, expression in self._shown.items():
            value = _finite(self._sight.evaluate(expression).value)
            if value is not None:
                found[name] = value
        return found

    def _look_for_trigger(self, now_s: float) -> None:
        if self._trigger is None or isinstance(self._trigger, AlertWithin):
            return
        look = self._sight.evaluate(self._trigger)
        lasts_s = self._triggering.lasts_s(look.fresh and look.held, now_s)
        if lasts_s is not None and lasts_s >= _for_s(self._trigger):
            self._record(ConditionHeld(self._trigger.text, _finite(look.value)), now_s * 1000)
            self._trigger = None

    def _tripped(self, index: int, guard: Expression, now_s: float) -> bool:
        look = self._sight.evaluate(guard)
        blind_s = self._blind[index].lasts_s(not look.fresh, now_s)
        if blind_s is not None:
            return blind_s >= BLIND_S and self._stop_it(guard, look, now_s, f"no fresh reading for {BLIND_S:g} s")
        # a guard names the harm: it is broken while its expression holds
        broken_s = self._broken[index].lasts_s(look.held, now_s)
        for_s = _for_s(guard)
        return broken_s is not None and broken_s >= for_s and self._stop_it(guard, look, now_s, f"held for {for_s:g} s")

    def _stop_it(self, guard: Expression, look: Held, now_s: float, detail: str) -> bool:
        """The run is stopped first: whatever the record may be worth, the harm ends. It is dated when it was seen."""
        if other := self._trip(f"guard {guard.text}: {detail}"):
            self._record(Warned(f"guard {guard.text} saw what follows from something else: {other}"), now_s * 1000)
            return True
        value = _finite(look.value)
        if look.value is not None and value is None:
            detail += f", the last value was {look.value}"
        self._record(GuardTripped(guard.text, value, detail), now_s * 1000)
        return True


class _Spell:
    """How long something has been so without a break."""

    def __init__(self) -> None:
        self._since_s: float | None = None

    def lasts_s(self, is_so: bool, now_s: float) -> float | None:
        """None: it is not so now."""
        if not is_so:
            self._since_s = None
            return None
        if self._since_s is None:
            self._since_s = now_s
        return now_s - self._since_s


def _for_s(expression: Expression) -> float:
    return 0.0 if isinstance(expression, AlertWithin) else expression.for_s or 0.0


def _finite(value: float | None) -> float | None:
    """JSON, and so the journal, knows neither infinity nor NaN."""
    return value if value is not None and math.isfinite(value) else None
