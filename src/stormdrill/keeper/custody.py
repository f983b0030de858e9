"""Holds armed undos and carries each out once: when asked, at its expiry, or when the run ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from stormdrill.keeper import far, undo_engine
from stormdrill.keeper.claims import Claims
from stormdrill.keeper.family import Child, Family
from stormdrill.keeper.loop import Steps, Wait, together
from stormdrill.keeper.outcome import disbelieved
from stormdrill.keeper.scribe import Scribe
from stormdrill.keeper.undo import (
    DONE,
    DOUBTFUL_S,
    FAILED,
    LAST_TRY_S,
    PROCESS_STATE,
    SUPERSEDED,
    Outcome,
    asked,
    at_once,
    combine,
    lifted_first,
    may_be_harmed_late,
    moot_when_the_system_ends,
    perform,
    prepare,
    settled,
    waves_of_reverting,
)
from stormdrill.model.event import Armed, ProcessSpawned, Reverted, RevertStarted, RevertVerified
from stormdrill.model.undo import Call, EndChild, InCluster, Signal, Spawn, Undo, undo_to_json

AGAIN = "again"
"""The cause of a revert that is executed although the first one was done: a look has shown that it did not help."""
DIES_WITHIN_S = 1.0
"""How long what was killed may take to be gone before it is said to live."""
AGAIN_AFTER_S = 1.0
AGAIN_AT_MOST_S = 60.0
"""Between two attempts at an undo that failed, after its expiry and when no runner asks for one: growing up to this."""
LATE_WITHIN_S = 30.0
"""How long a call that nobody waits for any more may take to come through."""
UNDO_LIMIT_S = 120.0
"""How long a second revert of the same injection waits for the first."""


@dataclass(slots=True, eq=False)
class Held:
    """One armed undo."""

    injection: str
    fault: str
    instance: str
    undo: tuple[Undo, ...]
    expires_s: float
    """On the clock that goes on while the machine is suspended."""
    state: str = "armed"
    """armed, reverting, reverted, failed."""
    injecting: bool = False
    answered: bool = False
    """The inject call was done; else it may come through later."""
    late: bool = False
    """The inject call came through when the undo was carried out already."""
    gone: bool = False
    """Somebody has looked since, and the cause is gone: what follows may hold the same switch by now."""
    there: bool = False
    """Somebody has looked after an undo, and the cause was still there; nobody has seen it gone since."""
    tries: int = 0
    tried_s: float = 0.0
    outcome: Outcome | None = None
    carried: bool = False
    """The runner carries it out itself, part by part."""
    only_far_left: bool = False
    """What failed of it is nothing that the keeper could repeat."""

    @property
    def far(self) -> bool:
        """Nothing of it is the keeper's to carry out."""
        return far.wholly_far(self.undo)

    @property
    def open(self) -> bool:
        return self.state != "reverted" or self.late or self.there

    @property
    def due_s(self) -> float | None:
        """When the keeper carries it out unasked; None: not at all, or somebody is at it."""
        if self.far:
            return None
        if self.state == "armed":
            return self.expires_s
        if self.state == "reverting" or self.gone or not self.open or self.only_far_left:
            return None
        return max(self.expires_s, self.tried_s + min(AGAIN_AFTER_S * self.tries, AGAIN_AT_MOST_S))


@dataclass(slots=True)
class Custody:
    """All armed undos of one run, in the order of arming."""

    scribe: Scribe
    family: Family
    claims: Claims
    collect: Callable[[], None]
    """Reaps and journals what has ended just now."""
    push: Callable[[str, Mapping[str, object]], None]
    held: dict[str, Held] = field(default_factory=dict)
    ways: far.Ways = field(default_factory=far.Ways)
    """By which the runner reaches instances: calls to these go through it, and nowhere once it is gone."""
    alone: bool = False
    """The runner is gone."""

    @property
    def anything_open(self) -> bool:
        return any(held.open for held in self.held.values())

    def find(self, injection: str) -> Held:
        if (held := self.held.get(injection)) is None:
            raise ValueError(f"{injection} was never armed")
        return held

    def arm(
        self, injection: str, fault: str, instance: str, mechanism: str, undo: tuple[Undo, ...], expires_in_s: float
    ) -> None:
        """Raises ValueError when it is armed already, JournalUnwritable; then nothing is held."""
        before = self.held.get(injection)
        if before is not None and before.open:
            raise ValueError(f"{injection} is armed already")
        for item in undo:
            prepare(item)
        expires_s = suspend_aware_s() + expires_in_s
        self.scribe.write(
            Armed(
                injection=injection,
                fault=fault,
                instance=instance,
                mechanism=mechanism,
                undo=[undo_to_json(item) for item in undo],
                expires_mono_ms=round((time.monotonic() + expires_in_s) * 1000, 3),
                expires_at=(datetime.now(UTC) + timedelta(seconds=expires_in_s)).isoformat(timespec="milliseconds"),
            )
        )
        self.held.pop(injection, None)  # the order of arming is the order of this dict
        self.held[injection] = Held(injection, fault, instance, undo, expires_s)

    def disarm(self, injection: str) -> None:
        """Forget an undo whose change is meant to stay."""
        held = self.find(injection)
        if held.open:
            self.scribe.write(Reverted(injection, SUPERSEDED, "kept: this change is meant to stay", 0.0))
            held.state, held.outcome = "reverted", Outcome(SUPERSEDED, "kept")

    def injecting(self, injection: str) -> None:
        """The runner has begun to inject."""
        if held := self.held.get(injection):
            held.injecting = True

    def injected(self, injection: str, outcome: str) -> None:
        """The inject call has ended, or was given up."""
        if held := self.held.get(injection):
            held.answered = outcome == "done"
            held.late = outcome != "doubtful" and held.state in ("reverting", "reverted")
            held.gone = held.gone and not held.late

    def looked(self, injection: str, gone: bool) -> None:
        """The runner has looked after a revert."""
        if held := self.held.get(injection):
            held.gone, held.there = gone, not gone
            held.late = held.late and not gone

    def foresees_end_of(self, instance: str) -> bool:
        """Whether an injection under way is what ends this instance."""
        return any(held.injecting and held.open and Spawn(instance) in held.undo for held in self.held.values())

    def expired(self) -> Iterator[Held]:
        now_s = suspend_aware_s()
        return iter([held for held in self.held.values() if held.due_s is not None and now_s >= held.due_s])

    def next_expiry_s(self) -> float | None:
        """Seconds until the next undo expires; None when none is armed."""
        due = [held.due_s for held in self.held.values() if held.due_s is not None]
        return min(due) - suspend_aware_s() if due else None

    def revert(self, held: Held, cause: str, by: str, *, ending: bool = False) -> Steps[Outcome]:
        """Once only, unless it failed before. Depends on nothing: not on the journal, not on other undos."""
        if (known := (yield from self._begin(held, cause, by))) is not None:
            return known
        tried, started_s = held.outcome, time.monotonic()
        outcomes: list[Outcome] = []
        for batch in at_once(held.undo):
            outcomes += yield from together([self._guarded(undo, ending, tried) for undo in batch])
        return self._conclude(held, outcomes, by, started_s, ending=ending)

    def _begin(self, held: Held, cause: str, by: str) -> Steps[Outcome | None]:
        """The outcome that it has had, if there is nothing to do."""
        if held.state == "reverting":
            yield Wait(lambda: held.state != "reverting", UNDO_LIMIT_S)
        if not held.open and held.outcome is not None and cause != AGAIN:
            return held.outcome
        held.state, held.late, held.gone = "reverting", False, False
        held.tries, held.tried_s = held.tries + 1, suspend_aware_s()
        self.scribe.note(RevertStarted(held.injection, cause, by))
        return None

    def _conclude(
        self, held: Held, outcomes: list[Outcome], by: str, started_s: float, *, ending: bool = False
    ) -> Outcome:
        if held.there and ending:
            outcomes = [disbelieved(one, self._moot(undo)) for undo, one in zip(held.undo, outcomes, strict=True)]
        outcome = combine(outcomes)
        held.outcome = outcome
        failed = [undo for undo, one in zip(held.undo, outcomes, strict=True) if one.word == FAILED]
        held.only_far_left = far.wholly_far(failed)
        held.state = "failed" if outcome.word == FAILED else "reverted"
        held.there = held.there and (held.state == "failed" or not ending)
        took_ms = round((time.monotonic() - started_s) * 1000, 3)
        self.scribe.note(Reverted(held.injection, outcome.word, outcome.detail, took_ms, outcome.by, outcome.at))
        if by == "keeper" and outcome.seen:
            gone = outcome.word != FAILED
            held.there = held.there and not gone
            self.scribe.note(RevertVerified(held.injection, gone, outcome.seen, outcome.detail, took_ms))
        return outcome

    # --- what the runner carries out itself ---

    def begin_carrying(self, held: Held, cause: str) -> Steps[Outcome | None]:
        """The runner is about to undo it. The outcome that it has had, if there is nothing to do."""
        known = yield from self._begin(held, cause, "runner")
        held.carried = known is None
        return known

    def carry_part(self, held: Held, index: int) -> Steps[Outcome]:
        """One word of it that is the keeper's, when its turn has come."""
        if not held.carried or far.is_far(held.undo[index]):
            raise ValueError(f"{held.injection}: part {index} is not the keeper's to carry out now")
        return (yield from self._guarded(held.undo[index], False, None))

    def carried(self, held: Held, outcomes: list[Outcome]) -> Outcome:
        """The runner has undone it, or tried to: what became of each word."""
        if not held.carried:
            raise ValueError(f"{held.injection} is not being reverted by the runner")
        if len(outcomes) != len(held.undo):
            raise ValueError(f"{held.injection} has {len(held.undo)} undos, and {len(outcomes)} outcomes were told")
        held.carried = False
        return self._conclude(held, outcomes, "runner", time.monotonic() - (suspend_aware_s() - held.tried_s))

    def give_up_carrying(self) -> None:
        """The runner is gone, in the middle of it perhaps: whatever it was at counts as not undone."""
        for held in self.held.values():
            if held.carried:
                held.carried, held.state = False, "armed"

    def in_clusters(self) -> list[Held]:
        """What is open and is undone in a cluster, in part at least, in the order of arming."""
        return [held for held in self.held.values() if held.open and any(map(far.is_far, held.undo))]

    def revert_unasked(self, held: Held, cause: str, *, ending: bool = False, by: str = "keeper") -> Steps[Outcome]:
        """Revert, and tell the runner."""
        outcome = yield from self.revert(held, cause, by, ending=ending)
        self.push(
            "reverted",
            {"injection": held.injection, "cause": cause, "outcome": outcome.word, "detail": outcome.detail},
        )
        return outcome

    def revert_all(self, cause: str, by: str, *, ending: bool) -> Steps[None]:
        """Everything that is open, in the order of reverting. What is undone in clusters is the runner's, as long as
        it can be: only when it is gone, or has given it up, it is written down as left."""
        armed = [
            (held, held.fault, held.instance, held.undo)
            for held in self.held.values()
            if held.open and not (held.far and (not ending or (by == "runner" and held.state == "failed")))
        ]
        for wave in waves_of_reverting(armed):
            yield from together([self._lane(lane, cause, by, ending) for lane in wave])

    def revert_what_may_come_late(self, by: str) -> Steps[None]:
        """For a call that was never answered with success: whoever was called may act on it after the first revert."""
        addresses = [*self.family.addresses(), *self.claims.addresses()]
        doubtful = [
            held
            for held in reversed(list(self.held.values()))
            if held.injecting
            and not held.answered
            and suspend_aware_s() - held.tried_s < LATE_WITHIN_S
            and may_be_harmed_late(held.undo, addresses, self.claims.owns)
        ]
        if doubtful:
            yield Wait(lambda: False, DOUBTFUL_S)
            yield from self._lane(doubtful, AGAIN, by, True)

    def failed(self) -> list[str]:
        """What could not be shown to be reverted."""
        return [
            f"{held.injection} could not be shown to be reverted: {held.outcome.detail}"
            for held in self.held.values()
            if held.state == "failed" and held.outcome is not None
        ]

    def _lane(self, lane: list[Held], cause: str, by: str, ending: bool) -> Steps[None]:
        for held in lane:
            yield from self.revert_unasked(held, cause, ending=ending, by=by)

    def _guarded(self, undo: Undo, ending: bool, tried: Outcome | None) -> Steps[Outcome]:
        if isinstance(undo, InCluster):
            return far.left_after(tried, undo, self.family.run)
        try:
            return (yield from self._perform(undo, ending))
        except Exception as error:  # the undos that follow must still be carried out
            return Outcome(FAILED, f"{undo.kind}: {type(error).__name__}: {error}")

    def _perform(self, undo: Undo, ending: bool) -> Steps[Outcome]:
        if self.alone and isinstance(undo, Call) and (way := self.ways.of(undo)):
            return far.left_without_a_way(asked(undo, way.named), self.family.run)
        moot = self._moot(undo) if ending else ""
        if moot and not lifted_first(undo):
            return Outcome(SUPERSEDED, moot)
        if isinstance(undo, Signal):
            return perform(undo)
        if isinstance(undo, Spawn):
            return (yield from self._start_again(undo))
        if isinstance(undo, EndChild):
            return settled((yield from self._end_child(undo)), moot)
        if isinstance(undo, undo_engine.Remote):
            within_s = LAST_TRY_S if moot else None
            return settled((yield from undo_engine.steps(undo, self.family.answers_at, within_s)), moot)
        if child := self.family.children.get(getattr(undo, "instance", "")):
            child.ending = True
        return (yield from self.family.work(undo))

    def _moot(self, undo: Undo) -> str:
        addresses = [*self.family.addresses(), *self.claims.addresses()]
        return moot_when_the_system_ends(undo, addresses, self.claims.owns)

    def _end_child(self, undo: EndChild) -> Steps[Outcome]:
        child = self.family.children.get(undo.instance)
        if child is None:
            return Outcome(SUPERSEDED, f"{undo.instance} was never started", PROCESS_STATE)
        was_gone = child.gone
        left = yield from self.family.end(child, 0.0)
        self.collect()
        if left:
            return Outcome(FAILED, f"still alive: {', '.join(left)}")
        word = SUPERSEDED if was_gone else DONE
        return Outcome(word, f"{undo.instance} (pid {child.who.pid}) has ended", PROCESS_STATE)

    def ended_for_good(self, instance: str) -> bool:
        """Whether it belongs to an injection that was reverted already: whoever starts it now is too late."""
        meant = [held for held in self.held.values() if EndChild(instance) in held.undo]
        return bool(meant) and not any(held.state == "armed" for held in meant)

    def _start_again(self, undo: Spawn) -> Steps[Outcome]:
        self.collect()
        before = self.family.children.get(undo.instance)
        if before is None:
            return Outcome(FAILED, f"{undo.instance} was never started by this keeper")
        if not before.gone and self.foresees_end_of(undo.instance):
            # killed a moment ago: it can be reaped only when the last of its threads has ended
            yield Wait(lambda: before.gone, DIES_WITHIN_S)
        if not before.gone:
            return Outcome(SUPERSEDED, f"{undo.instance} (pid {before.who.pid}) lives")
        child = self.family.spawn(before.spec)
        self.scribe.note(spawned_event(child))
        return Outcome(DONE, f"{undo.instance} started again (pid {child.who.pid})")


def spawned_event(child: Child) -> ProcessSpawned:
    spec = child.spec
    return ProcessSpawned(
        instance=spec.instance,
        service=spec.service,
        role=spec.role,
        pid=child.who.pid,
        start_ticks=child.who.start_ticks,
        argv=list(spec.argv),
        env=dict(spec.env),
        cwd=spec.cwd,
        log=child.log,
        address=spec.address,
        labels=dict(spec.labels),
    )


def suspend_aware_s() -> float:
    """A clock that never jumps and goes on while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
