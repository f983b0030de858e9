"""The reference platform on real processes: what it promises, and that it keeps it when processes stop and die."""

from __future__ import annotations

import json
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from platform_rig import (
    Answered,
    Platform,
    get,
    lost_and_doubled,
    platform,
    post,
    run_load,
    send,
    share_good,
    until,
)

pytestmark = pytest.mark.real
PEAK_PER_S = 60.0
CAPACITY_PER_S = 95.0


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with platform(tmp_path_factory.mktemp("platform")) as it:
        yield it


def job(name: str, **fields: object) -> dict[str, object]:
    return {"id": name, "kind": "api", "tier": 1, "deadline_ms": 2000, **fields}


def regions_of(asked: list[Answered]) -> Counter[str]:
    return Counter(json.loads(one.body)["region"] for one in asked if one.status == 200)


def test_the_same_job_posted_twice_is_done_once_and_answered_twice(sound: Platform) -> None:
    first = post(f"{sound.url('edge-1')}/jobs", job("twice"))
    second = post(f"{sound.url('edge-2')}/jobs", job("twice"))
    assert (first[0], second[0]) == (200, 200)
    assert first[1] == second[1]
    assert [row["done"] for row in sound.ledger()["twice"]] == [1]


def test_an_accepted_batch_job_can_be_asked_for_until_it_is_done(sound: Platform) -> None:
    url = f"{sound.url('edge-1')}/jobs"
    assert post(url, job("later", kind="batch", tier=3, deadline_ms=30000, wait=False))[0] == 202
    until(lambda: json.loads(get(f"{url}/later")[1])["state"] == "done", 10, "the batch job is done")
    assert get(f"{url}/never-heard-of")[0] == 404


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"tier": 9}, "tier"),
        ({"kind": "juggling"}, "kind"),
        ({"deadline_ms": -1}, "deadline_ms"),
        ({"residency": "mars"}, "residency"),
        ({"id": "a b"}, "id"),
    ],
)
def test_a_job_that_makes_no_sense_is_refused_by_the_name_of_the_field(
    sound: Platform, fields: dict[str, object], named: str
) -> None:
    status, body, _ = post(f"{sound.url('edge-1')}/jobs", job("odd", **fields) | fields)
    assert status == 400
    assert named in str(body["error"])


def test_a_drained_region_gets_no_new_work_until_it_is_admitted_again(sound: Platform) -> None:
    us, eu = sound.url("gateway-us"), sound.url("gateway-eu")
    assert post(f"{us}/regions/eu/drain")[1] == {"region": "eu", "draining": True, "draining_before": False}
    for gateway in (us, eu):
        until(lambda gateway=gateway: json.loads(get(f"{gateway}/regions/eu")[1])["draining"], 5, "both know")
        told = {region: json.loads(get(f"{gateway}/regions/{region}")[1])["elsewhere"] for region in ("eu", "us")}
        assert told == {"eu": True, "us": False}, "where another region can carry on"
    assert set(regions_of(run_load(sound, 40, 1.5, seed=11))) == {"us"}
    status, _, headers = post(f"{sound.url('edge-1')}/jobs", job("resident", residency="eu"))
    assert status == 503
    assert int(headers["Retry-After"]) >= 1
    assert post(f"{eu}/regions/eu/admit")[1] == {"region": "eu", "draining": False, "draining_before": True}
    until(lambda: set(regions_of(run_load(sound, 40, 0.5, seed=12))) == {"eu", "us"}, 10, "both regions serve")


def test_shed_level_3_leaves_tier_1_alone_and_says_when_to_come_back(sound: Platform) -> None:
    gateway = sound.url("gateway-us")
    before = json.loads(get(f"{gateway}/shed-level")[1])["level"]
    assert post(f"{gateway}/shed-level", {"level": 3})[1] == {"level": 3, "level_before": before}
    until(lambda: json.loads(get(f"{sound.url('gateway-eu')}/shed-level")[1])["level"] == 3, 5, "both know")
    asked = run_load(sound, 40, 1.5, seed=13)
    assert {one.status for one in asked if one.tier == 1} == {200}
    assert {one.status for one in asked if one.tier > 1} == {429}
    assert post(f"{gateway}/shed-level", {"level": before})[1]["level_before"] == 3
    assert post(f"{gateway}/shed-level", {"level": 7})[0] == 400


def test_a_pool_is_scaled_within_its_quota_and_given_back_to_the_autoscaler(sound: Platform) -> None:
    gateway = sound.url("gateway-us")
    scaled = post(f"{gateway}/pools/cpu/scale", {"slots": 7})[1]
    assert (scaled["slots"], scaled["pinned"], scaled["quota"]) == (7, True, 8)
    assert post(f"{gateway}/pools/cpu/scale", {"slots": 99})[0] == 409
    assert post(f"{gateway}/pools/cpu/scale", {"slots": None})[1]["pinned"] is False


def test_the_proxy_shows_what_passed_every_hop(sound: Platform) -> None:
    status, body = get(f"http://127.0.0.1:{sound.control_port}/routes")
    routes = {route["name"]: route for route in json.loads(body)}
    assert status == 200
    assert {"edge-1>gateway-eu", "cpu-us>gateway-us", "gateway-eu>gateway-us", "cpu-eu>feed"} <= routes.keys()
    assert routes["edge-1>gateway-us"]["bytes_up"] > 0


def test_overload_is_shed_from_below_and_the_queue_stays_bounded(sound: Platform) -> None:
    depths: list[float] = []
    look = {at: lambda: depths.append(sound.metric("gateway-us", "queue_depth")) for at in (3.0, 4.0, 5.0)}
    asked = run_load(sound, CAPACITY_PER_S * 1.5, 6, seed=14, at=look)
    assert share_good(asked, tier=1) > 0.97
    assert share_good(asked, tier=1) > share_good(asked, tier=3)
    assert share_good(asked, tier=2) > share_good(asked, tier=3)
    assert all(one.tier == 3 for one in asked if one.status == 429)
    assert max(depths) <= sound.metric("gateway-us", "queue_limit")
    assert lost_and_doubled(sound, asked) == ([], [])


def test_every_answer_names_its_region_and_what_is_inside_of_the_edges_comes_out_again(sound: Platform) -> None:
    edge = f"{sound.url('edge-1')}/jobs"
    for region in ("eu", "us"):
        _, body, headers = post(edge, job(f"from-{region}", residency=region))
        assert headers["X-Region"] == body["region"] == region
    inside: list[float] = []
    look = {1.0: lambda: inside.append(sum(sound.metric(one, "requests_in_flight") for one in sound.edges))}
    run_load(sound, PEAK_PER_S, 2, seed=17, at=look)
    assert inside[0] >= 1
    assert sum(sound.metric(one, "requests_in_flight") for one in sound.edges) == 0
    for hop in (*sound.edges, *sound.gateways):
        assert 0 < sound.metric(hop, "hop_sent_total") <= 1.1 * sound.metric(hop, "hop_received_total") + 10


def test_a_silent_feed_opens_its_breaker_and_one_that_answers_closes_it(sound: Platform) -> None:
    edge, number = sound.url("edge-1"), iter(range(10_000))

    def open_to_the_feed(wanted: bool) -> bool:
        for _ in range(4):
            assert post(f"{edge}/jobs", job(f"news-{next(number)}-{wanted}", kind="report", tier=2))[0] == 200
        lines = [line for line in get(f"{edge}/metrics")[1].splitlines() if line.startswith("breaker_open{")]
        return any('to="feed"' in line and line.endswith(" 1") for line in lines) is wanted

    sound.freeze(["feed"])
    try:
        until(lambda: open_to_the_feed(True), 20, "the feed's breaker is open")
    finally:
        sound.thaw(["feed"])
    until(lambda: open_to_the_feed(False), 20, "it is closed again")


def test_without_the_gpu_pool_the_cpu_answers_and_without_the_feed_a_copy_is_marked_stale(sound: Platform) -> None:
    edge = sound.url("edge-1")
    post(f"{edge}/jobs", job("fresh", kind="report", tier=2))
    gpus = sound.of(pool="gpu")
    sound.crash([*gpus, "feed"])
    until(lambda: sound.metric("gateway-eu", "pool_ready") + sound.metric("gateway-us", "pool_ready") == 2, 10, "lost")
    status, body, _ = post(f"{edge}/jobs", job("fallback", kind="inference"))
    assert (status, body["pool"]) == (200, "cpu")
    status, body, _ = post(f"{edge}/jobs", job("old-news", kind="report", tier=2))
    assert (status, body["stale"]) == (200, True)
    sound.respawn([*gpus, "feed"])
    sound.ready()


def test_a_frozen_region_loses_nothing_and_doubles_nothing_and_is_told_of(sound: Platform) -> None:
    region = sound.of(region="eu")
    sent: dict[str, float] = {}
    told: dict[str, str] = {}

    def count_attempts(when: str) -> None:
        sent[when] = sum(_attempts_at(sound, edge, "eu") for edge in sound.edges)

    asked = run_load(
        sound,
        PEAK_PER_S,
        9.5,
        seed=15,
        at={
            1.5: lambda: sound.freeze(region),
            5.0: lambda: count_attempts("early"),
            5.5: lambda: told.update(alerts=get(f"{sound.url('edge-1')}/alerts")[1]),
            6.0: lambda: told.update(seen=get(f"{sound.url('gateway-us')}/regions/eu")[1]),
            7.5: lambda: count_attempts("late"),
            8.0: lambda: sound.thaw(region),
        },
    )
    assert share_good(asked, tier=1, after_s=4.0, before_s=8.0) > 0.95
    assert sent["late"] - sent["early"] <= 8  # trials of the breaker at most, of about 75 requests
    assert 'alertname="RegionDown"' in told["alerts"]
    assert 'region="eu"' in told["alerts"]
    assert json.loads(told["seen"])["healthy"] is False
    until(lambda: sound.serves("gateway-eu"), 10, "eu serves again")
    until(lambda: "RegionDown" not in get(f"{sound.url('edge-1')}/alerts")[1], 10, "the alert is resolved")
    assert lost_and_doubled(sound, asked) == ([], [])


def _attempts_at(sound: Platform, edge: str, region: str) -> float:
    lines = get(f"{sound.url(edge)}/metrics")[1].splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f'attempts_total{{region="{region}"'))


def test_a_crashed_region_that_comes_back_finishes_what_it_had_acknowledged(sound: Platform) -> None:
    region = sound.of(region="us")
    asked = run_load(
        sound, PEAK_PER_S, 8, seed=16, at={1.0: lambda: sound.crash(region), 5.0: lambda: sound.respawn(region)}
    )
    until(lambda: sound.serves("gateway-us"), 15, "us serves again")
    assert lost_and_doubled(sound, asked) == ([], [])


def test_acknowledged_jobs_survive_the_death_of_everything(sound: Platform) -> None:
    url = f"{sound.url('edge-2')}/jobs"
    names = [f"durable-{number}" for number in range(40)]
    answers = [post(url, job(name, kind="batch", tier=3, deadline_ms=30000, wait=False))[0] for name in names]
    sound.crash(list(sound.instances))
    acknowledged = {name for name, status in zip(names, answers, strict=True) if status == 202}
    assert len(acknowledged) > 20
    sound.respawn(list(sound.instances))
    sound.ready()

    def done() -> bool:
        rows = sound.ledger()
        return all(sum(int(str(row["done"])) for row in rows.get(name, [])) == 1 for name in acknowledged)

    until(done, 20, "every acknowledged job is done once")


def test_lost_devices_shrink_the_pool_and_nobody_waits_for_them_but_training(sound: Platform) -> None:
    gateway, edge = sound.url("gateway-eu"), sound.url("edge-1")
    long = [f"training-{number}" for number in range(2)]
    for name in long:
        asked = job(name, kind="training", tier=3, deadline_ms=30000, wait=False, residency="eu")
        assert post(f"{edge}/jobs", asked)[0] == 202
    until(lambda: json.loads(get(f"{edge}/jobs/{long[0]}")[1])["state"] == "leased", 5, "training is at work")
    sound.device("eu", 0).unlink()
    until(lambda: sound.metric("gateway-eu", "gpu_devices_working") == 1, 5, "a device is missed")
    assert json.loads(get(f"{gateway}/pools/gpu")[1])["quota"] == 2
    sound.device("eu", 1).write_text("hang")
    until(lambda: {"GpuPoolDown-eu", "GpuPoolDegraded-eu"} <= sound.alerts(), 10, "the alerts fire")
    status, body, _ = post(f"{edge}/jobs", job("fallen-back", kind="inference", residency="eu"))
    assert (status, body["pool"]) == (200, "cpu")
    for number in (0, 1):
        sound.device("eu", number).write_text("ok")

    def trained() -> bool:
        return all(json.loads(get(f"{edge}/jobs/{name}")[1])["state"] == "done" for name in long)

    until(trained, 20, "training is done")
    assert [row["done"] for name in long for row in sound.ledger()[name]] == [1, 1]
    assert sound.metric("gateway-eu", "jobs_restarted_total") == 0
    until(lambda: not sound.alerts(), 10, "the alerts are resolved")


def test_a_leaking_release_is_told_of_by_its_slope_and_a_roll_back_frees_the_memory(sound: Platform) -> None:
    gateway, pid = sound.url("gateway-us"), sound.running["cpu-us"].pid
    held = sound.metric("cpu-us", "process_resident_memory_bytes")
    for _ in range(2):
        rolled = post(f"{gateway}/releases/cpu", {"version": "leaky"})[1]
        assert rolled == {"pool": "cpu", "version": "leaky", "before": "stable"}
    until(lambda: "MemoryLeak-us" in sound.alerts(), 20, "the leak is told of")
    assert sound.metric("cpu-us", "process_resident_memory_bytes") > held + 8e6
    assert post(f"{gateway}/releases/cpu", {"version": rolled["before"]})[1]["version"] == "stable"
    until(lambda: "MemoryLeak-us" not in sound.alerts(), 10, "the alert is resolved")
    until(lambda: sound.answers("cpu-us"), 10, "the workers are back")
    assert sound.metric("cpu-us", "process_resident_memory_bytes") < held + 4e6
    assert (sound.running["cpu-us"].pid, sound.running["cpu-us"].poll()) == (pid, None)


def test_a_worker_above_its_memory_limit_is_killed_and_says_why(sound: Platform) -> None:
    sound.crash(["gpu-us"])
    sound.environment["gpu-us"]["STORMDRILL_MEMORY_LIMIT_MB"] = "20"
    sound.spawn("gpu-us")
    assert sound.running["gpu-us"].wait(10) == -signal.SIGKILL
    assert re.search(r"out of memory: RSS \d+ MB of 20 MB", (sound.work / "gpu-us.log").read_text())
    until(lambda: "NodeDown-us" in sound.alerts(), 10, "its region says that it is gone")
    del sound.environment["gpu-us"]["STORMDRILL_MEMORY_LIMIT_MB"]
    sound.spawn("gpu-us")
    sound.ready()


def test_old_data_are_marked_and_told_of_though_the_feed_answers_at_once(sound: Platform) -> None:
    lag = f"{sound.url('feed')}/lag"
    for _ in range(2):
        assert send("PUT", lag, {"seconds": 30})[1] == {"seconds": 30, "before": 0}
    _, body, _ = post(f"{sound.url('edge-1')}/jobs", job("old-data", kind="report", tier=2))
    assert body["stale"] is True
    assert float(str(body["report_age_s"])) > 29
    until(lambda: "FeedLate" in sound.alerts(), 10, "the feed is told of")
    assert send("PUT", lag, {"seconds": 0})[1] == {"seconds": 0, "before": 30}
    until(lambda: "FeedLate" not in sound.alerts(), 10, "the alert is resolved")
    assert sum(sound.metric(gateway, "unmarked_stale_total") for gateway in sound.gateways) == 0


def test_regions_that_cannot_see_each_other_both_serve_and_do_nothing_twice(sound: Platform) -> None:
    told: set[str] = set()
    asked = run_load(
        sound,
        PEAK_PER_S,
        5.5,
        seed=17,
        at={
            0.5: lambda: sound.toxic("cut", "gateway", "gateway"),
            1.5: lambda: sound.freeze(["cpu-eu"]),
            2.5: lambda: sound.thaw(["cpu-eu"]),
            4.5: lambda: told.update(sound.alerts()),
            5.0: sound.heal,
        },
    )
    assert {"RegionPartitioned-eu", "RegionPartitioned-us"} <= told
    until(lambda: not sound.alerts(), 10, "the alerts are resolved")
    assert lost_and_doubled(sound, asked) == ([], [])
    assert all(json.loads(one.body)["region"] == one.residency for one in asked if one.residency and one.status == 200)


def test_a_region_without_workers_hands_tier_1_over_and_does_the_rest_when_they_are_back(sound: Platform) -> None:
    workers = sound.of(node="eu-workers")
    told: set[str] = set()
    asked = run_load(
        sound,
        PEAK_PER_S,
        8,
        seed=18,
        at={
            1.0: lambda: sound.freeze(workers),
            6.0: lambda: told.update(sound.alerts()),
            6.5: lambda: sound.thaw(workers),
        },
    )
    assert share_good(asked, tier=1, after_s=4.5, before_s=6.5) > 0.95
    assert "NodeDown-eu" in told
    assert lost_and_doubled(sound, asked) == ([], [])
    assert sum(sound.metric(gateway, "residency_broken_total") for gateway in sound.gateways) == 0


def test_a_terminated_platform_ends_cleanly(sound: Platform) -> None:
    """The last one: it ends the platform that the others have used."""
    sound.stop()
    assert {name: process.returncode for name, process in sound.running.items()} == dict.fromkeys(sound.running, 0)


def without_eu(
    it: Platform, rate_per_s: float, for_s: float, look: Callable[[], None] = lambda: None
) -> list[Answered]:
    """Load on what is left; `look` is called while it runs, shortly before its end."""
    it.crash(it.of(region="eu"))
    return run_load(it, rate_per_s, for_s, seed=21, at={for_s - 0.2: look})


def test_bug_no_failover_leaves_half_of_the_users_without_an_answer(tmp_path: Path) -> None:
    with platform(tmp_path, "no-failover") as it:
        post(f"{it.url('gateway-us')}/regions/eu/drain")
        assert share_good(without_eu(it, PEAK_PER_S, 3), tier=1) < 0.7


def test_bug_lost_acknowledgement_loses_what_it_said_it_had(tmp_path: Path) -> None:
    with platform(tmp_path, "lost-acknowledgement") as it:
        asked = run_load(it, 40, 2, seed=22)
        it.crash(it.gateways)
        it.respawn(it.gateways)
        it.ready()
        lost, doubled = lost_and_doubled(it, asked, drain_limit_s=1)
        assert len(lost) > 3
        assert doubled == []


def test_bug_unbounded_queue_grows_beyond_its_limit(tmp_path: Path) -> None:
    depths: list[float] = []
    with platform(tmp_path, "unbounded-queue") as it:
        asked = without_eu(it, 120, 4, lambda: depths.append(it.metric("gateway-us", "queue_depth")))
        assert depths[0] > it.metric("gateway-us", "queue_limit")
        assert share_good(asked, tier=1, after_s=2) < 0.9


def test_bug_no_shedding_lets_tier_1_wait_behind_everybody(tmp_path: Path) -> None:
    with platform(tmp_path, "no-shedding") as it:
        assert share_good(without_eu(it, 120, 4), tier=1, after_s=2) < 0.9


def test_bug_retry_storm_multiplies_the_attempts(tmp_path: Path) -> None:
    with platform(tmp_path, "retry-storm") as it:
        asked = without_eu(it, PEAK_PER_S, 3)
        attempts = sum(it.metric(edge, "attempts_total") for edge in it.edges)
        assert attempts / len(asked) > 1.3
