"""Whether faults are still in force while they are meant to be: journals what somebody else took away meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from stormdrill.core.fold import State
from stormdrill.engine.supervised import OnDefect, Supervised, raise_in_thread
from stormdrill.errors import Unreachable
from stormdrill.model.event import CauseChanged, Event
from stormdrill.model.plan import Injection, Plan
from stormdrill.ports import Stood

EVERY_S, LEAST_S = 1.0, 0.2
"""Between two rounds of looks; one after the other, so that a slow server is asked more seldom. What lasts for less
than 20 s is looked at more often, and what was seen once is looked at again after the least."""
OF_ITS_TIME = 0.05
"""Of how long the shortest fault in force is meant to last: nobody sees what is taken away at its very end."""
SHARE = 0.5
"""Of the time, that looks may take at most."""


class InForce(NamedTuple):
    """An injection whose call was answered, and whose revert has not begun."""

    injection: Injection
    since_ms: float
    """Its inject call."""


def in_force(plan: Plan, state: State) -> list[InForce]:
    """What was answered to be done and is meant to last still; of a call that wasn't, nobody knows what it left."""
    found = []
    for injection in plan.injections:
        now = state.injections[injection.id]
        if now.stage == "injected" and now.outcome == "done" and now.inject_ms is not None:
            found.append(InForce(injection, now.inject_ms))
    return found


class StandingWatch(Supervised):
    """Looks until `stop`. One look may be a blip: what two in a row say is told, once."""

    def __init__(
        self,
        in_force: Callable[[], Sequence[InForce]],
        stands: Callable[[Injection], Stood | None],
        record: Callable[[Event, float | None], object],
        *,
        on_defect: OnDefect = raise_in_thread,
    ) -> None:
        super().__init__("standing", on_defect)
        self._in_force = in_force
        self._stands = stands
        self._record = record
        self._first: dict[tuple[str, bool], float] = {}
        """Injection and whether all of it is gone → when that was first seen, of looks in a row."""
        self._told: set[tuple[str, bool]] = set()

    def _run(self) -> None:
        pause_s = LEAST_S
        while not self._stop.wait(pause_s):
            began_s = time.monotonic()
            least_s = self.look()
            pause_s = max(least_s, (time.monotonic() - began_s) * (1 / SHARE - 1))

    def look(self) -> float:
        """One round over all that is in force. After how long the next one is worth it."""
        again_s = EVERY_S
        for one in self._in_force():
            if self._stop.is_set():
                break
            if (one.injection.id, True) not in self._told:
                once = self._look_at(one)
                again_s = min(again_s, LEAST_S if once else max(LEAST_S, OF_ITS_TIME * one.injection.for_s))
        return again_s

    def _look_at(self, one: InForce) -> bool:
        """Whether it was changed and that isn't told yet."""
        name = one.injection.id
        try:
            stood = self._stands(one.injection)
        except Unreachable:
            stood = None
        seen_ms = time.monotonic() * 1000  # after the answer: what a revert did meanwhile is later than its start
        for gone in (True, False):
            key = (name, gone)
            if stood is None or not stood.changed or (gone and not stood.gone):
                self._first.pop(key, None)
            elif key not in self._first:
                self._first[key] = seen_ms
            elif stood.gone == gone and key not in self._told:
                self._told.add(key)
                first_ms = self._first[key]
                after_ms = round(first_ms - one.since_ms, 3)
                self._record(CauseChanged(name, gone, stood.witness, stood.changed, after_ms), first_ms)
        return stood is not None and bool(stood.changed) and (name, stood.gone) not in self._told
