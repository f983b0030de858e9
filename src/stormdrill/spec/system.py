"""Reads a system file: services expanded into instances, sources resolved, every name looked up."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from stormdrill.errors import Problem, Refused
from stormdrill.model.experiment import Scalar as Value
from stormdrill.model.system import AlertSource, Dependency, JobLedger, MetricSource, Ready, ServiceInstance, System
from stormdrill.spec.expression import LOAD_METRICS
from stormdrill.spec.files import NAME, MetricFile, ServiceFile, SystemFile
from stormdrill.spec.parameters import (
    Filled,
    Filler,
    Parameter,
    Plain,
    declared,
    secrets_of,
    settle,
    unfilled,
    unknown_settings,
    written,
)
from stormdrill.spec.scalars import instead, seconds, short
from stormdrill.spec.walk import Walker
from stormdrill.spec.yaml import Document, Node, Table, ordered, parse, read_text

KEPT = frozenset({"port"})
MAX_INSTANCES = 200
RESERVED = frozenset({"proxy", "keeper", "undo"})
"""Processes of stormdrill's own in a run; those of the load generator begin with GENERATOR."""
GENERATOR = "generator"


def read_system(path: Path, settings: Mapping[str, str] | None = None) -> System:
    """The system that `path` describes. Raises Refused with every problem."""
    document = parse(str(path), read_text(path))
    parameters = declared(document)
    problems: list[Problem] = unknown_settings(parameters, settings or {}, "the system")
    system = resolve_system(document, parameters, settle(parameters, settings or {}, problems))
    if document.problems or problems:
        raise Refused([*ordered(document.problems), *problems])
    return system


def resolve_system(document: Document, parameters: Mapping[str, Parameter], values: Mapping[str, Filled]) -> System:
    """The system, as far as it could be read: look at the document's problems before using it."""
    if document.root is None:
        return System(name="", entry="", instances=())
    reading = _Reading(document, values)
    file = reading.file
    system = System(
        name=file.name,
        entry=file.entry,
        admin=file.admin or "",
        instances=tuple(reading.instances),
        labels=tuple(file.labels),
        parameters={name: _flat(value) for name, value in written(values).items()},
        dependencies=tuple(
            Dependency(name, tuple(item.from_), item.to) for name, item in file.dependencies.items() if item
        ),
        metrics=tuple(_metric(name, item) for name, item in file.metrics.items()),
        alerts=tuple(
            AlertSource(name=name, service=item.from_, prometheus=item.prometheus, labels=tuple(item.labels))
            for name, item in file.alerts.items()
        ),
        served=_metric("served", file.served) if file.served else None,
        jobs=JobLedger(file.jobs.from_, file.jobs.path) if file.jobs else None,
        capacity={name: str(value) for name, value in file.capacity.items()},
        stop_timeout_s=seconds(file.process.stop_timeout),
        ready_timeout_s=seconds(file.process.ready_timeout),
        secrets=secrets_of(values),
    )
    reading.check_names(parameters)
    return system


def _flat(value: Plain) -> Value:
    """Lists as `--set` writes them, joined by commas."""
    return ",".join(str(item) for item in value) if isinstance(value, tuple) else value


def _metric(name: str, file: MetricFile) -> MetricSource:
    return MetricSource(
        name=name, service=file.from_, prometheus=file.prometheus, path=file.path, labels=tuple(file.labels)
    )


class _Reading:
    def __init__(self, document: Document, values: Mapping[str, Filled]) -> None:
        self.document = document
        self.values = values
        self.walker = Walker(document)
        self.instances: list[ServiceInstance] = []
        assert document.root is not None
        written = document.node("process", "services")
        services = written.entries if isinstance(written, Table) else {}
        document.root = self.fill(document.root, {name: node for name, (_, node) in services.items()})
        self.file = self.walker.table(document.root, SystemFile, "the system")
        for name, (_, node) in services.items():
            if name in self.file.process.services:
                self.expand(name, node, self.file.process.services[name])
        if len(self.instances) > MAX_INSTANCES:
            place = document.place("process", "services")
            document.problem(place, f"{len(self.instances)} instances", f"at most {MAX_INSTANCES} run on one machine")

    def fill(self, root: Table, services: Mapping[str, Node]) -> Table:
        """The tree with parameters filled in; in a service with `each`, the first of its values."""
        filled = Filler(self.document, self.values, KEPT).tree(root, skip=unfilled(root, SystemFile) | {"process"})
        assert isinstance(filled, Table)
        process = root.get("process")
        if not isinstance(process, Table):
            return filled
        table = Filler(self.document, self.values, KEPT).tree(process, skip=frozenset({"services"}))
        assert isinstance(table, Table)
        filled.entries["process"] = (filled.entries["process"][0], table)
        written = process.get("services")
        if isinstance(written, Table):
            copy = Table(written.place)
            copy.broken = written.broken
            for name, (key, node) in written.entries.items():
                each = self.each(node)
                local = {each[0]: each[1][0]} if each else {}
                lenient = each is None and isinstance(node, Table) and node.get("each") is not None
                copy.entries[name] = (key, Filler(self.document, {**self.values, **local}, KEPT, lenient).tree(node))
            table.entries["services"] = (table.entries["services"][0], copy)
        return filled

    def each(self, service: Node) -> tuple[str, tuple[str, ...]] | None:
        """The name of the parameter that stands for one item (`region` of `regions`), and the items."""
        node = service.get("each") if isinstance(service, Table) else None
        name = getattr(node, "text", None)
        if node is None or not isinstance(name, str):
            return None
        if self.document.broken("parameters") or self.document.broken("parameters", name):
            return None
        values = self.values.get(name)
        if not isinstance(values, tuple) or not values:
            lists = [key for key, value in self.values.items() if isinstance(value, tuple) and value]
            self.document.problem(node, f"{short(name)} is no list parameter", instead(name, lists, "list parameters"))
        elif not name.endswith("s") or len(name) < 2:
            self.document.problem(node, f"each needs a plural: {name} does not end in s", f"name it {name}s")
        elif not all(isinstance(value, str) and re.fullmatch(NAME, value) for value in values):
            said = ", ".join(str(value) for value in values)
            self.document.problem(
                node, f"{name} holds {short(said)}", "write names: lower-case letters, digits, dashes"
            )
        elif len(set(values)) < len(values):
            self.document.problem(node, f"{name} holds a value twice", "remove one")
        else:
            return name[:-1], tuple(str(value) for value in values)
        return None

    def expand(self, name: str, node: Node, first: ServiceFile) -> None:
        each = self.each(node)
        if first.each and not each:
            return
        items = each[1] if each else ("",)
        if self.document.problems:
            items = items[:1]  # what is wrong with one item is wrong with all, and was said
        for item in items:
            local = {each[0]: item} if each else {}
            filled = Filler(self.document, {**self.values, **local}, KEPT).tree(node)
            file = self.walker.table(filled, ServiceFile, name)
            own = {key: str(value) for key, value in file.labels.items()}
            labels = {**local, **own} if each and each[0] in self.file.labels else own
            base = f"{name}-{item}" if item else name
            count = file.instances if file.instances == file.instances else 1  # a refused number is nan
            for number in range(1, count + 1):
                self.instances.append(_instance(base if count == 1 else f"{base}-{number}", name, file, labels))
        if first.port and (len(items) > 1 or first.instances != 1):
            place = self.document.place("process", "services", name, "port")
            self.document.problem(place, "one fixed port for several instances", "remove it: each gets a free one")

    def check_names(self, parameters: Mapping[str, Parameter]) -> None:
        document, file = self.document, self.file
        stem = Path(document.name).stem
        if file.name and file.name != stem:
            document.problem(document.place("name"), f"the name {file.name} is not the file's", f"write {stem}")
        services = list(file.process.services)
        written = document.node("process", "services")
        odd = not isinstance(written, Table) or len(written.entries) > len(services)
        for path, service in _mentioned(file):
            if service and service not in services and not odd and not document.broken(*path):
                document.problem(document.place(*path), f"unknown service {service}", instead(service, services))
        self.check_entry(services)
        self.check_labels()
        for name in file.metrics:
            if name in LOAD_METRICS or name == "alert":
                document.problem(document.key("metrics", name), f"{name} is a built-in metric", "choose another name")
        self.check_instances()

    def check_entry(self, services: list[str]) -> None:
        entry = self.file.process.services.get(self.file.entry)
        if entry and not entry.ready and not self.document.broken("process", "services", self.file.entry, "ready"):
            what = f"the entry {self.file.entry} has no ready check"
            place = self.document.place("process", "services", self.file.entry)
            self.document.problem(place, what, "add ready: GET / with a path that it answers when it is ready")

    def check_labels(self) -> None:
        labels = self.file.labels
        for index, label in enumerate(labels):
            if label in labels[:index]:
                self.document.problem(self.document.place("labels", index), f"the label {label} twice", "remove one")
        if self.document.broken("labels"):
            return
        for name, service in self.file.process.services.items():
            for label in service.labels:
                if label not in labels:
                    place = self.document.key("process", "services", name, "labels", label)
                    fix = instead(label, labels, "labels")
                    self.document.problem(place, f"unknown label {label}", f"{fix}, or add it to labels")

    def check_instances(self) -> None:
        names: set[str] = set()
        ports: dict[int, str] = {}
        for instance in self.instances:
            place = self.document.key("process", "services", instance.service)
            if instance.name in names:
                self.document.problem(place, f"two instances are named {instance.name}", "rename the service")
            names.add(instance.name)
            if instance.name in RESERVED or instance.name.startswith(GENERATOR):
                fix = f"rename the service, my-{instance.service} for one"
                self.document.problem(place, f"{instance.name} is a name of stormdrill's own", fix)
            if instance.port and ports.setdefault(instance.port, instance.service) != instance.service:
                place = self.document.place("process", "services", instance.service, "port")
                self.document.problem(place, f"the port {instance.port} is {ports[instance.port]}'s", "choose another")


def _mentioned(file: SystemFile) -> Iterable[tuple[tuple[str | int, ...], str]]:
    yield ("entry",), file.entry
    yield ("admin",), file.admin or ""
    for name, dependency in file.dependencies.items():
        yield ("dependencies", name, "to"), dependency.to
        for index, caller in enumerate(dependency.from_):
            yield ("dependencies", name, "from", index), caller
    for name, metric in file.metrics.items():
        yield ("metrics", name, "from"), metric.from_
    for name, alert in file.alerts.items():
        yield ("alerts", name, "from"), alert.from_
    if file.served:
        yield ("served", "from"), file.served.from_
    if file.jobs:
        yield ("jobs", "from"), file.jobs.from_


def _instance(name: str, service: str, file: ServiceFile, labels: dict[str, str]) -> ServiceInstance:
    method, _, path = (file.ready or "").partition(" ")
    return ServiceInstance(
        name=name,
        service=service,
        command=tuple(str(argument) for argument in file.command),
        labels=labels,
        env={key: str(value) for key, value in file.env.items()},
        ready=Ready(method, path) if file.ready else None,
        port=file.port,
    )
