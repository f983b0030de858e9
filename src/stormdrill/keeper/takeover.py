"""Ends a run whose keeper is gone, from its journal alone: revert, end every process, write how it ended.

The runner calls it when the keeper died, `recover` when both did. It may itself be killed at any moment and called
again: everything it does is found in the journal or in /proc.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from stormdrill.errors import StormdrillError
from stormdrill.keeper import far, procfs, undo_engine
from stormdrill.keeper.claims import Claims
from stormdrill.keeper.custody import LATE_WITHIN_S
from stormdrill.keeper.engine import local_engine
from stormdrill.keeper.loop import Steps, Wait, run_now, together
from stormdrill.keeper.outcome import disbelieved
from stormdrill.keeper.successor import CAUSES, ended_by_others, reason
from stormdrill.keeper.undo import (
    DONE,
    DOUBTFUL_S,
    FAILED,
    LAST_TRY_S,
    SUPERSEDED,
    Outcome,
    asked,
    at_once,
    call,
    combine,
    lifted_first,
    may_be_harmed_late,
    moot_when_the_system_ends,
    perform,
    settled,
    waves_of_reverting,
)
from stormdrill.model.event import (
    AbortRequested,
    Armed,
    Event,
    Injected,
    InjectStarted,
    KeeperStarted,
    ProcessSpawned,
    Recorded,
    ResourcesClaimed,
    Reverted,
    RevertStarted,
    RevertVerified,
    RunEnded,
    RunStarted,
    TornDown,
    Warned,
)
from stormdrill.model.undo import Call, EndChild, InCluster, Undo, undo_from_json
from stormdrill.redact import Redactor
from stormdrill.store import holds
from stormdrill.store.journal import NAME, JournalUnwritable, JournalWriter, salvage

LOCK_LIMIT_S = 5.0
KILL_LIMIT_S = 5.0


@dataclass(frozen=True, slots=True)
class TakeOverResult:
    """What a takeover did."""

    run: str
    status: str
    """aborted; dirty with what is left; or the status with which the run had ended already."""
    already_ended: bool
    reverted: tuple[tuple[str, str, str], ...]
    """Injection, outcome (done, superseded, failed), detail."""
    ended: int
    """Processes that were still alive and are no more."""
    left: tuple[str, ...]
    cut_bytes: int
    head: str
    removed: tuple[str, ...] = ()
    """Containers, networks and volumes that were still there and are no more."""


@dataclass(slots=True)
class _Past:
    """What the journal says is still to be done."""

    run: str
    boot_id: str
    status: str
    """Of the last `run-ended`; empty when there is none."""
    armed: dict[str, Armed]
    spawned: list[ProcessSpawned]
    keeper: procfs.Identity | None
    claims: Claims
    calling: set[str] = field(default_factory=set)
    """Injections whose call had not been answered: it may come through late."""
    lifted: dict[str, Armed] = field(default_factory=dict)
    """What was reverted."""
    lifted_ms: dict[str, float] = field(default_factory=dict)
    last_ms: float = 0.0
    """When the last line was written."""
    ways: far.Ways = field(default_factory=far.Ways)
    runner: procfs.Identity | None = None
    called: dict[str, tuple[float, str]] = field(default_factory=dict)
    """Injection → when its call was first made, monotonic and UTC."""
    begun_at: dict[str, str] = field(default_factory=dict)
    """Injection → when it was first begun to be reverted, UTC."""
    there: set[str] = field(default_factory=set)
    """Injections that somebody saw still there after an undo, and nobody has seen gone since."""

    def addresses(self) -> list[str]:
        """Where what the run owns answers."""
        return [*(item.address for item in self.spawned if item.address), *self.claims.addresses()]

    def answers_at(self, address: str) -> bool:
        """Whether a process that the run started to answer there lives."""
        if self.boot_id != procfs.boot_id():
            return False
        return any(procfs.lives(item.pid, item.start_ticks) for item in self.spawned if item.address == address)


def take_over(
    run_dir: Path,
    by: str,
    *,
    accept_left: bool = False,
    redactor: Redactor | None = None,
    hands: far.Hands | None = None,
) -> TakeOverResult:
    """Make this process the journal's writer, revert what is armed, end what lives, end the run.

    `by`: runner, recover or keeper. A keeper that is still there (frozen, or its socket broke) is killed first. A run
    that ended clean is left as it is. `accept_left`: a person vouches for what cannot be shown to be reverted.
    `redactor`: knows the secrets, where whoever takes over does. `hands`: undo what was done in clusters; without them
    that is left, and the run ends dirty.
    Raises Refused when another process goes on writing the journal.
    """
    redactor = redactor or Redactor()
    if isinstance(hands, far.Hiding):
        hands.hide(redactor.register)
    path = run_dir / NAME
    hold = holds.hold_of(run_dir.name) or next((item for item in holds.open_runs() if item.dir == str(run_dir)), None)
    written = path.is_file()
    past = _fold(salvage(path).events if written else [], run_dir.name, hold.boot_id if hold else "")
    keeper = (hold.keeper if hold else None) or past.keeper
    if keeper is not None and keeper.pid != os.getpid():
        procfs.kill_until_gone([keeper], KILL_LIMIT_S)
    if not written or not path.stat().st_size:
        # the keeper makes the file before its name stands in the hold
        lost = not written and hold is not None and hold.keeper is not None
        return _without_a_journal(past, hold, lost, accept_left)
    if not _to_do(past):
        return _already(past, path, hold)
    journal, found = JournalWriter.resume(path, by, redactor, wait_s=LOCK_LIMIT_S)
    past = _fold(found.events, past.run, past.boot_id)
    if not _to_do(past):  # it ended between the first look and the lock
        journal.close()
        return _already(past, path, hold)
    try:
        return _finish(_Successor(journal, by, hands), past, hold, len(found.torn), accept_left)
    finally:
        journal.close()


def _finish(
    successor: _Successor, past: _Past, hold: holds.Hold | None, cut_bytes: int, accept_left: bool
) -> TakeOverResult:
    started_s = time.monotonic()
    successor.note(
        AbortRequested("keeper" if successor.by == "runner" else "runner-gone", reason(successor.by, past.status))
    )
    reverted = run_now(_revert_all(successor, past, accept_left))
    ended, alive = _end_processes(past)
    removed = run_now(past.claims.remove(settle=True))
    for text in (*removed.foreign, *(removed.left if accept_left else ())):
        successor.note(Warned(text))
    alive += [] if accept_left else removed.left
    _leave_clusters(successor, clean=all(word != FAILED for _, word, _ in reverted))
    took_ms = round((time.monotonic() - started_s) * 1000, 3)
    successor.note(TornDown(successor.by, ended + len(removed.names), alive, took_ms))
    left = [f"{name} could not be shown to be reverted: {detail}" for name, word, detail in reverted if word == FAILED]
    left += alive
    status = "dirty" if left else "aborted"
    written = successor.note(RunEnded(status, "; ".join(left) or reason(successor.by, past.status)))
    if hold is not None:
        if left:
            holds.mark_dirty(hold, left)
        elif written:
            holds.release(hold)
    return TakeOverResult(
        past.run, status, False, reverted, ended, tuple(left), cut_bytes, successor.journal.head, removed.names
    )


def _revert_all(successor: _Successor, past: _Past, accept_left: bool) -> Steps[tuple[tuple[str, str, str], ...]]:
    def lane(armed: list[Armed]) -> Steps[list[tuple[str, str, str]]]:
        done = []
        for item in armed:
            done.append((yield from successor.revert(item, past, accept_left)))
        return done

    reverted: list[tuple[str, str, str]] = []
    for wave in _in_order(past.armed):
        for done in (yield from together([lane(armed) for armed in wave])):
            reverted += done
    late = [item for item in past.lifted.values() if _was_waited_for(item, past)]
    doubtful = [item for item in reversed([*late, *past.armed.values()]) if _doubtful(item, past)]
    if doubtful:
        yield Wait(lambda: False, DOUBTFUL_S)
        again = {name: (name, word, said) for name, word, said in (yield from lane(doubtful))}
        reverted = [again.pop(item[0], item) for item in reverted] + list(again.values())
    return tuple(reverted)


def _leave_clusters(successor: _Successor, *, clean: bool) -> None:
    """What the run keeps in clusters is taken away once nothing of it is needed any more, also where everybody died
    before it was written down. It harms nobody, and the watchdog ends by itself: what stays is told, and no reason to
    hold the system."""
    if successor.hands is not None:
        for text in successor.hands.release(clean=clean):
            successor.note(Warned(text))


def _was_waited_for(lifted: Armed, past: _Past) -> bool:
    """Whether its call could still come through when everybody was killed: nobody has looked at it since."""
    return past.last_ms - past.lifted_ms[lifted.injection] < LATE_WITHIN_S * 1000


def _doubtful(armed: Armed, past: _Past) -> bool:
    undos = [undo for undo in map(_undo_of, armed.undo) if not isinstance(undo, Outcome)]
    return armed.injection in past.calling and may_be_harmed_late(undos, past.addresses(), past.claims.owns)


@dataclass(slots=True)
class _Successor:
    journal: JournalWriter
    by: str
    hands: far.Hands | None = None

    def note(self, event: Event, mono_ms: float | None = None, at: str = "") -> bool:
        """Write; a disk that takes no more must not hinder the revert. False when it could not be written."""
        try:
            self.journal.write(event, mono_ms, at)
        except JournalUnwritable:
            return False
        return True

    def revert(self, armed: Armed, past: _Past, accept_left: bool) -> Steps[tuple[str, str, str]]:
        started_s = time.monotonic()
        self.note(RevertStarted(armed.injection, CAUSES[self.by], self.by))
        outcomes: list[Outcome] = []
        undos = [_undo_of(item) for item in armed.undo]
        for far_away, group in groupby(undos, far.is_far):
            words = list(group)
            if far_away:
                outcomes += self._in_clusters(armed.injection, cast("list[InCluster]", words), past)
                continue
            for batch in at_once(words):
                outcomes += yield from together([self._perform(undo, past) for undo in batch])
        if armed.injection in past.there:
            outcomes = [disbelieved(one, _moot(undo, past)) for undo, one in zip(undos, outcomes, strict=True)]
        outcome = combine(outcomes)
        if outcome.word == FAILED and accept_left:
            outcome = Outcome(SUPERSEDED, f"a person vouches that it is mended; {outcome.detail}")
        took_ms = round((time.monotonic() - started_s) * 1000, 3)
        self.note(Reverted(armed.injection, outcome.word, outcome.detail, took_ms, outcome.by, outcome.at))
        if outcome.word != FAILED and outcome.seen:
            self._note_gone(armed.injection, outcome, past, took_ms)
        return armed.injection, outcome.word, outcome.detail

    def _note_gone(self, injection: str, outcome: Outcome, past: _Past, took_ms: float) -> None:
        event = RevertVerified(injection, True, outcome.seen, outcome.detail, took_ms)
        ended = ended_by_others(outcome.at, past.called.get(injection), past.begun_at.get(injection, ""))
        if ended is None:
            self.note(event)
        else:
            self.note(replace(event, after_ms=ended.after_ms, clock=outcome.by), ended.mono_ms, ended.at)

    def _in_clusters(self, injection: str, words: list[InCluster], past: _Past) -> Sequence[Outcome]:
        if self.hands is None:
            return [far.left(undo, past.run) for undo in words]
        return self.hands.undo(injection, words)

    def _perform(self, undo: Undo | Outcome, past: _Past) -> Steps[Outcome]:
        way = past.ways.of(undo)
        if isinstance(undo, Call) and way is not None:
            yield from ()
            return self._led(undo, way, past)
        return (yield from _perform(undo, past))

    def _led(self, undo: Call, way: far.Way, past: _Past) -> Outcome:
        """A call to an instance that the runner reached from an address of its own: that ends with it."""
        if self.by == "runner" or (self.by == "keeper" and past.runner is not None and past.runner.lives):
            return call(undo, way.named)
        if not isinstance(self.hands, far.Leading):
            return far.left_without_a_way(asked(undo, way.named), past.run)
        try:
            address = self.hands.lead(way)
        except StormdrillError as error:
            return Outcome(FAILED, f"{asked(undo, way.named)}: {error}")
        return call(replace(undo, url=urlsplit(undo.url)._replace(netloc=address).geturl()), way.named)


def _perform(undo: Undo | Outcome, past: _Past) -> Steps[Outcome]:
    yield from ()
    if isinstance(undo, Outcome):
        return undo
    moot = _moot(undo, past)
    if moot and (not lifted_first(undo) or isinstance(undo, EndChild)):
        return Outcome(SUPERSEDED, moot)
    if isinstance(undo, undo_engine.Remote):
        try:
            outcome = yield from undo_engine.steps(undo, past.answers_at, LAST_TRY_S if moot else None)
        except Exception as error:  # the undos that follow must still be carried out
            outcome = Outcome(FAILED, f"{undo.kind}: {type(error).__name__}: {error}")
        return settled(outcome, moot)
    return perform(undo)


def _moot(undo: Undo | Outcome, past: _Past) -> str:
    if isinstance(undo, Outcome):
        return ""
    return moot_when_the_system_ends(undo, past.addresses(), past.claims.owns)


def _undo_of(item: dict[str, object]) -> Undo | Outcome:
    try:
        return undo_from_json(item)
    except ValueError as error:
        return Outcome(FAILED, str(error))


def _end_processes(past: _Past) -> tuple[int, list[str]]:
    """All processes of the run, frozen ones and orphans too; how many lived, and which still do."""
    if past.boot_id and past.boot_id != procfs.boot_id():
        return 0, []
    known = [procfs.Identity(item.pid, item.start_ticks, procfs.boot_id()) for item in past.spawned]
    roots = [who for who in known if who.lives] if past.boot_id else []
    ended: set[procfs.Identity] = set()
    until = time.monotonic() + KILL_LIMIT_S
    while True:
        below = procfs.descendants([who.pid for who in roots if who.lives])
        victims = {who for who in roots if who.lives} | set(procfs.marked(past.run))
        victims |= {procfs.Identity(item.pid, item.start_ticks, procfs.boot_id()) for item in below}
        ended |= victims
        left = procfs.kill_until_gone(victims, max(0.0, until - time.monotonic()))
        if left or not victims:
            return len(ended) - len(left), [f"pid {who.pid}" for who in left]


def _fold(events: list[Recorded], run: str, boot_id: str) -> _Past:
    past = _Past(run, boot_id, "", {}, [], None, Claims(run))
    for recorded in events:
        event = recorded.event
        past.last_ms = recorded.mono_ms
        past.claims.note(event)
        past.ways.note(event)
        if isinstance(event, InjectStarted):
            past.called.setdefault(event.injection, (recorded.mono_ms, recorded.at))
        if isinstance(event, RunStarted):
            past.run = past.claims.run = event.run
            past.boot_id = event.boot_id
            past.runner = procfs.Identity(event.runner_pid, event.runner_start_ticks, event.boot_id)
        elif isinstance(event, KeeperStarted):
            past.keeper = procfs.Identity(event.pid, event.start_ticks, past.boot_id)
        elif isinstance(event, ProcessSpawned):
            past.spawned.append(event)
        elif isinstance(event, Armed | InjectStarted | Injected | Reverted | RevertVerified):
            _fold_injection(past, event)
        elif isinstance(event, RevertStarted):
            past.begun_at.setdefault(event.injection, recorded.at)
        elif isinstance(event, RunEnded):
            past.status = event.status
    return past


def _fold_injection(past: _Past, event: Armed | InjectStarted | Injected | Reverted | RevertVerified) -> None:
    if isinstance(event, Armed):
        past.armed.pop(event.injection, None)
        past.armed[event.injection] = event
    elif isinstance(event, InjectStarted):
        past.calling.add(event.injection)
    elif isinstance(event, Injected):
        if event.outcome == "done":
            past.calling.discard(event.injection)
        if event.outcome != "doubtful" and (late := past.lifted.pop(event.injection, None)):
            past.armed[event.injection] = late  # it came through after its revert
    elif isinstance(event, RevertVerified):
        _fold_look(past, event)
    elif event.outcome in (DONE, SUPERSEDED) and event.injection not in past.there:
        _lift(past, event.injection)


def _fold_look(past: _Past, event: RevertVerified) -> None:
    if event.gone and event.injection in past.there:
        past.there.discard(event.injection)
        _lift(past, event.injection)
    elif not event.gone:
        past.there.add(event.injection)
        if (lifted := past.lifted.pop(event.injection, None)) is not None:
            past.armed[event.injection] = lifted


def _lift(past: _Past, injection: str) -> None:
    if (armed := past.armed.pop(injection, None)) is not None:
        past.lifted[injection] = armed
        past.lifted_ms[injection] = past.last_ms


def _to_do(past: _Past) -> bool:
    return past.status in ("", "dirty")


def _without_a_journal(past: _Past, hold: holds.Hold | None, lost: bool, accept_left: bool) -> TakeOverResult:
    """Killed before the first line: there is nothing to undo. Or the record is lost: nothing tells of an undo, and what
    bears the run's mark is all that can be ended."""
    ended, left = _end_processes(past)
    removed: tuple[str, ...] = ()
    if lost and hold is not None and hold.target == "docker":
        past.claims.note(ResourcesClaimed(local_engine(), [], [], []))
        removed, still, _ = run_now(past.claims.remove(settle=False))
        left += [] if accept_left else still
    if lost and not accept_left:
        left.append(f"the record is gone ({past.run}/{NAME}), and what the run had in force is not known")
    if hold is not None and left:
        holds.mark_dirty(hold, left)
    elif hold is not None:
        holds.release(hold)
    status = "dirty" if left else "aborted"
    return TakeOverResult(past.run, status, False, (), ended, tuple(left), 0, "", removed)


def _already(past: _Past, path: Path, hold: holds.Hold | None) -> TakeOverResult:
    if hold is not None and not hold.left:
        holds.release(hold)
    return TakeOverResult(past.run, past.status, True, (), 0, (), 0, salvage(path).head)


def _in_order(armed: dict[str, Armed]) -> list[list[list[Armed]]]:
    return waves_of_reverting(
        (item, item.fault, item.instance, [_undo_of(undo) for undo in item.undo]) for item in armed.values()
    )
