"""What a runner looks at while it holds a cluster: that the watchdog stays, and the namespaces of the drill.

A watchdog whose Job somebody has removed is made again. One that doesn't come back ends the run: nobody would revert if
this machine vanished. So does a namespace that somebody deletes: what fails in it then is not the drill's doing. And so
does one that lets itself be drilled no longer: consent can be taken back at any time.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlencode

from stormdrill.cluster.api import Api
from stormdrill.cluster.asking import Until, read, text, under
from stormdrill.cluster.heart import NOBODY, Heart, deleted
from stormdrill.cluster.naming import OPTED_IN
from stormdrill.errors import StormdrillError, Unreachable

ASK_S = 2.0
ARM_S = 10.0
"""As long as what is armed may take to be written down."""
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
    """Of the system."""
    tell: Callable[[str], None]
    beside: Sequence[str] = ()
    """Others whose pods are harmed, too."""
    _agreed_s: float = -math.inf
    """When the last look began that somebody was told of who was about to change something."""
    _refused: str = ""
    """What it found."""
    _asking: threading.Lock = field(default_factory=threading.Lock)
    _blind_s: float | None = None
    """Since when the namespaces can't be looked at; None: they can."""
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
            unseen = ""
            try:
                if why := self._namespaces():
                    return why
            except Unreachable as error:  # who may no longer look at the one can still see the other
                unseen = str(error)
            return self._watchdog() or self._blind(unseen)

    def _blind(self, unseen: str) -> str:
        """Given that the API server answers: whoever may not look at what is drilled knows neither that it is there nor
        that it may be."""
        if not unseen:
            self._blind_s = None
            return ""
        self._blind_s = self._blind_s or time.monotonic()
        if time.monotonic() - self._blind_s <= max(BACK_S, self.heart.lease.duration_s):
            return ""
        return f"whether what is drilled is still there, and may be drilled, can't be seen: {unseen}"

    def agree(self) -> None:
        """Whether all namespaces let themselves be drilled now; those who ask together are told together. Raises
        Unreachable when one doesn't any more, and where that can't be seen."""
        asked_s = time.monotonic()
        with self._asking:
            if self._agreed_s < asked_s:
                self._agreed_s, self._refused = time.monotonic(), ""
                try:
                    why = self._namespaces(ARM_S)
                except Unreachable as error:
                    self._refused = f"whether it may be drilled can't be seen: {error}"
                else:
                    self._refused = f"nothing may be changed any more: {why}" if why else ""
                    self.heart.give_up(why)
            if self._refused:
                raise Unreachable(self._refused)

    def _namespaces(self, limit_s: float = ASK_S) -> str:
        asked_s, until = time.monotonic(), Until(limit_s)
        found = {name: read(self.api, f"/api/v1/namespaces/{name}", until) for name in self.namespaces}
        for name, there in found.items():
            if why := deleted(name, there):
                self.heart.lose(why)
                return why
        self.heart.well_s = asked_s
        for name in self._unwilling(found, until):
            label = "=".join(OPTED_IN)
            return f"the namespace {name} lets itself be drilled no longer: somebody took its label {label} away"
        return ""

    def _unwilling(self, found: Mapping[str, object], until: Until) -> list[str]:
        """Those without the label. Who is being deleted among the others is harmed no more."""
        there = dict(found)
        if self.beside:
            willing = {
                text(one, "metadata", "name") for one in self._listed("labelSelector", "=".join(OPTED_IN), until)
            }
            for name in sorted(set(self.beside) - willing):
                for one in self._listed("fieldSelector", f"metadata.name={name}", until):
                    there[name] = one
        label, value = OPTED_IN
        return [name for name, one in there.items() if under(one, "metadata", "labels").get(label) != value]

    def _listed(self, by: str, what: str, until: Until) -> list[object]:
        """Namespaces. Who harms pods of others had to list them when it was planned."""
        items = under(read(self.api, f"/api/v1/namespaces?{urlencode({by: what})}", until)).get("items")
        return items if isinstance(items, list) else []

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
                self._heard, self._blind_s = str(error), None
                self._missed_s = None if self._missed_s is None else time.monotonic()
                continue
            if why:
                self.heart.give_up(why)
                return
