"""Looks at the running system at a steady pace: metrics, alerts, served counters, and the host it shares.

Every look has a limit; one that brings nothing fresh is written down as such. A frozen instance holds up its own
look only: each endpoint is read in a thread of its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait

from msgspec import Struct

from stormdrill.core.fold import alert_key
from stormdrill.engine.supervised import OnDefect, raise_in_thread, thread
from stormdrill.model.event import AlertChanged, Event, Reading
from stormdrill.model.system import AlertSource, MetricSource, System
from stormdrill.ports import Instance, Sample, Scrape, Scraped

ALERT_EVERY_S = 0.25
METRIC_EVERY_S = 1.0
LIMIT_S = 0.9
BLIND_LOOKS = 2
"""After so many looks without an answer, what an instance said of its alerts is forgotten; one slow look is not."""
ALERTS = "alerts"
"""Journalled with 1 when an instance's alerts can be read, without a value when they can't, at each change."""
SERVED = "served"
"""Name under which the counter that shows exposure is journalled."""


class Fresh(Struct, frozen=True):
    """One reading, with the labels of its sample and of its instance."""

    metric: str
    value: float
    at_ms: float
    labels: dict[str, str]


class Endpoint(Struct, frozen=True):
    instance: str
    url: str


class Watch:
    """Runs until `stop`. `record` journals an event and may be called from any thread."""

    def __init__(
        self,
        system: System,
        inventory: Callable[[], Iterable[Instance]],
        scrape: Scrape,
        record: Callable[[Event, float | None], object],
        *,
        on_defect: OnDefect = raise_in_thread,
    ) -> None:
        self._system = system
        self._inventory = inventory
        self._scrape = scrape
        self._record = record
        self._labels = {item.name: item.labels for item in system.instances}
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(max_workers=24, thread_name_prefix="watch")
        self._under_way: dict[Endpoint, Future[None]] = {}
        self._firing: dict[str, dict[str, str]] = {}
        self._seen_by: dict[Endpoint, dict[str, dict[str, str]]] = {}
        self._unread: dict[Endpoint, int] = {}
        self._on_defect = on_defect
        self._lock = threading.Lock()
        self._latest: dict[tuple[str, str, str], Fresh] = {}
        self._thread = thread("watch", self._run, on_defect)

    def latest(self) -> list[Fresh]:
        """The newest fresh reading of each series, for guards and the live view."""
        return list(self._latest.values())

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=LIMIT_S + 1)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def read_now(self) -> None:
        """One look at all metrics, waited for; for the edges of phases. What does not come in time is missing."""
        looks = [self._look(self._read_metrics, *item) for item in self._metric_endpoints().items()]
        wait([look for look in looks if look is not None], timeout=LIMIT_S + 1)

    def _run(self) -> None:
        next_metrics = time.monotonic()
        while not self._stop.wait(ALERT_EVERY_S):
            alerts = self._alert_endpoints()
            self._forget_all_but(alerts)
            for endpoint, sources in alerts.items():
                self._submit(endpoint, self._read_alerts, sources)
            if time.monotonic() >= next_metrics:
                next_metrics += METRIC_EVERY_S
                for endpoint, metrics in self._metric_endpoints().items():
                    self._submit(endpoint, self._read_metrics, metrics)

    def _submit(self, endpoint: Endpoint, read: Callable[..., None], sources: object) -> None:
        """One look at a time an endpoint: a slow one is not asked again before it has answered or timed out."""
        before = self._under_way.get(endpoint)
        if before is not None and not before.done():
            return
        if before is not None and not before.cancelled():
            before.result()  # raises only what nobody was told of
        look = self._look(read, endpoint, sources)
        if look is not None:
            self._under_way[endpoint] = look

    def _look(self, read: Callable[..., None], endpoint: Endpoint, sources: object) -> Future[None] | None:
        """None when the watch is over."""

        def supervised() -> None:
            try:
                read(endpoint, sources)
            except BaseException as error:
                self._on_defect(error)

        try:
            return self._pool.submit(supervised)
        except RuntimeError:  # the pool has been shut down meanwhile
            if self._stop.is_set():
                return None
            raise

    def _metric_endpoints(self) -> dict[Endpoint, list[MetricSource]]:
        found: dict[Endpoint, list[MetricSource]] = {}
        served = self._system.served
        for instance in self._inventory():
            if not instance.address:
                continue
            wanted = [item for item in self._system.metrics if item.service == instance.service]
            if served is not None and served.service in ("", instance.service):
                wanted.append(served)
            for metric in wanted:
                endpoint = Endpoint(instance.name, f"http://{instance.address}{metric.path}")
                found.setdefault(endpoint, []).append(metric)
        return found

    def _alert_endpoints(self) -> dict[Endpoint, list[AlertSource]]:
        found: dict[Endpoint, list[AlertSource]] = {}
        for instance in self._inventory():
            for alert in self._system.alerts:
                if alert.service == instance.service and instance.address:
                    endpoint = Endpoint(instance.name, f"http://{instance.address}/{alert.prometheus}")
                    found.setdefault(endpoint, []).append(alert)
        return found

    def _read_metrics(self, endpoint: Endpoint, metrics: list[MetricSource]) -> None:
        asked_ms = time.monotonic() * 1000
        scraped = self._scrape(endpoint.url, LIMIT_S)
        wall_ms = time.time() * 1000
        for metric in metrics:
            found = [item for item in scraped.samples if item.name == metric.prometheus]
            if metric.name == SERVED and found:
                for instance, of_it in self._by_instance(endpoint.instance, found).items():
                    doubt = next((why for item in of_it if (why := item.doubt(wall_ms))), "")
                    total = Sample(metric.prometheus, {}, sum(item.value for item in of_it))
                    self._note(metric.name, instance, total, doubt or total.doubt(wall_ms), asked_ms)
                continue
            if not found:
                why = scraped.detail or f"no sample {metric.prometheus} at {endpoint.url}"
                self._record(Reading(metric.name, endpoint.instance, None, {}, why), asked_ms)
            for item in found:
                self._note(metric.name, endpoint.instance, item, item.doubt(wall_ms), asked_ms)

    def _by_instance(self, asked: str, samples: list[Sample]) -> dict[str, list[Sample]]:
        """An exporter speaks for others: a sample whose label `instance` names one of the system's is that one's."""
        found: dict[str, list[Sample]] = {}
        for item in samples:
            named = item.labels.get("instance", "")
            found.setdefault(named if named in self._labels else asked, []).append(item)
        return found

    def _note(self, metric: str, instance: str, item: Sample, doubt: str, at_ms: float) -> None:
        """A sample in doubt is no reading: it is written down without a value, and guards see nothing fresh in it."""
        key = (metric, instance, repr(sorted(item.labels.items())))
        if doubt:
            self._latest.pop(key, None)
            self._record(Reading(metric, instance, None, dict(item.labels), doubt), at_ms)
            return
        known = {**self._labels.get(instance, {}), "instance": instance, **item.labels}
        self._latest[key] = Fresh(metric, item.value, at_ms, known)
        self._record(Reading(metric, instance, item.value, dict(item.labels), ""), at_ms)

    def _read_alerts(self, endpoint: Endpoint, sources: list[AlertSource]) -> None:
        asked_ms = time.monotonic() * 1000
        scraped = self._scrape(endpoint.url, LIMIT_S)
        doubt = scraped.detail or _doubt(scraped, time.time() * 1000)
        unread = self._unread.get(endpoint)
        if unread is None or bool(doubt) != bool(unread):
            self._record(Reading(ALERTS, endpoint.instance, None if doubt else 1.0, {}, doubt), asked_ms)
        unread = (unread or 0) + 1 if doubt else 0
        with self._lock:
            self._unread[endpoint] = unread
            if not doubt:
                self._seen_by[endpoint] = _firing(scraped, {item.name for item in sources})
            elif unread >= BLIND_LOOKS:
                self._seen_by.pop(endpoint, None)
            self._compare(endpoint.instance)

    def _forget_all_but(self, known: Mapping[Endpoint, object]) -> None:
        """An instance that left the inventory says nothing any more."""
        with self._lock:
            for endpoint in [item for item in self._seen_by if item not in known]:
                del self._seen_by[endpoint]
                self._compare(endpoint.instance)

    def _compare(self, source: str) -> None:
        """An alert fires when any instance says so; it is over when none that can be read does any more."""
        now: dict[str, dict[str, str]] = {}
        for seen in self._seen_by.values():
            now.update(seen)
        before = self._firing
        self._firing = now
        for key, labels in now.items():
            if key not in before:
                self._record(AlertChanged(key.split("|")[0], True, labels, source), None)
        for key in before.keys() - now.keys():
            self._record(AlertChanged(key.split("|")[0], False, before[key], source), None)


def _doubt(scraped: Scraped, wall_ms: float) -> str:
    """Why these alerts are no fresh reading: one of them is no number, or old."""
    return next((why for item in scraped.samples if item.name == "ALERTS" and (why := item.doubt(wall_ms))), "")


def _firing(scraped: Scraped, wanted: set[str]) -> dict[str, dict[str, str]]:
    """Prometheus' own form: `ALERTS{alertname="RegionDown",alertstate="firing",region="eu"} 1`."""
    found: dict[str, dict[str, str]] = {}
    for item in scraped.samples:
        name = item.labels.get("alertname", "")
        if item.name == "ALERTS" and name in wanted and item.value and item.labels.get("alertstate") == "firing":
            labels = {key: value for key, value in item.labels.items() if key not in ("alertname", "alertstate")}
            found[alert_key(name, labels)] = labels
    return found
