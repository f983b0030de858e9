"""What a region can carry, reckoned from service times and slots. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from stormdrill.platform.jobs import KINDS, WORK, Kind, Pool, slot_cost_s, work_of
from stormdrill.platform.pools import PoolState
from stormdrill.platform.queue import Entry, WorkQueue

USUAL_MIX: Mapping[Kind, float] = {"api": 0.35, "inference": 0.35, "report": 0.12, "batch": 0.17, "training": 0.01}
"""What is expected to arrive before anything has."""


def predicted_wait_s(room: bool, slots: int, queue: WorkQueue, running: Iterable[Entry], tier: int) -> float:
    """Slot time ahead of a newcomer of this tier, over the slots.

    Running work counts by half; of what gives way at its next checkpoint, only the step.
    """
    if room and not len(queue):
        return 0.0
    running_s = sum(WORK[it.job.kind].step_s if it.job.tier > tier else it.cost_s for it in running) / 2
    return (queue.work_ahead_s(tier) + running_s) / max(slots, 1)


def carried_per_s(seen: Mapping[str, float], pools: Mapping[Pool, PoolState], now_s: float) -> float:
    """Jobs a second that the pools' quotas can carry, for the mix in `seen` (`own.api`, `foreign.api`, … a second)."""
    gpu = pools["gpu"].ready(now_s)
    shares = {kind: seen.get(f"own.{kind}", 0.0) + seen.get(f"foreign.{kind}", 0.0) for kind in KINDS}
    if not any(shares.values()):
        shares = dict(USUAL_MIX)
    if not gpu:
        shares["training"] = 0.0  # it waits
    total = sum(shares.values())
    most: list[float] = []
    for pool, state in pools.items():
        cost_s = sum(
            share / total * slot_cost_s(kind, gpu) for kind, share in shares.items() if work_of(kind, gpu).pool == pool
        )
        if cost_s:
            most.append((state.quota if state.ready(now_s) else 0) / cost_s)
    return min(most, default=0.0)
