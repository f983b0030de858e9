"""The watch, against real servers on 127.0.0.1: what is fresh, what is missing, and what fires."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
from msgspec.structs import replace
from watch_world import Endpoint, Notes, until, watched_system

from stormdrill.engine import watch as watch_module
from stormdrill.engine.watch import Watch
from stormdrill.model.event import Event
from stormdrill.model.system import AlertSource, Indicators, MetricSource, System
from stormdrill.ports import Answer, Sample, Scraped
from stormdrill.probes.prometheus import scrape

Make = Callable[..., Watch]


@pytest.fixture
def a() -> Iterator[Endpoint]:
    endpoint = Endpoint("a")
    yield endpoint
    endpoint.close()


@pytest.fixture
def b() -> Iterator[Endpoint]:
    endpoint = Endpoint("b")
    yield endpoint
    endpoint.close()


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def watching(notes: Notes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """A watch over these endpoints, with a short limit and pace; stopped at the end."""
    monkeypatch.setattr(watch_module, "ALERT_EVERY_S", 0.02)
    monkeypatch.setattr(watch_module, "METRIC_EVERY_S", 0.04)
    monkeypatch.setattr(watch_module, "LIMIT_S", 0.3)
    made: list[Watch] = []

    def make(*endpoints: Endpoint, **more: object) -> Watch:
        system = more.pop("system", watched_system(*(item.name for item in endpoints)))
        record = more.pop("record", notes)
        made.append(Watch(system, lambda: [e.instance() for e in endpoints], scrape, record, **more))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for watch in made:
        watch.stop()


@pytest.mark.parametrize("bad", ["NaN", "+Inf", "-Inf", "7 1000"])
def test_a_sample_that_is_no_number_or_old_is_no_reading_and_the_others_stand(
    bad: str, a: Endpoint, notes: Notes, watching: Make
) -> None:
    a.metrics = f"depth {bad}\nage 2\nserved_total 9\n"
    watch = watching(a)
    watch.read_now()
    (depth,) = notes.readings("depth")
    assert depth.value is None
    assert depth.detail.startswith("depth is ")
    assert [item.value for item in notes.readings("age") + notes.readings("served")] == [2, 9]
    assert {item.metric for item in watch.latest()} == {"age", "served"}


def test_a_series_that_turns_bad_is_fresh_no_longer(a: Endpoint, watching: Make) -> None:
    watch = watching(a)
    watch.read_now()
    assert [item.value for item in watch.latest() if item.metric == "depth"] == [1]
    a.metrics = "depth NaN\n"
    watch.read_now()
    assert not [item for item in watch.latest() if item.metric == "depth"]


def test_an_exporter_speaks_for_the_instances_that_it_names(
    a: Endpoint, b: Endpoint, notes: Notes, watching: Make
) -> None:
    a.metrics = (
        'served_total{instance="b",path="/"} 4\nserved_total{instance="b",path="/x"} 3\n'
        'served_total{instance="host:1"} 9\n'
    )
    b.metrics = ""
    watching(a, b).read_now()
    assert {(item.instance, item.value) for item in notes.readings("served")} == {("a", 9), ("b", 7), ("b", None)}


def test_a_served_counter_in_doubt_is_not_summed(a: Endpoint, notes: Notes, watching: Make) -> None:
    a.metrics = 'served_total{path="/"} 4\nserved_total{path="/x"} NaN\n'
    watching(a).read_now()
    assert [item.value for item in notes.readings("served")] == [None]


def test_reading_now_outlives_an_endpoint_that_never_answers(
    a: Endpoint, b: Endpoint, notes: Notes, watching: Make
) -> None:
    a.hanging.set()
    watching(a, b).read_now()
    assert [item.value for item in notes.readings("depth", "b")] == [1]
    assert [item.value for item in notes.readings("depth", "a")] == [None]
    assert "did not answer" in notes.readings("depth", "a")[0].detail


def test_reading_now_does_not_raise_when_the_look_is_too_late_or_the_watch_over(notes: Notes) -> None:
    free = threading.Event()

    def stuck(url: str, timeout_s: float) -> Scraped:
        free.wait(20)
        return Scraped((), "late")

    endpoint = Endpoint("a")
    watch = Watch(watched_system("a"), lambda: [endpoint.instance()], stuck, notes)
    try:
        watch.read_now()
        assert not notes.events
    finally:
        free.set()
        watch.stop()
        endpoint.close()
    watch.read_now()


@pytest.mark.parametrize("least_s", [0.0, 2.0])
def test_each_look_has_at_least_as_long_as_the_way_to_instances_takes(least_s: float, a: Endpoint) -> None:
    asked: dict[str, float] = {}

    def far(url: str, limit_s: float) -> Scraped:
        asked[url.rpartition("/")[2]] = limit_s
        return scrape(url, limit_s)

    watch = Watch(watched_system("a"), lambda: [a.instance()], far, Notes(), least_s=least_s)
    watch.start()
    try:
        until(lambda: len(asked) == 2)
    finally:
        watch.stop()
    assert asked == {"metrics": least_s or watch_module.LIMIT_S, "alerts": least_s or watch_module.LIMIT_S}


def test_a_look_that_takes_longer_than_its_pace_is_taken_again_as_soon_as_it_has_ended(
    a: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not when it is due the next time: what is asked for every second would be fresh for half of the time."""
    monkeypatch.setattr(watch_module, "ALERT_EVERY_S", 0.02)
    now_s = [0.0]
    monkeypatch.setattr(watch_module, "time", SimpleNamespace(monotonic=lambda: now_s[0], time=time.time))
    asked = Counter[str]()
    answered = threading.Event()

    def slow(url: str, limit_s: float) -> Scraped:
        asked[url.rpartition("/")[2]] += 1
        return Scraped((), "") if url.endswith("/alerts") or answered.wait(20) else Scraped((), "late")

    watch = Watch(watched_system("a"), lambda: [a.instance()], slow, Notes())
    watch.start()
    try:
        until(lambda: asked["metrics"] and asked["alerts"])
        now_s[0] = 1.2 * watch_module.METRIC_EVERY_S
        until(lambda: asked["alerts"] > 1)
        now_s[0] += watch_module.ALERT_EVERY_S
        until(lambda: asked["alerts"] > 2)
        assert asked["metrics"] == 1, "one at a time"
        answered.set()
        until(lambda: asked["metrics"] > 1)
    finally:
        answered.set()
        watch.stop()


def test_an_alert_fires_while_any_instance_says_so(a: Endpoint, b: Endpoint, notes: Notes, watching: Make) -> None:
    a.fire()
    watching(a, b).start()
    until(lambda: notes.changes() == [True])
    b.fire()
    until(lambda: b.asked and _looked_again(b))
    a.alerts = ""
    until(lambda: _looked_again(a))
    assert notes.changes() == [True]
    b.alerts = ""
    until(lambda: notes.changes() == [True, False])


def _looked_again(endpoint: Endpoint) -> bool:
    """Four looks began after this: at least one alert look began and ended."""
    start = endpoint.asked
    until(lambda: endpoint.asked >= start + 8)
    return True


def test_what_an_instance_said_is_forgotten_once_it_answers_no_more(
    a: Endpoint, b: Endpoint, notes: Notes, watching: Make
) -> None:
    a.fire()
    watching(a, b).start()
    until(lambda: notes.changes() == [True])
    a.hanging.set()
    until(lambda: notes.changes() == [True, False])
    assert notes.readings("alerts", "a")[-1].value is None
    a.hanging.clear()
    until(lambda: notes.changes() == [True, False, True])


def test_one_look_without_an_answer_ends_no_alert(notes: Notes) -> None:
    firing = 'ALERTS{alertname="RegionDown",alertstate="firing",region="eu"} 1\n'
    endpoint = Endpoint("a")
    endpoint.alerts = firing
    looks = 0

    def every_second_fails(url: str, timeout_s: float) -> Scraped:
        nonlocal looks
        if not url.endswith("/alerts"):
            return Scraped((), "not asked here")
        looks += 1
        return Scraped((), "too slow") if looks % 2 == 0 else scrape(url, 5)

    watch = Watch(watched_system("a"), lambda: [endpoint.instance()], every_second_fails, notes)
    watch.start()
    try:
        until(lambda: looks >= 5)
        assert notes.changes() == [True]
    finally:
        watch.stop()
        endpoint.close()


@pytest.mark.parametrize("bad", ["NaN", "1 1000"])
def test_an_alert_that_is_no_number_or_old_is_not_believed(bad: str, a: Endpoint, notes: Notes, watching: Make) -> None:
    a.alerts = f'ALERTS{{alertname="RegionDown",alertstate="firing",region="eu"}} {bad}\n'
    watching(a).start()
    until(lambda: notes.readings("alerts"))
    assert [item.value for item in notes.readings("alerts")] == [None]
    assert "alertname=RegionDown" in notes.readings("alerts")[0].detail
    assert notes.changes() == []
    a.fire()
    until(lambda: notes.changes() == [True])


def test_an_endpoint_is_asked_one_look_at_a_time_and_holds_up_no_other(
    a: Endpoint, b: Endpoint, notes: Notes, watching: Make
) -> None:
    a.hanging.set()
    watching(a, b).start()
    until(lambda: len(notes.readings("depth", "b")) >= 8)
    until(lambda: len(notes.readings("depth", "a")) >= 2)
    assert len(notes.readings("depth", "b")) > 2 * len(notes.readings("depth", "a"))
    assert a.asked <= 2 * (len(notes.readings("depth", "a")) + 2)
    assert b.most_at_once == {"/alerts": 1, "/metrics": 1}


def test_a_look_that_crashes_is_told(a: Endpoint, watching: Make) -> None:
    def broken(event: Event, mono_ms: float | None = None) -> None:
        raise ValueError("the record takes no more")

    told: list[BaseException] = []
    watching(a, record=broken, on_defect=told.append).start()
    until(lambda: told)
    assert str(told[0]) == "the record takes no more"


def test_a_watch_that_crashes_is_told() -> None:
    told: list[BaseException] = []

    def gone() -> list[object]:
        raise KeyError("inventory")

    watch = Watch(watched_system("a"), gone, scrape, Notes(), on_defect=told.append)  # type: ignore[arg-type]
    watch.start()
    until(lambda: told)
    assert isinstance(told[0], KeyError)
    watch.stop()


@pytest.mark.filterwarnings("default::pytest.PytestUnhandledThreadExceptionWarning")
def test_unless_told_otherwise_a_crash_is_raised_in_the_watchs_thread(
    a: Endpoint, watching: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: raised.append(args.exc_value))

    def broken(event: Event, mono_ms: float | None = None) -> None:
        raise ValueError("the record takes no more")

    watching(a, record=broken).start()
    until(lambda: raised)
    assert isinstance(raised[0], ValueError)


def test_a_watch_ends_when_it_is_told_to(a: Endpoint, notes: Notes, watching: Make) -> None:
    watch = watching(a)
    watch.start()
    until(lambda: notes.readings("depth"))
    watch.stop()
    until(lambda: not any(thread.name == "watch" and thread.is_alive() for thread in threading.enumerate()))


class Asked:
    """Sources that say what they are told to; `free` lets go what hangs."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.fires = Scraped(())
        self.hanging: set[str] = set()
        self.free = threading.Event()
        self.asked: list[tuple[str, float]] = []

    def read(self, metric: MetricSource, address: str, timeout_s: float) -> Answer:
        self.asked.append((f"{metric.name} {address}".strip(), timeout_s))
        if metric.name in self.hanging:
            self.free.wait(20)
        return self.answers.get(metric.name, Answer((), "nothing is known of it"))

    def alerts(self, server: str, timeout_s: float) -> Scraped:
        return self.fires


@pytest.fixture
def asked() -> Iterator[Asked]:
    made = Asked()
    yield made
    made.free.set()


def of_sources(*metrics: MetricSource, alerts: tuple[AlertSource, ...] = ()) -> System:
    return replace(watched_system("a"), metrics=metrics, alerts=alerts, served=None)


def test_every_kind_of_source_is_read_and_journalled_under_its_metrics_name(
    a: Endpoint, notes: Notes, asked: Asked, watching: Make
) -> None:
    system = of_sources(
        MetricSource("age", "", promql="max(age)", labels=("queue",), unit="ms"),
        MetricSource("backlog", "", command=("backlog",), constants={"kind": "report"}),
        MetricSource("free", "web", http="/capacity", value=".free"),
        MetricSource("used", "web", http="/capacity", value=".used"),
    )
    asked.answers = {
        "age": Answer((({"queue": "x"}, 1500.0), ({"queue": "y"}, 20.0))),
        "backlog": Answer((({}, 7.0),)),
        "free": Answer((({}, 0.25),)),
    }
    watch = watching(a, system=system, readers=asked)
    watch.read_now()
    found = {(item.metric, item.instance, item.value, *item.labels.values()) for item in notes.all_readings()}
    assert found == {
        ("age", "", 1.5, "x"),
        ("age", "", 0.02, "y"),
        ("backlog", "", 7.0, "report"),
        ("free", "a", 0.25),
        ("used", "a", None),
    }
    assert {name for name, _ in asked.asked} == {"age", "backlog", f"free {a.address}", f"used {a.address}"}
    assert {item.metric for item in watch.latest()} == {"age", "backlog", "free"}
    assert [item.detail for item in notes.readings("used")] == ["nothing is known of it"]


def test_a_source_that_hangs_holds_up_no_other(a: Endpoint, notes: Notes, asked: Asked, watching: Make) -> None:
    slow = tuple(MetricSource(f"slow{number}", "", command=("x",)) for number in range(30))
    asked.hanging = {item.name for item in slow}
    asked.answers["quick"] = Answer((({}, 1.0),))
    watching(a, system=of_sources(*slow, MetricSource("quick", "", promql="q")), readers=asked).start()
    until(lambda: len(notes.readings("quick")) >= 5)
    assert not any(item.metric.startswith("slow") for item in notes.all_readings())
    assert [name for name, _ in asked.asked].count("slow0") == 1, "not asked again while it is being asked"


def test_what_comes_after_the_end_is_not_written(a: Endpoint, notes: Notes, asked: Asked, watching: Make) -> None:
    asked.hanging = {"slow"}
    asked.answers["slow"] = Answer((({}, 1.0),))
    watch = watching(a, system=of_sources(MetricSource("slow", "", command=("x",))), readers=asked)
    watch.start()
    until(lambda: asked.asked)
    watch.stop()
    asked.free.set()
    until(lambda: not any(thread.name.startswith("watch") and thread.is_alive() for thread in threading.enumerate()))
    assert notes.all_readings() == []


def test_a_rare_metric_is_asked_seldom_and_may_take_longer(
    a: Endpoint, notes: Notes, asked: Asked, watching: Make
) -> None:
    often, rare = MetricSource("often", "", promql="q"), MetricSource("rare", "", promql="q", every_s=10.0)
    asked.answers = {"often": Answer((({}, 1.0),)), "rare": Answer((({}, 1.0),))}
    watch = watching(a, system=of_sources(often, rare, replace(rare, name="rarest", every_s=300.0)), readers=asked)
    watch.start()
    until(lambda: len(notes.readings("often")) >= 10)
    assert [name for name, _ in asked.asked].count("rarest") == 1
    assert {name: limit_s for name, limit_s in asked.asked} == {
        "often": 0.3,
        "rare": pytest.approx(3.0),
        "rarest": watch_module.LONGEST_S,
    }
    assert {item.metric: item.every_s for item in watch.latest()} == {"often": 1.0, "rare": 10.0}


def test_a_number_that_is_none_is_no_reading(a: Endpoint, notes: Notes, asked: Asked, watching: Make) -> None:
    asked.answers["age"] = Answer((({}, math.nan),))
    watching(a, system=of_sources(MetricSource("age", "", promql="q")), readers=asked).read_now()
    assert [(item.value, item.detail) for item in notes.readings("age")] == [(None, "age is nan")]


def test_alerts_of_a_server_fire_by_the_names_that_are_asked_for(
    a: Endpoint, notes: Notes, asked: Asked, watching: Make
) -> None:
    system = of_sources(alerts=(AlertSource("Slow", "", server="alertmanager"),))

    def alert(name: str, state: str) -> Sample:
        return Sample("ALERTS", {"alertname": name, "alertstate": state, "severity": "page"}, 1.0)

    asked.fires = Scraped((alert("Slow", "suppressed"), alert("Other", "firing")))
    watching(a, system=system, readers=asked).start()
    until(lambda: notes.readings("alerts", "alertmanager"))
    assert notes.changes() == []
    asked.fires = Scraped((alert("Slow", "firing"),))
    until(lambda: notes.changes() == [True])
    asked.fires = Scraped((), "it answered 503")
    until(lambda: notes.readings("alerts", "alertmanager")[-1].detail == "it answered 503")
    until(lambda: notes.changes() == [True, False])


COUNTS = """ok_total{tier="1",code="200"} 90
ok_total{tier="1",code="201"} 5
all_total{tier="1",code="200"} 100
took_seconds_bucket{tier="1",le="0.1"} 60
took_seconds_bucket{tier="1",le="+Inf"} 100
"""


def test_observed_traffic_is_counted_by_the_labels_that_are_declared(a: Endpoint, notes: Notes, watching: Make) -> None:
    known = Indicators("web", good="ok_total", total="all_total", histogram="took_seconds", labels=("tier",))
    a.metrics = COUNTS
    system = replace(of_sources(), indicators=known)
    watch = watching(a, system=system, observed=True)
    watch.read_now()
    watch.read_now()
    assert {(item.metric, item.value, *item.labels.values()) for item in notes.all_readings()} == {
        ("observed.good", 95, "1"),
        ("observed.total", 100, "1"),
        ("observed.bucket", 60, "1", "0.1"),
        ("observed.bucket", 100, "1", "+Inf"),
        ("served", 100),
    }
    assert [len(item.seen) for item in watch.counted()] == [2, 2, 2, 2]
    assert watch.counted()[0].labels == {"instance": "a", "tier": "1"}
    notes.events.clear()
    watching(a, system=system).read_now()
    assert notes.all_readings() == [], "with a load of our own the requests are counted here"


def test_a_counter_in_doubt_is_counted_wholly_or_not_at_all(a: Endpoint, notes: Notes, watching: Make) -> None:
    a.metrics = 'all_total{code="200"} 5\nall_total{code="500"} NaN\n'
    system = replace(of_sources(), indicators=Indicators("web", total="all_total"))
    watching(a, system=system, observed=True).read_now()
    assert [item.value for item in notes.readings("observed.total")] == [None]
    many = "".join(f'all_total{{user="{number}"}} 1\n' for number in range(1001))
    a.metrics = many
    crowded = replace(system, indicators=Indicators("web", total="all_total", labels=("user",)))
    watching(a, system=crowded, observed=True).read_now()
    assert "all_total has 1,001 series by its labels" in notes.readings("observed.total")[-1].detail
