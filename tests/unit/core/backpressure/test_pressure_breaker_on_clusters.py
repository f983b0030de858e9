"""A node that is lost takes callers and bystanders along, and a Service is led elsewhere only once a proxy stands: what
is asked of a breaker is asked of one that could have opened, and from when it could."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from msgspec.structs import replace

from pressing import EPOCH_MS, checked, named, retold, seeing, with_fault
from stormdrill.core.evidence import Evidence
from stormdrill.model import event as ev
from stormdrill.model.mechanism import Nodes, Toxic
from synthetic_overload import EDGE, GATEWAY, WORKER, simulate

WORD = "breaker"
START_S, END_S, UNTIL_S = 12.0, 24.0, 36.0
NEVER_S = 99.0
OTHER = "edge-2"
Opens = Mapping[tuple[str, str], float]
"""Who tells of the breaker to whom → how long after the fault it opens."""


def run(opens: Opens) -> Evidence:
    """A fault from 12 to 24 s, each reading half a second apart; what has opened closes a second after it."""
    base = seeing(
        retold(simulate(steps=(), episode=False, every_s=1.0).evidence, (), without=["breaker_open"]),
        probes="",
        hedges="",
    )
    told, at_s = [], 0.25
    while at_s < UNTIL_S:
        for (teller, to), opens_s in opens.items():
            is_open = START_S + opens_s <= at_s < END_S + 1
            told.append((at_s, ev.Reading("breaker_open", teller, float(is_open), {"to": to})))
        at_s += 0.5
    return with_fault(with_events(base, told), START_S, END_S)


def with_events(found: Evidence, told: list[tuple[float, ev.Event]]) -> Evidence:
    more = [
        ev.Recorded(3_000_000 + len(found.events) + index, "", EPOCH_MS + at_s * 1000, event)
        for index, (at_s, event) in enumerate(told)
    ]
    return replace(found, events=tuple(sorted([*found.events, *more], key=lambda one: one.mono_ms)))


def by(found: Evidence, how: Nodes | Toxic) -> Evidence:
    (injection,) = found.plan.injections
    mechanism = "nodes" if isinstance(how, Nodes) else how.kind
    injection = replace(injection, mechanism=mechanism, how=how, instance=GATEWAY)
    return replace(found, plan=replace(found.plan, injections=(injection,)))


def starting_up(found: Evidence) -> Evidence:
    """As on a cluster: what leads a Service elsewhere is a pod that has to be started first, and the fault lasts as
    long as was planned from then on."""
    late = tuple(
        replace(one, starts_up=isinstance(one.how, Toxic) and bool(one.how.service)) for one in found.plan.injections
    )
    events = tuple(
        ev.Recorded(one.seq, one.at, one.mono_ms, ev.PhaseEntered("fault", 8.0))
        if isinstance(one.event, ev.PhaseEntered) and one.event.phase == "fault"
        else one
        for one in found.events
    )
    return replace(found, plan=replace(found.plan, injections=late), events=events)


def lost(opens: Opens, *reaches: str) -> Evidence:
    return by(run(opens), Nodes(("n1",), "taint", reaches))


@pytest.mark.parametrize(("taken", "word"), [((GATEWAY,), "FAIL"), ((GATEWAY, OTHER), "PASS")])
def test_who_is_taken_along_owes_no_breaker(taken: tuple[str, ...], word: str) -> None:
    """It has none meanwhile, and the one that comes instead never knew whom it can't reach."""
    found = lost({(EDGE, GATEWAY): 1.0, (OTHER, GATEWAY): NEVER_S}, *taken)
    assert checked(found, WORD).verdict == word


def test_where_all_who_tell_are_taken_along_nothing_is_known() -> None:
    found = checked(lost({(EDGE, GATEWAY): 1.0}, GATEWAY, EDGE), WORD)
    assert found.verdict == "INCONCLUSIVE"
    assert "nobody else told" in found.sentence


@pytest.mark.parametrize(
    ("of", "to_gateway_s", "to_worker_s", "word"),
    [
        ("", 1.0, 1.0, "PASS"),
        ("", 1.0, NEVER_S, "FAIL"),
        (GATEWAY, 1.0, NEVER_S, "PASS"),
        (GATEWAY, NEVER_S, 1.0, "FAIL"),
        ("gateway", 1.0, NEVER_S, "INCONCLUSIVE"),
        (EDGE, 1.0, 1.0, "INCONCLUSIVE"),
    ],
)
def test_of_names_whose_breakers_are_meant(of: str, to_gateway_s: float, to_worker_s: float, word: str) -> None:
    """Among those that were hit: a name that nobody bears, or that was left alone, is no way to a PASS."""
    found = lost({(EDGE, GATEWAY): to_gateway_s, (EDGE, WORKER): to_worker_s}, GATEWAY, WORKER)
    assert checked(found, WORD, of=of).verdict == word


@pytest.mark.parametrize(
    ("bound_s", "answers_s", "word"),
    [(1.0, 2.0, "INCONCLUSIVE"), (1.0, 9.0, "FAIL"), (1.0, None, "FAIL"), (None, 2.0, "FAIL")],
)
def test_what_a_cluster_starts_elsewhere_at_once_is_no_outage_that_a_breaker_must_see(
    bound_s: float | None, answers_s: float | None, word: str
) -> None:
    """Only where another pod was seen to answer in its place, before the breaker was due."""
    told: list[tuple[float, ev.Event]] = []
    if bound_s is not None:
        pod = ev.PodBound(WORKER, "worker", "", "shop", "worker-b", "u2", "n2", "u1")
        told.append((START_S + bound_s, pod))
    if answers_s is not None:
        told.append((START_S + answers_s, ev.Reading("served", WORKER, 3.0)))
    found = lost({(EDGE, WORKER): NEVER_S}, WORKER)
    silent = [one for one in found.events if getattr(one.event, "instance", "") != WORKER]
    verdict = checked(with_events(replace(found, events=tuple(silent)), told), WORD)
    assert verdict.verdict == word
    assert ("was back elsewhere" in verdict.sentence) == (word == "INCONCLUSIVE")


@pytest.mark.parametrize(("service", "took_s"), [("shop/gateway", 2.0), ("", 5.25)])
def test_a_service_is_as_it_was_until_its_proxy_stands(service: str, took_s: float) -> None:
    found = starting_up(by(run({(EDGE, GATEWAY): 5.25}), Toxic((f"{EDGE}>{GATEWAY}",), "stall", service=service)))
    (injection,) = found.plan.injections
    led = ev.Injected(injection.id, "done", "stall", 3250.0)
    verdict = checked(with_events(found, [(START_S + 3.25, led)]), WORD, opens="4s")
    assert named(verdict, f"time for {EDGE}, to={GATEWAY} to open").value == pytest.approx(took_s)
    assert verdict.verdict == ("PASS" if service else "FAIL")


@pytest.mark.parametrize("outcome", ["failed", "doubtful"])
def test_a_call_that_did_not_say_that_it_was_done_buys_no_time(outcome: str) -> None:
    toxic = Toxic((f"{EDGE}>{GATEWAY}",), "stall", service="shop/gateway")
    found = starting_up(by(run({(EDGE, GATEWAY): 5.25}), toxic))
    (injection,) = found.plan.injections
    told = ev.Injected(injection.id, outcome, "stall", 3250.0)
    assert checked(with_events(found, [(START_S + 3.25, told)]), WORD, opens="4s").verdict == "FAIL"
