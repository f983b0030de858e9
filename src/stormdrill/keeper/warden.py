"""What the keeper does: answers the runner, holds armed undos, reverts them, and ends the run when the runner can't."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import cast

from stormdrill.errors import StormdrillError, SystemNotReady
from stormdrill.keeper.claims import Claims
from stormdrill.keeper.custody import Custody, spawned_event
from stormdrill.keeper.family import Exit, Spec
from stormdrill.keeper.loop import LONGEST_SLEEP_S, Loop, Steps, Wait
from stormdrill.keeper.outcome import Outcome
from stormdrill.keeper.scribe import Scribe
from stormdrill.keeper.vault import Vault
from stormdrill.keeper.wire import Channel
from stormdrill.model.event import (
    AbortRequested,
    ProcessExited,
    RunEnded,
    TornDown,
    Warned,
    event_from_json,
)
from stormdrill.model.undo import undo_from_json
from stormdrill.store import holds
from stormdrill.store.holds import Hold
from stormdrill.store.journal import JournalUnwritable, JournalWriter

ABORT_LIMIT_S = 5.0
"""How long the runner has to end the run after an abort request before the keeper ends it."""
END_NOW = signal.SIGUSR1
"""Ends the run at once, without asking the runner: `stormdrill abort` sends it when the runner didn't react."""
ORPHAN_GRACE_S = 0.3
"""Between SIGTERM and SIGKILL when there is no runner any more."""
Message = Mapping[str, object]
Reply = dict[str, object]


@dataclass(slots=True)
class Warden:
    """One run's keeper. Every op is answered once; what the runner must know unasked is pushed."""

    journal: JournalWriter
    channel: Channel
    family: Vault
    loop: Loop
    hold: Hold | None
    grace_s: float
    signalled: str = ""
    """The name of a signal that the keeper received and has not answered yet."""
    scribe: Scribe = field(init=False)
    claims: Claims = field(init=False)
    custody: Custody = field(init=False)
    _finishing: bool = False
    _in_trouble: bool = False
    _abort_at_s: float | None = None

    def __post_init__(self) -> None:
        self.scribe = Scribe(self.journal, self._trouble)
        self.claims = Claims(self.family.run)
        self.custody = Custody(self.scribe, self.family, self.claims, self._collect, self._push)

    # --- turns of the loop ---

    def tick(self) -> float:
        """Everything that is due; returns seconds to the next thing that will be."""
        self._collect()
        if self.signalled:
            name, self.signalled = self.signalled, ""
            if name == END_NOW.name:
                self.finish("person", "stopped by stormdrill abort; the runner did not react")
            else:
                self._request_abort("signal", f"the keeper received {name}")
        for held in self.custody.expired():
            self.loop.start(self.custody.revert_unasked(held, "expired"), _nothing_more)
        if self._abort_at_s is not None and time.monotonic() >= self._abort_at_s:
            self.finish("keeper", "the runner did not end the run in time after an abort request")
        due = [self.scribe.sync_when_due(), self.custody.next_expiry_s()]
        if self._abort_at_s is not None and not self._finishing:
            due.append(self._abort_at_s - time.monotonic())
        self.loop.want_write(self.channel.sock, self.channel.wants_to_write)
        return min((in_s for in_s in due if in_s is not None), default=LONGEST_SLEEP_S)

    def readable(self) -> None:
        """The runner sent something, or is gone."""
        self.channel.flush()
        messages = self.channel.receive()
        if messages is None:
            self.channel.open = False
            self.loop.forget(self.channel.sock)
            self.custody.alone = True
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
            "revert-begin": self._op_revert_begin,
            "revert-part": self._op_revert_part,
            "reverted": self._op_reverted,
            "in-clusters": self._op_in_clusters,
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
        if word == "inject-started":
            self.custody.injecting(str(fields["injection"]))
        elif word == "injected":
            self.custody.injected(str(fields["injection"]), str(fields["outcome"]))
        elif word == "revert-verified":
            self.custody.looked(str(fields["injection"]), bool(fields["gone"]))
        self.claims.note(event)
        self.custody.ways.note(event)
        mono_ms = cast("float | None", message.get("mono_ms"))
        return {"seq": self.scribe.write(event, mono_ms)}

    def _op_secret(self, message: Message) -> Steps[Reply]:
        yield from ()
        self.family.entrust(str(message["name"]), str(message["value"]))
        return {}

    def _op_spawn(self, message: Message) -> Steps[Reply]:
        yield from ()
        values = cast("dict[str, object]", message["spec"])
        values["argv"] = tuple(cast("list[str]", values["argv"]))
        if self.custody.ended_for_good(str(values["instance"])):
            raise SystemNotReady(f"{values['instance']} is not started: its injection was reverted already")
        child = self.family.spawn(Spec(**values))  # type: ignore[arg-type]  # written by the client
        try:
            self.scribe.write(spawned_event(child))
        except JournalUnwritable:
            yield from self.family.end(child, 0.0)
            raise
        return {"pid": child.who.pid, "start_ticks": child.who.start_ticks}

    def _op_arm(self, message: Message) -> Steps[Reply]:
        injection = str(message["injection"])
        if self._finishing:
            yield from self._never()
        if self._in_trouble:
            raise JournalUnwritable(f"{injection} is not armed: the journal takes no more, the run must end")
        self.custody.arm(
            injection,
            str(message["fault"]),
            str(message["instance"]),
            str(message["mechanism"]),
            tuple(undo_from_json(item) for item in cast("list[dict[str, object]]", message["undo"])),
            float(cast("float", message["expires_in_s"])),
        )
        return {}

    def _op_revert(self, message: Message) -> Steps[Reply]:
        held = self.custody.find(str(message["injection"]))
        outcome = yield from self.custody.revert(held, str(message["cause"]), "runner")
        return {"outcome": outcome.word, "detail": outcome.detail}

    def _op_revert_begin(self, message: Message) -> Steps[Reply]:
        """The runner is about to carry an undo out itself; `outcome` where that was done already."""
        held = self.custody.find(str(message["injection"]))
        if self._finishing:
            yield from self._never()
        known = yield from self.custody.begin_carrying(held, str(message["cause"]))
        return {"outcome": known.word if known else ""}

    def _op_revert_part(self, message: Message) -> Steps[Reply]:
        held = self.custody.find(str(message["injection"]))
        outcome = yield from self.custody.carry_part(held, int(cast("int", message["index"])))
        return {"outcome": list(outcome)}

    def _op_reverted(self, message: Message) -> Steps[Reply]:
        if self._finishing:  # it has been written down as left already
            yield from self._never()
        held = self.custody.find(str(message["injection"]))
        told = cast("list[list[str]]", message["outcomes"])
        return {"outcome": self.custody.carried(held, [Outcome(*one) for one in told]).word}

    def _op_in_clusters(self, _: Message) -> Steps[Reply]:
        yield from ()
        return {"open": [held.injection for held in self.custody.in_clusters()]}

    def _op_disarm(self, message: Message) -> Steps[Reply]:
        yield from ()
        self.custody.disarm(str(message["injection"]))
        return {}

    def _op_stop(self, message: Message) -> Steps[Reply]:
        instance = str(message["instance"])
        child = self.family.children.get(instance)
        if child is None:
            raise ValueError(f"{instance} was never started")
        left = yield from self.family.end(child, float(cast("float", message["timeout_s"])))
        if left:
            self.scribe.note(Warned(f"{instance} could not be ended: {', '.join(left)}"))
        return {}

    def _op_teardown(self, message: Message) -> Steps[Reply]:
        left = yield from self._teardown("runner", "abort", self.grace_s)
        return {"left": left}

    def _op_close(self, message: Message) -> Steps[Reply]:
        status, reason = str(message["status"]), str(message["reason"])
        left: list[str] = []
        if self._finishing:
            yield from self._never()
        self._finishing = True
        try:
            if self.family.living() or self.custody.anything_open or self.claims.open:
                left = yield from self._teardown("keeper", "abort", self.grace_s)
        except Exception:
            self._finishing = False  # when the runner goes, the keeper must still end the run
            raise
        return {"head": self._end(status, reason, left)}

    def _never(self) -> Steps[None]:
        """The keeper is ending the run itself: the answer is the end of the stream, which the runner reads as gone."""
        yield Wait(lambda: False, float("inf"))

    # --- ending ---

    def finish(self, by: str, reason: str) -> None:
        """End the run without the runner: revert, tear down, write how it ended, give the system back."""
        if self._finishing:
            return
        self._finishing = True

        def steps() -> Steps[None]:
            self.scribe.note(AbortRequested(by, reason))
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
        if by != "runner":
            self.custody.give_up_carrying()
        yield from self.custody.revert_all(cause, by, ending=True)
        yield from self.custody.revert_what_may_come_late(by)
        failed = self.custody.failed()
        ended = len(self.family.living())
        left = yield from self.family.end_all(grace_s)
        self._collect()
        removed = yield from self.claims.remove(settle=True)  # a start may have been given up
        for text in removed.foreign:
            self.scribe.note(Warned(text))
        left += removed.left
        self.scribe.note(TornDown(by, ended + len(removed.names), left, _since_ms(started_s)))
        return failed + left

    def _end(self, status: str, reason: str, left: list[str]) -> str:
        try:
            self.scribe.write(RunEnded("dirty" if left else status, reason))
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
        self.scribe.note(AbortRequested(by, reason))
        self._push("abort", {"by": by, "reason": reason, "limit_s": ABORT_LIMIT_S})

    # --- what happens unasked ---

    def _trouble(self, text: str) -> None:
        """The journal takes no more: revert first, tell the runner, and end the run if it doesn't."""
        if self._in_trouble:
            return
        self._in_trouble = True
        self._abort_at_s = self._abort_at_s or time.monotonic() + ABORT_LIMIT_S
        self._push("journal-failed", {"text": text, "limit_s": ABORT_LIMIT_S})
        self.loop.start(self.custody.revert_all("abort", "keeper", ending=False), _nothing_more)
        self.scribe.note(AbortRequested("machine", text))

    def _collect(self) -> None:
        for exit_ in self.family.reap():
            self._exited(exit_)

    def _exited(self, exit_: Exit) -> None:
        child = exit_.child
        crashed = exit_.signal == "SIGKILL" and self.custody.foresees_end_of(child.spec.instance)
        event = ProcessExited(child.spec.instance, child.who.pid, exit_.code, exit_.signal, child.ending or crashed)
        self.scribe.note(event)
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


def _kind_of(error: Exception) -> str:
    if isinstance(error, StormdrillError | ValueError):
        return type(error).__name__
    return "defect"


def _nothing_more(_result: object, error: Exception | None) -> None:
    """For steps whose result is in the journal already; a defect in them ends the run."""
    if error is not None:
        raise error


def _since_ms(started_s: float) -> float:
    return round((time.monotonic() - started_s) * 1000, 3)
