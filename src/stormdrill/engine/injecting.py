"""What is done to one injection, and what is seen of it: each call in a worker's thread, and written down at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from stormdrill.core.fold import InjectionState
from stormdrill.errors import Unreachable
from stormdrill.model import event as ev
from stormdrill.model.plan import Injection
from stormdrill.ports import Effect, Fault, Keeper, Target

WATCH_BITE_S = 0.25
"""After an inject call its own worker looks this long for the effect, every millisecond at first."""
LOOK_AGAIN_S = 0.02
"""Between two later looks for an effect."""
LAST_LOOK_S = 1.0
"""How long the last look before the end goes on for what doesn't seem to be gone."""


@dataclass(slots=True)
class Injecting:
    keeper: Keeper
    target: Target
    faults: Mapping[str, Fault]
    injections: Mapping[str, Injection]
    state: Callable[[str], InjectionState]
    _told: dict[str, Effect] = field(default_factory=dict)
    """Injection → the last look whose readings were written down."""

    def inject(self, name: str) -> None:
        injection = self.injections[name]
        called_ms = now_ms()
        try:
            self.faults[injection.fault].inject(injection, self.target)
        except Exception as error:  # whatever a fault raises, what it did is unknown: it is reverted
            said = f"{type(error).__name__}: {error}"
            self.keeper.record(ev.Injected(name, "failed", said, now_ms() - called_ms))
            return
        self.keeper.record(ev.Injected(name, "done", injection.mechanism, round(now_ms() - called_ms, 3)))
        deadline_s = time.monotonic() + WATCH_BITE_S
        while not self._look(name, called_ms) and time.monotonic() < deadline_s:
            time.sleep(0.001)

    def observe(self, name: str) -> None:
        """A later look at what has not bitten yet."""
        state = self.state(name)
        if state.inject_ms is not None and now_ms() - state.inject_ms > WATCH_BITE_S * 1000:
            self._look(name, state.inject_ms)
            time.sleep(LOOK_AGAIN_S)

    def verify(self, name: str, last: bool) -> None:
        effect = self._observed(name)
        seen_ms = now_ms()
        since_ms = self.state(name).revert_ms or seen_ms
        if effect.gone or last:
            after_ms = round(seen_ms - since_ms, 3)
            event = ev.RevertVerified(name, effect.gone, effect.witness, effect.detail, after_ms, effect.came_to)
            self.keeper.record(event, seen_ms)
        else:
            time.sleep(0.002)

    def look_again(self, name: str) -> None:
        """At what was seen to be gone before: it is there again, gone still, or can't be seen, which is no comfort."""
        deadline_s = time.monotonic() + LAST_LOOK_S
        while not (effect := self._observed(name)).gone and time.monotonic() < deadline_s:
            time.sleep(LOOK_AGAIN_S)
        seen_ms, state = now_ms(), self.state(name)
        detail = f"looked at again before the end: {effect.detail}"
        if effect.gone:
            after_ms = round(seen_ms - (state.inject_ms or seen_ms), 3)
            self.keeper.record(ev.EffectObserved(name, False, effect.witness, detail, after_ms), seen_ms)
        else:
            after_ms = round(seen_ms - (state.revert_ms or seen_ms), 3)
            self.keeper.record(ev.RevertVerified(name, False, effect.witness, detail, after_ms), seen_ms)

    def _look(self, name: str, since_ms: float) -> bool:
        effect = self._observed(name)
        seen_ms = effect.at_ms or now_ms()
        self._measured(name, effect, seen_ms)
        if effect.bit:
            after_ms = round(seen_ms - since_ms, 3)
            self.keeper.record(ev.EffectObserved(name, True, effect.witness, effect.detail, after_ms), seen_ms)
        return effect.bit

    def _measured(self, name: str, effect: Effect, seen_ms: float) -> None:
        """Each look's readings once, though it may be told again and again until the next look is due."""
        if not effect.readings or self._told.get(name) is effect:
            return
        self._told[name] = effect
        instance = self.injections[name].instance
        for metric, labels, value in effect.readings:
            self.keeper.record(ev.Reading(metric, instance, value, dict(labels)), seen_ms)

    def _observed(self, name: str) -> Effect:
        """What can't be looked at now has neither bitten nor gone; it is looked at again."""
        injection = self.injections[name]
        try:
            return self.faults[injection.fault].observe(injection, self.target)
        except Unreachable as error:
            return Effect(False, False, "nobody", str(error))


def now_ms() -> float:
    return time.monotonic() * 1000
