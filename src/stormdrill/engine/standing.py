"""Whether faults were in force as long as they were meant to be: journals what somebody else did to them meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

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
"""Of how long the shortest fault in force is meant to last: of what its undo finds changed, only so much is unknown."""
SHARE = 0.5
"""Of the time, that looks may take at most."""


class InForce(NamedTuple):
    """An injection whose call was answered to be done before anybody began to revert it."""

    injection: Injection
    since_ms: float
    """Its inject call."""
    revert_ms: float | None = None
    """When its revert began; None while it is in force."""


def in_force(plan: Plan, state: State) -> list[InForce]:
    """What is meant to last still, and what was. Of a call that wasn't answered so, nobody knows what it left."""
    found = []
    for injection in plan.injections:
        now = state.injections[injection.id]
        if now.held and now.inject_ms is not None:
            found.append(InForce(injection, now.inject_ms, now.revert_ms))
    return found


class Asked(Protocol):
    """Of `ports.Stands`."""

    def stands(self, injection: Injection) -> Stood | None: ...
    def undone(self, injection: Injection) -> Stood | None: ...


@dataclass(slots=True)
class _Seen:
    """What was seen of one injection."""

    whole_ms: float
    """The last look at which all of it was as it was left; before the first, its inject call."""
    stood_ms: float
    """The last look at which anything of it was."""
    first: dict[bool, tuple[float, Stood]] = field(default_factory=dict)
    """Whether all of it is gone → the first look that saw it so, of looks in a row."""
    told: set[bool] = field(default_factory=set)
    settled: bool = False
    """Its undo has told, too."""


class StandingWatch(Supervised):
    """Looks until `stop`. Told once: what two looks in a row say, what one says after which it is as it was left again,
    and what an undo finds."""

    def __init__(
        self,
        in_force: Callable[[], Sequence[InForce]],
        target: Asked,
        record: Callable[[Event, float | None], object],
        *,
        on_defect: OnDefect = raise_in_thread,
    ) -> None:
        super().__init__("standing", on_defect)
        self._in_force = in_force
        self._target = target
        self._record = record
        self._seen: dict[str, _Seen] = {}

    def stop(self) -> None:
        super().stop()
        for one in self._in_force():
            if one.revert_ms is not None:
                self._settle(one, one.revert_ms)

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
            if one.revert_ms is not None:
                self._settle(one, one.revert_ms)
            elif True not in self._of(one).told:
                once = self._look_at(one)
                again_s = min(again_s, LEAST_S if once else max(LEAST_S, OF_ITS_TIME * one.injection.for_s))
        return again_s

    def _of(self, one: InForce) -> _Seen:
        return self._seen.setdefault(one.injection.id, _Seen(one.since_ms, one.since_ms))

    def _look_at(self, one: InForce) -> bool:
        """Whether it was changed and that isn't told yet. Silence says nothing, neither way."""
        seen, asked_ms = self._of(one), time.monotonic() * 1000
        try:
            stood = self._target.stands(one.injection)
        except Unreachable:
            stood = None
        seen_ms = time.monotonic() * 1000  # after the answer: what a revert did meanwhile is later than its start
        if stood is None:
            return bool(seen.first.keys() - seen.told)
        if not stood.changed:
            self._again(one, seen)
            seen.whole_ms = seen.stood_ms = asked_ms
            return False
        if not stood.gone:
            seen.first.pop(True, None)
            seen.stood_ms = asked_ms
        for gone in (True, False) if stood.gone else (False,):
            if gone not in seen.first:
                seen.first[gone] = seen_ms, stood
            elif stood.gone == gone:
                self._tell(one, seen, stood, seen.first[gone][0])
        return stood.gone not in seen.told

    def _again(self, one: InForce, seen: _Seen) -> None:
        """All of it is as it was left; had one look seen it otherwise, it was not so in between."""
        if False in seen.first and not seen.told:
            first_ms, stood = seen.first[False]
            back = Stood(False, f"{stood.changed}, and as it was left when it was looked at again", stood.witness)
            self._tell(one, seen, back, first_ms)
        seen.first.clear()

    def _settle(self, one: InForce, revert_ms: float) -> None:
        """By what its undo found before it changed anything itself."""
        seen = self._of(one)
        stood = None if seen.settled else self._target.undone(one.injection)
        if stood is None:
            return
        seen.settled = True
        seen.first = {gone: look for gone, look in seen.first.items() if look[0] < revert_ms}  # else it saw the undo
        if True in seen.told:
            return
        if not stood.changed:
            self._again(one, seen)
        elif stood.gone in seen.first:
            self._tell(one, seen, stood, seen.first[stood.gone][0])
        else:
            self._tell(one, seen, stood, revert_ms, at_revert=True)

    def _tell(self, one: InForce, seen: _Seen, stood: Stood, at_ms: float, *, at_revert: bool = False) -> None:
        if stood.gone in seen.told:
            return
        seen.told.add(stood.gone)
        after_ms, well_ms = at_ms - one.since_ms, (seen.stood_ms if stood.gone else seen.whole_ms) - one.since_ms
        what = (one.injection.id, stood.gone, stood.witness, stood.changed, round(after_ms, 3), round(well_ms, 3))
        self._record(CauseChanged(*what, edited=stood.edited, at_revert=at_revert), at_ms)
