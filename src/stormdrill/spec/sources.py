"""What a system file says can be read of the system: resolved, and every name in it looked up."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator

from stormdrill.model.mechanism import BLOCKED
from stormdrill.model.system import (
    AlertSource,
    HopCounters,
    Indicators,
    MetricSource,
    Pressure,
    Servers,
    Traffic,
)
from stormdrill.model.units import parse_rate
from stormdrill.spec.expression import LOAD_METRICS
from stormdrill.spec.files_sources import (
    AlertFile,
    IndicatorsFile,
    MetricFile,
    PressureFile,
    ServedFile,
    ServerFile,
    ServersFile,
    TrafficFile,
)
from stormdrill.spec.files_system import SystemFile
from stormdrill.spec.runbook_path import parse_path
from stormdrill.spec.scalars import instead, seconds
from stormdrill.spec.yaml import Document, Node

Path = tuple[str | int, ...]
SOURCES = ("prometheus", "promql", "command", "http")
TAKEN = frozenset({*LOAD_METRICS, "alert", "alerts", "served", "ledger", "hop_bytes", BLOCKED})
"""Names of readings that stormdrill takes itself."""
_LETS_IN = re.compile(r"authorization|cookie|token|secret|password|api-?key", re.IGNORECASE)
"""Names of headers whose value is one to keep."""
_FITS = {"prometheus": ("from", "path"), "promql": (), "command": ("value",), "http": ("from", "value")}
"""The keys that go with each kind of source, besides labels, unit and every."""


def metric_of(name: str, file: MetricFile) -> MetricSource:
    fixed = file.labels if isinstance(file.labels, dict) else {}
    return MetricSource(
        name=name,
        service=file.from_ or "",
        prometheus=file.prometheus or "",
        path=file.path or "/metrics",
        labels=() if isinstance(file.labels, dict) else tuple(file.labels),
        promql=file.promql or "",
        command=tuple(str(word) for word in file.command or ()),
        http=file.http or "",
        value=file.value or "",
        unit=file.unit or "",
        every_s=seconds(file.every) if file.every else 1.0,
        constants={label: str(value) for label, value in fixed.items()},
    )


def served_of(file: ServedFile | None) -> MetricSource | None:
    if file is None:
        return None
    return MetricSource("served", file.from_ or "", file.prometheus, file.path, tuple(file.labels))


def alert_of(name: str, file: AlertFile) -> AlertSource:
    return AlertSource(name, file.from_ or "", file.prometheus or "", tuple(file.labels), file.server or "")


def servers_of(file: ServersFile | None) -> Servers:
    if file is None:
        return Servers()
    url, headers = _server(file.prometheus)
    alert_url, alert_headers = _server(file.alertmanager)
    return Servers(url, alert_url, headers, alert_headers)


def _server(file: str | ServerFile | None) -> tuple[str, dict[str, str]]:
    if isinstance(file, ServerFile):
        return file.url.rstrip("/"), dict(file.headers)
    return (file or "").rstrip("/"), {}


def header_tables(document: Document) -> Iterator[Node]:
    """The tables of headers as they stand in the file: the only place besides a service's env for a secret."""
    for server in ("prometheus", "alertmanager"):
        node = document.node("servers", server, "headers")
        if node is not None:
            yield node


def indicators_of(file: IndicatorsFile | None) -> Indicators | None:
    if file is None:
        return None
    return Indicators(
        service=file.from_,
        path=file.path,
        good=file.good or "",
        total=file.total or "",
        histogram=(file.histogram or "").removesuffix("_bucket"),
        labels=tuple(file.labels),
    )


def traffic_of(file: TrafficFile | None) -> Traffic | None:
    """None for one that was refused, too."""
    if file is None or not file.rate:
        return None
    return Traffic(parse_rate(file.rate), seconds(file.window))


def check_sources(document: Document, file: SystemFile) -> None:
    """Everything that one value alone can't show to be wrong."""
    for name, metric in file.metrics.items():
        if name in TAKEN:
            what = f"{name} is a built-in metric" if name in LOAD_METRICS else f"{name} is a name of stormdrill's own"
            document.problem(document.key("metrics", name), what, "choose another name")
        _check_metric(document, name, metric, file.servers)
    for name, alert in file.alerts.items():
        _check_alert(document, name, alert, file.servers)
    if file.servers:
        _check_headers(document, file.servers)
    if file.indicators:
        _check_indicators(document, file.indicators)
    if file.traffic and file.traffic.rate and parse_rate(file.traffic.rate) == 0:
        document.problem(document.place("traffic", "rate"), "a rate of 0", "write for instance 40/s")
    if file.backpressure:
        check_pressure(document, file.backpressure, [*file.metrics])


def _check_headers(document: Document, servers: ServersFile) -> None:
    """What lets somebody in must be declared as a secret: as text it would stand in every record of a run."""
    for name in ("prometheus", "alertmanager"):
        server = getattr(servers, name)
        for header, value in server.headers.items() if isinstance(server, ServerFile) else ():
            at: Path = ("servers", name, "headers", header)
            if _LETS_IN.search(header) and value and "${secret:" not in value and not document.broken(*at):
                fix = f'declare token: {{secret: true, env: NAME}} under parameters, and write {header}: "$token"'
                document.problem(document.place(*at), f"{header} as text would stand in the record of each run", fix)


def _keys(document: Document, *path: str) -> list[str]:
    """As they stand in the file, misspelt ones left out."""
    return list(getattr(document.node(*path), "entries", {}))


def _check_metric(document: Document, name: str, metric: MetricFile, servers: ServersFile | None) -> None:
    at: Path = ("metrics", name)
    if document.broken(*at):
        return
    there = _keys(document, *map(str, at))
    sources = [key for key in there if key in SOURCES]
    if len(sources) != 1:
        if sources:
            what = f"{sources[1]} beside {sources[0]}: a metric has one source"
            document.problem(document.key(*at, sources[1]), what, "keep one, or make the other a metric of its own")
        else:
            what = f"the metric {name} has no source"
            fix = f"add one of {', '.join(SOURCES)}: {{prometheus: SAMPLE, from: SERVICE}} reads a service's metrics"
            document.problem(document.key(*at), what, fix)
        return
    (source,) = sources
    for key in ("from", "path", "value"):
        if key in there and key not in _FITS[source]:
            what = f"{key} with {source}: {_WHY[key, source]}"
            document.problem(document.key(*at, key), what, "remove it")
    if "from" in _FITS[source] and "from" not in there:
        document.problem(document.key(*at), f"the metric {name} lacks from", "add from: the service that is asked")
    if source == "promql" and (servers is None or not servers.prometheus):
        fix = f"add servers: {{prometheus: {_USUAL['prometheus']}}}"
        document.problem(document.key(*at, "promql"), "no Prometheus server to ask", fix)
    _check_answer(document, at, source, metric)


def _check_answer(document: Document, at: Path, source: str, metric: MetricFile) -> None:
    """What is made of an answer, whoever gives it."""
    if source in ("command", "http") and isinstance(metric.labels, list) and metric.labels:
        what = f"labels of a {source}: its answer is one number, which carries none"
        document.problem(document.place(*at, "labels"), what, f"write {{{metric.labels[0]}: VALUE}} for what it is of")
    for index, word in enumerate(metric.command or ()):
        if "$port" in str(word):
            what = "$port in a metric's command: it belongs to no instance"
            document.problem(
                document.place(*at, "command", index), what, "write the address, or read it from: a service"
            )
    if metric.value:
        try:
            parse_path(metric.value)
        except ValueError as error:
            what, _, fix = str(error).partition("; ")
            document.problem(document.place(*at, "value"), what, fix)


_USUAL = {"prometheus": "http://127.0.0.1:9090", "alertmanager": "http://127.0.0.1:9093"}
_ONCE = "it is asked once, not of each instance"
_WHY = {
    ("from", "promql"): _ONCE,
    ("from", "command"): _ONCE,
    ("path", "promql"): _ONCE,
    ("path", "command"): _ONCE,
    ("path", "http"): "http is the path itself",
    ("value", "prometheus"): "a sample is a number already",
    ("value", "promql"): "a query gives a number already",
}


def _check_alert(document: Document, name: str, alert: AlertFile, servers: ServersFile | None) -> None:
    at: Path = ("alerts", name)
    if document.broken(*at):
        return
    there = _keys(document, *map(str, at))
    if "server" in there and "prometheus" in there:
        what = "server beside prometheus: an alert has one source"
        document.problem(document.key(*at, "server"), what, "keep one; server: prometheus asks a Prometheus server")
    elif "server" in there and "from" in there:
        document.problem(document.key(*at, "from"), "from with server: a server knows of all instances", "remove it")
    elif "server" in there:
        if alert.server and not (servers and getattr(servers, alert.server)):
            fix = (
                f"add servers: {{{alert.server}: http://127.0.0.1:{9093 if alert.server == 'alertmanager' else 9090}}}"
            )
            document.problem(document.place(*at, "server"), f"no {alert.server} to ask under servers", fix)
    elif "prometheus" not in there:
        fix = "add prometheus: PATH and from: SERVICE, or server: prometheus or alertmanager"
        document.problem(document.key(*at), f"the alert {name} has no source", fix)
    elif "from" not in there:
        document.problem(document.key(*at), f"the alert {name} lacks from", "add from: the service that is asked")


def _check_indicators(document: Document, file: IndicatorsFile) -> None:
    if document.broken("indicators"):
        return
    there = _keys(document, "indicators")
    if "good" in there and "total" not in there:
        what = "good without total: of how many is not known"
        document.problem(document.key("indicators", "good"), what, "add total: a counter of all requests")
    elif "total" not in there and "histogram" not in there:
        what = "indicators that count nothing"
        document.problem(document.key("indicators"), what, "add good and total, or histogram")


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
