"""Faults in parallel, in sequence, staggered, overlapping: each is taken back exactly once, the last one first."""

from __future__ import annotations

from itertools import groupby

from hypothesis import given, settings
from hypothesis import strategies as st
from test_decide import World, worlds

from fault_world import SYSTEM, planned
from stormdrill.core import decide as do
from stormdrill.core.fold import fold
from stormdrill.errors import Refused
from stormdrill.model import event as ev
from stormdrill.model.experiment import FaultUse
from stormdrill.model.plan import Plan

NAMES = [item.name for item in SYSTEM.instances]
HALTING = st.sampled_from(["freeze", "crash"])
DEVICES = ["devices", "slow", "hang", "cold"]


def begun_ms(world: World) -> dict[str, float]:
    return {r.event.injection: r.mono_ms for r in world.journal if isinstance(r.event, ev.InjectStarted)}


@settings(max_examples=150, deadline=None)
@given(worlds())
def test_everything_armed_is_taken_back_once_effectively(world: World) -> None:
    """After the last look that saw it gone no other revert is asked for, unless it came back and never went again."""
    world.run()
    for injection in world.plan.injections:
        mine = [r.event for r in world.journal if getattr(r.event, "injection", "") == injection.id]
        if not any(isinstance(event, ev.Armed) for event in mine):
            continue
        if not any(isinstance(event, ev.InjectStarted) for event in mine):
            continue  # an abort came between arming and injecting: the keeper's tear-down lifts that
        gone = [n for n, event in enumerate(mine) if isinstance(event, ev.RevertVerified) and event.gone]
        stage = world.state.injections[injection.id].stage
        assert gone or stage == "dirty"
        if gone:
            after = mine[gone[-1] :]
            assert stage == "dirty" or not any(isinstance(event, ev.RevertStarted) for event in after), after
            harmless = [event for event in mine[: gone[-1]] if isinstance(event, ev.Reverted)]
            assert harmless, "verified without a revert"


@settings(max_examples=150, deadline=None)
@given(worlds())
def test_what_ends_together_is_taken_back_in_reverse_order_of_injection(world: World) -> None:
    world.run()
    begun = begun_ms(world)
    asked = [(at_ms, item.injection) for at_ms, item in world.asked if isinstance(item, do.Revert)]
    order = {item.id: n for n, item in enumerate(world.plan.injections)}
    for _, together in groupby(asked, key=lambda pair: pair[0]):
        names = [name for _, name in together]
        assert names == sorted(names, key=lambda name: (begun.get(name, 0.0), order[name]), reverse=True)


TIMES = st.integers(0, 20).map(float)
USES = st.one_of(
    st.builds(lambda who, mode: ("node-loss", {"instance": who, "mode": mode}), st.sampled_from(NAMES), HALTING),
    st.builds(lambda mode: ("gpu-pool-outage", {"mode": mode, "share": "50%", "over": "1s"}), st.sampled_from(DEVICES)),
    st.builds(lambda lag: ("late-dependency", {"name": "feed", "data_lag": f"{lag}s"}), st.integers(1, 9)),
    st.builds(lambda ms: ("late-dependency", {"name": "gateway", "delay": f"{ms}ms"}), st.integers(1, 9)),
    st.builds(lambda who: ("memory-leak", {"mode": "pressure", "instance": who}), st.sampled_from(NAMES)),
    st.just(("memory-leak", {"mode": "release", "release": "cpu"})),
    st.just(("partition", {"from": "eu", "to": "us"})),
    st.just(("queue-backlog", {"pool": "cpu", "slow": "5ms"})),
    st.builds(lambda mode: ("region-loss", {"region": "eu", "mode": mode}), st.sampled_from(["crash", "isolate"])),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(USES, TIMES, st.integers(2, 20).map(float)), max_size=6))
def test_a_plan_holds_no_switch_twice_and_tells_nobody_who_is_halted(
    asked: list[tuple[tuple[str, dict[str, str]], float, float]],
) -> None:
    """Whatever is combined: it is refused as a whole, or each injection can be taken back without the others."""
    uses = [FaultUse(word, dict(said), start_s, for_s) for (word, said), start_s, for_s in asked]
    try:
        plan = planned(*uses, fault_s=40.0)
    except Refused:
        return
    found = plan.injections
    assert len({item.id for item in found}) == len(found)
    for one in found:
        assert 0 <= one.start_s < one.start_s + one.for_s <= 40.0
        for two in found:
            together = one.start_s < two.start_s + two.for_s and two.start_s < one.start_s + one.for_s
            if one is two or not together:
                continue
            assert not set(one.switches) & set(two.switches)
            if one.mechanism == "tell" and two.mechanism in ("freeze", "crash") and one.instance == two.instance:
                assert one.start_s < two.start_s, "it was told before"
                assert two.start_s + two.for_s <= one.start_s + one.for_s, "it answers when it is to take it back"


def test_what_follows_on_the_same_switch_is_armed_when_its_predecessor_is_seen_to_be_gone() -> None:
    """Else its undo would be written from what the predecessor did, and bring that back at the end."""
    devices = {"mode": "slow", "pool": "gpu", "share": "25%"}
    plan = planned(
        FaultUse("gpu-pool-outage", devices, 0.0, 10.0),
        FaultUse("gpu-pool-outage", {**devices, "mode": "hang"}, 10.0, 10.0),
    )
    first, then = plan.injections
    assert first.switches == then.switches
    told: list[tuple[float, ev.Event]] = [
        (0, ev.SystemReady(1, 0)),
        (0, ev.PhaseEntered("warmup", 0)),
        (0, ev.PhaseEntered("baseline", 1)),
        (1000, ev.BaselineJudged(True, [])),
        (1000, ev.Armed(first.id, "f", "i", "device", [], 0, "")),
        (1000, ev.PhaseEntered("fault", 20)),
        (1000, ev.InjectStarted(first.id)),
        (1001, ev.Injected(first.id, "done", "", 1)),
        (1002, ev.EffectObserved(first.id, True, "w", "", 1)),
    ]
    later = (ev.RevertStarted(first.id, "planned", "runner"), ev.Reverted(first.id, "done", "", 1))
    for event in later:
        assert do.Arm(then.id) not in asked_at(12_000, plan, told)
        told.append((11_500, event))
    assert do.Arm(then.id) not in asked_at(12_000, plan, told)
    told.append((11_600, ev.RevertVerified(first.id, True, "w", "", 1)))
    assert do.Arm(then.id) in asked_at(12_000, plan, told)


def asked_at(now_ms: float, plan: Plan, told: list[tuple[float, ev.Event]]) -> list[do.Command]:
    recorded = (ev.Recorded(n, "", at_ms, event) for n, (at_ms, event) in enumerate(told))
    return do.decide(plan, fold(plan, recorded), now_ms)
