"""Faults in parallel, in sequence, staggered, overlapping: each is taken back exactly once, the last one first."""

from __future__ import annotations

from itertools import groupby

from hypothesis import given, settings
from test_decide import World, worlds

from stormdrill.core import decide as do
from stormdrill.model import event as ev


def begun_ms(world: World) -> dict[str, float]:
    return {r.event.injection: r.mono_ms for r in world.journal if isinstance(r.event, ev.InjectStarted)}


@settings(max_examples=150, deadline=None)
@given(worlds())
def test_everything_armed_is_taken_back_once_effectively(world: World) -> None:
    """After the revert that was done, and after which nothing bit again, no other one is asked for."""
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
            assert not any(isinstance(event, ev.RevertStarted) for event in after), after
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
