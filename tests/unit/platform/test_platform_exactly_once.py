"""An acknowledged job is done exactly once, whatever freezes, dies, comes late or comes twice."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from platform_world import World

from stormdrill.platform import bugs
from stormdrill.platform.store import Store

SEEDS = st.integers(min_value=0, max_value=2**32)


@given(SEEDS)
@settings(max_examples=12, deadline=None)
def test_nothing_acknowledged_is_lost_and_nothing_is_done_twice(seed: int) -> None:
    world = World(seed)
    world.play(400)
    assert sum(asked.acknowledged for asked in world.jobs.values()) > 20
    assert world.lost == []
    assert world.doubled == []
    assert world.moved == []


def test_without_claims_between_the_regions_the_same_world_does_jobs_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The world has teeth: take the claim away, and it bites."""
    monkeypatch.setattr(Store, "claim", lambda *_: None)
    doubled = 0
    for seed in range(5):
        world = World(seed)
        world.play(400)
        doubled += len(world.doubled)
    assert doubled > 0


def test_with_the_bug_lost_acknowledgement_the_same_world_loses_jobs() -> None:
    lost = 0
    for seed in range(5):
        world = World(seed, bugs.LOST_ACKNOWLEDGEMENT)
        world.play(400)
        lost += len(world.lost)
    assert lost > 0


@pytest.mark.parametrize("bug", [bugs.UNFENCED_LEASE, bugs.SPLIT_BRAIN])
def test_with_bugs_of_ownership_the_same_world_does_jobs_twice(bug: str) -> None:
    worlds = [World(seed, bug) for seed in range(3)]
    for world in worlds:
        world.play(300)
    assert sum(len(world.doubled) for world in worlds) > 0


def test_with_the_bug_residency_ignored_the_same_world_moves_what_has_to_stay() -> None:
    world = World(1, bugs.RESIDENCY_IGNORED)
    world.play(300)
    assert world.moved != []


def test_with_the_bug_no_requeue_the_same_world_loses_what_dead_workers_held() -> None:
    world = World(1, bugs.NO_REQUEUE)
    world.play(300)
    assert world.lost != []
