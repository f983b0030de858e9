"""A Prometheus that nobody here wrote: what its answers, its alerts and its troubles become in a record."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_part import Prometheus, Shop, needs_prometheus, until

from stormdrill.engine.watch import Watch
from stormdrill.model.event import AlertChanged, Event, Reading
from stormdrill.model.system import AlertSource, MetricSource, Servers, System
from stormdrill.ports import Answer, Scraped
from stormdrill.probes.servers import PromqlProbe, prometheus_alerts
from stormdrill.probes.sources import Sources

pytestmark = [pytest.mark.real, needs_prometheus]
LIMIT_S = 5.0
SOUND = "depth 3\nage_seconds 0.25\n"


@pytest.fixture(scope="module")
def shops() -> Iterator[tuple[Shop, Shop]]:
    made = Shop(), Shop()
    yield made
    for shop in made:
        shop.close()


@pytest.fixture(scope="module")
def prometheus(shops: tuple[Shop, Shop], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    eu, us = shops
    eu.metrics = us.metrics = SOUND
    targets = {eu.address: {"region": "eu"}, us.address: {"region": "us"}}
    made = Prometheus(tmp_path_factory.mktemp("prometheus"), targets)
    until(lambda: ask(made, "count(depth) == 2").fresh)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def sound(shops: tuple[Shop, Shop]) -> None:
    for shop in shops:
        shop.metrics = SOUND


def ask(prometheus: Prometheus, query: str, *labels: str, limit_s: float = LIMIT_S) -> Answer:
    return PromqlProbe(prometheus.url, query, labels).read(limit_s)


def test_a_query_gives_the_number_or_one_for_each_label(prometheus: Prometheus, shops: tuple[Shop, Shop]) -> None:
    shops[0].metrics = "depth 5\n"
    until(lambda: ask(prometheus, "max(depth)").values == (({}, 5.0),))
    assert dict((labels["region"], value) for labels, value in ask(prometheus, "depth", "region").values) == {
        "eu": 5.0,
        "us": 3.0,
    }
    assert ask(prometheus, "scalar(sum(depth))").values == (({}, 8.0),)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("depth", "the query has 2 series where one number is meant: they differ by instance, region"),
        ("nothing_of_that_name", "the query matches nothing now"),
        ("sum(depth", "it answered 400: invalid parameter"),
        ("depth[1m]", "the query gives a matrix, where one number now is meant"),
        ("0/0", "the value is NaN"),
        ("1/0", "the value is +Inf"),
        ('"a text"', "the query gives a string, where one number now is meant"),
    ],
)
def test_what_is_no_one_number_is_no_reading(query: str, said: str, prometheus: Prometheus) -> None:
    answer = ask(prometheus, query)
    assert answer.values == ()
    assert said in answer.detail


def test_a_series_that_vanished_is_not_answered_from_memory(prometheus: Prometheus, shops: tuple[Shop, Shop]) -> None:
    until(lambda: ask(prometheus, "sum(age_seconds)").fresh)
    for shop in shops:
        shop.metrics = "<html>garbage</html>"
    until(lambda: ask(prometheus, "sum(age_seconds)").detail.endswith("the query matches nothing now"))


def test_a_server_that_does_not_answer_in_time_gives_no_reading(prometheus: Prometheus) -> None:
    with prometheus.frozen():
        answer = ask(prometheus, "max(depth)", limit_s=0.5)
        alerts = prometheus_alerts(prometheus.url, 0.5)
    assert "did not answer GET /api/v1/query" in answer.detail
    assert alerts.samples == ()
    assert "did not answer GET /api/v1/alerts within 0.5 s" in alerts.detail
    until(lambda: ask(prometheus, "max(depth)").fresh)


def test_what_it_fires_and_what_it_reads_are_journalled(prometheus: Prometheus, shops: tuple[Shop, Shop]) -> None:
    system = System(
        name="shop",
        entry="web",
        instances=(),
        metrics=(
            MetricSource("depth", "", promql="max by (region) (depth)", labels=("region",)),
            MetricSource("broken", "", promql="max(depth"),
        ),
        alerts=(AlertSource("QueueFull", "", server="prometheus"), AlertSource("QueueLong", "", server="prometheus")),
        servers=Servers(prometheus=prometheus.url),
    )
    events: list[Event] = []

    def scrape(url: str, timeout_s: float) -> Scraped:
        raise AssertionError(f"no instance is asked here, but {url} was")

    watch = Watch(system, list, scrape, lambda event, _: events.append(event), readers=Sources(system))
    watch.start()
    try:
        shops[0].metrics = "depth 100\n"
        until(lambda: [item.firing for item in changes(events)] == [True])
        shops[0].metrics = SOUND
        until(lambda: [item.firing for item in changes(events)] == [True, False])
    finally:
        watch.stop()
    fired = changes(events)[0]
    assert (fired.alert, fired.source) == ("QueueFull", "prometheus"), "the other one is pending, and told nobody"
    wanted = {"severity": "page", "owner": "serving", "runbook": "queue-backlog", "region": "eu"}
    assert wanted.items() <= fired.labels.items()
    readings = [item for item in events if isinstance(item, Reading)]
    assert {(item.labels["region"], item.value) for item in readings if item.metric == "depth"} >= {
        ("eu", 100.0),
        ("us", 3.0),
    }
    assert all(item.value is None and "it answered 400" in item.detail for item in readings if item.metric == "broken")


def changes(events: list[Event]) -> list[AlertChanged]:
    return [item for item in list(events) if isinstance(item, AlertChanged)]


def test_a_server_that_is_gone_is_said_to_be(tmp_path: Path) -> None:
    shop = Shop()
    shop.metrics = SOUND
    made = Prometheus(tmp_path / "prometheus", {shop.address: {"region": "eu"}})
    try:
        until(lambda: ask(made, "max(depth)").fresh)
    finally:
        made.close()
        shop.close()
    assert ask(made, "max(depth)").detail == f"{made.url}: connection refused"
