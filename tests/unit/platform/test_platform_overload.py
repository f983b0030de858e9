"""A region with more work than it can do: who gets in, what waits for what, and what each bug gets wrong of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from platform_world import HandClock

from stormdrill.platform import bugs
from stormdrill.platform.breaker import FAILURES_TO_OPEN, OPEN_S, Breaker, StuckBreaker
from stormdrill.platform.broken import region_with
from stormdrill.platform.broken_pools import SLOW_S, pool_with
from stormdrill.platform.flow import Rate
from stormdrill.platform.jobs import PARTITION_SLOTS, BadJobError, JobRequest, Kind, parse_job, partition_of
from stormdrill.platform.messages import Attempt, Lease, Outcome
from stormdrill.platform.pools import BASE_SLOTS, GROW_AGE_S, QUOTA_SLOTS
from stormdrill.platform.region import Region
from stormdrill.platform.store import Store

STEP_S = 0.01
SERVICE_S = 0.1
WORKER = "cpu-eu"


class Crowd:
    """One region with its workers and its callers, on a clock moved by hand."""

    def __init__(self, bug: str = bugs.NONE, scale: float = 1.0) -> None:
        self.clock = HandClock()
        self.store = Store(Path(":memory:"))
        self.region: Region = region_with(bug)("eu", ("eu",), self.store, self.clock, bug=bug, seed=1, scale=scale)
        self.answers: Counter[tuple[int, int]] = Counter()
        """By tier and status."""
        self.at_work: list[tuple[float, Lease]] = []
        self.keys: Counter[str] = Counter()
        """At work now."""
        self.most: Counter[str] = Counter()
        self._asked = 0

    def ask(self, tier: int, kind: Kind = "api", deadline_s: float = 1.0, key: str = "") -> int:
        self._asked += 1
        job = JobRequest(f"job-{self._asked}", kind, tier, deadline_s * 1000.0, None, kind != "batch", key)
        admission = self.region.admit(Attempt(job, self.clock.wall_ms() + deadline_s * 1000.0))
        if admission.entry is not None and admission.status == 200:
            admission.entry.watchers.append(
                lambda end, reason, result: self.answers.update([(tier, 200 if end == "done" else 504)])
            )
        else:
            self.answers[tier, admission.status] += 1
        return admission.status

    def step(self) -> None:
        self.clock.now_s += STEP_S
        self.region.tick()
        for due in [item for item in self.at_work if item[0] <= self.clock.now_s]:
            self.at_work.remove(due)
            self._done(due[1])
        slots = self.region.pools["cpu"].slots
        for lease in self.region.lease("cpu", WORKER, max(0, slots - len(self.at_work))):
            self._begin(lease)
        self.region.lease("gpu", "gpu-eu", 0)

    def _begin(self, lease: Lease) -> None:
        stored = self.store.job(lease.id)
        key = stored.key if stored is not None else ""
        self.keys[key] += 1
        self.most[key] = max(self.most[key], self.keys[key])
        self.at_work.append((self.clock.now_s + (lease.steps - lease.steps_done) * lease.step_s, lease))

    def _done(self, lease: Lease) -> None:
        stored = self.store.job(lease.id)
        self.keys[stored.key if stored is not None else ""] -= 1
        self.region.complete(WORKER, Outcome(lease.id, lease.token))

    def play(self, for_s: float, per_s: dict[int, float], **how: object) -> None:
        """So many of each tier a second, evenly spaced."""
        owed = dict.fromkeys(per_s, 0.0)
        for _ in range(round(for_s / STEP_S)):
            self.step()
            for tier, rate in per_s.items():
                owed[tier] += rate * STEP_S
                while owed[tier] >= 1.0:
                    owed[tier] -= 1.0
                    self.ask(tier, **how)  # type: ignore[arg-type]

    def share(self, tier: int, status: int) -> float:
        total = sum(count for (asked, _), count in self.answers.items() if asked == tier)
        return self.answers[tier, status] / total if total else 0.0


def test_in_overload_the_first_tier_is_served_and_nobody_waits_in_vain() -> None:
    """30/s of tier 1 of the 80/s that eight slots do, and 120/s besides."""
    crowd = Crowd()
    crowd.play(2.0, {1: 30.0, 2: 60.0, 3: 60.0})
    crowd.answers.clear()
    crowd.play(8.0, {1: 30.0, 2: 60.0, 3: 60.0})
    assert crowd.share(1, 200) > 0.99
    assert crowd.share(1, 429) == 0.0
    assert crowd.share(2, 200) > 0.5 > 0.2 > crowd.share(3, 200)
    turned_away = crowd.answers[2, 429] + crowd.answers[3, 429]
    in_vain = crowd.answers[2, 504] + crowd.answers[3, 504]
    assert in_vain <= 0.01 * turned_away


def test_when_the_surge_is_over_the_low_tiers_are_let_in_again_at_once() -> None:
    crowd = Crowd()
    crowd.play(4.0, {1: 30.0, 3: 120.0})
    crowd.play(1.0, {1: 20.0, 3: 10.0})
    crowd.answers.clear()
    crowd.play(5.0, {1: 20.0, 3: 10.0})
    assert crowd.share(3, 429) == 0.0


def test_with_the_bug_metastable_the_surge_goes_on_without_its_cause_until_the_load_falls() -> None:
    crowd = Crowd(bugs.METASTABLE)
    crowd.play(4.0, {1: 30.0, 3: 120.0})
    crowd.play(3.0, {1: 20.0, 3: 10.0})
    crowd.answers.clear()
    crowd.play(5.0, {1: 20.0, 3: 10.0})
    assert crowd.share(3, 429) == 1.0
    crowd.play(5.0, {1: 20.0, 3: 2.0})
    crowd.answers.clear()
    crowd.play(3.0, {1: 20.0, 3: 10.0})
    assert crowd.share(3, 429) == 0.0


def test_with_the_bug_goodput_collapse_slots_work_for_those_who_were_turned_away() -> None:
    sound, ill = Crowd(), Crowd(bugs.GOODPUT_COLLAPSE)
    for crowd in (sound, ill):
        crowd.play(8.0, {1: 20.0, 2: 150.0})
    assert ill.share(1, 200) > 0.99
    assert ill.answers[2, 200] < 0.5 * sound.answers[2, 200]
    assert all(row.id.startswith("job-") for row in ill.store.ledger("eu"))


def test_with_the_bug_priority_inversion_tier_2_is_shed_before_tier_3() -> None:
    crowd = Crowd(bugs.PRIORITY_INVERSION)
    crowd.region.lease("cpu", WORKER, 0)
    for _ in range(100):
        for tier in (2, 3):
            crowd.ask(tier, "batch", 60.0)
    assert crowd.answers[2, 202] < crowd.answers[3, 202]


def test_the_queue_is_bounded_but_for_the_bug_that_takes_every_errand() -> None:
    for bug, bounded in ((bugs.NONE, True), (bugs.UNBOUNDED_BACKLOG, False)):
        crowd = Crowd(bug)
        crowd.region.lease("cpu", WORKER, 0)
        for _ in range(200):
            crowd.ask(3, "batch", 60.0)
        assert (crowd.region.depth <= crowd.region.door.limit) is bounded
        assert crowd.ask(1, deadline_s=5.0) == 200


def test_a_backlog_takes_every_free_slot_but_for_the_bug_that_gives_it_one() -> None:
    for bug, at_once in ((bugs.NONE, BASE_SLOTS["cpu"]), (bugs.SLOW_DRAIN, 1)):
        crowd = Crowd(bug)
        crowd.region.lease("cpu", WORKER, 0)
        for _ in range(20):
            crowd.ask(3, "batch", 60.0)
        for _ in range(12):
            crowd.clock.now_s += 0.4
            crowd.region.tick()
            crowd.region.lease("cpu", WORKER, 0)
        assert len(crowd.region.lease("cpu", WORKER, 100)) >= at_once
        assert crowd.region.lease("cpu", WORKER, 100) == []
        assert (crowd.region.pool_health()["cpu"].leased == 1) is (bug == bugs.SLOW_DRAIN)


# partitions


def test_a_hot_partition_is_shed_and_the_others_are_served() -> None:
    crowd = Crowd()
    for _ in range(500):
        crowd.step()
        crowd.ask(1, key="hot")
        if crowd._asked % 10 == 0:
            assert crowd.ask(2, key="calm") == 200
    assert crowd.most["hot"] == PARTITION_SLOTS
    assert crowd.answers[1, 429] > 200
    assert crowd.share(2, 200) > 0.99


def test_who_shares_the_partition_of_a_hot_key_is_served_as_well() -> None:
    hot, neighbour = next(
        (f"a{one}", f"b{other}") for one in range(20) for other in range(20)
        if partition_of(f"a{one}") == partition_of(f"b{other}")
    )  # fmt: skip
    crowd = Crowd()
    for turn in range(500):
        crowd.step()
        crowd.ask(1, key=hot)
        if turn % 20 == 0:  # half of what is its due
            assert crowd.ask(1, key=neighbour) == 200
    assert crowd.answers[1, 429] > 200
    assert crowd.answers[1, 504] == 0


def test_with_the_bug_head_of_line_everybody_waits_behind_a_hot_partition() -> None:
    sound, ill = Crowd(), Crowd(bugs.HEAD_OF_LINE)
    for crowd in (sound, ill):
        for _ in range(400):
            crowd.step()
            crowd.ask(1, key="hot")
            crowd.ask(1, key="")
    assert ill.answers[1, 200] < 0.6 * sound.answers[1, 200]


def test_partitions_know_keys_alike_and_jobs_without_one_share_none() -> None:
    assert partition_of("tenant-1") == partition_of("tenant-1") >= 0
    assert partition_of("") == -1


def test_a_key_that_cannot_be_one_is_named() -> None:
    with pytest.raises(BadJobError, match="`key`"):
        parse_job(b'{"id": "x", "key": "a b"}')


# scale


@given(st.sampled_from([0.25, 0.5, 1.0, 2.0]))
def test_a_region_has_slots_and_places_by_its_scale(scale: float) -> None:
    region = Crowd(scale=scale).region
    assert region.door.limit == round(64 * scale)
    assert region.pools["cpu"].full_quota == round(8 * scale)
    assert region.pools["gpu"].slots >= 1


# the autoscaler


def grown(bug: str, for_s: float) -> int:
    pool = pool_with(bug).of("cpu")
    for step in range(round(for_s / 0.1)):
        pool.scale(step * 0.1, 2 * GROW_AGE_S)
    return pool.slots


def test_slots_come_with_the_age_of_the_queue_and_never_above_the_quota() -> None:
    assert grown(bugs.NONE, 2.0) == QUOTA_SLOTS["cpu"] == grown(bugs.NONE, 60.0)


def test_slots_come_late_with_the_one_bug_and_above_the_quota_with_the_other() -> None:
    assert grown(bugs.SLOW_AUTOSCALER, SLOW_S - 1.0) == BASE_SLOTS["cpu"]
    assert grown(bugs.SLOW_AUTOSCALER, SLOW_S + 2.0) == QUOTA_SLOTS["cpu"]
    assert grown(bugs.QUOTA_IGNORED, 10.0) > QUOTA_SLOTS["cpu"]


# breaker and rate


@pytest.mark.parametrize(("kind", "tried"), [(Breaker, True), (StuckBreaker, False)])
def test_what_goes_through_an_open_breaker_is_counted_and_a_stuck_one_lets_nothing_through(
    kind: type[Breaker], tried: bool
) -> None:
    breaker = kind()
    for _ in range(FAILURES_TO_OPEN):
        breaker.passing(0.0, 1.0)
        breaker.failed(0.0)
    assert breaker.trials == 0
    assert breaker.would_pass(OPEN_S + 0.1) is tried
    breaker.passing(OPEN_S + 0.1, 1.0)
    assert breaker.trials == 1


@given(st.lists(st.floats(0.01, 5.0), min_size=1, max_size=50))
def test_a_rate_never_exceeds_what_was_added_and_fades(amounts: list[float]) -> None:
    rate = Rate(memory_s=2.0)
    for number, amount in enumerate(amounts):
        rate.add(amount, number * 0.1)
    now_s = len(amounts) * 0.1
    assert 0.0 < rate.per_s(now_s) <= sum(amounts) / 2.0
    assert rate.per_s(now_s + 40.0) < 1e-6 * rate.per_s(now_s)
