"""Whether the run is still heard where it changes things: journals each loss, and ends the run when it is over."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from stormdrill.engine.supervised import OnDefect, Supervised, raise_in_thread
from stormdrill.model.event import ClusterBack, ClusterLost, Event
from stormdrill.ports import Contact, EndedBy

EVERY_S = 0.1

Abort = Callable[[EndedBy, str, float | None], object]
"""By whom, why, and when what was deleted was last seen to be there."""


class ContactWatch(Supervised):
    """Looks until `stop`; asks nobody before, so that it is never late."""

    def __init__(
        self,
        contacts: Callable[[], Sequence[Contact]],
        contacts_now: Callable[[], Sequence[Contact]],
        record: Callable[[Event, float | None], object],
        abort: Abort,
        *,
        on_defect: OnDefect = raise_in_thread,
    ) -> None:
        super().__init__("contact", on_defect)
        self._contacts, self._contacts_now = contacts, contacts_now
        self._record = record
        self._abort = abort
        self._lost_ms: dict[str, float] = {}
        self._over: set[str] = set()

    def stop(self) -> None:
        looked = self._thread.is_alive()
        super().stop()
        if not looked:
            return
        self.look()  # what came back, or was over, since the last look
        if not self._lost_ms and not self._over:  # until the last that was measured; one that is lost would only delay
            self.look(self._contacts_now())

    def _run(self) -> None:
        while not self._stop.wait(EVERY_S):
            self.look()

    def look(self, contacts: Sequence[Contact] | None = None) -> None:
        for one in self._contacts() if contacts is None else contacts:
            now_ms = time.monotonic() * 1000
            if one.lost and one.cluster not in self._lost_ms:
                self._lost_ms[one.cluster] = now_ms
                self._record(ClusterLost(one.cluster, one.lost), now_ms)
            elif not one.lost and one.cluster in self._lost_ms:
                away_ms = round(now_ms - self._lost_ms.pop(one.cluster), 1)
                said = one.over or "the Lease is still the run's"
                self._record(ClusterBack(one.cluster, away_ms, said), now_ms)
            if one.over and one.cluster not in self._over:
                self._over.add(one.cluster)
                self._abort(one.by, reason(one), one.well_mono_ms)


def reason(one: Contact) -> str:
    """Why the run ends, of one that is over."""
    return f"{one.over} (cluster {one.cluster})" if one.cluster else one.over
