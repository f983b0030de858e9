"""What to do next: `decide(plan, state, now_ms)` is a pure function, called on every tick and after every event.

It may say the same command twice; the engine starts each only once while it is under way. The order of the
cases is the order of importance: getting rid of what was injected comes before everything else.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from stormdrill.core.fold import REVERT_TRIES, REVERTED, InjectionState, State
from stormdrill.model.expression import AlertWithin
from stormdrill.model.plan import Injection, Plan


class Enter(Struct, frozen=True):
    phase: str
    edge_ms: float | None = None
    """The edge, where it is something that was seen earlier; None: now."""


class JudgeBaseline(Struct, frozen=True):
    pass


class Arm(Struct, frozen=True):
    injection: str


class Inject(Struct, frozen=True):
    injection: str


class Observe(Struct, frozen=True):
    injection: str


class Revert(Struct, frozen=True):
    injection: str
    cause: str


class Verify(Struct, frozen=True):
    """Look whether the cause is gone; `last` = say so now even if it isn't."""

    injection: str
    last: bool


class LookAgain(Struct, frozen=True):
    """Look once more before the end at what is gone, but whose call was never answered with success: it may have come
    through since."""

    injection: str


class StartRunbook(Struct, frozen=True):
    trigger: str
    alert: str = ""
    """Key in `State.firing` of the alert that it answers; empty when the clock or a condition started it."""


class CancelRunbook(Struct, frozen=True):
    pass


class UndoRunbook(Struct, frozen=True):
    pass


class EndLoad(Struct, frozen=True):
    pass


class Finish(Struct, frozen=True):
    status: Literal["completed", "aborted", "dirty"]
    reason: str


Command = (
    Enter
    | JudgeBaseline
    | Arm
    | Inject
    | Observe
    | Revert
    | Verify
    | LookAgain
    | StartRunbook
    | CancelRunbook
    | UndoRunbook
    | EndLoad
    | Finish
)


def decide(plan: Plan, state: State, now_ms: float) -> list[Command]:
    if state.ended:
        return []
    commands = _settle(plan, state, now_ms)
    if state.abort is not None:
        return commands + _wind_down(plan, state, commands)
    if not state.ready or (plan.experiment.load is not None and state.epoch_ms is None):
        return commands
    if state.phase == "":
        return [Enter("warmup", state.epoch_ms)]
    return commands + _advance(plan, state, now_ms, commands)


def _settle(plan: Plan, state: State, now_ms: float) -> list[Command]:
    """Reverts that are due and looks that are owed, in reverse order of injection."""
    commands: list[Command] = []
    for injection in _last_first(plan, state):
        now = state.injections[injection.id]
        cause = _why_revert(state, injection, now, now_ms)
        if cause:
            commands.append(Revert(injection.id, cause))
        elif now.stage == "reverted":
            waited = now_ms - (now.revert_ms or now_ms)
            commands.append(Verify(injection.id, last=waited >= injection.verify_timeout_s * 1000))
        elif now.stage in ("injecting", "injected") and now.bit_ms is None:
            commands.append(Observe(injection.id))
    return commands


def _last_first(plan: Plan, state: State) -> list[Injection]:
    """In reverse order of injection; what was injected at one moment, in reverse order of the plan."""
    return sorted(reversed(plan.injections), key=lambda item: -(state.injections[item.id].inject_ms or 0.0))


def _why_revert(state: State, injection: Injection, now: InjectionState, now_ms: float) -> str:
    if now.stage in ("planned", *REVERTED):
        return ""
    if now.stage == "reverting":
        # the keeper is at it, unless a look has shown that its attempt did not help
        return "again" if now.verified_ms is not None and now.verified_ms >= (now.revert_ms or 0) else ""
    if state.abort is not None:
        return "guard" if state.abort.by == "guard" else "abort"
    if now.outcome in ("doubtful", "failed"):
        return "doubtful"
    if now.inject_ms is not None and now_ms >= _ends_ms(injection, now, now.inject_ms):
        return "planned"
    return ""


def _ends_ms(injection: Injection, now: InjectionState, inject_ms: float) -> float:
    """When its time is over: it begins when it is in force, and ends also where nobody ever says that it is."""
    if injection.starts_up and now.injected_ms is not None:
        return now.injected_ms + injection.for_s * 1000
    return inject_ms + injection.longest_s * 1000


def _wind_down(plan: Plan, state: State, settling: list[Command]) -> list[Command]:
    """After an abort: runbook cancelled, faults reverted, then its actions undone, then the load ended."""
    assert state.abort is not None
    if state.runbook == "running":
        return [CancelRunbook()]
    if _unsettled(state) or settling:
        return []
    if state.runbook_armed:
        return [UndoRunbook()]
    if state.epoch_ms is not None and not state.load_ended:
        return [EndLoad()]
    return _last_looks(plan, state) or [Finish(_status(state, "aborted"), _reason(state) or state.abort.reason)]


def _unsettled(state: State) -> bool:
    return not all(item.settled for item in state.injections.values())


def _last_looks(plan: Plan, state: State) -> list[Command]:
    """A bounded number of times: what comes back again and again was seen to be gone after each of its reverts."""
    return [
        LookAgain(injection.id)
        for injection in _last_first(plan, state)
        if (now := state.injections[injection.id]).stage == "verified"
        and now.outcome in ("doubtful", "failed")
        and not now.looked_again
        and now.reverts < 2 * REVERT_TRIES
    ]


def _status(state: State, otherwise: Literal["completed", "aborted"]) -> Literal["completed", "aborted", "dirty"]:
    dirty = state.undo_failed or any(item.stage == "dirty" for item in state.injections.values())
    return "dirty" if dirty else otherwise


def _reason(state: State) -> str:
    """Why it ends dirty: a person has to know what to look at. Empty when it doesn't."""
    left = [name for name, item in state.injections.items() if item.stage == "dirty"]
    said = [f"{name} could not be shown to be reverted" for name in left]
    return "; ".join([*said, *(["an undo of the runbook's could not be carried out"] if state.undo_failed else [])])


def _advance(plan: Plan, state: State, now_ms: float, settling: list[Command]) -> list[Command]:
    phases = plan.experiment.phases
    over = now_ms >= state.phases[state.phase] + plan.length_s(state.phase) * 1000
    match state.phase:
        case "warmup":
            edge = state.phases["warmup"] + phases.warmup_s * 1000
            return [Enter("baseline", edge)] if over else []
        case "baseline":
            return _leave_baseline(plan, state) if over else []
        case "fault":
            return _in_fault(plan, state, now_ms, over, bool(settling))
        case "recovery":
            return _leave_recovery(plan, state) if over else []
        case "failback":
            return _leave_load(plan, state) if over else []
    return _leave_load(plan, state)


def _leave_baseline(plan: Plan, state: State) -> list[Command]:
    """Law 3: no harm without health. Everything due first is armed before the first call is made."""
    if state.baseline is None:
        return [JudgeBaseline()]
    if not state.baseline:
        return []  # the abort that follows may not be written down yet
    if not plan.injections:
        return [Enter("fault")]
    first = min(item.start_s for item in plan.injections)
    due = [item for item in plan.injections if item.start_s == first]
    to_arm: list[Command] = [Arm(item.id) for item in due if state.injections[item.id].stage == "planned"]
    return to_arm or [Enter("fault")]


def _in_fault(plan: Plan, state: State, now_ms: float, over: bool, settling: bool) -> list[Command]:
    commands: list[Command] = []
    since_s = (now_ms - state.phases["fault"]) / 1000
    first = min((item.start_s for item in plan.injections), default=0.0)
    for injection in plan.injections:
        stage = state.injections[injection.id].stage
        if since_s >= injection.start_s - first:
            if stage == "planned" and _free(plan, state, injection):
                commands.append(Arm(injection.id))
            elif stage == "armed":
                commands.append(Inject(injection.id))
    commands.extend(_start_runbook(plan, state, now_ms))
    waiting = any(item.stage == "planned" or not item.settled for item in state.injections.values())
    if over and not commands and not waiting and not settling:
        seen = [item.verified_ms for item in state.injections.values() if item.verified_ms is not None]
        commands.append(Enter("recovery", max(seen) if seen else None))
    return commands


def _free(plan: Plan, state: State, injection: Injection) -> bool:
    """Whether nobody holds what it would switch. Armed before another's revert is seen, its undo would bring the other
    back as what was there before, and the other's revert would end it. Where some have to be started first, those that
    were to be over by then may be late, and it was not planned to come on top of them."""
    late = any(other.starts_up for other in plan.injections)
    return not any(
        (set(other.switches) & set(injection.switches) and not state.injections[other.id].settled)
        or (late and other.start_s + other.for_s <= injection.start_s and not _over(state.injections[other.id]))
        for other in plan.injections
        if other.id != injection.id
    )


def _over(now: InjectionState) -> bool:
    return now.stage != "planned" and now.settled


def _start_runbook(plan: Plan, state: State, now_ms: float) -> list[Command]:
    use = plan.experiment.runbook
    # nobody has anything to answer while what does it is still being started; without faults the load is the trigger
    first_ms = state.first_inject_ms if plan.injections else state.phases.get("fault")
    if use is None or state.runbook or first_ms is None:
        return []
    if isinstance(use.start, AlertWithin):
        for key, firing in state.firing.items():
            wanted = use.start.labels.items() <= firing.labels.items()
            # what fired before the fault came has not detected it
            if firing.alert == use.start.alert and wanted and firing.since_ms >= first_ms:
                return [StartRunbook(f"alert({use.start.alert})", key)]
    elif use.start.text in state.held:
        return [StartRunbook(use.start.text)]
    if now_ms >= first_ms + use.else_after_s * 1000:
        return [StartRunbook("else_after")]
    return []


def _leave_recovery(plan: Plan, state: State) -> list[Command]:
    """What the runbook changed is taken back at the end of recovery: fail-back is the system as it was."""
    if state.runbook == "running":
        return [CancelRunbook()]
    if state.runbook_armed:
        return [UndoRunbook()]
    if plan.experiment.phases.failback_s > 0:
        return [Enter("failback")]
    return _leave_load(plan, state)


def _leave_load(plan: Plan, state: State) -> list[Command]:
    if state.epoch_ms is not None and not state.load_ended:
        return [EndLoad()]
    if state.phase != "end":
        # requests were intended up to here; what followed was waiting for those in flight
        return [Enter("end", state.phases[state.phase] + plan.length_s(state.phase) * 1000)]
    if _unsettled(state):
        return []  # a call came through late, and is being reverted again
    return _last_looks(plan, state) or [Finish(_status(state, "completed"), _reason(state))]
