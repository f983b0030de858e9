"""The watchdog: reads Lease and ledger, and reverts what is armed when nobody else will.

It acts when the runner's Lease isn't renewed or is somebody else's, when a person annotates the ledger, when the runner
has left the rest to it, when the ledger is gone, and for one injection when its own time is over although the runner
lives. It holds all that it knows in the ledger: ended at any place and started again, it goes on.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from stormdrill.cluster import naming, rights
from stormdrill.cluster.ages import Ages
from stormdrill.cluster.api import Api
from stormdrill.cluster.asking import Until, read, text
from stormdrill.cluster.changes import Undone
from stormdrill.cluster.heart import beat_every_s
from stormdrill.cluster.lease import Lease, Watch
from stormdrill.cluster.ledger import CLOSED, OPEN, REVERTING, Armed, Book, Closed, Ended, Ledger, now
from stormdrill.cluster.reverting import Reverter, shown
from stormdrill.cluster.undoing import Runs
from stormdrill.errors import StormdrillError, Unreachable

POLL_S = 0.5
ASK_S = 2.0
"""For each read of a round, so that one that hangs doesn't hide the other."""
NEVER_SEEN_S = 60.0
"""How long the ledger may be missing before it was ever read: the Job is made after it."""
FIRST_AGAIN_S, LONGEST_AGAIN_S = 0.5, 10.0
RIGHTS_S = 10.0
"""In this time each right has been asked for again, where there are not very many."""
MOST_RIGHTS = 40
TURNS = 5
"""After so many failures to write into the ledger that it reverts, it does all the same."""
BY = "watchdog"
RUN, BLIND = "run", "blind"
"""Among the ages: since the ledger was read first, and since no Lease could be read while the ledger could."""
MOST_TOLD = 100
"""Of the rights that are missing: the ledger has room for so many."""


@dataclass(slots=True)
class Watchdog:
    """One step at a time; `step` says when it has nothing left to do."""

    api: Api
    run: str
    suite: str
    runs: Runs | None = None
    by: str = BY
    tell: Callable[[str], None] = lambda _: None
    now: Callable[[], float] = field(default_factory=lambda: time.monotonic)
    server_s: Callable[[], float] | None = None
    """The API server's clock; None: by what its answers say."""
    asked: str = ""
    """Why it is to revert at once; empty for waiting until that is called for."""
    book: Book | None = None
    """As it was read last."""
    armed: dict[str, Armed] = field(default_factory=dict)
    """All that was ever read: what somebody takes out of the ledger is reverted all the same."""
    reverting: str = ""
    """Why everything is being reverted; stays so."""
    helpless: bool = False
    """It has ended without ever knowing what there is to revert."""
    _ledger: Ledger = field(init=False)
    _reverter: Reverter = field(init=False)
    _watch: Watch = field(init=False)
    _ages: Ages = field(init=False)
    _lease_seen: str = ""
    """Name, among the ages, of the Lease's version that was read last."""
    _began_s: float = 0.0
    _turns: int = 0
    _open: bool = False
    """The ledger could not be closed to changes before what stands in it was reverted."""
    _beat: int = 0
    _beaten_s: float = -1e9
    _again_s: float = 0.0
    _pause_s: float = FIRST_AGAIN_S
    _missing: tuple[str, ...] | None = None
    """Rights that were found missing; None before that was asked."""
    _doubted: list[rights.Right] = field(default_factory=list)
    """Rights that were found missing once, and are asked for again at once."""
    _turn: int = 0
    """How many rights were asked for again until now."""

    def __post_init__(self) -> None:
        self._ledger = Ledger(self.api, self.suite, self.run)
        self._reverter = Reverter(self.api, self._ledger, self.by, self.runs, self.tell)
        self._watch = Watch(self.now)
        self._ages = Ages(self.now, self.server_s or (lambda: self.api.server_s))
        self._began_s = self.now()

    def step(self) -> bool:
        """Look, and do what is due. True: there is nothing left to do. Raises Unreachable where it could not look."""
        book = self._ledger.read(Until(ASK_S))
        if book is None:
            return self._without_ledger()
        self._remember(book)
        if book.state == CLOSED and not self.reverting:
            self.tell(f"the ledger is closed: {book.why}")
            return True
        if not self.reverting and (why := self._reason(book)):
            self._begin(why)
        if self.reverting:
            return self._revert()
        self._say_alive()
        self._expired(book)
        return False

    # looking

    def _without_ledger(self) -> bool:
        if self.book is not None:
            if not self.reverting:
                self._begin("somebody has removed the ledger")
            return self._revert()
        if self.now() - self._began_s <= NEVER_SEEN_S:
            return False
        # a pod of this Job that was made anew just after somebody had removed it too early: its memory went before
        self.helpless = True
        self.tell(
            f"there is no ledger of run {self.run}, and whoever ends a run removes this Job before it: what was armed "
            f"is not known here. `stormdrill recover {self.run}` reverts what the run's own record tells, and removes "
            f"the Job {naming.watchdog(self.run)}; where there is no record, look for what carries the run's marker, "
            "put it back and remove the Job"
        )
        return True

    def _remember(self, book: Book) -> None:
        if self.book is None:
            self._reverter.ended.update({name: e for name, e in book.ended.items() if book.has_ended(name)})
            self._ages.resume(book.watchdog.get("since"))
        elif not book.about:  # somebody has emptied it
            book = replace(book, about=self.book.about)
        self.book = book
        self._ages.see(RUN)
        for entry in book.armed:
            self.armed[entry.injection] = entry
            self._ages.see(_age(entry))
        for name, ended in book.ended.items():
            if book.has_ended(name):
                self._reverter.ended.setdefault(name, ended)

    def _reason(self, book: Book) -> str:
        """Why everything is to be reverted now; empty when nothing calls for it."""
        if book.stop:
            return f"stopped by a person: {book.stop}"
        if book.state != OPEN:
            return book.why or f"the ledger is {book.state}"
        if self.asked:
            return self.asked
        lasts_s = _number(book.about, "lease_s", 10.0)
        if self._ages.of_s(RUN) > _number(book.about, "longest_s", 1e9) + lasts_s:
            return "the run takes longer than it said at most"
        try:
            return self._of_lease(lasts_s)
        except Unreachable as error:
            self._ages.see(BLIND)
            if (blind_s := self._ages.of_s(BLIND)) <= lasts_s:
                self.tell(f"the Lease: {error}")
                return ""
            return f"whether the Lease is renewed can't be seen for {blind_s:.1f} s: {error}"

    def _of_lease(self, lasts_s: float) -> str:
        """Raises Unreachable when it can't be read."""
        asked_s = self.now()
        there = read(self.api, self._lease().path, Until(ASK_S))
        self._ages.forget(BLIND)
        version, holder = text(there, "metadata", "resourceVersion"), text(there, "spec", "holderIdentity")
        if there is not None and holder != self._runner:
            return f"the Lease is {f'held by {holder}' if holder else 'released'}, and the ledger is open"
        unchanged_s = max(self._watch.unchanged_s(version, asked_s), self._unchanged_before_s(version))
        if unchanged_s < lasts_s:
            return ""
        why = f"the Lease was not renewed for {unchanged_s:.1f} s"
        if there is None:
            why = f"the Lease is gone for {unchanged_s:.1f} s"
        try:
            # a runner that has renewed it just now is the first; the next round sees who has it
            taken = self._lease().take_over(there, ASK_S)
        except Unreachable as error:
            # a second time of it with no renewal: nobody holds it, and the ledger that is closed first fences a runner
            self.tell(f"{why}, and can't be taken: {error}")
            return f"{why}, and could not be taken: {error}" if unchanged_s >= 2 * lasts_s else ""
        return why if taken else ""

    def _unchanged_before_s(self, version: str) -> float:
        """As long as the watchdogs before this one have seen that version already."""
        name = f"lease {version}"
        if self._lease_seen and name != self._lease_seen:
            self._ages.forget(self._lease_seen)
        self._lease_seen = name
        self._ages.see(name)
        return self._ages.before_s(name)

    @property
    def _runner(self) -> str:
        return f"{self.run}/runner"

    def _lease(self) -> Lease:
        about = self.book.about if self.book else {}
        name = str(about.get("lease", "")) or naming.lease(str(about.get("system", "")))
        return Lease(self.api, self.suite, name, f"{self.run}/{self.by}", _number(about, "lease_s", 10.0))

    # reverting

    def _begin(self, why: str) -> None:
        """From here on nobody may arm; then undo. In this order: a patch whose sender has seen the ledger open was
        prepared for a version that an undo moves on."""
        self.tell(f"reverting: {why}")
        if self.book is not None and self.book.state != CLOSED:
            try:
                self._ledger.turn(REVERTING, why, Until(ASK_S))
                self._remember_last()
            except Closed:
                self.tell("the ledger is gone: nobody can arm either")
            except Unreachable as error:
                self._turns += 1
                if self._turns < TURNS:
                    raise
                self._open = True
                self.tell(f"the ledger can't be closed, reverting all the same: {error}")
        self.reverting = why
        self._again_s = 0.0

    def _remember_last(self) -> None:
        """What was armed between the last look and the turn."""
        if (book := self._ledger.read(Until(ASK_S))) is not None:
            self._remember(book)

    def _revert(self) -> bool:
        if self.now() < self._again_s:
            self._say_alive()
            return False
        armed = sorted(self.armed.values(), key=lambda entry: entry.number)
        left = [shown(entry, self._reverter.ended.get(entry.injection)) for entry in self._reverter.go_through(armed)]
        if not left:
            left = self._reverter.look_again(armed, self._namespaces())
        if self.book is not None:
            left += [f"what can't be read in the ledger: {entry}" for entry in self.book.unreadable]
        if not left and self._open:
            return self._revert_anew()
        left = left or self._reverter.unsettled()
        if left:
            self._again_s, self._pause_s = self.now() + self._pause_s, min(self._pause_s * 2, LONGEST_AGAIN_S)
            self.tell(f"left, tried again: {'; '.join(left)}")
            self._say_alive()
            return False
        with contextlib.suppress(Closed):
            self._ledger.turn(CLOSED, f"{self.reverting}; reverted by the {self.by}", Until(ASK_S * 5))
        if said := self._lease().release():
            self.tell(said)
        self.tell("everything is reverted")
        return True

    def _revert_anew(self) -> bool:
        """Until now changes could be made: what has come since, or comes late, no undo has seen or fenced."""
        with contextlib.suppress(Closed):
            self._ledger.turn(REVERTING, self.reverting, Until(ASK_S))
        self._remember_last()
        self._reverter.ended.clear()
        self._open = False
        return self._revert()

    def _namespaces(self) -> list[str]:
        listed = self.book.about.get("namespaces") if self.book else None
        return [str(name) for name in listed if name != self.suite] if isinstance(listed, list) else []

    def _expired(self, book: Book) -> None:
        """Injections whose own time is over while the runner lives: it had that time, and a Lease's time more."""
        if self.now() < self._again_s:
            return
        grace_s = _number(book.about, "lease_s", 10.0)
        for entry in reversed(book.left):
            if self._ages.of_s(_age(entry)) <= entry.expires_in_s + grace_s:
                continue
            begun = book.ended.get(entry.injection)
            if begun is None or begun.by != self.by:
                why = f"its time of {entry.expires_in_s:g} s is over and the runner has not reverted it"
                self.tell(f"{entry.injection}: {why}")
                self._end_alone(Ended(entry.injection, Undone(REVERTING, why), self.by))
            if self._reverter.go_through([entry]):
                self._again_s = self.now() + FIRST_AGAIN_S

    def _end_alone(self, ended: Ended) -> None:
        """Tell the runner before anything is undone; when that can't be written time after time, undo it unsaid. Raises
        Unreachable."""
        try:
            self._ledger.end([ended], Until(ASK_S))
        except Unreachable as error:
            self._turns += 1
            if self._turns < TURNS:
                raise
            self.tell(f"{ended.injection}: that can't be written down, reverting all the same: {error}")

    # being there

    def _say_alive(self) -> None:
        """Into the ledger, often enough; the first time with what it may do. Never raises."""
        if self.book is None:
            return
        due = self.now() - self._beaten_s >= beat_every_s(_number(self.book.about, "lease_s", 10.0))
        if not due and not self._doubted:
            return
        try:
            if not self._look_at_rights(self.book) and not due:
                return
            self._beat += 1
            told: dict[str, object] = {"ready": not self._missing, "missing": (self._missing or ())[:MOST_TOLD]}
            told |= {"beat": self._beat, "at": now()}
            told["since"] = self._ages.written([RUN, BLIND, self._lease_seen, *map(_age, self.book.left)])
            told |= {"pod": os.environ.get("HOSTNAME", ""), "reverting": self.reverting}
            self._ledger.write({"watchdog": json.dumps(told)}, Until(ASK_S), while_open=False)
            self._beaten_s = self.now()
        except StormdrillError as error:
            self.tell(f"no sign of life could be written: {error}")

    def _look_at_rights(self, book: Book) -> bool:
        """All of them at first, then some at a time; whether others are missing than before. Raises Unreachable the
        first time."""
        before = self._missing
        if before is None:  # whoever goes on after a kill has more urgent things to do
            asked = [] if book.watchdog.get("ready") else self._rights(book.about)
            self._missing = tuple(map(str, rights.missing(self.api, asked, Until(30.0))))
        elif not self.reverting:  # then the undos themselves tell
            with contextlib.suppress(Unreachable):
                self._missing = self._missing_now(before, self._doubted or self._next_rights(book.about))
        return self._missing != before

    def _missing_now(self, before: tuple[str, ...], asked: Sequence[rights.Right]) -> tuple[str, ...]:
        """Only what is found missing twice: rules that are just being replaced are there again."""
        found, seen = rights.missing(self.api, asked, Until(ASK_S)), set(self._doubted)
        self._doubted = [right for right in found if right not in seen and str(right) not in before]
        answered = {str(right) for right in asked}
        lasting = [str(right) for right in found if right not in self._doubted]
        return tuple(dict.fromkeys([*(right for right in before if right not in answered), *lasting]))

    def _next_rights(self, about: Mapping[str, object]) -> list[rights.Right]:
        """Whose turn it is, so that each has it about every RIGHTS_S."""
        everything = self._rights(about)
        at_once = math.ceil(len(everything) * beat_every_s(_number(about, "lease_s", 10.0)) / RIGHTS_S)
        begin, self._turn = self._turn % len(everything), self._turn + min(at_once, MOST_RIGHTS)
        return (everything + everything)[begin : begin + min(at_once, MOST_RIGHTS, len(everything))]

    def _rights(self, about: Mapping[str, object]) -> list[rights.Right]:
        listed = about.get("needs")
        needs = [rights.Right.of(item) for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []
        own = rights.of_watchdog(self.suite, self._lease().name, self._namespaces())
        return list(dict.fromkeys([*own, *needs]))


def watch(dog: Watchdog, sleep: Callable[[float], None] = time.sleep) -> None:
    """Until there is nothing left to do. Whatever goes wrong, it goes on."""
    while True:
        try:
            if dog.step():
                return
        except Unreachable as error:
            dog.tell(f"{error}")
        except Exception as error:  # nobody else is left to revert
            dog.tell(f"{type(error).__name__}: {error}")
        sleep(POLL_S)


def _age(entry: Armed) -> str:
    """Its name among the ages: short, for there may be many."""
    return str(entry.number)


def _number(about: Mapping[str, object], name: str, otherwise: float) -> float:
    value = about.get(name)
    return float(value) if isinstance(value, (int, float)) else otherwise
