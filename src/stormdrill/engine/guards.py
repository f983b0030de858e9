"""Harm guards: an objective beyond a limit for a time stops the run. So does having nothing fresh to look at."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence

from stormdrill.engine.sight import LiveSight
from stormdrill.model.event import ConditionHeld, Event, GuardTripped
from stormdrill.model.expression import AlertWithin, Expression
from stormdrill.ports import Held

EVERY_S = 0.2
BLIND_S = 4.0
"""Two of the longest intervals between readings and a request's usual time-out: no fresh reading for so long trips."""


class Guards:
    """Looks five times a second while `armed()` says that harm is being done; trips once."""

    def __init__(
        self,
        guards: Sequence[Expression],
        sight: LiveSight,
        *,
        armed: Callable[[], bool],
        record: Callable[[Event], object],
        trip: Callable[[str], None],
        trigger: Expression | None,
        shown: Mapping[str, Expression],
        show: Callable[[Mapping[str, float]], None],
    ) -> None:
        self._guards = guards
        self._sight = sight
        self._armed = armed
        self._record = record
        self._trip = trip
        self._trigger = trigger
        self._shown = shown
        self._show = show
        self._broken_since: dict[int, float] = {}
        self._blind_since: dict[int, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="guards", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2)

    def _run(self) -> None:
        while not self._stop.wait(EVERY_S):
            self._sight.poll()
            self._show(self._figures())
            if not self._armed():
                self._broken_since.clear()
                self._blind_since.clear()
                continue
            self._look_for_trigger()
            for index, guard in enumerate(self._guards):
                if self._tripped(index, guard):
                    return

    def _figures(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for name, expression in self._shown.items():
            look = self._sight.evaluate(expression)
            if look.value is not None:
                found[name] = look.value
        return found

    def _look_for_trigger(self) -> None:
        if self._trigger is None or isinstance(self._trigger, AlertWithin):
            return
        look = self._sight.evaluate(self._trigger)
        if look.fresh and look.held:
            self._record(ConditionHeld(self._trigger.text, look.value))
            self._trigger = None

    def _tripped(self, index: int, guard: Expression) -> bool:
        now_s = time.monotonic()
        look = self._sight.evaluate(guard)
        if not look.fresh:
            since_s = self._blind_since.setdefault(index, now_s)
            return self._trip_if(now_s - since_s >= BLIND_S, guard, look, f"no fresh reading for {BLIND_S:g} s")
        self._blind_since.pop(index, None)
        if not look.held:  # a guard names the harm: it is broken while its expression holds
            self._broken_since.pop(index, None)
            return False
        since_s = self._broken_since.setdefault(index, now_s)
        for_s = (guard.for_s or 0.0) if not isinstance(guard, AlertWithin) else 0.0
        return self._trip_if(now_s - since_s >= for_s, guard, look, f"held for {for_s:g} s")

    def _trip_if(self, due: bool, guard: Expression, look: Held, detail: str) -> bool:
        if due:
            self._record(GuardTripped(guard.text, look.value, detail))
            self._trip(f"guard {guard.text}: {detail}")
        return due
