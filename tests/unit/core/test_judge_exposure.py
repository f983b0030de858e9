"""Each mechanism's own evidence that what it harms had mattered."""

from __future__ import annotations

from pathlib import Path

import pytest
from judging import evidence, judged, with_events
from msgspec.structs import replace

from stormdrill.core.case import Case
from stormdrill.core.evidence import Evidence
from stormdrill.model import event as ev
from stormdrill.model.mechanism import (
    Capacity,
    Device,
    How,
    Isolate,
    Nodes,
    Pressure,
    Scale,
    Sever,
    Tell,
    Toxic,
)
from stormdrill.model.plan import Injection

HOPS = ("edge-1>gateway-eu", "edge-2>gateway-eu")
CUT = Toxic(hops=HOPS, kind="cut")
TOLD = Tell("gateway", "POST", "/r", "{}", "POST", "/r", "{}", "/r", ".version == leaky")


def by(found: Evidence, mechanism: str, how: How | None) -> Evidence:
    injections = tuple(replace(item, mechanism=mechanism, how=how) for item in found.plan.injections)
    return replace(found, plan=replace(found.plan, injections=injections))


def carrying(found: Evidence, passed: float) -> Evidence:
    """The proxy's counters at the baseline's edges."""
    edges = {e.phase: r.mono_ms for r in found.events if isinstance(e := r.event, ev.PhaseEntered)}
    last = max(r.seq for r in found.events)
    readings = [
        ev.Recorded(last + n, "", at_ms, ev.Reading("hop_bytes", hop, value))
        for n, (hop, at_ms, value) in enumerate(
            (
                (hop, at, count)
                for hop in HOPS
                for at, count in ((edges["baseline"] + 400, 9_000.0), (edges["fault"] - 300, 9_000.0 + passed))
            ),
            1,
        )
    ]
    return with_events(found, lambda recorded: recorded, readings)


def test_hops_are_exposed_by_what_passed_them_before(tmp_path: Path) -> None:
    verdict = judged(carrying(by(evidence(tmp_path), "cut", CUT), 60_000.0))
    assert verdict.verdict == "PASS"
    assert all(fault.exposed for fault in verdict.faults)


def test_hops_that_carried_next_to_nothing_are_not_exposed_however_busy_their_instance_was(tmp_path: Path) -> None:
    verdict = judged(carrying(by(evidence(tmp_path), "cut", CUT), 300.0))
    assert verdict.verdict == "INCONCLUSIVE"
    assert "only 0.6 kB passed 2 hops in the baseline" in verdict.faults[0].detail


def test_without_the_proxys_counters_the_instance_speaks_for_its_hops(tmp_path: Path) -> None:
    assert all(fault.exposed for fault in judged(by(evidence(tmp_path / "a"), "cut", CUT)).faults)
    assert not any(fault.exposed for fault in judged(by(evidence(tmp_path / "b", served=4), "cut", CUT)).faults)


@pytest.mark.parametrize(
    ("mechanism", "how"),
    [("pressure", Pressure(4.0, 200.0)), ("device", Device("gpu0", "lost")), ("tell", TOLD), ("sever", Sever())],
)
def test_all_else_is_exposed_by_what_its_instances_served(tmp_path: Path, mechanism: str, how: How) -> None:
    served, idle = evidence(tmp_path / "a"), evidence(tmp_path / "b", "not-exposed")
    assert all(fault.exposed for fault in judged(by(served, mechanism, how)).faults)
    assert not any(fault.exposed for fault in judged(by(idle, mechanism, how)).faults)


@pytest.mark.parametrize(
    ("mechanism", "how", "silent"),
    [
        ("freeze", None, True),
        ("crash", None, True),
        ("sever", Sever(), True),
        ("sever", Sever(peers=("gateway-us",)), False),
        ("sever", Sever(peers=("gateway-us",), users=True), True),
        ("sever", Sever(direction="up"), False),
        ("cut", CUT, False),
        ("stall", Toxic(hops=HOPS, kind="stall"), False),
        ("device", Device("gpu0", "hang"), False),
        ("pressure", Pressure(4.0, 200.0), False),
        ("nodes", Nodes(("n1",), "taint", ("gateway-eu",)), True),
        ("nodes", Nodes(("n1",), "taint", ("edge-1",)), False),
        ("scale", Scale("deployments/g", "s", 1, ("gateway-eu",)), True),
        ("isolate", Isolate("s", {}, (), ("gateway-eu",)), True),
        ("capacity", Capacity(("n1",), "gpu", "", ("gateway-eu",)), False),
    ],
)
def test_only_who_answers_nobody_may_be_silent_to_a_probe(
    tmp_path: Path, mechanism: str, how: How | None, silent: bool
) -> None:
    found = by(evidence(tmp_path), mechanism, how)
    case = Case(found.plan, found.events, found.records, found.ledger)
    assert bool(case.halted("gateway-eu")) is silent
    assert case.halted("gateway-us") == []


def test_a_release_is_exposed_by_what_those_served_who_run_it(tmp_path: Path) -> None:
    """Who is asked to roll it out may be busy, and who runs it idle."""
    found = evidence(tmp_path)
    assert all(fault.exposed for fault in judged(by(found, "tell", replace(TOLD, reaches=("gateway-eu",)))).faults)
    assert not any(fault.exposed for fault in judged(by(found, "tell", replace(TOLD, reaches=("idle",)))).faults)


def test_a_node_is_exposed_by_what_those_served_who_go_with_it(tmp_path: Path) -> None:
    """Empty nodes may be of the same fault; where all are, it shows nothing."""
    found = evidence(tmp_path)
    named = replace(found, plan=replace(found.plan, injections=tuple(map(on_node, found.plan.injections))))
    for reaches, exposed in ((("gateway-eu",), True), ((), False)):
        lost = by(named, "nodes", Nodes(("n1",), "taint", reaches))
        assert all(fault.exposed is exposed for fault in judged(lost).faults)


def on_node(injection: Injection) -> Injection:
    return replace(injection, instance="n1")


@pytest.mark.parametrize(("peers", "during", "holds"), [(("b",), True, False), (("b",), False, True), ((), True, True)])
def test_a_cut_by_rules_is_over_when_its_instance_is_started_again(
    tmp_path: Path, peers: tuple[str, ...], during: bool, holds: bool
) -> None:
    """They end with the network that it had; what only the engine has disconnected stays so."""
    found = by(evidence(tmp_path), "sever", Sever(peers))
    cut = found.plan.injections[0]
    at = {type(e): r.mono_ms for r in found.events if getattr(e := r.event, "injection", "") == cut.id}
    moment_ms = at[ev.InjectStarted] + 1.0 if during else at[ev.RevertStarted] + 1.0
    again = ev.ContainerStarted(cut.instance, "s", "system", "c", "n", 7, "i", "", {}, True)
    more = [ev.Recorded(max(r.seq for r in found.events) + 1, "", moment_ms, again)]
    verdict = judged(with_events(found, lambda recorded: recorded, more))
    fault = next(item for item in verdict.faults if item.target == cut.instance)
    assert (fault.bit, "its cut was over by then" in fault.detail) == (holds, not holds)
    assert holds or verdict.verdict == "INCONCLUSIVE"
