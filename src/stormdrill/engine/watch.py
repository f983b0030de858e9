"""Looks at the running system at a steady pace: metrics, alerts, served counters, and the host it shares.

Every look has a limit; one that brings nothing fresh is written down as such. A frozen instance holds up its own
look only: each endpoint is read in a thread of its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from msgspec import Struct

from stormdrill.core.fold import alert_key
from stormdrill.model.event import AlertChanged, Event, Reading
from stormdrill.model.system import AlertSource, MetricSource, System
from stormdrill.ports import Instance, Scrape, Scraped

ALERT_EVERY_S = 0.25
METRIC_EVERY_S = 1.0
LIMIT_S = 0.9
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
        self._seen_by: dict[str, dict[str, dict[str, str]]] = {}
        self._readable: dict[str, bool] = {}
        self._lock = threading.Lock()
        self._latest: dict[tuple[str, str, str], Fresh] = {}
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

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
        """One look at all metrics, waited for; for the edges of phases."""
        for future in [self._pool.submit(self._read_metrics, *item) for item in self._metric_endpoints().items()]:
            future.result(timeout=LIMIT_S + 1)

    def _run(self) -> None:
        next_metrics = time.monotonic()
        while not self._stop.wait(ALERT_EVERY_S):
            for endpoint, sources in self._alert_endpoints().items():
                self._submit(endpoint, self._read_alerts, sources)
            if time.monotonic() >= next_metrics:
                next_metrics += METRIC_EVERY_S
                for endpoint, metrics in self._metric_endpoints().items():
                    self._submit(endpoint, self._read_metrics, metrics)

    def _submit(self, endpoint: Endpoint, read: Callable[..., None], sources: object) -> None:
        """One look at a time an endpoint: a slow one is not asked again before it has answered or timed out."""
        before = self._under_way.get(endpoint)
        if before is None or before.done():
            self._under_way[endpoint] = self._pool.submit(read, endpoint, sources)

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
        for metric in metrics:
            found = [item for item in scraped.samples if item.name == metric.prometheus]
            if not found:
                why = scraped.detail or f"no sample {metric.prometheus} at {endpoint.url}"
                self._record(Reading(metric.name, endpoint.instance, None, {}, why), asked_ms)
            if metric.name == SERVED and found:
                total = sum(item.value for item in found)
                self._note(metric.name, endpoint.instance, total, {}, asked_ms)
                continue
            for item in found:
                self._note(metric.name, endpoint.instance, item.value, item.labels, asked_ms)

    def _note(self, metric: str, instance: str, value: float, labels: Mapping[str, str], at_ms: float) -> None:
        known = {**self._labels.get(instance, {}), "instance": instance, **labels}
        self._latest[metric, instance, repr(sorted(labels.items()))] = Fresh(metric, value, at_ms, known)
        self._record(Reading(metric, instance, value, dict(labels), ""), at_ms)

    def _read_alerts(self, endpoint: Endpoint, sources: list[AlertSource]) -> None:
        asked_ms = time.monotonic() * 1000
        scraped = self._scrape(endpoint.url, LIMIT_S)
        if self._readable.get(endpoint.instance) != scraped.fresh:
            self._readable[endpoint.instance] = scraped.fresh
            seen = 1.0 if scraped.fresh else None
            self._record(Reading(ALERTS, endpoint.instance, seen, {}, scraped.detail), asked_ms)
        if scraped.fresh:
            with self._lock:
                self._seen_by[endpoint.instance] = _firing(scraped, {item.name for item in sources})
                self._compare(endpoint.instance)

    def _compare(self, source: str) -> None:
        """An alert fires when any instance says so; it is over when none does any more."""
        now: dict[str, dict[str, str]] = {}
        for seen in self._seen_by.values():
            now.update(seen)
        before = set(self._firing)
        for key, labels in now.items():
            if key not in before:
                self._record(AlertChanged(key.split("|")[0], True, labels, source), None)
        for key in before - set(now):
            self._record(AlertChanged(key.split("|")[0], False, self._firing[key], source), None)
        self._firing = now


def _firing(scraped: Scraped, wanted: set[str]) -> dict[str, dict[str, str]]:
    """Prometheus' own form: `ALERTS{alertname="RegionDown",alertstate="firing",region="eu"} 1`."""
    found: dict[str, dict[str, str]] = {}
    for item in scraped.samples:
        name = item.labels.get("alertname", "")
        if item.name == "ALERTS" and name in wanted and item.value and item.labels.get("alertstate") == "firing":
            labels = {key: value for key, value in item.labels.items() if key not in ("alertname", "alertstate")}
            found[alert_key(name, labels)] = labels
    return found
