"""What a system file says can be read of the system: resolved, and every name in it looked up."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from stormdrill.model.system import HopCounters, Pressure
from stormdrill.spec.files_sources import PressureFile
from stormdrill.spec.scalars import instead
from stormdrill.spec.yaml import Document

Path = tuple[str | int, ...]


def pressure_of(file: PressureFile | None) -> Pressure:
    if file is None:
        return Pressure()
    return Pressure(
        depth=(file.queue and file.queue.depth) or "",
        limit=(file.queue and file.queue.limit) or "",
        in_flight=file.in_flight or "",
        memory=file.memory or "",
        hops=tuple(HopCounters(name, hop.received, hop.sent) for name, hop in file.hops.items()),
        breaker=(file.breaker and file.breaker.open) or "",
        probes=(file.breaker and file.breaker.probes) or "",
        hedges=file.hedges or "",
    )


def check_pressure(document: Document, file: PressureFile, metrics: Collection[str]) -> None:
    """Every name is one of `metrics`."""
    if document.broken("metrics"):
        return
    for path, name in _metrics_named(file):
        if name and name not in metrics and not document.broken("backpressure", *path):
            place = document.place("backpressure", *path)
            fix = instead(name, metrics, "metrics") if metrics else f"add metrics: {{{name}: {{…}}}}"
            document.problem(place, f"unknown metric {name}", fix)


def _metrics_named(file: PressureFile) -> Iterable[tuple[Path, str | None]]:
    if file.queue:
        yield ("queue", "depth"), file.queue.depth
        yield ("queue", "limit"), file.queue.limit
    yield ("in_flight",), file.in_flight
    yield ("memory",), file.memory
    for name, hop in file.hops.items():
        yield ("hops", name, "received"), hop.received
        yield ("hops", name, "sent"), hop.sent
    if file.breaker:
        yield ("breaker", "open"), file.breaker.open
        yield ("breaker", "probes"), file.breaker.probes
    yield ("hedges",), file.hedges
