"""What can be seen right now, told apart as the judge does, over the last two seconds and nothing else."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from stormdrill.engine.looks import BUCKET, GOOD, TOTAL
from stormdrill.engine.sight import STALE_S, WINDOW_S, LiveSight
from stormdrill.engine.watch import Counted, Fresh
from stormdrill.model.expression import AlertWithin, Comparison
from stormdrill.store.records import Outcome, RecordWriter

DEADLINE_MS = 500.0


class Traffic:
    """Record files as the generator writes them, with ends counted backwards from now."""

    def __init__(self, path: Path) -> None:
        self.epoch_ns = time.monotonic_ns() - 60_000_000_000
        self.writer = RecordWriter(
            path,
            worker=1,
            boot_id="b",
            epoch_mono_ns=self.epoch_ns,
            epoch_at="2026-01-01T00:00:00+00:00",
            labels=[
                {"labels": {"tier": "1"}, "deadline_ms": DEADLINE_MS},
                {"labels": {"tier": "2"}, "deadline_ms": DEADLINE_MS},
            ],
        )

    def add(
        self,
        count: int,
        status: int = 200,
        *,
        latency_ms: int = 100,
        ago_s: float = 0.5,
        tier: int = 1,
        outcome: Outcome = Outcome.ANSWERED,
    ) -> None:
        ended_us = (time.monotonic_ns() - self.epoch_ns) // 1000 - round(ago_s * 1e6)
        for _ in range(count):
            self.writer.add(
                intended_us=ended_us - latency_ms * 1000,
                lag_us=0,
                latency_us=latency_ms * 1000,
                job=1,
                status=status,
                labels=tier - 1,
                outcome=outcome,
            )
        self.writer.flush()


@pytest.fixture
def traffic(tmp_path: Path) -> Iterator[Traffic]:
    made = Traffic(tmp_path / "worker-1.records")
    yield made
    made.writer.close()


@pytest.fixture
def sight(tmp_path: Path, traffic: Traffic) -> LiveSight:
    return seeing(tmp_path)


def seeing(
    directory: Path, readings: Sequence[Fresh] = (), firing: dict[str, dict[str, str]] | None = None
) -> LiveSight:
    return LiveSight(
        lambda: [str(path) for path in directory.glob("*.records")], lambda: readings, lambda: firing or {}
    )


def figure(sight: LiveSight, metric: str, op: str = "<", limit: float = 50, **more: object) -> float | None:
    sight.poll()
    return sight.evaluate(Comparison("", metric, op, limit, **more)).value  # type: ignore[arg-type]


def test_success_is_2xx_within_the_deadline_of_all_that_was_intended(traffic: Traffic, sight: LiveSight) -> None:
    traffic.add(5)
    traffic.add(1, 429)
    traffic.add(1, 503)
    traffic.add(1, latency_ms=600)
    traffic.add(1, 0, outcome=Outcome.TIMED_OUT)
    traffic.add(1, 0, outcome=Outcome.DROPPED)
    assert figure(sight, "success") == pytest.approx(50)


def test_latency_is_of_admitted_requests_and_of_those_that_timed_out(traffic: Traffic, sight: LiveSight) -> None:
    traffic.add(9, latency_ms=100)
    traffic.add(50, 429, latency_ms=1)
    traffic.add(50, 0, latency_ms=1, outcome=Outcome.REFUSED)
    traffic.add(1, 0, latency_ms=1000, outcome=Outcome.TIMED_OUT)
    assert figure(sight, "p50") == pytest.approx(0.1)
    assert figure(sight, "p100") == pytest.approx(1.0)


def test_throughput_counts_late_answers_and_goodput_does_not(traffic: Traffic, sight: LiveSight) -> None:
    traffic.add(6)
    traffic.add(4, latency_ms=900)
    traffic.add(20, 503)
    assert figure(sight, "throughput") == pytest.approx(10 / WINDOW_S)
    assert figure(sight, "goodput") == pytest.approx(6 / WINDOW_S)


def test_labels_select(traffic: Traffic, sight: LiveSight) -> None:
    traffic.add(4, tier=1)
    traffic.add(4, 503, tier=2)
    assert figure(sight, "success", labels={"tier": "1"}) == 100
    assert figure(sight, "success", labels={"tier": "2"}) == 0
    assert figure(sight, "success") == 50
    assert figure(sight, "success", labels={"tier": "3"}) is None


def test_the_window_is_not_stretched_by_for(traffic: Traffic, sight: LiveSight) -> None:
    traffic.add(100, ago_s=6)
    traffic.add(10, 503)
    assert figure(sight, "success", for_s=10) == 0


def test_without_a_request_in_the_window_nothing_is_fresh(traffic: Traffic, sight: LiveSight) -> None:
    traffic.add(100, ago_s=WINDOW_S + 1)
    sight.poll()
    look = sight.evaluate(Comparison("", "success", "<", 50))
    assert not look.fresh
    assert not look.held


def test_a_file_is_read_as_it_grows(traffic: Traffic, sight: LiveSight) -> None:
    traffic.add(2)
    assert figure(sight, "success") == 100
    traffic.add(2, 503)
    assert figure(sight, "success") == 50


def reading(value: float, ago_s: float = 0.0, **labels: str) -> Fresh:
    return Fresh("depth", value, (time.monotonic() - ago_s) * 1000, labels)


def test_of_readings_the_worst_fresh_one_counts(tmp_path: Path) -> None:
    sight = seeing(tmp_path, [reading(3, region="eu"), reading(8, region="us"), reading(99, STALE_S + 1, region="us")])
    assert figure(sight, "depth", "<") == 8
    assert figure(sight, "depth", ">") == 3
    assert figure(sight, "depth", "<", labels={"region": "eu"}) == 3
    assert figure(sight, "depth", "<", labels={"region": "ap"}) is None


def test_an_alert_holds_while_one_with_its_labels_fires(tmp_path: Path) -> None:
    sight = seeing(tmp_path, firing={"RegionDown|region=eu": {"region": "eu"}})
    assert sight.evaluate(AlertWithin("", "RegionDown")).held
    assert sight.evaluate(AlertWithin("", "RegionDown", {"region": "eu"})).held
    assert not sight.evaluate(AlertWithin("", "RegionDown", {"region": "us"})).held
    assert not sight.evaluate(AlertWithin("", "QueueOld")).held


def counters(*series: Counted) -> LiveSight:
    """All of them seen at the same moments, up to now."""
    now_ms = time.monotonic() * 1000
    known = [replace(one, seen=tuple((at_ms + now_ms, value) for at_ms, value in one.seen)) for one in series]
    return LiveSight(list, list, dict, lambda: known)


def series(metric: str, *values: float, every_ms: float = 1000.0, ago_ms: float = 100.0, **labels: str) -> Counted:
    """The last looks at one counter, the newest so long ago; in ms from now."""
    seen = tuple(((index + 1 - len(values)) * every_ms - ago_ms, value) for index, value in enumerate(values))
    return Counted(metric, {"instance": "web-1", **labels}, seen)


def test_observed_traffic_is_seen_by_what_the_counters_gained() -> None:
    sight = counters(
        series(TOTAL, 1000, 1040, 1080, tier="1"),
        series(GOOD, 900, 940, 960, tier="1"),
        series(TOTAL, 0, 10, 20, tier="2"),
    )
    assert figure(sight, "success", labels={"tier": "1"}) == pytest.approx(75)
    assert figure(sight, "success") == pytest.approx(60)
    assert figure(sight, "throughput") == pytest.approx(50)
    assert figure(sight, "goodput") == pytest.approx(30)


def test_a_counter_that_fell_or_came_later_counts_from_nothing() -> None:
    restarted = counters(series(TOTAL, 1000, 10, 30), series(GOOD, 990, 10, 20))
    assert figure(restarted, "throughput") == pytest.approx(15)
    late = counters(series(TOTAL, 100, 110, 120, code="200"), series(TOTAL, 20, code="500"), series(GOOD, 90, 95, 110))
    assert figure(late, "success") == pytest.approx(50)


@pytest.mark.parametrize(
    "seen",
    [(), (series(TOTAL, 5),), (series(TOTAL, 5, 6, ago_ms=2600),), (series(TOTAL, 5, 5), series(GOOD, 5, 5))],
)
def test_without_two_fresh_looks_or_a_request_nothing_is_known_of_success(seen: tuple[Counted, ...]) -> None:
    assert figure(counters(*seen), "success") is None


def test_a_live_latency_is_the_bound_that_is_certain() -> None:
    seen = (series(BUCKET, 0, 50, le="0.1"), series(BUCKET, 0, 97, le="0.4"), series(BUCKET, 0, 100, le="+Inf"))
    sight = counters(*seen)

    def held(op: str, limit_s: float) -> bool:
        return sight.evaluate(Comparison("p95", "p95", op, limit_s, "s")).held  # type: ignore[arg-type]

    assert figure(sight, "p95", "<") == 0.4
    assert figure(sight, "p95", ">") == 0.1
    assert held("<", 0.4), "a bound is met exactly"
    assert not held("<", 0.3)
    assert not held(">", 0.3), "between two bounds a guard does not trip"
    assert held(">", 0.1)
    assert figure(counters(*seen[:1], series(BUCKET, 0, 100, le="+Inf")), "p95", "<") == math.inf


def test_a_metric_that_is_read_seldom_is_fresh_for_longer(tmp_path: Path) -> None:
    at_ms = time.monotonic() * 1000 - 8000
    rare, often = Fresh("rare", 7.0, at_ms, {}, every_s=5.0), Fresh("often", 7.0, at_ms, {})
    sight = seeing(tmp_path, [rare, often])
    assert sight.evaluate(Comparison("rare", "rare", ">", 5.0)).fresh
    assert not sight.evaluate(Comparison("often", "often", ">", 5.0)).fresh
