"""What the keeper does: answers the runner, holds armed undos, reverts them, and ends the run when the runner can't."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import cast

from stormdrill.errors import StormdrillError
from stormdrill.keeper.family import Child, Exit, Family, Spec
from stormdrill.keeper.loop import LONGEST_SLEEP_S, Loop, Steps, Wait
from stormdrill.keeper.undo import (
    DONE,
    FAILED,
    SUPERSEDED,
    Outcome,
    combine,
    moot_when_the_system_ends,
    perform,
    prepare,
)
from stormdrill.keeper.wire import Channel
from stormdrill.model.event import (
    AbortRequested,
    Armed,
    Event,
    KeeperStarted,
    ProcessExited,
    ProcessSpawned,
    Reverted,
    RevertStarted,
    RevertVerified,
    RunEnded,
    TornDown,
    Warned,
    event_from_json,
)
from stormdrill.model.undo import Signal, Spawn, Undo, undo_from_json, undo_to_json
from stormdrill.store import holds
from stormdrill.store.holds import Hold
from stormdrill.store.identity import own_identity
from stormdrill.store.journal import JournalUnwritable, JournalWriter

ABORT_LIMIT_S = 5.0
"""How long the runner has to end the run after an abort request before the keeper ends it."""
ORPHAN_GRACE_S = 0.3
"""Between SIGTERM and SIGKILL when there is no runner any more."""
UNDO_LIMIT_S = 120.0
Message = Mapping[str, object]
Reply = dict[str, object]


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
    outcome: Outcome | None = None

    @property
    def at_once(self) -> bool:
        return all(isinstance(undo, Signal) for undo in self.undo)

    @property
    def open(self) -> bool:
        return self.state != "reverted"


@dataclass(slots=True)
class Warden:
    """One run's keeper. Every op is answered once; what the runner must know unasked is pushed."""

    journal: JournalWriter
    channel: Channel
    family: Family
    loop: Loop
    hold: Hold | None
    grace_s: float
    held: dict[str, Held] = field(default_factory=dict)
    signalled: str = ""
    _started: bool = False
    _finishing: bool = False
    _in_trouble: bool = False
    _abort_at_s: float | None = None

    # --- turns of the loop ---

    def tick(self) -> float:
        """Everything that is due; returns seconds to the next thing that will be."""
        for exit_ in self.family.reap():
            self._exited(exit_)
        if self.signalled:
            reason, self.signalled = f"the keeper received {self.signalled}", ""
            self._request_abort("signal", reason)
        now_s = _suspend_aware_s()
        for held in self.held.values():
            if held.state == "armed" and now_s >= held.expires_s:
                self.loop.start(self._revert(held, "expired", "keeper"), self._reverted_unasked(held, "expired"))
        if self._abort_at_s is not None and time.monotonic() >= self._abort_at_s:
            self.finish("keeper", "the runner did not end the run in time after an abort request")
        if self.journal.sync_in_s == 0.0:
            self._guarded(self.journal.sync)
        self.loop.want_write(self.channel.sock, self.channel.wants_to_write)
        return self._next_due_s(now_s)

    def _next_due_s(self, now_s: float) -> float:
        due = [held.expires_s - now_s for held in self.held.values() if held.state == "armed"]
        if self._abort_at_s is not None and not self._finishing:
            due.append(self._abort_at_s - time.monotonic())
        if (sync_in_s := self.journal.sync_in_s) is not None:
            due.append(sync_in_s)
        return min(due, default=LONGEST_SLEEP_S)

    def readable(self) -> None:
        """The runner sent something, or is gone."""
        self.channel.flush()
        messages = self.channel.receive()
        if messages is None:
            self.channel.open = False
            self.loop.forget(self.channel.sock)
            self.finish("runner-gone", "the runner is gone")
            return
        for message in messages:
            self._serve(message)

    def _serve(self, message: Message) -> None:
        def answer(reply: Reply | None, error: Exception | None) -> None:
            if error is not None:
                reply = {"error": _kind_of(error), "text": str(error) or repr(error)}
                if isinstance(error, JournalUnwritable):
                    self._trouble(str(error))
            self.channel.send({"id": message["id"], **(reply or {})})

        ops: dict[str, Callable[[Message], Steps[Reply]]] = {
            "record": self._op_record,
            "secret": self._op_secret,
            "spawn": self._op_spawn,
            "arm": self._op_arm,
            "revert": self._op_revert,
            "disarm": self._op_disarm,
            "stop": self._op_stop,
            "teardown": self._op_teardown,
            "close": self._op_close,
        }
        handler = ops.get(str(message["op"]))
        if handler is None:
            answer(None, ValueError(f"no such op: {message['op']}"))
        else:
            self.loop.start(handler(message), answer)

    # --- what the runner asks ---

    def _op_record(self, message: Message) -> Steps[Reply]:
        yield from ()
        word, fields = str(message["type"]), cast("dict[str, object]", message["fields"])
        event = event_from_json(word, fields)
        if word == "inject-started" and (held := self.held.get(str(fields["injection"]))):
            held.injecting = True
        mono_ms = cast("float | None", message.get("mono_ms"))
        return {"seq": self._write(event, mono_ms)}

    def _op_secret(self, message: Message) -> Steps[Reply]:
        yield from ()
        self.journal.redactor.register(str(message["value"]))
        return {}

    def _op_spawn(self, message: Message) -> Steps[Reply]:
        yield from ()
        values = cast("dict[str, object]", message["spec"])
        values["argv"] = tuple(cast("list[str]", values["argv"]))
        child = self.family.spawn(Spec(**values))  # type: ignore[arg-type]  # written by the client
        try:
            self._write(_spawned(child))
        except JournalUnwritable:
            yield from self.family.end(child, 0.0)
            raise
        return {"pid": child.who.pid, "start_ticks": child.who.start_ticks}

    def _op_arm(self, message: Message) -> Steps[Reply]:
        yield from ()
        injection = str(message["injection"])
        before = self.held.get(injection)
        if before is not None and before.open:
            raise ValueError(f"{injection} is armed already")
        if self._finishing or self._in_trouble or self._abort_at_s is not None:
            raise ValueError(f"{injection} is not armed: the run is being ended")
        undo = tuple(undo_from_json(item) for item in cast("list[dict[str, object]]", message["undo"]))
        for item in undo:
            prepare(item)
        expires_in_s = float(cast("float", message["expires_in_s"]))
        held = Held(injection, str(message["fault"]), str(message["instance"]), undo, 0.0)
        self._write(
            Armed(
                injection=injection,
                fault=held.fault,
                instance=held.instance,
                mechanism=str(message["mechanism"]),
                undo=[undo_to_json(item) for item in undo],
                expires_mono_ms=round((time.monotonic() + expires_in_s) * 1000, 3),
                expires_at=(datetime.now(UTC) + timedelta(seconds=expires_in_s)).isoformat(timespec="milliseconds"),
            )
        )
        held.expires_s = _suspend_aware_s() + expires_in_s
        self.held.pop(injection, None)  # the order of arming is the order of this dict
        self.held[injection] = held
        return {}

    def _op_revert(self, message: Message) -> Steps[Reply]:
        held = self._find(message)
        outcome = yield from self._revert(held, str(message["cause"]), "runner")
        return {"outcome": outcome.word, "detail": outcome.detail}

    def _op_disarm(self, message: Message) -> Steps[Reply]:
        yield from ()
        held = self._find(message)
        if held.open:
            self._write(Reverted(held.injection, SUPERSEDED, "kept: this change is meant to stay", 0.0))
            held.state, held.outcome = "reverted", Outcome(SUPERSEDED, "kept")
        return {}

    def _op_stop(self, message: Message) -> Steps[Reply]:
        instance = str(message["instance"])
        child = self.family.children.get(instance)
        if child is None:
            raise ValueError(f"{instance} was never started")
        left = yield from self.family.end(child, float(cast("float", message["timeout_s"])))
        if left:
            self._note(Warned(f"{instance} could not be ended: {', '.join(left)}"))
        return {}

    def _op_teardown(self, message: Message) -> Steps[Reply]:
        left = yield from self._teardown("runner", "abort", self.grace_s)
        return {"left": left}

    def _op_close(self, message: Message) -> Steps[Reply]:
        status, reason = str(message["status"]), str(message["reason"])
        left: list[str] = []
        if self._finishing:
            raise ValueError("the keeper is ending the run already")
        self._finishing = True
        try:
            if self.family.living() or any(held.open for held in self.held.values()):
                left = yield from self._teardown("keeper", "abort", self.grace_s)
        except Exception:
            self._finishing = False  # when the runner goes, the keeper must still end the run
            raise
        return {"head": self._end(status, reason, left)}

    def _find(self, message: Message) -> Held:
        held = self.held.get(str(message["injection"]))
        if held is None:
            raise ValueError(f"{message['injection']} was never armed")
        return held

    # --- reverting ---

    def _revert(self, held: Held, cause: str, by: str, *, ending: bool = False) -> Steps[Outcome]:
        """Once only, unless it failed before. Depends on nothing: not on the journal, not on other undos."""
        if held.state == "reverting":
            yield Wait(lambda: held.state != "reverting", UNDO_LIMIT_S)
        if held.state == "reverted" and held.outcome is not None:
            return held.outcome
        held.state = "reverting"
        started_s = time.monotonic()
        self._note(RevertStarted(held.injection, cause, by))
        outcomes = []
        for undo in held.undo:
            try:
                outcomes.append((yield from self._perform(undo, ending)))
            except Exception as error:  # the undos that follow must still be carried out
                outcomes.append(Outcome(FAILED, f"{undo.kind}: {type(error).__name__}: {error}"))
        outcome = combine(outcomes)
        held.outcome = outcome
        held.state = "failed" if outcome.word == FAILED else "reverted"
        took_ms = _since_ms(started_s)
        self._note(Reverted(held.injection, outcome.word, outcome.detail, took_ms))
        if by == "keeper" and held.at_once:
            gone = outcome.word != FAILED
            self._note(RevertVerified(held.injection, gone, "process state", outcome.detail, took_ms))
        return outcome

    def _perform(self, undo: Undo, ending: bool) -> Steps[Outcome]:
        if ending and (moot := moot_when_the_system_ends(undo, self.family.addresses())):
            return Outcome(SUPERSEDED, moot)
        if isinstance(undo, Signal):
            return perform(undo)
        if isinstance(undo, Spawn):
            return self._start_again(undo)
        if child := self.family.children.get(getattr(undo, "instance", "")):
            child.ending = True
        return (yield from self.family.work(undo))

    def _start_again(self, undo: Spawn) -> Outcome:
        for exit_ in self.family.reap():
            self._exited(exit_)
        before = self.family.children.get(undo.instance)
        if before is None:
            return Outcome(FAILED, f"{undo.instance} was never started by this keeper")
        if not before.gone:
            return Outcome(SUPERSEDED, f"{undo.instance} (pid {before.who.pid}) lives")
        child = self.family.spawn(before.spec)
        self._note(_spawned(child))
        return Outcome(DONE, f"{undo.instance} started again (pid {child.who.pid})")

    def _revert_all(self, cause: str, by: str, *, ending: bool) -> Steps[list[str]]:
        """What a signal reverts first, then the other faults, then what a runbook changed; each in reverse order."""
        open_ = [held for held in reversed(self.held.values()) if held.open]
        open_.sort(key=lambda held: 2 if held.fault == "runbook" else 0 if held.at_once else 1)
        failed = []
        for held in open_:
            outcome = yield from self._revert(held, cause, by, ending=ending)
            self._push_reverted(held, cause, outcome)
            if outcome.word == FAILED:
                failed.append(f"{held.injection} could not be shown to be reverted: {outcome.detail}")
        return failed

    def _reverted_unasked(self, held: Held, cause: str) -> Callable[[Outcome | None, Exception | None], None]:
        def done(outcome: Outcome | None, error: Exception | None) -> None:
            self._push_reverted(held, cause, outcome or Outcome(FAILED, str(error)))

        return done

    def _push_reverted(self, held: Held, cause: str, outcome: Outcome) -> None:
        self._push(
            "reverted",
            {"injection": held.injection, "cause": cause, "outcome": outcome.word, "detail": outcome.detail},
        )

    # --- ending ---

    def finish(self, by: str, reason: str) -> None:
        """End the run without the runner: revert, tear down, write how it ended, give the system back."""
        if self._finishing:
            return
        self._finishing = True

        def steps() -> Steps[None]:
            self._note(AbortRequested(by, reason))
            cause = "runner-gone" if by == "runner-gone" else "abort"
            left = yield from self._teardown("keeper", cause, ORPHAN_GRACE_S)
            self._end("dirty" if left else "aborted", reason, left)

        def done(_: None, error: Exception | None) -> None:
            self.loop.stopped = True
            if error is not None and not isinstance(error, JournalUnwritable):
                self.loop.failure = error

        self.loop.start(steps(), done)

    def _teardown(self, by: str, cause: str, grace_s: float) -> Steps[list[str]]:
        started_s = time.monotonic()
        failed = yield from self._revert_all(cause, by, ending=True)
        ended = len(self.family.living())
        left = yield from self.family.end_all(grace_s)
        for exit_ in self.family.reap():
            self._exited(exit_)
        self._note(TornDown(by, ended, left, _since_ms(started_s)))
        return failed + left

    def _end(self, status: str, reason: str, left: list[str]) -> str:
        try:
            self._write(RunEnded("dirty" if left else status, reason))
            head = self.journal.head
            self.journal.close()
            if self.hold is not None:
                if left or status == "dirty":
                    holds.mark_dirty(self.hold, left)
                else:
                    holds.release(self.hold)
        finally:
            self.loop.stopped = True
        return head

    def _request_abort(self, by: str, reason: str) -> None:
        if self._abort_at_s is not None:  # asked twice: don't wait for the runner any longer
            self.finish("keeper", reason)
            return
        self._abort_at_s = time.monotonic() + ABORT_LIMIT_S
        self._note(AbortRequested(by, reason))
        self._push("abort", {"by": by, "reason": reason, "limit_s": ABORT_LIMIT_S})

    # --- journal ---

    def _write(self, event: Event, mono_ms: float | None = None) -> int:
        """Raises JournalUnwritable. The run's own header comes first when it is what is written first."""
        me = own_identity() if not self._started else None
        if me and event.type != "run-started":
            self._started = True
            self.journal.write(KeeperStarted(me.pid, me.start_ticks))
        seq = self.journal.write(event, mono_ms)
        if me and not self._started:
            self._started = True
            self.journal.write(KeeperStarted(me.pid, me.start_ticks))
        return seq

    def _note(self, event: Event) -> None:
        """Write what must not hinder a revert: a failure is told to the runner and nothing else."""
        self._guarded(lambda: self._write(event))

    def _guarded(self, write: Callable[[], object]) -> None:
        try:
            write()
        except JournalUnwritable as error:
            self._trouble(str(error))

    def _trouble(self, text: str) -> None:
        """The journal takes no more: revert first, tell the runner, and end the run if it doesn't."""
        if self._in_trouble:
            return
        self._in_trouble = True
        self._abort_at_s = self._abort_at_s or time.monotonic() + ABORT_LIMIT_S
        self._push("journal-failed", {"text": text, "limit_s": ABORT_LIMIT_S})
        self.loop.start(self._revert_all("abort", "keeper", ending=False), lambda _result, _error: None)
        self._note(AbortRequested("machine", text))

    def _exited(self, exit_: Exit) -> None:
        child = exit_.child
        crashed = any(
            held.injecting and held.open and Spawn(child.spec.instance) in held.undo for held in self.held.values()
        )
        expected = child.ending or (crashed and exit_.signal == "SIGKILL")
        event = ProcessExited(child.spec.instance, child.who.pid, exit_.code, exit_.signal, expected)
        self._note(event)
        self._push(
            "process-exited",
            {
                "instance": event.instance,
                "pid": event.pid,
                "code": event.code,
                "signal": event.signal,
                "expected": event.expected,
            },
        )

    def _push(self, kind: str, data: Message) -> None:
        self.channel.send({"push": kind, "data": data})


def _spawned(child: Child) -> ProcessSpawned:
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


def _kind_of(error: Exception) -> str:
    if isinstance(error, StormdrillError | ValueError):
        return type(error).__name__
    return "defect"


def _since_ms(started_s: float) -> float:
    return round((time.monotonic() - started_s) * 1000, 3)


def _suspend_aware_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
