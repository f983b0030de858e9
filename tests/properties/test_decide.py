"""Laws of the deciding heart, over random plans, aborts, late answers, failing undos and duplicated lines.

A virtual world carries out what `decide` asks for, with delays and failures that Hypothesis chooses; one example
holds many interleavings.
"""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from stormdrill.core import decide as do
from stormdrill.core.fold import REVERT_TRIES, fold, start, step
from stormdrill.core.windows import first_inject, in_force_since
from stormdrill.model import event as ev
from stormdrill.model.experiment import Experiment, Phases, RunbookUse
from stormdrill.model.expression import AlertWithin
from stormdrill.model.plan import Injection, Plan
from stormdrill.model.system import System

TICK_MS = 50.0
LIMIT_MS = 400_000.0


def plan_of(starts: list[float], for_s: float, runbook: bool, failback_s: float, start_up: int = 0) -> Plan:
    """`start_up`: which of them have to be started first, one bit each."""
    use = RunbookUse("book", AlertWithin("alert(Down)", "Down"), else_after_s=3.0) if runbook else None
    experiment = Experiment(
        name="random",
        title="t",
        hypothesis="h",
        owner="o",
        system="s",
        phases=Phases(1.0, 2.0, 10.0, 2.0, failback_s),
        faults=(),
        objectives=(),
        runbook=use,
    )
    injections = tuple(
        Injection(
            f"f/{n}",
            "f",
            n,
            f"i{n}",
            "freeze",
            "thaw",
            start_s=s,
            for_s=min(for_s, 10.0 - s),
            starts_up=bool(start_up >> n & 1),
        )
        for n, s in enumerate(starts)
    )
    return Plan(experiment, System("s", "a", ()), "process", 1, injections, 15.0, "", (), ())


class World:
    """Carries commands out after random delays; an undo may fail, a call may come through late, an abort may come."""

    def __init__(self, plan: Plan, rng: random.Random, *, healthy: bool, abort_ms: float | None, undo_fails: float):
        self.plan, self.rng = plan, rng
        self.healthy, self.abort_ms, self.undo_fails = healthy, abort_ms, undo_fails
        self.now = 0.0
        self.journal: list[ev.Recorded] = []
        self.due: list[tuple[float, ev.Event, do.Command | None]] = []
        self.under_way: set[do.Command] = set()
        self.harmed: dict[str, bool] = {}
        self.slow: set[str] = set()
        """Calls that do their harm only when they are answered, or given up."""
        self.asked: list[tuple[float, do.Command]] = []

    def write(self, event: ev.Event, at: float | None = None) -> None:
        self.journal.append(ev.Recorded(len(self.journal), "", self.now if at is None else at, event))

    def later(self, event: ev.Event, command: do.Command | None = None) -> None:
        delay = self.rng.choice([0.0, 5.0, 60.0, 700.0, 4000.0])
        self.due.append((self.now + delay, event, command))

    def run(self) -> None:
        self.write(ev.SystemReady(1, 1.0))
        state = start(self.plan)
        for recorded in self.journal:
            state = step(state, recorded)
        read = len(self.journal)
        while not state.ended and self.now < LIMIT_MS:
            self.deliver()
            if self.abort_ms is not None and self.now >= self.abort_ms and state.abort is None:
                self.write(ev.AbortRequested("person", "stop"))
            for recorded in self.journal[read:]:
                state = step(state, recorded)
            read = len(self.journal)
            for command in do.decide(self.plan, state, self.now):
                if command not in self.under_way:
                    self.asked.append((self.now, command))
                    self.carry_out(command)
            self.now += TICK_MS
        self.state = state
        for _, event, _ in self.due:
            self.come_through(event)  # whatever is still under way when the run has ended

    def deliver(self) -> None:
        if self.journal and isinstance(self.journal[-1].event, ev.RunEnded):
            return  # nothing is written behind the end
        ready = [item for item in self.due if item[0] <= self.now]
        self.due = [item for item in self.due if item[0] > self.now]
        self.rng.shuffle(ready)
        for _, event, command in ready:
            self.come_through(event)
            if isinstance(event, ev.Reverted) and event.outcome == "done" and event.injection in self.harmed:
                self.harmed[event.injection] = False
            self.write(event)
            if self.rng.random() < 0.1:
                self.write(event)  # told twice
            if command is not None:
                self.under_way.discard(command)

    def come_through(self, event: ev.Event) -> None:
        if isinstance(event, ev.Injected) and event.injection in self.slow:
            self.slow.discard(event.injection)
            self.harmed[event.injection] = True

    def carry_out(self, command: do.Command) -> None:
        match command:
            case do.Enter():
                self.write(ev.PhaseEntered(command.phase, 0.0), command.edge_ms)
            case do.JudgeBaseline():
                self.write(ev.BaselineJudged(self.healthy, ""))
                if not self.healthy:
                    self.later(ev.AbortRequested("baseline", "unhealthy"))
            case do.Finish():
                self.write(ev.RunEnded(command.status, command.reason))
            case do.StartRunbook() | do.CancelRunbook() | do.UndoRunbook():
                self.of_runbook(command)
            case do.Arm() | do.Inject() | do.Revert() | do.Verify() | do.LookAgain():
                self.of_injection(command)

    def of_injection(self, command: do.Arm | do.Inject | do.Revert | do.Verify | do.LookAgain) -> None:
        match command:
            case do.LookAgain(name):
                there = self.harmed.get(name, False)
                self.write(
                    ev.RevertVerified(name, False, "w", "", 1.0)
                    if there
                    else ev.EffectObserved(name, False, "w", "", 1.0)
                )
                return
            case do.Verify():
                gone = not self.harmed.get(command.injection, False)
                if gone or command.last:
                    self.write(ev.RevertVerified(command.injection, gone, "w", "", 1.0))
                return
            case do.Arm():
                answer: ev.Event = ev.Armed(command.injection, "f", "i", "freeze", [], 0.0, "")
            case do.Inject():
                self.write(ev.InjectStarted(command.injection))
                self.harmed[command.injection] = not (slow := self.rng.random() < 0.5)
                self.slow |= {command.injection} if slow else set()
                outcome = self.rng.choice(["done", "done", "doubtful", "failed"])
                answer = ev.Injected(command.injection, outcome, "", 1.0)
            case do.Revert():
                self.write(ev.RevertStarted(command.injection, command.cause, "keeper"))
                outcome = "failed" if self.rng.random() < self.undo_fails else "done"
                answer = ev.Reverted(command.injection, outcome, "", 1.0)
        self.under_way.add(command)
        self.later(answer, command)

    def of_runbook(self, command: do.StartRunbook | do.CancelRunbook | do.UndoRunbook) -> None:
        match command:
            case do.StartRunbook():
                self.write(ev.RunbookStarted("book", "", command.trigger, {}, False))
                self.write(ev.Armed("runbook/drain", "runbook", "", "", [], 0.0, ""))
                self.later(ev.RunbookFinished("book", "done", "", 1.0))
                return
            case do.CancelRunbook():
                answer: ev.Event = ev.RunbookFinished("book", "cancelled", "", 1.0)
            case do.UndoRunbook():
                answer = ev.Reverted("runbook/drain", "done", "", 1.0)
        self.under_way.add(command)
        self.later(answer, command)


plans = st.builds(
    plan_of,
    st.lists(st.floats(0, 8).map(lambda s: round(s, 1)), max_size=4),
    st.floats(1, 10),
    st.booleans(),
    st.sampled_from([0.0, 2.0]),
    st.integers(0, 15),
)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    return World(
        draw(plans),
        random.Random(draw(st.integers(0, 2**32))),
        healthy=draw(st.booleans()) or draw(st.booleans()),
        abort_ms=draw(st.one_of(st.none(), st.floats(0, 20_000))),
        undo_fails=draw(st.sampled_from([0.0, 0.5, 1.0])),
    )


@settings(max_examples=150, deadline=None)
@given(worlds())
def test_every_run_ends_and_leaves_no_harm_that_it_does_not_admit(world: World) -> None:
    world.run()
    assert world.state.ended, "the run never ended"
    for name, harmed in world.harmed.items():
        stage = world.state.injections[name].stage
        assert stage == ("dirty" if harmed else stage)
        assert stage in ("verified", "dirty")
    still = any(world.harmed.values())
    dirty = {name for name, item in world.state.injections.items() if item.stage == "dirty"}
    assert (world.state.ended == "dirty") == bool(dirty), [(r.mono_ms, r.event) for r in world.journal]
    assert not still or world.state.ended == "dirty"
    for name in dirty:
        ends = [item.event.reason for item in world.journal if isinstance(item.event, ev.RunEnded)]
        assert name in ends[0], "a run that ends dirty says what is left"


@settings(max_examples=100, deadline=None)
@given(worlds())
def test_undo_is_journalled_before_the_harm_and_nothing_is_harmed_without_health(world: World) -> None:
    world.run()
    armed: set[str] = set()
    healthy = False
    for recorded in world.journal:
        match recorded.event:
            case ev.Armed(injection=name):
                armed.add(name)
            case ev.BaselineJudged(healthy=judged):
                healthy = judged
            case ev.InjectStarted(injection=name):
                assert name in armed
                assert healthy


@settings(max_examples=100, deadline=None)
@given(worlds())
def test_after_an_abort_nothing_more_is_injected_and_no_phase_begins(world: World) -> None:
    world.run()
    seen = False
    for recorded in world.journal:
        if seen:
            assert not isinstance(recorded.event, ev.InjectStarted | ev.PhaseEntered | ev.RunbookStarted)
        seen = seen or isinstance(recorded.event, ev.AbortRequested)


@settings(max_examples=100, deadline=None)
@given(worlds())
def test_recovery_begins_when_the_last_cause_was_seen_to_be_gone(world: World) -> None:
    world.run()
    settled: dict[str, float] = {}
    for recorded in world.journal:
        if isinstance(recorded.event, ev.RevertVerified):
            settled.setdefault(recorded.event.injection, recorded.mono_ms)
        if isinstance(recorded.event, ev.PhaseEntered) and recorded.event.phase == "recovery":
            assert set(settled) == {item.id for item in world.plan.injections}
            if settled:
                assert recorded.mono_ms >= max(settled.values()) - 1e-6


@settings(max_examples=100, deadline=None)
@given(worlds())
def test_a_failing_undo_is_tried_again_a_bounded_number_of_times(world: World) -> None:
    world.run()
    for injection in world.plan.injections:
        finished = world.state.injections[injection.id].reverts
        assert finished <= 2 * REVERT_TRIES + 2  # each may be told twice


@settings(max_examples=100, deadline=None)
@given(worlds(), st.integers(0, 10_000))
def test_a_crash_at_any_line_loses_no_knowledge_because_state_is_a_fold_of_the_journal(world: World, cut: int) -> None:
    world.run()
    cut %= len(world.journal) + 1
    before, after = world.journal[:cut], world.journal[cut:]
    state = fold(world.plan, before)
    for recorded in after:
        state = step(state, recorded)
    assert state == fold(world.plan, world.journal)


@settings(max_examples=100, deadline=None)
@given(worlds(), st.randoms(use_true_random=False))
def test_a_late_answer_never_brings_a_verified_injection_back(world: World, rng: random.Random) -> None:
    """Late: written after, seen before the last revert began."""
    world.run()
    verified = {name: item for name, item in world.state.injections.items() if item.stage == "verified"}
    late = [
        r
        for r in world.journal
        if isinstance(r.event, ev.Armed | ev.Injected | ev.Reverted | ev.RevertStarted)
        and r.mono_ms <= (verified[r.event.injection].revert_ms or 0 if r.event.injection in verified else 0)
    ]
    rng.shuffle(late)
    state = world.state
    for recorded in late:
        state = step(state, recorded)
    assert {name for name, item in state.injections.items() if item.stage == "verified"} >= set(verified)


@settings(max_examples=100, deadline=None)
@given(worlds())
def test_a_call_that_comes_through_after_the_revert_is_reverted_again(world: World) -> None:
    world.run()
    for name, item in world.state.injections.items():
        if item.stage != "verified":
            continue
        bites = ev.Recorded(0, "", (item.revert_ms or 0.0) + 1.0, ev.EffectObserved(name, True, "w", "", 1.0))
        state = replace(step(world.state, bites), ended="")
        assert do.Revert(name, "again") in do.decide(world.plan, state, world.now)


def first(world: World, kind: type[ev.Event], name: str) -> ev.Recorded | None:
    mine = (one for one in world.journal if isinstance(one.event, kind) and one.event.injection == name)  # type: ignore[attr-defined]
    return next(mine, None)


@settings(max_examples=150, deadline=None)
@given(worlds())
def test_a_fault_lasts_as_long_as_was_asked_for_from_when_it_is_in_force(world: World) -> None:
    """It is in force with its call, or, where something has to be started first, when that is answered."""
    world.run()
    for item in world.plan.injections:
        revert, call, answer = (
            first(world, kind, item.id) for kind in (ev.RevertStarted, ev.InjectStarted, ev.Injected)
        )
        if revert is None or call is None or revert.event.cause != "planned":  # type: ignore[attr-defined]
            continue
        if not item.starts_up:
            assert revert.mono_ms >= call.mono_ms + item.for_s * 1000
        elif answer is not None:
            assert revert.mono_ms >= answer.mono_ms + item.for_s * 1000


@settings(max_examples=150, deadline=None)
@given(worlds())
def test_who_decides_and_who_judges_count_from_the_same_moment(world: World) -> None:
    """Once a call was answered before its revert began; while it is being started nobody has anything to answer yet."""
    world.run()
    for item in world.plan.injections:
        now, since = world.state.injections[item.id], in_force_since(item, world.journal)
        if now.injected_ms is not None or not item.starts_up:
            assert now.in_force_ms == (None if since is None else since.mono_ms)
        else:
            assert now.in_force_ms is None


@settings(max_examples=150, deadline=None)
@given(worlds())
def test_nothing_starts_the_runbook_before_a_fault_is_in_force(world: World) -> None:
    world.run()
    begun = [one.mono_ms for one in world.journal if isinstance(one.event, ev.RunbookStarted)]
    inject = first_inject(world.plan, world.journal)
    if not begun or not world.plan.injections:
        return
    use = world.plan.experiment.runbook
    assert use is not None
    assert inject is not None
    assert begun[0] >= inject.mono_ms + use.else_after_s * 1000


@settings(max_examples=150, deadline=None)
@given(worlds())
def test_whatever_has_to_be_started_first_nothing_outlives_its_longest_time(world: World) -> None:
    world.run()
    for item in world.plan.injections:
        revert, call = first(world, ev.RevertStarted, item.id), first(world, ev.InjectStarted, item.id)
        if call is not None:
            assert revert is not None
            assert revert.mono_ms <= call.mono_ms + item.longest_s * 1000 + 2 * TICK_MS


@settings(max_examples=150, deadline=None)
@given(worlds())
def test_what_was_to_follow_a_fault_that_started_late_does_not_come_on_top_of_it(world: World) -> None:
    world.run()
    if not any(item.starts_up for item in world.plan.injections):
        return
    for later in world.plan.injections:
        begun = first(world, ev.InjectStarted, later.id)
        for before in world.plan.injections:
            if begun is None or before.start_s + before.for_s > later.start_s or before.id == later.id:
                continue
            gone = first(world, ev.RevertVerified, before.id)
            assert gone is not None
            assert gone.mono_ms <= begun.mono_ms


def test_a_start_up_that_nobody_ever_tells_the_end_of_is_reverted_in_time_all_the_same() -> None:
    plan = plan_of([0.0], 10.0, runbook=False, failback_s=0.0, start_up=1)
    (item,) = plan.injections
    told = [ev.PhaseEntered("fault", 10.0), ev.Armed("f/0", "f", "i0", "freeze", [], 0.0, ""), ev.InjectStarted("f/0")]
    state = fold(plan, [ev.Recorded(number, "", 0.0, event) for number, event in enumerate(told)])
    state = replace(state, ready=True)
    last_ms = item.longest_s * 1000
    assert do.Revert("f/0", "planned") not in do.decide(plan, state, last_ms - 1.0)
    assert do.Revert("f/0", "planned") in do.decide(plan, state, last_ms)


def test_what_was_never_answered_with_success_is_looked_at_again_before_the_end() -> None:
    plan = plan_of([0.0], 1.0, runbook=False, failback_s=0.0)
    told: list[ev.Event] = [
        ev.AbortRequested("person", "stop"),
        ev.Armed("f/0", "f", "i0", "freeze", [], 0.0, ""),
        ev.InjectStarted("f/0"),
        ev.RevertStarted("f/0", "abort", "runner"),
        ev.Reverted("f/0", "done", "", 1.0),
        ev.RevertVerified("f/0", True, "w", "", 1.0),
    ]

    def asked(*more: ev.Event) -> list[do.Command]:
        told.extend(more)
        state = fold(plan, [ev.Recorded(number, "", float(number), event) for number, event in enumerate(told)])
        return do.decide(plan, state, 100.0)

    assert asked() == [], "the call has not been answered"
    assert asked(ev.Injected("f/0", "doubtful", "", 5000.0)) == [do.LookAgain("f/0")]
    assert asked(ev.RevertVerified("f/0", False, "w", "it is there again", 1.0)) == [do.Revert("f/0", "again")]
    reverted = [ev.RevertStarted("f/0", "again", "runner"), ev.Reverted("f/0", "done", "", 1.0)]
    assert asked(*reverted, ev.RevertVerified("f/0", True, "w", "", 1.0)) == [do.LookAgain("f/0")]
    assert asked(ev.EffectObserved("f/0", False, "w", "", 1.0)) == [do.Finish("aborted", "stop")]
