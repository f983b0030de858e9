"""Carries a plan out: reads the journal, asks `decide` what is next, does it, and writes down what happened.

One loop, one thread that decides; everything that may take time runs in a pool, each with a limit, so that a
revert never waits for a step that hangs. The state is folded from the journal itself, never remembered beside it.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, Protocol

from stormdrill.core import decide as do
from stormdrill.core.fold import State, start, step
from stormdrill.engine import contact, restoring
from stormdrill.engine.injecting import Injecting, now_ms
from stormdrill.errors import KeeperGone, Problem, Refused, SystemNotReady, Unreachable
from stormdrill.model import event as ev
from stormdrill.model.plan import Plan
from stormdrill.ports import Contacts, EndedBy, Fault, Keeper, Load, Target
from stormdrill.store.journal import Follower, JournalUnwritable

TICK_S = 0.02
EXPIRY_GRACE_S = 5.0
"""The keeper reverts by itself this long after the planned revert."""
END_LIMIT_S = 90.0

AbortedBy = Literal["signal", "guard", "machine", "keeper", "baseline", "system", "input", "load"] | EndedBy


class Observer(Protocol):
    """Told of every event as it is read from the journal."""

    def __call__(self, what: ev.Recorded, /) -> None: ...


class Watcher(Protocol):
    """Looks at the running system in threads of its own."""

    def start(self) -> None: ...
    def stop(self) -> None: ...


class Runbook(Protocol):
    """The executor of one runbook, in a thread of its own."""

    def start(self, trigger: str, labels: dict[str, str]) -> None: ...
    def cancel(self) -> None:
        """Returns when it has ended; one that has not started yet never does."""
        ...


@dataclass(frozen=True, slots=True)
class Parts:
    """What the conductor plays with, picked by `api`."""

    keeper: Keeper
    target: Target
    faults: Mapping[str, Fault]
    make_load: Callable[[], Load] | None
    """Called once the system's addresses are known; None: no load."""
    runbook: Runbook | None
    follower: Follower
    judge_baseline: Callable[[Sequence[ev.Recorded]], ev.BaselineJudged]
    settle: Callable[[], Sequence[tuple[ev.Event, float]]]
    """Follows accepted jobs to their end once no more arrive; returns what was recorded of them."""
    observer: Observer
    watchers: Sequence[Watcher] = ()
    """Started when the system is ready, stopped before it is ended."""


class Conductor:
    def __init__(self, plan: Plan, parts: Parts) -> None:
        self.plan = plan
        self.keeper = parts.keeper
        self.target = parts.target
        self._injecting = Injecting(
            parts.keeper,
            parts.target,
            parts.faults,
            {item.id: item for item in plan.injections},
            lambda name: self.state.injections[name],
        )
        self._make_load = parts.make_load
        self.load: Load | None = None
        self._runbook = parts.runbook
        self._follower = parts.follower
        self._judge_baseline = parts.judge_baseline
        self._settle = parts.settle
        self._observer = parts.observer
        self._watchers = parts.watchers
        self._watching = False
        self.events: list[ev.Recorded] = []
        self.state: State = start(plan)
        self.head = ""
        self.processes: dict[str, int] = {}
        """Every process of the run by its instance, the keeper included."""
        self._pool = ThreadPoolExecutor(max_workers=24, thread_name_prefix="do")
        self._reverts = ThreadPoolExecutor(max_workers=24, thread_name_prefix="revert")  # never behind a hung call
        self._under_way: dict[do.Command, Future[None]] = {}
        self._wake = threading.Event()
        self._abort: ev.AbortRequested | None = None
        self.refused: tuple[Problem, ...] = ()
        """What was wrong where the run was refused while it was set up."""
        self._keeper_gone = ""
        self._defect: BaseException | None = None

    # --- what other threads and signal handlers may call -----------------------------------------------------

    def abort(self, by: AbortedBy, reason: str, well_mono_ms: float | None = None) -> None:
        """Stop now and undo everything. The first reason wins; safe from any thread, but not from a signal handler."""
        self.note_abort(by, reason, well_mono_ms)
        self._wake.set()

    def abort_for(self, by: Literal["guard", "load", "system"], reason: str) -> str:
        """Unless that follows from something else, which is told and returned then: a cluster that was taken away."""
        if isinstance(self.target, Contacts):
            for one in self.target.contacts_now():
                if one.over:
                    self.abort(one.by, contact.reason(one), one.well_mono_ms)
                    return contact.reason(one)
        self.abort(by, reason)
        return ""

    def note_abort(self, by: AbortedBy, reason: str, well_mono_ms: float | None = None) -> None:
        """The same from a signal handler, which may have interrupted the loop with the lock of `_wake` in its hands:
        the loop notices it at its next turn."""
        if self._abort is None:
            self._abort = ev.AbortRequested(by, reason, well_mono_ms)

    @property
    def stopping(self) -> str:
        """Why the run is being stopped; empty while it isn't."""
        return self._abort.reason if self._abort is not None else ""

    def lose_keeper(self, why: str) -> None:
        """The loop raises KeeperGone at its next turn: somebody must take the journal over."""
        self._keeper_gone = self._keeper_gone or why
        self._wake.set()

    def fail(self, error: BaseException) -> None:
        """A watcher crashed: its silence must not be taken for calm. The loop raises it at its next turn."""
        self._defect = self._defect or error
        self._wake.set()

    def record(self, event: ev.Event, mono_ms: float | None = None) -> None:
        """Write one event down, from a watcher's thread: what is wrong with the record ends the run in its loop."""
        try:
            self.keeper.record(event, mono_ms)
        except KeeperGone as gone:
            self.lose_keeper(str(gone))
        except JournalUnwritable as error:
            self.abort("machine", str(error))

    # --- the run ---------------------------------------------------------------------------------------------

    def run(self) -> str:
        """From the start of the system to `run-ended`; returns the status. Raises KeeperGone when that died."""
        try:
            for work in itertools.chain([self._bring_up], itertools.repeat(self._turn)):
                try:
                    work()
                except JournalUnwritable as error:
                    self.abort("machine", str(error))
                    self._wake.wait(TICK_S)
                if self.state.ended:
                    break
            for command, future in self._under_way.items():
                if isinstance(command, do.Finish):  # `run-ended` is read before the keeper has said goodbye
                    future.result(timeout=END_LIMIT_S)
        finally:
            self._unwatch()
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._reverts.shutdown(wait=False, cancel_futures=True)
        return self.state.ended

    def _turn(self) -> None:
        self.refresh()
        if self.state.ended:
            return
        if self._keeper_gone:
            raise KeeperGone(self._keeper_gone)
        if self._defect is not None:
            raise self._defect
        if self._abort is not None and self.state.abort is None:
            self.keeper.record(self._abort)
            self.refresh()
            self._submit(do.CancelRunbook(), self._cancel_runbook)  # one that is only about to start, too
        busy = False
        for command in do.decide(self.plan, self.state, now_ms()):
            busy = self._dispatch(command) or busy
        self._collect()
        if not busy:
            self._wake.wait(TICK_S)
            self._wake.clear()

    def refresh(self) -> None:
        for recorded in self._follower.poll():
            self.events.append(recorded)
            self.state = step(self.state, recorded)
            event = recorded.event
            if isinstance(event, ev.ProcessSpawned | ev.ContainerStarted):
                self.processes[event.instance] = event.pid
            if isinstance(event, ev.ProcessSpawned):
                self.target.respawned(event.instance, event.pid, event.start_ticks)
            elif isinstance(event, ev.KeeperStarted):
                self.processes["keeper"] = event.pid
            self._observer(recorded)

    def _bring_up(self) -> None:
        started_s = time.monotonic()
        preparing: Future[None] | None = None
        try:
            self.target.start(self.keeper)
            if self._make_load is not None:
                self.load = self._make_load()
                preparing = self._pool.submit(self.load.prepare, self.keeper)
            self._wait_ready(started_s)
            if preparing is not None:
                self._await_load(preparing)
            if self._abort is None and not self._keeper_gone:
                self._watch()
                self._begin_load()
        except Refused as error:  # a user's locustfile that fails only when it is imported, a cluster that is held
            self.refused = error.problems
            self.abort("input", str(error))
        except SystemNotReady as error:
            self.abort("system", str(error))

    def _await_load(self, preparing: Future[None]) -> None:
        """It has a limit of its own: workers on other machines are started by people, whom nobody else waits for."""
        while not preparing.done() and self._abort is None and not self._keeper_gone:
            self._wake.wait(TICK_S)
            self._wake.clear()
            self.refresh()
        if preparing.done():
            preparing.result()

    def _watch(self) -> None:
        self._watching = True
        for watcher in self._watchers:
            watcher.start()

    def _unwatch(self) -> None:
        if self._watching:
            self._watching = False
            for watcher in reversed(self._watchers):
                watcher.stop()

    def _wait_ready(self, started_s: float) -> None:
        limit_s = self.plan.system.ready_timeout_s
        answered: set[str] = set()
        while self._abort is None and not self._keeper_gone:
            self.refresh()
            self._fail_on_exit()
            ready = self.target.ready()
            after_ms = round((time.monotonic() - started_s) * 1000, 1)
            for name in [item for item, yes in ready.items() if yes and item not in answered]:
                answered.add(name)
                self.record(ev.InstanceReady(name, after_ms, "answered its ready check"))
            if all(ready.values()):
                self.keeper.record(ev.SystemReady(len(self.plan.system.instances), after_ms))
                return
            if time.monotonic() - started_s > limit_s:
                silent = ", ".join(sorted(name for name, yes in ready.items() if not yes))
                raise SystemNotReady(f"not ready after {limit_s:g} s: {silent} never answered; see logs/ of the run")
            self._wake.wait(TICK_S)
            self._wake.clear()

    def _fail_on_exit(self) -> None:
        for recorded in self.events:
            event = recorded.event
            if isinstance(event, ev.ProcessExited) and not event.expected:
                how = f"signal {event.signal}" if event.signal else f"exit code {event.code}"
            elif isinstance(event, ev.ContainerEvent) and event.action == "die" and not event.expected:
                how = event.detail
            else:
                continue
            name = event.instance
            raise SystemNotReady(f"{name} ended at once ({how}); its output is in logs/{name}.log of the run")

    def _begin_load(self) -> None:
        if self.load is None or self.plan.experiment.load is None:
            return
        self.keeper.record(self.load.begin(now_ms() + self.load.lead_ms))

    # --- commands --------------------------------------------------------------------------------------------

    def _dispatch(self, command: do.Command) -> bool:
        """Start a command unless it is under way. True when something was done at once."""
        if command in self._under_way:
            return False
        match command:
            case do.Enter():
                self.keeper.record(ev.PhaseEntered(command.phase, self.plan.length_s(command.phase)), command.edge_ms)
                return True
            case do.Inject():
                self.keeper.record(ev.InjectStarted(command.injection))
                self._submit(command, self._injecting.inject, command.injection)
                return True
            case do.CancelRunbook():
                self._submit(command, self._cancel_runbook)
            case do.Finish() if any(isinstance(one, do.Finish) for one in self._under_way):
                return False  # an abort that comes when the end has begun already
            case do.Finish():
                self._submit(command, self._finish, command)
            case _:
                self._submit(command, *self._work(command))
        return False

    def _work(self, command: do.Command) -> tuple[Callable[..., None], *tuple[object, ...]]:
        match command:
            case do.JudgeBaseline():
                return (self._judge_gate,)
            case do.Arm():
                return self._arm, command.injection
            case do.Observe():
                return self._injecting.observe, command.injection
            case do.Revert():
                return self._revert, command.injection, command.cause
            case do.Verify():
                return self._injecting.verify, command.injection, command.last
            case do.LookAgain():
                return self._injecting.look_again, command.injection
            case do.StartRunbook():
                return self._start_runbook, command.trigger, command.alert
            case do.UndoRunbook():
                return (self._undo_runbook,)
            case _:
                return (self._end_load,)

    def _submit(self, command: do.Command, work: Callable[..., None], *arguments: object) -> None:
        pool = self._reverts if isinstance(command, do.Revert | do.Verify | do.LookAgain | do.Finish) else self._pool
        future = pool.submit(work, *arguments)
        future.add_done_callback(lambda _: self._wake.set())
        self._under_way[command] = future

    def _collect(self) -> None:
        """Forget what is done; a defect or a dead keeper in a worker surfaces here, in the deciding thread."""
        for command, future in list(self._under_way.items()):
            if not future.done():
                self._doubt(command)
                continue
            self.refresh()  # what it wrote is folded before the same command can be asked for again
            if self.state.ended:
                return  # `run` waits for the goodbye; what a straggler met after the end doesn't matter
            del self._under_way[command]
            future.result()

    def _doubt(self, command: do.Command) -> None:
        """A call that outlives its limit is doubtful: reverted, looked at after that, and again before the end."""
        if not isinstance(command, do.Inject):
            return
        now = self.state.injections[command.injection]
        limit_ms = self.plan.injection(command.injection).inject_timeout_s * 1000
        if not now.outcome and now.inject_ms is not None:
            took_ms = now_ms() - now.inject_ms
            if took_ms > limit_ms:
                detail = f"no answer within {limit_ms / 1000:g} s"
                self.keeper.record(ev.Injected(command.injection, "doubtful", detail, round(took_ms, 1)))

    def _judge_gate(self) -> None:
        judged = self._judge_baseline(self.events)
        self.keeper.record(judged)
        if not judged.healthy:
            self.abort("baseline", "nothing was injected")

    def _arm(self, name: str) -> None:
        injection = self.plan.injection(name)
        try:
            self.keeper.arm(
                name,
                fault=injection.fault,
                instance=injection.instance,
                mechanism=injection.mechanism,
                undo=self.target.undo_of(injection),
                expires_in_s=injection.longest_s + EXPIRY_GRACE_S,
            )
        except Unreachable as error:
            self.abort_for("system", f"{name} could not be armed: {error}")

    def _revert(self, name: str, cause: str) -> None:
        self.keeper.revert(name, cause)

    def _start_runbook(self, trigger: str, alert: str) -> None:
        firing = self.state.firing.get(alert)
        if self._runbook is not None:
            self._runbook.start(trigger, firing.labels if firing else {})

    def _cancel_runbook(self) -> None:
        if self._runbook is not None:
            self._runbook.cancel()

    def _undo_runbook(self) -> None:
        """What the journal says is armed, and not what the executor remembers, the last one first."""
        for name in reversed(self.state.runbook_armed):
            self.keeper.revert(name, "planned" if self.state.abort is None else "abort")

    def _end_load(self) -> None:
        """No new arrivals; what is in flight and what was accepted is followed to its deadline. After an abort nothing
        is tried again either."""
        if self.load is None:
            return
        last_ms = now_ms()
        events = self.load.end(last_ms, END_LIMIT_S, retries=self.state.abort is None)
        for event, at_ms in self._settle():
            self.keeper.record(event, at_ms)
        for event in events:
            self.keeper.record(event)

    def _check_restored(self, status: str) -> None:
        """After faults and runbook were taken back. Who stops the run meanwhile doesn't wait for it."""
        stopped = self._abort

        def over() -> bool:
            return bool(self._keeper_gone) or self._abort is not stopped

        within_s = restoring.limit_s(self.plan, self.state, status)
        self.keeper.record(restoring.restored(self.plan, self.target.ready, within_s, over))

    def _finish(self, command: do.Finish) -> None:
        if self.state.injected:
            self._check_restored(command.status)
        self._unwatch()
        self.target.leave()
        left = self.keeper.teardown()
        status = "dirty" if left else command.status
        reason = f"left behind: {'; '.join(left)}" if left else command.reason
        self.head = self.keeper.close(status, reason)
