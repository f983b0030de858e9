"""From the journal to what is so: `fold(plan, events)` is the run's state, and the only memory of `decide`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from stormdrill.model import event as ev
from stormdrill.model.plan import Plan

Stage = Literal["planned", "armed", "injecting", "injected", "reverting", "reverted", "verified", "dirty"]
REVERTED: tuple[Stage, ...] = ("reverted", "verified", "dirty")
REVERT_TRIES = 2
"""How often an undo is executed before what it should have undone counts as still there."""


class InjectionState(Struct, frozen=True):
    stage: Stage = "planned"
    starts_up: bool = False
    """As the plan says: what does it has to be started first."""
    inject_ms: float | None = None
    injected_ms: float | None = None
    """When its call was answered, or given up."""
    outcome: str = ""
    """of the inject call: done, failed, doubtful"""
    held: bool = False
    """Its call was answered to be done before anybody began to revert it."""
    bit_ms: float | None = None
    revert_ms: float | None = None
    """When the last revert started."""
    reverts: int = 0
    """Finished attempts."""
    verified_ms: float | None = None
    looked_again: bool = False
    """Whether it was seen once more, before the end, that nothing came through late."""

    @property
    def in_force_ms(self) -> float | None:
        """From when its time counts, and that of whoever answers it; None: not yet. As `windows.in_force_since` has it
        for the journal of a run that is over."""
        if not self.starts_up:
            return self.inject_ms
        return self.injected_ms if self.held or self.injected_ms is None else self.inject_ms

    @property
    def settled(self) -> bool:
        """Nothing of it is under way: a call that has not been answered may still do harm, whatever was seen."""
        return self.stage in ("planned", "verified", "dirty") and (self.inject_ms is None or bool(self.outcome))


class Firing(Struct, frozen=True):
    alert: str
    labels: dict[str, str]
    since_ms: float


class State(Struct, frozen=True):
    ready: bool = False
    epoch_ms: float | None = None
    """When the load began; None without load or before."""
    phase: str = ""
    phases: dict[str, float] = {}
    """Phase → monotonic ms of its edge."""
    injections: dict[str, InjectionState] = {}
    baseline: bool | None = None
    """Judged healthy, judged not, or not judged yet."""
    abort: ev.AbortRequested | None = None
    firing: dict[str, Firing] = {}
    """Alerts that fire now, keyed by name and labels."""
    held: frozenset[str] = frozenset()
    runbook: Literal["", "running", "ended"] = ""
    runbook_armed: tuple[str, ...] = ()
    """Undos of the runbook's actions that are still held, oldest first."""
    undo_failed: bool = False
    """An undo of the runbook's could not be executed."""
    load_ended: bool = False
    torn_down: bool = False
    ended: str = ""

    @property
    def injected(self) -> bool:
        """Whether any call was made, in force or not."""
        return any(item.inject_ms is not None for item in self.injections.values())

    @property
    def first_inject_ms(self) -> float | None:
        """Since when the first fault is in force."""
        times = [item.in_force_ms for item in self.injections.values() if item.in_force_ms is not None]
        return min(times) if times else None


def alert_key(alert: str, labels: dict[str, str]) -> str:
    return alert + "".join(f"|{name}={labels[name]}" for name in sorted(labels))


def start(plan: Plan) -> State:
    return State(injections={item.id: InjectionState(starts_up=item.starts_up) for item in plan.injections})


def fold(plan: Plan, events: Iterable[ev.Recorded]) -> State:
    state = start(plan)
    for recorded in events:
        state = step(state, recorded)
    return state


def step(state: State, recorded: ev.Recorded) -> State:
    """The state after one more event. Events of types that decide nothing leave it as it is."""
    event = recorded.event
    if isinstance(event, _OF_INJECTIONS):
        return _step_injection(state, recorded.mono_ms, event)
    if isinstance(event, ev.PhaseEntered):
        return replace(state, phase=event.phase, phases={**state.phases, event.phase: recorded.mono_ms})
    if isinstance(event, ev.AlertChanged):
        return _step_alert(state, recorded.mono_ms, event)
    return _step_run(state, event)


def _step_run(state: State, event: ev.Event) -> State:
    match event:
        case ev.SystemReady():
            return replace(state, ready=True)
        case ev.LoadStarted():
            return replace(state, epoch_ms=event.epoch_mono_ms)
        case ev.LoadEnded():
            return replace(state, load_ended=True)
        case ev.BaselineJudged():
            return replace(state, baseline=event.healthy)
        case ev.AbortRequested():
            return state if state.abort else replace(state, abort=event)
        case ev.ConditionHeld():
            return replace(state, held=state.held | {event.condition})
        case ev.RunbookStarted():
            return replace(state, runbook="running")
        case ev.RunbookFinished():
            return replace(state, runbook="ended")
        case ev.TornDown():
            return replace(state, torn_down=True)
        case ev.RunEnded():
            return replace(state, ended=event.status)
    return state


def _step_alert(state: State, mono_ms: float, event: ev.AlertChanged) -> State:
    firing = dict(state.firing)
    key = alert_key(event.alert, event.labels)
    if event.firing:
        firing.setdefault(key, Firing(event.alert, event.labels, mono_ms))
    else:
        firing.pop(key, None)
    return replace(state, firing=firing)


_OF_INJECTIONS = (
    ev.Armed,
    ev.InjectStarted,
    ev.Injected,
    ev.EffectObserved,
    ev.RevertStarted,
    ev.Reverted,
    ev.RevertVerified,
)


def _step_injection(state: State, mono_ms: float, event: ev.Event) -> State:
    name: str = event.injection  # type: ignore[attr-defined]  # all of _OF_INJECTIONS have it
    known = state.injections.get(name)
    if known is None:
        return _step_runbook_undo(state, name, event)
    return replace(state, injections={**state.injections, name: _next(known, mono_ms, event)})


def _step_runbook_undo(state: State, name: str, event: ev.Event) -> State:
    if isinstance(event, ev.Armed) and name not in state.runbook_armed:
        return replace(state, runbook_armed=(*state.runbook_armed, name))
    if isinstance(event, ev.Reverted):
        held = tuple(item for item in state.runbook_armed if item != name)
        return replace(state, runbook_armed=held, undo_failed=state.undo_failed or event.outcome == "failed")
    return state


def _harms_again(now: InjectionState, mono_ms: float, event: ev.Event) -> bool:
    if now.stage not in ("reverted", "verified") or mono_ms <= (now.revert_ms or 0.0):
        return False
    match event:
        case ev.Injected():
            return event.outcome != "doubtful"
        case ev.EffectObserved():
            return event.bit
        case ev.RevertVerified():
            return now.stage == "verified" and not event.gone
    return False


def _next(now: InjectionState, mono_ms: float, event: ev.Event) -> InjectionState:
    """A late answer never takes an injection back to an earlier stage, but for one: a call that came through, or bit,
    after the revert has to be reverted again."""
    if _harms_again(now, mono_ms, event):
        outcome = event.outcome if isinstance(event, ev.Injected) else now.outcome
        return replace(now, stage="reverting", verified_ms=mono_ms, outcome=outcome, looked_again=False)
    match event:
        case ev.Armed() if now.stage == "planned":
            return replace(now, stage="armed")
        case ev.InjectStarted() if now.stage in ("planned", "armed"):
            return replace(now, stage="injecting", inject_ms=mono_ms)
        case ev.Injected():
            if now.stage != "injecting":
                return replace(now, outcome=event.outcome)
            held = event.outcome == "done"
            return replace(now, stage="injected", injected_ms=mono_ms, outcome=event.outcome, held=held)
        case ev.EffectObserved() if event.bit and now.bit_ms is None:
            return replace(now, bit_ms=mono_ms)
        case ev.EffectObserved() if not event.bit and now.stage == "verified":
            return replace(now, looked_again=True)
        case ev.RevertStarted() if now.stage != "verified":
            return replace(now, stage="reverting", revert_ms=mono_ms)
        case ev.Reverted() if now.stage != "verified":
            return replace(now, stage="reverted", reverts=now.reverts + 1)
        case ev.RevertVerified() if event.gone:
            return replace(now, stage="verified", verified_ms=mono_ms)
        case ev.RevertVerified():
            tried_out = now.reverts >= REVERT_TRIES
            return replace(now, stage="dirty" if tried_out else "reverting", verified_ms=mono_ms)
    return now
