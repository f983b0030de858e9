"""The runner's heartbeat: renews the Lease, reads the ledger, and knows why the run must end."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from stormdrill.cluster.api import Api
from stormdrill.cluster.asking import Until, read, text
from stormdrill.cluster.lease import Lease
from stormdrill.cluster.ledger import OPEN, Book, Ended, Ledger
from stormdrill.errors import StormdrillError, Unreachable

READ_S = 1.0
NOBODY = "nobody would revert if this machine vanished"


def beat_every_s(lease_s: float) -> float:
    """How often the watchdog says that it is there."""
    return max(1.0, lease_s / 2)


@dataclass(slots=True)
class Heart:
    lease: Lease
    ledger: Ledger
    watched: bool = False
    """The watchdog has been there: from now on it must stay."""
    anchors: Mapping[str, str] = field(default_factory=dict)
    """Paths of those that must stay, with their uids: what the run has made goes with them, while callers are still led
    to it."""
    ending: bool = False
    """The runner closes the ledger itself."""
    heard: str = ""
    """What went wrong last."""
    well_s: float = field(default_factory=time.monotonic)
    """When all that is drilled was last seen to be there."""
    deleted: bool = False
    """Why the run must end is that somebody deletes what is drilled."""
    _why: str = ""
    _book: Book | None = None
    beats: int = 0
    """Signs of life of the watchdog, as often as a new one was read."""
    _beat: object = None
    _beat_s: float = 0.0
    _read_s: float = 0.0
    _over: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._go, name="stormdrill-lease", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(self.lease.duration_s + 1.0)

    def trouble(self) -> str:
        if not self._why and (why := self._now()):
            with contextlib.suppress(Unreachable):  # a Lease that was taken or released: the ledger tells why
                self.read(self.ledger.read(Until(READ_S)))
            self._why = self._why or why
        return self._why

    def give_up(self, why: str) -> None:
        """From outside: the run is being stopped."""
        self._why = self._why or why

    def lose(self, why: str) -> None:
        """What is drilled is being deleted: what was measured since it was last seen is something else. Empty: it is
        not."""
        if why and not self._why:
            self.deleted = True  # first: whoever hears of a reason asks then which one
            self._why = why

    def ended(self, injection: str) -> Ended | None:
        """As the ledger says now, or said last. Never raises."""
        with contextlib.suppress(StormdrillError):  # credentials that can't be renewed, too
            self.read(self.ledger.read(Until(READ_S)))
        return self._book.ended.get(injection) if self._book else None

    def read(self, book: Book | None) -> None:
        """What the ledger says. None: there is none."""
        with self._lock:
            if self.ending:
                return
            if book is None:
                self._why = self._why or f"somebody has removed the ledger {self.ledger.path}"
                return
            self._book = book
            if book.stop:
                self._why = self._why or f"stopped by a person: {book.stop}"
            elif book.state != OPEN:
                self._why = self._why or f"the ledger is {book.state}: {book.why}"
            said, self._read_s = book.watchdog, time.monotonic()
            beat = (said.get("pod"), said.get("beat"), said.get("at"))
            if beat != self._beat:
                self._beat, self._beat_s, self.beats = beat, self._read_s, self.beats + 1
            if self.watched and isinstance(lacks := said.get("missing"), list) and lacks:
                told = "; ".join(map(str, lacks))
                self._why = self._why or f"the watchdog may no longer {told}: {NOBODY}"

    @property
    def turned(self) -> bool:
        """Somebody is reverting, or has: as the ledger said last."""
        return self._book is not None and self._book.state != OPEN

    @property
    def stopped(self) -> bool:
        return self._over.is_set()

    @property
    def silent_s(self) -> float:
        """How old the watchdog's last sign of life was when the ledger was read last."""
        return self._read_s - self._beat_s

    @property
    def patience_s(self) -> float:
        """How long the watchdog may say nothing while the ledger can be read: three signs of life, or the Lease."""
        return max(3 * beat_every_s(self.lease.duration_s), self.lease.duration_s)

    def _now(self) -> str:
        if self.lease.lost:
            return self.lease.lost
        if self.lease.duration_s < self.lease.age_s < math.inf:
            return (
                f"the Lease {self.lease.name} could not be renewed for {self.lease.age_s:.1f} s: {self.heard}".rstrip(
                    ": "
                )
            )
        return ""

    def _look_at_anchors(self, until: Until) -> None:
        """Raises Unreachable."""
        for path, uid in self.anchors.items():
            there = read(self.lease.api, path, until)
            if text(there, "metadata", "uid") == uid and not text(there, "metadata", "deletionTimestamp"):
                continue
            self.read(self.ledger.read(until))  # the watchdog removes them once everything is reverted
            if path in self.anchors and not self.ending:
                with contextlib.suppress(Unreachable):
                    self.lose(gone(self.lease.api, path.split("/")[4], until))
                self.give_up(f"somebody has removed {path}, and with it goes what the run has made there")

    def _go(self) -> None:
        quarter_s = self.lease.duration_s / 4
        begun = False
        while not self._over.is_set():
            good = False
            try:
                good = self.lease.renew(quarter_s * 2)
                book = self.ledger.read(Until(quarter_s if good else quarter_s / 4))  # the Lease is tried again soon
                begun = begun or book is not None
                if begun:
                    self.read(book)
                if good:
                    self._look_at_anchors(Until(quarter_s))
            except Exception as error:  # credentials that can't be renewed, too: the Lease's age tells in time
                self.heard = str(error)
            self._over.wait(quarter_s if good else quarter_s / 4)


def gone(api: Api, namespace: str, until: Until) -> str:
    """What to say of a namespace that somebody deletes; empty where it is there. Raises Unreachable."""
    return deleted(namespace, read(api, f"/api/v1/namespaces/{namespace}", until))


def deleted(namespace: str, there: dict[str, object] | None) -> str:
    """The same of one that was read."""
    if there is None:
        return f"the namespace {namespace} was deleted by somebody"
    ends = text(there, "metadata", "deletionTimestamp")
    return f"the namespace {namespace} is being deleted by somebody" if ends else ""
