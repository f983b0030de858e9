"""What a runner looks at while it holds a cluster: that the watchdog stays, and the namespaces of the drill.

A watchdog whose Job somebody has removed is made again. One that doesn't come back ends the run: nobody would revert if
this machine vanished. So does a namespace that somebody deletes: what fails in it then is not the drill's doing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from stormdrill.cluster.api import Api
from stormdrill.cluster.asking import Until, read, text
from stormdrill.cluster.heart import NOBODY, Heart, gone
from stormdrill.errors import StormdrillError, Unreachable

ASK_S = 2.0
BACK_S = 25.0
"""At least so long, and the Lease's time, a watchdog may take to come back: a Job waits 10 s before it replaces a pod
that was evicted and 20 s the second time, and then its program has to begin. It is late until then, and not lost: what
comes in the end reverts, too."""


@dataclass(slots=True)
class Vigil:
    api: Api
    heart: Heart
    job: str
    """Path of the watchdog's Job."""
    make: Callable[[Until], object]
    """Makes that Job. Raises Refused, Unreachable."""
    waits: Callable[[], str]
    """Why its pod has not begun. Raises Unreachable."""
    namespaces: Sequence[str]
    tell: Callable[[str], None]
    _missed_s: float | None = None
    """Since when it is waited for; None: it is there."""
    _beats: int = 0
    """How many there had been then."""
    _heard: str = ""
    """Why it could not be made again."""
    _over: threading.Event = field(default_factory=threading.Event)
    _looking: threading.Lock = field(default_factory=threading.Lock)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._go, name="stormdrill-vigil", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """When it returns, nothing is made any more."""
        self._over.set()
        with self._looking:  # whoever looks now
            pass
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def look(self) -> str:
        """Why the run must end; empty when all is well. Raises Unreachable."""
        with self._looking:
            if self._over.is_set() or self.heart.ending:
                return ""
            if why := self._namespaces():
                self.heart.lose(why)
            return why or self._watchdog()

    def _namespaces(self) -> str:
        asked_s = time.monotonic()
        for name in self.namespaces:
            if why := gone(self.api, name, Until(ASK_S)):
                return why
        self.heart.well_s = asked_s
        return ""

    def _watchdog(self) -> str:
        job = read(self.api, self.job, Until(ASK_S))
        gone = job is None or bool(text(job, "metadata", "deletionTimestamp"))
        silent_s = self.heart.silent_s
        if self._missed_s is None:
            if not gone and silent_s <= self.heart.patience_s:
                return ""
            self._missed_s, self._beats = time.monotonic(), self.heart.beats
            what = "somebody has removed the watchdog's Job" if gone else f"the watchdog is silent for {silent_s:.0f} s"
            self.tell(f"{what}; it is made again, and waited for")
        elif not gone and self.heart.beats > self._beats:
            self._missed_s = None
            self.tell("the watchdog is there again")
            return ""
        if gone:
            self._make()
        if time.monotonic() - self._missed_s <= max(BACK_S, self.heart.lease.duration_s):
            return ""
        why = self._heard or self.waits()
        return f"the watchdog has said nothing for {silent_s:.0f} s and did not come back ({why}): {NOBODY}"

    def _make(self) -> None:
        try:
            self.make(Until(ASK_S))
            self._heard = ""
        except StormdrillError as error:  # the old one may be on its way out still
            self._heard = f"it could not be made again: {error}"

    def _go(self) -> None:
        while not self._over.wait(self.heart.lease.duration_s / 4):
            if self.heart.stopped:
                return
            try:
                why = self.look()
            except Unreachable as error:  # the Lease's age tells in time; that time is none of the watchdog's silence
                self._heard = str(error)
                self._missed_s = None if self._missed_s is None else time.monotonic()
                continue
            if why:
                self.heart.give_up(why)
                return
