"""Looks at the running system at a steady pace: metrics, alerts, served counters, and the host it shares.

Every look has a limit; one that brings nothing fresh is written down as such. A frozen instance, a command that hangs
or a server that is slow holds up its own look only: each is taken in a thread of its own.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Protocol, runtime_checkable

from msgspec import Struct

from stormdrill.core.fold import alert_key
from stormdrill.engine.looks import COUNTED, MOST_SERIES, SERVED, Look, alert_looks, metric_looks, summed
from stormdrill.engine.supervised import OnDefect, Supervised, raise_in_thread
from stormdrill.model.event import AlertChanged, Event, Reading
from stormdrill.model.system import AlertSource, MetricSource, System
from stormdrill.ports import Answer, Instance, Readers, Sample, Scrape, Scraped

ALERT_EVERY_S = 0.25
SERVER_EVERY = 2.0
"""Of that: a server evaluates its rules far more seldom than instances change their minds."""
METRIC_EVERY_S = 1.0
"""The pace of a metric that says nothing else; `every` is a multiple of it."""
LIMIT_S = 0.9
"""Of a look that comes every second; rarer ones have nine tenths of their pace."""
LONGEST_S = 5.0
BLIND_LOOKS = 2
"""After so many looks without an answer, what an instance said of its alerts is forgotten; one slow look is not."""
ALERTS = "alerts"
"""Journalled with 1 when an instance's alerts can be read, without a value when they can't, at each change."""
KEPT_LOOKS = 5
"""Of counters of observed traffic, for the live view."""
OWN_THREADS = 24


@runtime_checkable
class Far(Protocol):
    """A target whose instances may be reached by a way that takes long by itself."""

    look_limit_s: float
    """What a look at one of them may take."""


class Fresh(Struct, frozen=True):
    """One reading, with the labels of its sample and of its instance."""

    metric: str
    value: float
    at_ms: float
    labels: dict[str, str]
    every_s: float = 1.0
    """How often it is read."""


class Counted(Struct, frozen=True):
    """One series of a counter of observed traffic, as seen lately."""

    metric: str
    labels: dict[str, str]
    seen: tuple[tuple[float, float], ...]
    """When (monotonic, ms) and how much, the oldest first."""


class Watch(Supervised):
    """Runs until `stop`. `record` journals an event and may be called from any thread."""

    def __init__(
        self,
        system: System,
        inventory: Callable[[], Iterable[Instance]],
        scrape: Scrape,
        record: Callable[[Event, float | None], object],
        *,
        readers: Readers | None = None,
        observed: bool = False,
        least_s: float = 0.0,
        on_defect: OnDefect = raise_in_thread,
    ) -> None:
        """`least_s`: so much time a look has at least, where the way to instances is long."""
        self._limit_s = max(LIMIT_S, least_s)
        super().__init__("watch", on_defect, join_s=self._limit_s + 1)
        self._system = system
        self._inventory = inventory
        self._scrape = scrape
        self._record = record
        self._readers = readers
        self._observed = observed
        self._labels = {item.name: item.labels for item in system.instances}
        own = [item for item in system.metrics if not item.prometheus]
        self._pool = ThreadPoolExecutor(max_workers=OWN_THREADS + 2 * len(own), thread_name_prefix="watch")
        self._under_way: dict[Look, Future[None]] = {}
        self._due_s: dict[Look, float] = {}
        self._firing: dict[str, dict[str, str]] = {}
        self._seen_by: dict[Look, dict[str, dict[str, str]]] = {}
        self._unread: dict[Look, int] = {}
        self._on_defect = on_defect
        self._lock = threading.Lock()
        self._latest: dict[tuple[str, str, str], Fresh] = {}
        self._counted: dict[tuple[str, str, str], deque[tuple[float, float]]] = {}
        self._counted_labels: dict[tuple[str, str, str], dict[str, str]] = {}

    def latest(self) -> list[Fresh]:
        """The newest fresh reading of each series, for guards and the live view."""
        return list(self._latest.values())

    def counted(self) -> list[Counted]:
        """The counters of observed traffic over the last looks, for guards and the live view."""
        with self._lock:
            return [Counted(key[0], self._counted_labels[key], tuple(seen)) for key, seen in self._counted.items()]

    def stop(self) -> None:
        super().stop()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def read_now(self) -> None:
        """One look at all metrics, waited for; for the edges of phases. What does not come in time is missing."""
        looks = [self._look(self._read_metrics, *item) for item in self._metric_looks().items()]
        wait([look for look in looks if look is not None], timeout=self._limit_s + 1)

    def _run(self) -> None:
        while not self._stop.wait(ALERT_EVERY_S):
            alerts = alert_looks(self._system, self._inventory(), SERVER_EVERY)
            self._forget_all_but(alerts)
            for look, sources in alerts.items():
                if self._free(look) and self._due(look, ALERT_EVERY_S):
                    self._submit(look, self._read_alerts, sources)
            for look, wanted in self._metric_looks().items():
                if self._free(look) and self._due(look, METRIC_EVERY_S):
                    self._submit(look, self._read_metrics, wanted)

    def _due(self, look: Look, pace_s: float) -> bool:
        """Whether it is time for this look; the next is one pace after this one was due."""
        now_s, every_s = time.monotonic(), look.every_s * pace_s
        due_s = self._due_s.get(look, now_s)
        if now_s < due_s - ALERT_EVERY_S / 2:
            return False
        self._due_s[look] = max(due_s + every_s, now_s)
        return True

    def _free(self, look: Look) -> bool:
        """One at a time of a look: a slow one is asked again when it has answered or timed out, and at once then."""
        before = self._under_way.get(look)
        return before is None or before.done()

    def _submit(self, look: Look, read: Callable[..., None], sources: object) -> None:
        before = self._under_way.get(look)
        if before is not None and not before.cancelled():
            before.result()  # raises only what nobody was told of
        taken = self._look(read, look, sources)
        if taken is not None:
            self._under_way[look] = taken

    def _look(self, read: Callable[..., None], look: Look, sources: object) -> Future[None] | None:
        """None when the watch is over."""

        def supervised() -> None:
            try:
                read(look, sources)
            except BaseException as error:
                self._on_defect(error)

        try:
            return self._pool.submit(supervised)
        except RuntimeError:  # the pool has been shut down meanwhile
            if self._stop.is_set():
                return None
            raise

    def _metric_looks(self) -> dict[Look, tuple[str, list[MetricSource]]]:
        return metric_looks(self._system, self._inventory(), observed=self._observed)

    def _read_metrics(self, look: Look, wanted: tuple[str, list[MetricSource]]) -> None:
        address, metrics = wanted
        asked_ms = time.monotonic() * 1000
        limit_s = min(max(self._limit_s, LIMIT_S * look.every_s), LONGEST_S)
        if not metrics[0].prometheus:
            self._note_answer(metrics[0], look.instance, self._ask(metrics[0], address, limit_s), asked_ms)
            return
        scraped = self._scrape(look.where, limit_s)
        if self._stop.is_set():
            return  # a rare look may come back long after the end: its reading belongs to nothing any more
        wall_ms = time.time() * 1000
        for metric in metrics:
            found = [item for item in scraped.samples if item.name == metric.prometheus]
            if not found:
                why = scraped.detail or f"no sample {metric.prometheus} at {look.where}"
                self._record(Reading(metric.name, look.instance, None, {}, why), asked_ms)
            elif metric.name == SERVED:
                self._note_served(metric, look.instance, found, wall_ms, asked_ms)
            elif metric.name in COUNTED:
                self._note_counted(metric, look.instance, found, wall_ms, asked_ms)
            else:
                for item in found:
                    self._note(metric, look.instance, item, item.doubt(wall_ms), asked_ms)

    def _ask(self, metric: MetricSource, address: str, limit_s: float) -> Answer:
        if self._readers is None:
            return Answer((), "nobody here reads this kind of source")
        return self._readers.read(metric, address, limit_s)

    def _note_answer(self, metric: MetricSource, instance: str, answer: Answer, asked_ms: float) -> None:
        if self._stop.is_set():
            return
        if not answer.fresh:
            self._record(Reading(metric.name, instance, None, {}, answer.detail), asked_ms)
        for labels, value in answer.values if answer.fresh else ():
            item = Sample(metric.name, labels, value)
            self._note(metric, instance, item, item.doubt(None), asked_ms)

    def _note_served(
        self, metric: MetricSource, asked: str, found: list[Sample], wall_ms: float, asked_ms: float
    ) -> None:
        for instance, of_it in self._by_instance(asked, found).items():
            doubt = next((why for item in of_it if (why := item.doubt(wall_ms))), "")
            total = Sample(metric.prometheus, {}, sum(item.value for item in of_it))
            self._note(metric, instance, total, doubt or total.doubt(wall_ms), asked_ms)

    def _by_instance(self, asked: str, samples: list[Sample]) -> dict[str, list[Sample]]:
        """An exporter speaks for others: a sample whose label `instance` names one of the system's is that one's."""
        found: dict[str, list[Sample]] = {}
        for item in samples:
            named = item.labels.get("instance", "")
            found.setdefault(named if named in self._labels else asked, []).append(item)
        return found

    def _note_counted(
        self, metric: MetricSource, instance: str, found: list[Sample], wall_ms: float, asked_ms: float
    ) -> None:
        """All series of a counter or none: a part of them counts something else."""
        totals = summed(found, metric.labels)
        doubt = next((why for item in found if (why := item.doubt(wall_ms))), "")
        if len(totals) > MOST_SERIES:
            doubt = f"{metric.prometheus} has {len(totals):,} series by its labels, {MOST_SERIES:,} are the most"
        if doubt:
            self._record(Reading(metric.name, instance, None, {}, doubt), asked_ms)
            return
        for item in totals:
            self._record(Reading(metric.name, instance, item.value, dict(item.labels), ""), asked_ms)
            key = (metric.name, instance, repr(sorted(item.labels.items())))
            with self._lock:
                self._counted_labels[key] = {**self._labels.get(instance, {}), "instance": instance, **item.labels}
                self._counted.setdefault(key, deque(maxlen=KEPT_LOOKS)).append((asked_ms, item.value))

    def _note(self, metric: MetricSource, instance: str, item: Sample, doubt: str, at_ms: float) -> None:
        """A sample in doubt is no reading: it is written down without a value, and guards see nothing fresh in it."""
        labels = {**metric.constants, **item.labels}
        key = (metric.name, instance, repr(sorted(labels.items())))
        if doubt:
            self._latest.pop(key, None)
            self._record(Reading(metric.name, instance, None, labels, doubt), at_ms)
            return
        value = item.value / 1000 if metric.unit == "ms" else item.value
        known = {**self._labels.get(instance, {}), "instance": instance, **labels}
        self._latest[key] = Fresh(metric.name, value, at_ms, known, metric.every_s)
        self._record(Reading(metric.name, instance, value, labels, ""), at_ms)

    def _read_alerts(self, look: Look, sources: list[AlertSource]) -> None:
        asked_ms = time.monotonic() * 1000
        scraped = self._ask_alerts(look, sources[0].server)
        doubt = scraped.detail or _doubt(scraped, time.time() * 1000)
        unread = self._unread.get(look)
        if unread is None or bool(doubt) != bool(unread):
            self._record(Reading(ALERTS, look.instance, None if doubt else 1.0, {}, doubt), asked_ms)
        unread = (unread or 0) + 1 if doubt else 0
        with self._lock:
            self._unread[look] = unread
            if not doubt:
                self._seen_by[look] = _firing(scraped, {item.name for item in sources})
            elif unread >= BLIND_LOOKS:
                self._seen_by.pop(look, None)
            self._compare(look.instance)

    def _ask_alerts(self, look: Look, server: str) -> Scraped:
        if not server:
            return self._scrape(look.where, self._limit_s)
        if self._readers is None:
            return Scraped((), "nobody here asks servers for alerts")
        return self._readers.alerts(server, self._limit_s)

    def _forget_all_but(self, known: Mapping[Look, object]) -> None:
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
