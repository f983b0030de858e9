"""What the hops carried before they were harmed: read from the proxy's own counters, and only until then."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from msgspec.structs import replace

from stormdrill.engine import hops
from stormdrill.engine.hops import HopWatch, control_of
from stormdrill.errors import Unreachable
from stormdrill.model.event import Event, ProcessSpawned, Reading, Recorded
from stormdrill.model.mechanism import Toxic
from stormdrill.model.plan import Plan
from synthetic_run import Knobs, make_plan

HARMED = "edge-1>gateway-eu"


def plan() -> Plan:
    made = make_plan(Knobs())
    late = Toxic(hops=(HARMED,), kind="delay", delay_ms=500.0)
    one = replace(made.injections[0], mechanism="delay", how=late)
    return replace(made, injections=(one, *made.injections[1:]))


class Rig:
    def __init__(self, answer: Mapping[str, float] | None, phase: str = "baseline") -> None:
        self.answer = answer
        self.phase = phase
        self.asked: list[str] = []
        self.seen: list[Event] = []
        self.read_once = threading.Event()
        self.watch = HopWatch(
            plan(), self.read, lambda: "127.0.0.1:9", lambda: self.phase, lambda event, at_ms: self.seen.append(event)
        )

    def read(self, control: str, timeout_s: float) -> Mapping[str, float]:
        self.asked.append(control)
        self.read_once.set()
        if self.answer is None:
            raise Unreachable("no answer")
        return self.answer


def test_only_the_hops_that_a_fault_will_harm_are_written_down() -> None:
    rig = Rig({HARMED: 812.0, "edge-2>gateway-us": 90_000.0})
    rig.watch.look()
    assert rig.seen == [Reading("hop_bytes", HARMED, 812.0)]


def test_a_proxy_that_does_not_tell_leaves_no_reading() -> None:
    rig = Rig(None)
    rig.watch.look()
    assert rig.seen == []


def test_nobody_reads_on_once_the_fault_has_begun(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(hops, "EVERY_S", 0.001)
    rig = Rig({HARMED: 1.0})
    rig.watch.start()
    assert rig.read_once.wait(5)
    rig.phase = "fault"
    rig.watch._thread.join(5)
    assert not rig.watch._thread.is_alive()
    rig.watch.stop()


def test_the_proxy_is_asked_where_the_journal_says_that_it_listens() -> None:
    started = ProcessSpawned("proxy", "proxy", "proxy", 7, 1, [], {}, "", "", "127.0.0.1:4711", {})
    assert control_of([Recorded(1, "", 0.0, started)]) == "127.0.0.1:4711"
    assert control_of([]) == ""
