"""The runner's hold on a cluster: Lease, ledger, watchdog and anchors; what is armed, applied and reverted under it.

`open` leaves either everything in place or nothing. `arm` writes ahead; `apply` changes only what is armed, and asks
the ledger itself between the look at an object and its patch; `revert` may be called any number of times; `close` says
what is left, and leaves that to the watchdog.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from stormdrill.cluster import changing, leaving, mended, naming, objects, rights, rivals
from stormdrill.cluster.api import Api
from stormdrill.cluster.asking import Until
from stormdrill.cluster.changes import Change, NotApplied, Undone
from stormdrill.cluster.exec import Exec
from stormdrill.cluster.heart import Heart
from stormdrill.cluster.job import Wanted
from stormdrill.cluster.lease import Lease
from stormdrill.cluster.ledger import CLOSED, OPEN, Armed, Closed, Ended, Ledger, now
from stormdrill.cluster.reverting import Reverter, at_once, lanes_of
from stormdrill.cluster.setting import Setting
from stormdrill.cluster.standing import Found, Met
from stormdrill.cluster.strangers import Others
from stormdrill.cluster.undoing import DONE, FAILED, SUPERSEDED, Runs, together, undo
from stormdrill.cluster.vigil import Vigil
from stormdrill.errors import Refused, StormdrillError, Unreachable
from stormdrill.model.undo import InCluster

LOOK_S = 0.05
NOTE_S = 3.0
NOW_S = 1.0
ACQUIRE_S = 30.0
"""To see that a Lease which somebody else has left is not renewed any more."""
READY_S = 60.0
END_S = 10.0
"""How long the watchdog may take to end by itself once the ledger is closed."""


@dataclass(slots=True)
class _Ticket:
    entry: Armed
    done: bool = False
    error: StormdrillError | None = None


@dataclass(slots=True)
class Hold:
    """Of one run on one cluster. Thread-safe once it is open."""

    api: Api
    run: str
    system: str
    image: str
    suite: str = "stormdrill"
    account: str = "stormdrill"
    lease_s: float = 10.0
    wanted: Wanted = field(default_factory=Wanted)
    """Of the watchdog's pod."""
    longest_s: float = 3600.0
    """The run at its longest; after it the watchdog reverts although the runner lives."""
    namespaces: Sequence[str] = ()
    """Where something is created."""
    drills: Sequence[str] = ()
    """The namespaces of the system: no other run may drill them meanwhile, whatever its system is called."""
    beside: Sequence[str] = ()
    """Others whose pods are harmed, too: nobody may drill them meanwhile, or begin where they are drilled."""
    needs: Sequence[rights.Right] = ()
    """What the undos take: the watchdog checks that it is allowed to."""
    tell: Callable[[str], None] = lambda _: None
    runs: Runs | None = None
    """For undos that run a program in a pod; None: by exec."""
    ready_s: float = READY_S
    """How long the watchdog may take until it is there."""
    _lease: Lease = field(init=False)
    _ledger: Ledger = field(init=False)
    _heart: Heart = field(init=False)
    _vigil: Vigil | None = None
    """Once the watchdog is there."""
    _armed: dict[str, Armed] = field(default_factory=dict)
    _expires_s: dict[str, float] = field(default_factory=dict)
    """By the Lease's clock."""
    _begun: set[str] = field(default_factory=set)
    """Injections whose revert has begun: nothing is applied for them any more."""
    _settled: set[str] = field(default_factory=set)
    _written: set[str] = field(default_factory=set)
    """Injections that are known to stand in the ledger."""
    _never: set[tuple[str, InCluster]] = field(default_factory=set)
    """Changes that certainly were not made when that was tried: what is there in spite of that is somebody else's."""
    _made: set[tuple[str, InCluster]] = field(default_factory=set)
    """Changes that were made, or may have been, by any of the attempts: they are undone whatever the others say."""
    _ended: dict[str, Ended] = field(default_factory=dict)
    """What became of injections, also where that could not be written down."""
    _met: Met = field(default_factory=Met)
    _unwritten: int = 0
    """How often what became of an injection could not be written down: an outage is told once."""
    _applying: Counter[str] = field(default_factory=Counter)
    """Changes that are under way now, by injection."""
    _queue: list[_Ticket] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _writing: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._lease = Lease(self.api, self.suite, naming.lease(self.system), f"{self.run}/runner", self.lease_s)
        self._ledger = Ledger(self.api, self.suite, self.run)
        self._heart = Heart(self._lease, self._ledger)
        self.runs = self.runs or Exec(self.api)

    @property
    def names(self) -> Mapping[str, str]:
        """What stands in the suite's namespace: ledger, lease, watchdog."""
        return {
            "ledger": naming.ledger(self.run),
            "lease": self._lease.name,
            "watchdog": naming.watchdog(self.run),
        }

    @property
    def _others(self) -> Others:
        return Others(self.api, self.suite)

    @property
    def silent_s(self) -> float:
        """How long ago the last renewal was sent that the API server has answered."""
        return self._lease.age_s

    def open(self) -> None:
        """Raises Refused (held, not ended, no watchdog, not allowed), Unreachable; nothing of it is left then."""
        self._lease.acquire(Until(max(ACQUIRE_S, 3 * self.lease_s)))
        self._heart.start()
        setting = self._setting()
        try:
            setting.unfinished()
            self._ledger.create(self._about(), self.system)
            rivals.refuse(self.api, self.suite, self.run, self._harmed, self.trouble)
            setting.watchdog(self.ready_s, self.trouble)
            self._heart.watched = True
            self._vigil = self._looking_after(setting)
            self._vigil.start()
            self._heart.anchors = setting.anchors()
            self._alive()
        except BaseException as error:
            left = self._take_down(f"the run was refused: {error}", refused=True)
            if left and isinstance(error, Refused):
                raise Refused(f"{error}; left behind: {'; '.join(left)}") from error
            raise

    def arm(self, injection: str, undos: Sequence[InCluster], expires_in_s: float) -> None:
        """Write down what may be done from now on; those that come together are written together. Raises Unreachable
        when nothing may be changed any more, it is not known to be written, or there is no room."""
        self._alive()
        if self._vigil is not None:
            self._vigil.agree()
        with self._lock:
            number = self._armed[injection].number if injection in self._armed else len(self._armed) + 1
            entry = Armed(injection, tuple(undos), expires_in_s, number, now())
            self._armed[injection] = entry
            self._expires_s[injection] = self._lease.clock() + expires_in_s
            ticket = _Ticket(entry)
            self._queue.append(ticket)
        with self._writing:
            if not ticket.done:
                self._write_queue()
        if ticket.error is not None:
            raise ticket.error
        self._written.add(injection)

    def apply(self, injection: str, change: Change) -> None:
        """Make a change that was armed. Raises Unreachable when it can't be said to be in force, NotApplied (one of
        its kinds) when it certainly is not."""
        entry = self._armed.get(injection)
        if entry is None or injection not in self._written or change.undo not in entry.undos:
            raise NotApplied(f"{change.undo.path}: its undo was not written down for {injection}: nothing was changed")
        until = Until(max(changing.LIMIT_S, self.lease_s))
        what, tells = (injection, change.undo), self._made
        with self._counted(injection):
            self._never.discard(what)
            try:
                changing.apply(self.api, change, self.run, injection, lambda: self._may(injection), until, self._others)
            except NotApplied:
                tells = self._never
                raise
            finally:
                tells.add(what)

    def dry_run(self, injection: str, change: Change) -> None:
        """Raises Refused, Unreachable."""
        changing.dry_run(self.api, change, self.run, injection, others=self._others)

    def check(self, injection: str) -> None:
        """Whether anything may be done now for this injection. Raises Unreachable."""
        self._may(injection)

    @contextlib.contextmanager
    def step(self, injection: str) -> Iterator[None]:
        """Around one request that is no change of an object: an eviction, a program in a pod. Raises Unreachable when
        it may not be made; a revert that begins meanwhile waits for its end."""
        with self._counted(injection):
            self._may(injection)
            yield

    def over_for(self, injection: str) -> str:
        """Why nothing will be done for this injection any more: its revert has begun, its time is over, or the run must
        end. As far as is known here; empty while it may be."""
        try:
            self._in_time(injection)
        except Unreachable as error:
            return str(error)
        return self.trouble()

    def revert(self, injection: str) -> Undone:
        """Carry its undos out, also where it was never applied. Never raises."""
        entry = self._armed.get(injection)
        if entry is None:
            return Undone(SUPERSEDED, "nothing was armed")
        self._begun.add(injection)
        known = self._heart.ended(injection)
        undone = self._undo(entry, fence=known is None or known.by == "runner" or known.undone.word != DONE)
        if self._under_way(injection):  # a request of another thread: it gives up at its next step, or is undone now
            end_s = time.monotonic() + END_S
            while self._under_way(injection) and time.monotonic() < end_s:
                time.sleep(LOOK_S)
            undone = together([undone, self._undo(entry)])
        known = known or self._heart.ended(injection)
        found = self.met(injection)
        # a watchdog turns the ledger before it reverts everything, and writes down what became of each only after it
        unsaid = known is None and self._heart.turned and found is not None and bool(found.changed)
        if unsaid or (known is not None and known.by != "runner"):
            self._met.forget(injection)
        if undone.word == SUPERSEDED and known is not None and known.by != "runner" and known.undone.word == DONE:
            told = f"by the {known.by} at {known.at}: {known.undone.detail}"
            undone = Undone(DONE, told, known.undone.witness, by=known.by, at=known.at)
            self._ended[injection] = known
        elif injection not in self._settled:
            self._note(Ended(injection, undone, "runner"))
        if undone.word != FAILED:
            self._settled.add(injection)
        return undone

    def met(self, injection: str) -> Found | None:
        """How its revert found what it had changed here; None before, and where that isn't known."""
        entry = self._armed.get(injection)
        return self._met.of(injection, entry.undos) if entry is not None else None

    def trouble(self) -> str:
        """Why the run must end; empty when all is well. Once it says something it goes on doing so."""
        return self._heart.trouble()

    def trouble_now(self) -> str:
        """The same after a look at the cluster: before another reason is told for what may be its consequence."""
        if not self.trouble():
            with contextlib.suppress(Unreachable):
                self._heart.read(self._ledger.read(Until(NOW_S)))
                if self._vigil is not None and (why := self._vigil.look()):
                    self._heart.give_up(why)
        return self.trouble()

    @property
    def well_s(self) -> float | None:
        """When what is drilled was last seen to be there, on the monotonic clock; None unless somebody deletes it and
        the run must end for that."""
        return self._heart.well_s if self._heart.deleted else None

    def abandon(self, why: str) -> None:
        """Nothing is changed any more, and nobody waited for: `open` ends, too."""
        self._heart.give_up(why)

    def close(self) -> tuple[str, ...]:
        """Revert what is left, take everything down. Returns what could not be: that is the watchdog's now, unless it
        says that nobody is left."""
        left = [f"{name}: {undone.detail}" for name, undone in self._rest()]
        if self._unwritten > 1:
            self.tell(f"what became of injections could not be written into the ledger {self._unwritten} times in all")
        reverter = Reverter(self.api, self._ledger, "runner", self.runs, self.tell, self._ended)
        if not left:
            self._heart.anchors = {}  # from here on it is the runner that removes them
            left = reverter.look_again(list(self._armed.values()), self._elsewhere()) or reverter.unsettled()
        if not left:
            return self._take_down("the run has ended; reverted by the runner", refused=False)
        self._stop_looking()  # from here on it is only made again here
        left += leaving.to_watchdog(self._setting(), left, self.lease_s)
        self._heart.stop()
        return tuple(left)

    # inside

    def _looking_after(self, setting: Setting) -> Vigil:
        ways = (setting.job, setting.make, setting.waits)
        return Vigil(self.api, self._heart, *ways, self.drills, self.tell, self.beside)

    def _stop_looking(self) -> None:
        if self._vigil is not None:
            self._vigil.stop()

    def _undo(self, entry: Armed, *, fence: bool = True) -> Undone:
        made = [word for word in entry.undos if (entry.injection, word) not in self._never - self._made]
        if entry.undos and not made:
            return Undone(SUPERSEDED, "it was never made")
        each = [undo(self.api, word, self.runs, fence=fence) for word in made]
        for word, undone in zip(made, each, strict=True):
            self._met.note(entry.injection, word, undone.found)
        return together(each)

    @contextlib.contextmanager
    def _counted(self, injection: str) -> Iterator[None]:
        with self._lock:
            self._applying[injection] += 1
        try:
            yield
        finally:
            with self._lock:
                self._applying[injection] -= 1

    def _under_way(self, injection: str) -> bool:
        with self._lock:
            return self._applying[injection] > 0

    def _rest(self) -> list[tuple[str, Undone]]:
        """Revert what isn't settled: of what has an object in common the last first, else side by side; what failed."""
        waiting = [entry for entry in self._armed.values() if entry.injection not in self._settled]

        def lane(entries: Sequence[Armed]) -> list[tuple[str, Undone]]:
            return [(entry.injection, self.revert(entry.injection)) for entry in entries]

        undone = at_once(lane, lanes_of(sorted(waiting, key=lambda entry: entry.number)))
        return [(name, each) for told in undone for name, each in told if each.word == FAILED]

    def _write_queue(self) -> None:
        with self._lock:
            batch, self._queue = self._queue, []
        try:
            self._ledger.arm([ticket.entry for ticket in batch])
        except StormdrillError as error:
            for ticket in batch:
                ticket.error = error
        finally:
            for ticket in batch:
                ticket.done = True

    def _alive(self) -> None:
        """Raises Unreachable unless the Lease is young; waits for the next renewal where it isn't just now."""
        until_s = time.monotonic() + self.lease_s
        while True:
            if why := self.trouble():
                raise Unreachable(f"nothing may be changed any more: {why}")
            if self._lease.young():
                return
            if time.monotonic() > until_s:
                raise Unreachable(
                    f"the Lease was renewed {self._lease.age_s:.1f} s ago, which is too long to change anything"
                )
            time.sleep(LOOK_S)

    def _may(self, injection: str) -> None:
        """By the Lease, by the injection's own time, and by the ledger as it is now."""
        self._alive()
        self._in_time(injection)
        book = self._ledger.read()
        self._heart.read(book)
        if book is None or book.state != OPEN or book.stop:
            raise Unreachable(f"nothing may be changed any more: {self.trouble()}")
        if injection in book.ended:
            raise Unreachable(f"{injection} was reverted by the {book.ended[injection].by}")
        self._alive()
        self._in_time(injection)  # still: the answer may have taken long

    def _in_time(self, injection: str) -> None:
        if injection in self._begun:
            raise Unreachable(f"{injection} is being reverted")
        if self._lease.clock() > self._expires_s.get(injection, float("inf")):
            raise Unreachable(f"the time of {injection} is over")

    def _note(self, ended: Ended) -> None:
        self._ended[ended.injection] = ended
        try:
            self._ledger.end([ended], Until(NOTE_S))
        except StormdrillError as error:
            self._unwritten += 1
            if self._unwritten == 1:
                self.tell(f"{ended.injection}: what became of it could not be written into the ledger: {error}")

    def _about(self) -> dict[str, object]:
        return {
            "run": self.run,
            "system": self.system,
            "lease": self._lease.name,
            "lease_s": self.lease_s,
            "longest_s": self.longest_s,
            "namespaces": sorted(set(self.namespaces)),
            rivals.DRILLED: self._harmed,
            "needs": [need.written() for need in dict.fromkeys(self.needs)],
            "began": now(),
        }

    def _setting(self) -> Setting:
        return Setting(
            self.api,
            self._ledger,
            self.system,
            account=self.account,
            image=self.image,
            wanted=self.wanted,
            namespaces=tuple(self._elsewhere()),
            tell=self.tell,
        )

    @property
    def _harmed(self) -> list[str]:
        return sorted({*self.drills, *self.beside})

    def _elsewhere(self) -> list[str]:
        """Namespaces with an anchor; in the suite's own the ledger is one."""
        return sorted(set(self.namespaces) - {self.suite})

    def _take_down(self, why: str, *, refused: bool) -> tuple[str, ...]:
        """Everything of the run's own. Nothing is armed, or everything was reverted."""
        setting, left = self._setting(), list[str]()
        self._heart.ending = True
        self._stop_looking()  # before the Job is taken away for good
        steps: list[Callable[[], None]] = []
        for name in self._elsewhere() if refused else ():
            path = objects.anchor_path(self.run, name)
            steps.append(partial(objects.remove, self.api, path, self.run, Until(END_S)))
        steps.append(partial(self._ledger.turn, CLOSED, why))
        steps.append(partial(setting.end_watchdog, 0.0 if refused else END_S))
        for step in steps:
            try:
                step()
            except Closed:
                continue  # there is no ledger, or no longer
            except StormdrillError as error:
                left.append(str(error))
        self._heart.stop()
        if said := self._lease.release():
            self.tell(said)
        if not left:
            if not refused and (said := mended.keep_where_helped(self._ledger, Until(END_S))):
                self.tell(said)
            try:
                self._ledger.remove()
            except StormdrillError as error:
                left.append(str(error))
        return tuple(left)
