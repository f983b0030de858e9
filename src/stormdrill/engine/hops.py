"""What the hops that a fault will harm carried before it: by that it is known to matter."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

from stormdrill.engine.supervised import OnDefect, Supervised, raise_in_thread
from stormdrill.errors import Unreachable
from stormdrill.model.event import ContainerStarted, Event, ProcessSpawned, Reading, Recorded
from stormdrill.model.mechanism import Toxic
from stormdrill.model.plan import Plan

EVERY_S = 1.0
LIMIT_S = 0.8
HOP_BYTES = "hop_bytes"


def control_of(events: Iterable[Recorded]) -> str:
    """Where the run's fault proxy is told what to do, by its start in the journal; empty where there is none."""
    for recorded in events:
        event = recorded.event
        if isinstance(event, ProcessSpawned | ContainerStarted) and event.role == "proxy":
            return event.address
    return ""


class HopWatch(Supervised):
    """Reads the proxy's counters of the planned hops until something is injected; journals what passed each of them."""

    def __init__(
        self,
        plan: Plan,
        read: Callable[[str, float], Mapping[str, float]],
        control: Callable[[], str],
        phase: Callable[[], str],
        record: Callable[[Event, float | None], object],
        *,
        on_defect: OnDefect = raise_in_thread,
    ) -> None:
        super().__init__("hops", on_defect)
        self._hops = {hop for one in plan.injections if isinstance(one.how, Toxic) for hop in one.how.hops}
        self._read = read
        self._control = control
        self._phase = phase
        self._record = record

    def start(self) -> None:
        if self._hops:
            super().start()

    def _run(self) -> None:
        while not self._stop.wait(EVERY_S):
            if self._phase() not in ("", "warmup", "baseline"):
                return
            self.look()

    def look(self) -> None:
        """A proxy that doesn't tell leaves no reading: the hops are then not known to have carried anything."""
        asked_ms = time.monotonic() * 1000
        try:
            passed = self._read(self._control(), LIMIT_S)
        except Unreachable:
            return
        for hop in sorted(self._hops & set(passed)):
            self._record(Reading(HOP_BYTES, hop, passed[hop]), asked_ms)
