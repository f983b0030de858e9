"""A region's promises, one at a time, with a clock moved by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from platform_world import HandClock

from stormdrill.platform import bugs
from stormdrill.platform.broken import region_with
from stormdrill.platform.jobs import JobRequest, place
from stormdrill.platform.messages import Attempt, Lease, Outcome
from stormdrill.platform.queue import End
from stormdrill.platform.region import LEASE_MARGIN_S, PAUSE_LIMIT_S, Admission, Region
from stormdrill.platform.store import Claim, Store

REGIONS = ("eu", "us")
WORKER, GPU_WORKER = "cpu-eu", "gpu-eu"


def names_at(home: str, count: int) -> list[str]:
    placed = ((f"job-{number}", place(f"job-{number}", None, REGIONS)) for number in range(1000))
    return [name for name, placement in placed if placement is not None and placement.home == home][:count]


OWN, OTHER = names_at("eu", 3), names_at("us", 3)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def store() -> Store:
    return Store(Path(":memory:"))


@pytest.fixture
def eu(store: Store, clock: HandClock) -> Region:
    return at_work(store, clock)


def at_work(store: Store, clock: HandClock, bug: str = bugs.NONE) -> Region:
    region = region_with(bug)("eu", REGIONS, store, clock, bug=bug, seed=1)
    if not region.active:
        region.finish_rejoin()
    region.lease("cpu", WORKER, 0)
    region.lease("gpu", GPU_WORKER, 0)
    return region


def admit(region: Region, clock: HandClock, name: str, wait: bool = True, expires_in_s: float = 1.0) -> Admission:
    request = JobRequest(name, "api" if wait else "batch", 1, 1000.0 if wait else 30_000.0, None, wait)
    return region.admit(Attempt(request, clock.wall_ms() + expires_in_s * 1000.0))


def leased(region: Region) -> Lease:
    (lease,) = region.lease("cpu", WORKER, 1)
    return lease


def hand_in(region: Region, lease: Lease) -> bool:
    return region.complete(WORKER, Outcome(lease.id, lease.token))


def pause(region: Region, clock: HandClock, for_s: float) -> None:
    clock.now_s += for_s
    region.tick()


def test_an_attempt_that_was_given_up_is_not_admitted(eu: Region, clock: HandClock, store: Store) -> None:
    assert admit(eu, clock, OWN[0], expires_in_s=0.0).status == 504
    assert store.job(OWN[0]) is None


def test_work_completed_after_its_caller_gave_up_does_not_count(eu: Region, clock: HandClock, store: Store) -> None:
    admit(eu, clock, OWN[0], expires_in_s=0.3)
    lease = leased(eu)
    clock.now_s += 0.4
    hand_in(eu, lease)
    assert [(row.state, row.done) for row in store.ledger("eu")] == [("refused", 0)]


def test_a_lease_that_ran_out_is_fenced_when_another_worker_has_the_job(eu: Region, clock: HandClock) -> None:
    admit(eu, clock, OWN[0], wait=False)
    first = leased(eu)
    for _ in range(int((LEASE_MARGIN_S + 1) / 0.1)):
        pause(eu, clock, 0.1)
    second = leased(eu)
    assert not hand_in(eu, first)
    assert hand_in(eu, second)
    assert not hand_in(eu, second)


def test_after_a_pause_nothing_is_completed_or_admitted_before_the_claims_are_in(
    eu: Region, clock: HandClock, store: Store
) -> None:
    admit(eu, clock, OWN[0], wait=False)
    lease = leased(eu)
    clock.now_s += PAUSE_LIMIT_S + 0.1
    assert not hand_in(eu, lease)
    assert not eu.active
    assert admit(eu, clock, OWN[1]).status == 503
    assert eu.lease("cpu", WORKER, 5) == []
    eu.supersede("us", [Claim(1, OWN[0], False)])
    eu.finish_rejoin()
    assert eu.lease("cpu", WORKER, 5) == []
    assert [(row.state, row.done) for row in store.ledger("eu")] == [("superseded", 0)]


def test_a_restart_keeps_what_was_acknowledged_with_its_progress(eu: Region, clock: HandClock, store: Store) -> None:
    admit(eu, clock, OWN[0], wait=False)
    lease = leased(eu)
    assert eu.checkpoint(lease.id, lease.token, 2)
    again = at_work(store, clock)
    assert again.epoch > eu.epoch
    assert not again.complete(WORKER, Outcome(lease.id, lease.token))
    assert leased(again).steps_done == 2


def test_a_restart_gives_up_jobs_that_somebody_waited_for(eu: Region, clock: HandClock, store: Store) -> None:
    admit(eu, clock, OWN[0])
    again = at_work(store, clock)
    assert again.lease("cpu", WORKER, 5) == []
    assert [row.state for row in store.ledger("eu")] == ["refused"]


def test_taking_over_a_job_records_the_claim_with_it(eu: Region, clock: HandClock, store: Store) -> None:
    admit(eu, clock, OWN[0])
    admit(eu, clock, OTHER[0])
    assert [claim.id for claim in store.claims_against("us", 10)] == [OTHER[0]]


def test_a_claim_cancels_what_waits_and_tells_who_waited(eu: Region, clock: HandClock) -> None:
    entry = admit(eu, clock, OWN[0]).entry
    assert entry is not None
    heard: list[End] = []
    entry.watchers.append(lambda end, reason, result: heard.append(end))
    assert eu.supersede("us", [Claim(1, OWN[0], False)]) == ()
    assert heard == ["superseded"]
    again = admit(eu, clock, OWN[0])
    assert (again.status, again.owner) == (409, "us")


def test_a_claim_on_what_is_done_here_yields_unless_it_is_done_there_too(
    eu: Region, clock: HandClock, store: Store
) -> None:
    admit(eu, clock, OWN[0])
    hand_in(eu, leased(eu))
    assert eu.supersede("us", [Claim(1, OWN[0], False)]) == (OWN[0],)
    assert store.done(OWN[0]) == 1
    assert eu.supersede("us", [Claim(1, OWN[0], True)]) == ()
    assert store.done(OWN[0]) == 0


def test_a_claimant_that_yields_never_does_the_job(eu: Region, clock: HandClock, store: Store) -> None:
    admit(eu, clock, OTHER[0])
    (claim,) = store.claims_against("us", 10)
    eu.settle("us", [claim], {OTHER[0]})
    assert eu.lease("cpu", WORKER, 5) == []
    assert admit(eu, clock, OTHER[0]).status == 409
    assert store.claims_outstanding() == 0


def test_a_claimant_that_is_done_insists(eu: Region, clock: HandClock, store: Store) -> None:
    admit(eu, clock, OTHER[0])
    (claim,) = store.claims_against("us", 10)
    hand_in(eu, leased(eu))
    eu.settle("us", [claim], {OTHER[0]})
    assert [(claim.id, claim.done) for claim in store.claims_against("us", 10)] == [(OTHER[0], True)]


def test_the_same_job_again_joins_the_first_or_gets_its_result(eu: Region, clock: HandClock, store: Store) -> None:
    first, second = admit(eu, clock, OWN[0]), admit(eu, clock, OWN[0])
    assert first.entry is second.entry
    hand_in(eu, leased(eu))
    assert b'"state":"done"' in admit(eu, clock, OWN[0]).result
    assert [row.done for row in store.ledger("eu")] == [1]


def test_a_batch_job_gives_its_slot_to_more_urgent_work_at_a_checkpoint(eu: Region, clock: HandClock) -> None:
    request = JobRequest(OWN[0], "batch", 3, 30_000.0, None, False)
    eu.admit(Attempt(request, clock.wall_ms() + 1000.0))
    batch = leased(eu)
    assert eu.checkpoint(batch.id, batch.token, 1)
    admit(eu, clock, OWN[1])
    assert not eu.checkpoint(batch.id, batch.token, 2)
    assert leased(eu).id == OWN[1]
    assert leased(eu).steps_done == 2


def test_without_workers_nothing_is_accepted(store: Store, clock: HandClock) -> None:
    region = Region("eu", REGIONS, store, clock, bug=bugs.NONE, seed=1)
    assert admit(region, clock, OWN[0]).status == 503


def test_a_job_of_no_business_here_is_refused(eu: Region, clock: HandClock) -> None:
    request = JobRequest("x", residency="us")
    assert eu.admit(Attempt(request, clock.wall_ms() + 1000.0)).status == 421


def test_after_a_boot_durations_are_reckoned_from_the_wall_clock(eu: Region, clock: HandClock, store: Store) -> None:
    admit(eu, clock, OWN[0], wait=False)

    class NextBoot(HandClock):
        def mono_s(self) -> float:
            return 5.0

        def boot_id(self) -> str:
            return "next boot"

    later = NextBoot()
    later.now_s = clock.now_s + 60.0
    again = at_work(store, later)
    hand_in(again, leased(again))
    assert [round(row.took_ms or 0.0) for row in store.ledger("eu")] == [60_000]


def training(region: Region, clock: HandClock, steps: int) -> Lease:
    """A training job at work that has told of so many steps."""
    region.admit(Attempt(JobRequest(OWN[0], "training", 3, 30_000.0, None, False), clock.wall_ms() + 1000.0))
    (lease,) = region.lease("gpu", GPU_WORKER, 8)
    for step in range(1, steps + 1):
        assert region.checkpoint(lease.id, lease.token, step)
    return lease


def test_training_goes_on_from_its_checkpoint_and_the_steps_beyond_it_are_counted_as_lost(
    eu: Region, clock: HandClock
) -> None:
    lease = training(eu, clock, steps=5)
    eu.hand_back(GPU_WORKER, lease.id, lease.token)
    (again,) = eu.lease("gpu", GPU_WORKER, 8)
    assert again.steps_done == 4
    assert eu.tally.work_lost_seconds_total == pytest.approx(again.step_s)
    assert eu.tally.jobs_restarted_total == 0
    assert not eu.checkpoint(lease.id, lease.token, 6)


def test_with_the_bug_no_checkpoint_it_starts_over_and_that_is_seen(store: Store, clock: HandClock) -> None:
    eu = at_work(store, clock, bugs.NO_CHECKPOINT)
    lease = training(eu, clock, steps=5)
    eu.hand_back(GPU_WORKER, lease.id, lease.token)
    (again,) = eu.lease("gpu", GPU_WORKER, 8)
    assert again.steps_done == 0
    assert eu.tally.work_lost_seconds_total == pytest.approx(5 * again.step_s)
    assert eu.tally.jobs_restarted_total == 1


def test_only_who_holds_a_lease_can_give_it_back(eu: Region, clock: HandClock) -> None:
    lease = training(eu, clock, steps=1)
    eu.hand_back("gpu-us", lease.id, lease.token)
    eu.hand_back(GPU_WORKER, lease.id, "0.0")
    assert eu.leased(lease.id)


def test_a_hung_lease_runs_out_unless_the_region_only_looks_at_life(store: Store, clock: HandClock) -> None:
    for bug, held in ((bugs.NONE, False), (bugs.GREY_BLIND, True)):
        region = at_work(Store(Path(":memory:")), clock, bug)
        lease = training(region, clock, steps=1)
        for _ in range(30):
            pause(region, clock, 0.1)
            region.lease("gpu", GPU_WORKER, 0)
        assert region.leased(lease.id) is held


def test_a_report_from_old_data_that_says_nothing_of_it_is_counted(eu: Region, clock: HandClock) -> None:
    for name, stale in zip(OWN, (True, False), strict=False):
        admit(eu, clock, name)
        lease = leased(eu)
        eu.complete(WORKER, Outcome(lease.id, lease.token, stale=stale, report_age_s=30.0))
    assert eu.tally.unmarked_stale_total == 1


def test_work_done_where_it_must_not_be_is_counted(store: Store, clock: HandClock) -> None:
    eu = at_work(store, clock, bugs.RESIDENCY_IGNORED)
    eu.admit(Attempt(JobRequest(OWN[0], residency="us"), clock.wall_ms() + 1000.0))
    hand_in(eu, leased(eu))
    assert eu.tally.residency_broken_total == 1
    assert [(row.region, row.residency) for row in store.ledger("eu")] == [("eu", "us")]
