"""The deciding parts of the platform, each on its own: placement, admission, queue, breaker, budget, sight."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from stormdrill.platform.admission import QUEUE_LIMIT, Outlook, retry_after_s, shed_reason
from stormdrill.platform.alerts import LATE, LEAK, PARTITIONED, REGION_ALERTS, Kind, alerts
from stormdrill.platform.breaker import BUDGET_MOST, FAILURES_TO_OPEN, OPEN_S, SUCCESSES_TO_CLOSE, Breaker, RetryBudget
from stormdrill.platform.control import Control, Register, Release
from stormdrill.platform.fleet import Fleet, Leak
from stormdrill.platform.jobs import place
from stormdrill.platform.messages import Health
from stormdrill.platform.pools import BASE_SLOTS, QUOTA_SLOTS, PoolState
from stormdrill.platform.queue import Entry, WorkQueue
from stormdrill.platform.sight import REGION_DOWN, Sight
from stormdrill.platform.store import StoredJob
from stormdrill.platform.wiring import WiringError, read_wiring
from stormdrill.spec.runbook import read_runbook

DOWN_ALERT_S = REGION_ALERTS[REGION_DOWN].for_s
IDLE = Outlook(depth=0, wait_s=0.0, service_s=0.1, shed_level=0)


def entry(name: str, tier: int, at_s: float = 0.0, wait: bool = True, deadline_ms: float = 1000.0) -> Entry:
    job = StoredJob(name, "api", tier, deadline_ms, wait, "eu", 0.0, at_s, 0.0)
    return Entry(job, "cpu", 0.1, at_s, at_s + 10.0 if wait else None)


@given(st.text(min_size=1), st.permutations(["eu", "us", "ap"]))
def test_every_process_places_a_job_alike(name: str, regions: list[str]) -> None:
    placed = place(name, None, regions)
    assert placed == place(name, None, sorted(regions))
    assert placed is not None
    assert placed.home != placed.fallback


def test_a_resident_job_has_no_second_region_and_an_unknown_residency_no_place() -> None:
    placed = place("x", "us", ["eu", "us"])
    assert placed is not None
    assert (placed.home, placed.fallback) == ("us", None)
    assert place("x", "mars", ["eu", "us"]) is None


@pytest.mark.parametrize(("level", "admitted"), [(0, {1, 2, 3}), (1, {1, 2}), (2, {1, 2}), (3, {1})])
def test_a_shed_level_refuses_from_below(level: int, admitted: set[int]) -> None:
    outlook = Outlook(0, 0.0, 0.1, level)
    open_to = {tier for tier in (1, 2, 3) if shed_reason(tier, 1.0, True, outlook, 0.9, "tiers") is None}
    assert open_to == admitted


def test_shed_level_2_refuses_half_of_tier_2() -> None:
    outlook = Outlook(0, 0.0, 0.1, 2)
    rolls = [number / 100 for number in range(100)]
    assert sum(shed_reason(2, 1.0, True, outlook, roll, "tiers") is not None for roll in rolls) == 50


@given(st.integers(0, 200), st.floats(0, 5), st.integers(0, 3), st.floats(0, 0.99))
def test_a_lower_tier_never_enters_where_a_higher_one_is_refused(
    depth: int, wait_s: float, level: int, roll: float
) -> None:
    outlook = Outlook(depth, wait_s, 0.1, level)
    entered = [shed_reason(tier, 1.0, True, outlook, roll, "tiers") is None for tier in (1, 2, 3)]
    assert entered == sorted(entered, reverse=True)


@given(st.integers(QUEUE_LIMIT, 10_000), st.sampled_from([1, 2, 3]), st.booleans())
def test_a_full_queue_takes_nobody(depth: int, tier: int, waits: bool) -> None:
    outlook = Outlook(depth, 0.0, 0.1, 0)
    assert shed_reason(tier, 1000.0, waits, outlook, 0.5, "tiers") == "queue full"


def test_work_that_cannot_be_done_in_time_is_refused_before_it_is_begun() -> None:
    assert shed_reason(1, 0.5, True, Outlook(1, 0.45, 0.1, 0), 0.5, "tiers") == "deadline can't be met"
    assert shed_reason(1, 0.5, True, IDLE, 0.5, "tiers") is None


def test_retry_after_is_spread_over_whole_seconds() -> None:
    said = {retry_after_s(0.5, roll / 20) for roll in range(20)}
    assert min(said) >= 1
    assert len(said) >= 3


def test_the_queue_gives_tier_1_first_and_each_tier_in_order_of_arrival() -> None:
    queue = WorkQueue()
    for name, tier in (("c", 3), ("a", 1), ("b", 2), ("a2", 1)):
        queue.push(entry(name, tier))
    order = []
    while (head := queue.head(0.0)) is not None:
        order.append(head.job.id)
        queue.remove(head)
    assert order == ["a", "a2", "b", "c"]


def test_a_promised_job_is_not_starved_by_a_stream_of_tier_1() -> None:
    queue = WorkQueue()
    queue.push(entry("batch", 3, at_s=0.0, wait=False, deadline_ms=20_000))
    queue.push(entry("urgent", 1, at_s=6.0))
    calm, late = queue.head(4.9, promote=True), queue.head(6.0, promote=True)
    assert calm is not None
    assert late is not None
    assert (calm.job.id, late.job.id) == ("urgent", "batch")


def test_the_breaker_opens_after_failures_lets_one_trial_pass_and_closes_after_successes() -> None:
    breaker = Breaker()
    for _ in range(FAILURES_TO_OPEN):
        assert breaker.would_pass(0.0)
        breaker.failed(0.0)
    assert not breaker.would_pass(OPEN_S * 0.9)
    assert breaker.would_pass(OPEN_S)
    breaker.passing(OPEN_S, 0.5)
    assert not breaker.would_pass(OPEN_S + 0.4)
    for _ in range(SUCCESSES_TO_CLOSE):
        breaker.succeeded()
    assert not breaker.is_open


@given(st.lists(st.booleans(), max_size=500))
def test_retries_never_exceed_a_tenth_of_the_requests_and_the_first_few(wants: list[bool]) -> None:
    budget = RetryBudget()
    spent = 0
    for want in wants:
        budget.earn()
        spent += want and budget.spend()
    assert spent <= BUDGET_MOST + 0.1 * len(wants) + 1e-6


def test_settings_agree_whatever_the_order_in_which_they_are_heard() -> None:
    registers = [
        Register("shed_level", 1, "eu", 3),
        Register("shed_level", 2, "us", 0),
        Register("drained.eu", 1, "us", 1),
    ]
    ends = set()
    for order in itertools.permutations(registers):
        control = Control()
        for register in order:
            control.merge([register])
        ends.add(tuple(sorted((register.key, register.value) for register in control.snapshot())))
    assert ends == {(("drained.eu", 1), ("shed_level", 0))}


def test_a_setting_made_later_wins_over_all_that_was_seen() -> None:
    control = Control([Register("drained.eu", 41, "us", 1)])
    assert control.drain("eu", False, "eu") is True
    assert not control.merge([Register("drained.eu", 41, "us", 1)])
    assert not control.drained("eu")


def test_a_pool_grows_on_queue_age_up_to_its_quota_and_not_when_a_person_has_set_it() -> None:
    pool = PoolState.of("cpu")
    for step in range(20):
        pool.scale(step * 1.0, 0.5)
    assert pool.slots == QUOTA_SLOTS["cpu"]
    assert pool.pin(2) == QUOTA_SLOTS["cpu"]
    pool.scale(100.0, 0.5)
    assert pool.slots == 2
    pool.pin(None)
    for step in range(200):
        pool.scale(101.0 + step, 0.0)
    assert pool.slots <= BASE_SLOTS["cpu"]


def health(ready: bool = True, age_s: float = 0.0) -> Health:
    return Health("eu", ready, "active", 1, {}, 0, 64, age_s, 0.0, 48.0, ())


def test_one_missed_check_is_no_loss_two_are_and_one_answer_is_no_return() -> None:
    sight = Sight("eu")
    sight.answered(health(), 0.0)
    sight.missed(0.5)
    assert sight.healthy
    sight.missed(1.0)
    assert not sight.healthy
    sight.answered(health(), 1.5)
    assert not sight.healthy
    sight.answered(health(), 2.0)
    assert sight.healthy


def test_the_alert_fires_after_a_while_of_loss_and_is_resolved_by_health() -> None:
    sight = Sight("eu")
    sight.answered(health(), 0.0)
    sight.missed(0.5)
    sight.missed(1.0)
    assert "RegionDown" not in alerts([sight], 1.0 + DOWN_ALERT_S / 2)
    assert 'alertname="RegionDown",alertstate="firing",region="eu"' in alerts([sight], 1.0 + DOWN_ALERT_S)
    sight.answered(health(), 3.0)
    sight.answered(health(), 3.5)
    assert "RegionDown" not in alerts([sight], 9.0)


def test_a_region_that_answers_but_cannot_serve_is_lost_too() -> None:
    sight = Sight("eu")
    sight.answered(health(), 0.0)
    sight.answered(health(ready=False), 0.5)
    sight.answered(health(ready=False), 1.0)
    assert not sight.healthy


WRONG = (
    ({"silent_pools": ("cpu",)}, "NodeDown"),
    ({"silent_pools": ("gpu",)}, "GpuPoolDown"),
    ({"gpu_devices": {"lost": 2}}, "GpuPoolDown"),
    ({"gpu_devices": {"ok": 1, "slow": 1}}, "GpuPoolDegraded"),
    ({"leaks": (Leak("cpu-eu", "cpu", "leaky", 4e6),)}, "MemoryLeak"),
    ({"feed_late": True}, "FeedLate"),
    ({"queue_oldest_age_s": 3.0}, "QueueAgeHigh"),
    ({"unseen": ("us",)}, "RegionPartitioned"),
)


@pytest.mark.parametrize(("wrong", "alert"), WRONG, ids=[alert for _, alert in WRONG])
def test_an_alert_fires_while_what_is_wrong_lasts_and_says_whom_to_ask(wrong: dict[str, object], alert: str) -> None:
    sights = [Sight("eu"), Sight("us")]

    def told(now_s: float, **fields: object) -> str:
        for sight in sights:
            said = structs.replace(health(), **fields) if sight.region == "eu" else health()
            sight.answered(said, now_s)
        return alerts(sights, now_s)

    assert "ALERTS{" not in told(0.0)
    told(1.0, **wrong)
    firing = [line for line in told(5.0, **wrong).splitlines() if f'alertname="{alert}"' in line]
    assert len(firing) == 1
    assert all(f'{label}="' in firing[0] for label in ("severity", "owner", "runbook"))
    assert ('region="eu"' in firing[0]) is (alert != "FeedLate")
    assert "ALERTS{" not in told(6.0)


@pytest.mark.parametrize("kind", [*REGION_ALERTS.values(), PARTITIONED, LEAK, LATE], ids=lambda kind: kind.name)
def test_an_alert_names_a_runbook_that_answers_it_or_none(kind: Kind, repository: Path) -> None:
    """`NodeDown` never comes alone: with CPU workers gone `RegionDown` is answered, with GPU workers `GpuPoolDown`."""
    books = [read_runbook(page) for page in sorted((repository / "runbooks").glob("*.md"))]
    answering = [book.name for book in books if kind.name in book.answers]
    assert kind.runbook in (answering or ["region-loss" if kind.name == "NodeDown" else ""])


def test_two_gateways_apart_are_no_partition_when_the_edge_has_lost_one_as_well() -> None:
    eu, us = Sight("eu"), Sight("us")
    for now_s in (0.0, 1.0, 2.0, 3.0):
        eu.missed(now_s)
        us.answered(structs.replace(health(), region="us", unseen=("eu",)), now_s)
    assert "RegionPartitioned" not in alerts([eu, us], 3.0)
    assert 'alertname="RegionDown"' in alerts([eu, us], 3.0)


def memory(*held: float, every_s: float = 0.5, version: str = "stable") -> Fleet:
    fleet = Fleet()
    for number, held_bytes in enumerate(held):
        fleet.heard("cpu-eu", "cpu", version, held_bytes, number * every_s)
    return fleet


def test_memory_that_grows_steadily_is_a_leak_with_its_slope() -> None:
    (leak,) = memory(*(4e7 + 2e6 * step for step in range(12))).leaks(5.5)
    assert (leak.instance, leak.pool, leak.bytes_per_s) == ("cpu-eu", "cpu", pytest.approx(4e6))


@pytest.mark.parametrize(
    "held",
    [
        [4e7 + 2e6 * step for step in range(6)],
        [4e7 + min(step, 4) * 3e6 for step in range(12)],
        [4e7 + (step % 2) * 1e6 for step in range(12)],
        [4e7 + 2e6 * (step % 6) for step in range(12)],
    ],
    ids=["too short to tell", "grew once and stays", "goes up and down", "started anew"],
)
def test_other_memory_is_no_leak(held: list[float]) -> None:
    assert memory(*held).leaks(len(held) * 0.5) == ()


def test_a_release_rolled_out_twice_still_says_where_a_roll_back_leads() -> None:
    control = Control()
    assert control.release("eu", "cpu") == Release("cpu", "stable", "stable")
    for _ in range(2):
        assert control.roll_out("eu", "cpu", "leaky", "eu") == Release("cpu", "leaky", "stable")
    again = Control(control.snapshot())
    assert again.roll_out("eu", "cpu", "stable", "eu") == Release("cpu", "stable", "leaky")
    assert again.release("us", "cpu").version == "stable"


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, "STORMDRILL_INSTANCE and STORMDRILL_PORT"),
        ({"STORMDRILL_INSTANCE": "edge-1", "STORMDRILL_PORT": "x"}, "port number"),
        (
            {"STORMDRILL_INSTANCE": "edge-1", "STORMDRILL_PORT": "1", "STORMDRILL_PEERS_GATEWAY": "gateway-eu"},
            "instance=host:port",
        ),
        (
            {"STORMDRILL_INSTANCE": "cpu-eu", "STORMDRILL_PORT": "1", "STORMDRILL_LEAK_MB_PER_S": "lots"},
            "STORMDRILL_LEAK_MB_PER_S is 'lots'",
        ),
    ],
)
def test_missing_wiring_is_told_by_the_name_of_the_variable(environment: dict[str, str], said: str) -> None:
    with pytest.raises(WiringError, match=said):
        read_wiring(environment)
