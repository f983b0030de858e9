"""Which looks at a system there are: one for each endpoint, query, command and server, with what is wanted of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct

from stormdrill.model.system import AlertSource, Indicators, MetricSource, System
from stormdrill.ports import Instance, Sample

SERVED = "served"
"""Name under which the counter that shows exposure is journalled."""
GOOD, TOTAL, BUCKET = "observed.good", "observed.total", "observed.bucket"
"""Names under which the system's own counters of its traffic are journalled; no metric of a file can be called so."""
COUNTED = (GOOD, TOTAL, BUCKET)
MOST_SERIES = 1000
"""Of one counter on one instance, told apart by the labels that are declared."""


class Look(Struct, frozen=True):
    """What is asked at once: by name of the instance (or server), and where or what."""

    instance: str
    where: str
    """A URL; for a query or a command the metric's name."""
    every_s: float = 1.0


def metric_looks(
    system: System, instances: Iterable[Instance], *, observed: bool
) -> dict[Look, tuple[str, list[MetricSource]]]:
    """Each look with the address that is asked, and the metrics that are wanted of it."""
    found: dict[Look, tuple[str, list[MetricSource]]] = {}
    counted = counters(system.indicators) if observed else []
    served = served_of(system, observed=observed)
    for instance in instances:
        if not instance.address:
            continue
        wanted = [item for item in [*system.metrics, *counted] if item.service == instance.service]
        if served is not None and served.service in ("", instance.service):
            wanted.append(served)
        for metric in wanted:
            look = Look(instance.name, f"http://{instance.address}{metric.http or metric.path}", metric.every_s)
            if metric.http:  # of two numbers in one answer each is a look of its own
                look = Look(instance.name, f"{look.where} {metric.value}", metric.every_s)
            found.setdefault(look, (instance.address, []))[1].append(metric)
    for metric in system.metrics:
        if metric.promql or metric.command:
            found[Look("", metric.name, metric.every_s)] = ("", [metric])
    return found


def alert_looks(system: System, instances: Iterable[Instance], server_every: float) -> dict[Look, list[AlertSource]]:
    """`server_every`: how many times as seldom a server is asked as an instance."""
    found: dict[Look, list[AlertSource]] = {}
    for instance in instances:
        for alert in system.alerts:
            if not alert.server and alert.service == instance.service and instance.address:
                look = Look(instance.name, f"http://{instance.address}/{alert.prometheus}")
                found.setdefault(look, []).append(alert)
    for alert in system.alerts:
        if alert.server:
            found.setdefault(Look(alert.server, alert.server, server_every), []).append(alert)
    return found


def served_of(system: System, *, observed: bool) -> MetricSource | None:
    """The counter that shows exposure: the one that is declared, or the one of observed traffic."""
    known = system.indicators
    if system.served is not None or not observed or known is None or not known.total:
        return system.served
    return MetricSource(SERVED, known.service, known.total, known.path)


def counters(known: Indicators | None) -> list[MetricSource]:
    """What the indicators count, as metrics that can be read."""
    if known is None:
        return []
    bucket = f"{known.histogram}_bucket" if known.histogram else ""
    named = ((GOOD, known.good, known.labels), (TOTAL, known.total, known.labels), (BUCKET, bucket, known.labels))
    return [
        MetricSource(name, known.service, sample, known.path, (*labels, "le") if name == BUCKET else labels)
        for name, sample, labels in named
        if sample
    ]


def summed(samples: Sequence[Sample], labels: Sequence[str]) -> list[Sample]:
    """One sample for each combination of `labels`; what tells them apart besides is added up."""
    totals: dict[tuple[str, ...], float] = {}
    firsts: dict[tuple[str, ...], Sample] = {}
    for item in samples:
        key = tuple(item.labels.get(label, "") for label in labels)
        totals[key] = totals.get(key, 0.0) + item.value
        firsts.setdefault(key, item)
    return [
        Sample(first.name, {label: first.labels[label] for label in labels if label in first.labels}, totals[key])
        for key, first in firsts.items()
    ]
