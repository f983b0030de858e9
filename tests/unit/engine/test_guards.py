"""Guards on a clock of the test's own: what trips, when, and in which order."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from watch_world import until

from stormdrill.core.fold import State
from stormdrill.engine.guards import BLIND_S, Guards, armed
from stormdrill.model.event import ConditionHeld, Event, GuardTripped, Warned
from stormdrill.model.expression import Comparison, Expression
from stormdrill.ports import Held
from synthetic_run import Knobs, make_plan

GUARD = Comparison("success < 50% for 10s", "success", "<", 50, "%", for_s=10)
AT_ONCE = Comparison("depth > 9", "depth", ">", 9)


class Seen:
    """A sight that says what it is told to."""

    def __init__(self, held: Held) -> None:
        self.held = held

    def poll(self) -> None:
        pass

    def evaluate(self, expression: Expression) -> Held:
        return self.held


class World:
    def __init__(self, seen: Held, *guards: Expression, trigger: Expression | None = None) -> None:
        self.sight = Seen(seen)
        self.armed = True
        self.done: list[object] = []
        self.shown: dict[str, float] = {}
        self.record: Callable[[Event], object] = self.done.append
        self.told: list[BaseException] = []
        self.guards = Guards(
            guards,
            self.sight,
            armed=lambda: self.armed,
            record=lambda event, at_ms: self.record(event),
            trip=self.done.append,
            trigger=trigger,
            shown={"depth": AT_ONCE},
            show=self.shown.update,
            on_defect=self.told.append,
        )


def test_a_guard_trips_once_it_has_held_for_its_time() -> None:
    world = World(Held(True, 10.0), GUARD)
    assert not world.guards.look(100.0)
    assert not world.guards.look(109.9)
    assert world.guards.look(110.0)
    assert world.done == [
        "guard success < 50% for 10s: held for 10 s",
        GuardTripped(GUARD.text, 10.0, "held for 10 s"),
    ]


def test_a_guard_that_recovers_starts_anew() -> None:
    world = World(Held(True, 10.0), GUARD)
    world.guards.look(100.0)
    world.sight.held = Held(False, 90.0)
    world.guards.look(105.0)
    world.sight.held = Held(True, 10.0)
    assert not world.guards.look(106.0)
    assert not world.guards.look(115.9)
    assert world.guards.look(116.0)


def test_the_run_is_stopped_before_the_record_is_written() -> None:
    world = World(Held(True, 10.0), AT_ONCE)

    def full(_: Event) -> None:
        raise OSError("no space left")

    world.record = full
    with pytest.raises(OSError, match="no space"):
        world.guards.look(1.0)
    assert world.done == ["guard depth > 9: held for 0 s"]


def test_what_follows_from_something_else_is_no_guard_that_trips() -> None:
    world = World(Held(True, 10.0), AT_ONCE)
    world.guards._trip = lambda _: "the namespace goes"
    assert world.guards.look(100.0)
    assert world.done == [Warned("guard depth > 9 saw what follows from something else: the namespace goes")]


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_what_is_no_number_trips_all_the_same_and_stays_out_of_the_journal(value: float) -> None:
    world = World(Held(True, value), AT_ONCE)
    assert world.guards.look(1.0)
    _, event = world.done
    assert isinstance(event, GuardTripped)
    assert event.value is None
    assert str(value) in event.detail
    assert world.shown == {}


def test_nothing_fresh_to_look_at_trips_after_a_while() -> None:
    world = World(Held(False, None, "nothing fresh"), GUARD)
    assert not world.guards.look(50.0)
    assert not world.guards.look(50.0 + BLIND_S - 0.1)
    assert world.guards.look(50.0 + BLIND_S)
    assert world.done[-1] == GuardTripped(GUARD.text, None, f"no fresh reading for {BLIND_S:g} s")


def test_one_fresh_look_ends_the_blindness() -> None:
    world = World(Held(False, None, "nothing fresh"), GUARD)
    world.guards.look(50.0)
    world.sight.held = Held(False, 99.0)
    world.guards.look(53.0)
    world.sight.held = Held(False, None, "nothing fresh")
    assert not world.guards.look(54.0)
    assert not world.guards.look(57.0)
    assert world.guards.look(58.0)


def test_guards_that_are_not_armed_trip_on_nothing_and_forget() -> None:
    world = World(Held(True, 99.0), AT_ONCE, GUARD)
    world.armed = False
    for now_s in (0.0, 100.0, 200.0):
        assert not world.guards.look(now_s)
    assert world.done == []
    world = World(Held(True, 10.0), GUARD)
    world.guards.look(0.0)
    world.armed = False
    world.guards.look(9.0)
    world.armed = True
    assert not world.guards.look(20.0)


def test_a_runbooks_condition_holds_for_its_own_time_and_is_told_once() -> None:
    condition = Comparison("depth > 9 for 3s", "depth", ">", 9, for_s=3)
    world = World(Held(True, 12.0), trigger=condition)
    world.guards.look(10.0)
    world.guards.look(12.9)
    assert world.done == []
    world.guards.look(13.0)
    world.guards.look(20.0)
    assert world.done == [ConditionHeld(condition.text, 12.0)]


def test_guards_that_crash_are_told() -> None:
    world = World(Held(True, 99.0), AT_ONCE)

    def broken() -> None:
        raise RuntimeError("the sight is broken")

    world.sight.poll = broken  # type: ignore[method-assign]
    world.guards.start()
    until(lambda: world.told)
    world.guards.stop()
    assert str(world.told[0]) == "the sight is broken"


def test_guards_look_by_themselves_once_started() -> None:
    world = World(Held(True, 99.0), AT_ONCE)
    world.guards.start()
    until(lambda: len(world.done) == 2)
    world.guards.stop()
    assert world.told == []


def test_waiting_for_accepted_jobs_after_recovery_is_not_guarded() -> None:
    """Nothing arrives by then: a guard without a fresh reading would stop the run and call a sound system FAILed."""
    plan = make_plan(Knobs())
    recovery_ms = plan.length_s("recovery") * 1000
    state = State(phase="recovery", phases={"recovery": 5000.0})
    assert armed(plan, state, 5000.0 + recovery_ms - 1)
    assert not armed(plan, state, 5000.0 + recovery_ms)
    assert armed(plan, State(phase="fault", phases={"fault": 0.0}), 1e9)
    assert not any(armed(plan, State(phase=phase), 0.0) for phase in ("warmup", "baseline", "failback", "end", ""))
