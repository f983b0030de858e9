"""Reads a system file for one target: its section's instances, sources resolved, every name looked up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from stormdrill.errors import Problem, Refused
from stormdrill.model.experiment import Scalar as Value
from stormdrill.model.system import (
    Dependency,
    JobLedger,
    Release,
    ServiceInstance,
    System,
)
from stormdrill.spec.containers import check_docker, docker_spec, with_limits
from stormdrill.spec.files_system import SystemFile
from stormdrill.spec.kubernetes import check_kubernetes, kubernetes_spec, listening, share_services
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
from stormdrill.spec.scalars import instead, seconds
from stormdrill.spec.services import KEPT, SECTIONS, Section, fill_services
from stormdrill.spec.sources import (
    alert_of,
    check_sources,
    header_tables,
    indicators_of,
    metric_of,
    pressure_of,
    served_of,
    servers_of,
    traffic_of,
)
from stormdrill.spec.walk import Walker
from stormdrill.spec.yaml import Document, Node, Place, Table, ordered, parse, read_text

READY_TIMEOUT, STOP_TIMEOUT = "30s", "3s"
TO_WRITE = {
    "process": "process:\n  services: {web: {command: [./web, --port, $port], ready: GET /healthz}}",
    "docker": "docker:\n  image: IMAGE",
    "kubernetes": "kubernetes:\n  namespace: NAMESPACE",
}
"""The two lines that a section begins with."""


def is_system(path: Path) -> bool:
    """Whether a file that can be read is meant as a system: it has an entry or a section, and no faults."""
    try:
        root = parse(str(path), read_text(path)).root
    except Refused:
        return False
    keys = root.entries.keys() if root else set()
    return bool(keys & {"entry", *SECTIONS}) and not keys & {"faults", "hypothesis", "phases"}


def read_system(path: Path, settings: Mapping[str, str] | None = None, target: str = "") -> System:
    """The system that `path` describes, for `target`; without one for the first section that it has.

    Raises Refused with every problem.
    """
    document = parse(str(path), read_text(path))
    parameters = declared(document)
    problems: list[Problem] = unknown_settings(parameters, settings or {}, "the system")
    system = resolve_system(document, parameters, settle(parameters, settings or {}, problems), target)
    if document.problems or problems:
        raise Refused([*ordered(document.problems), *problems])
    return system


def resolve_system(
    document: Document, parameters: Mapping[str, Parameter], values: Mapping[str, Filled], target: str = ""
) -> System:
    """The system, as far as it could be read: look at the document's problems before using it."""
    if document.root is None:
        return System(name="", entry="", instances=())
    reading = _Reading(document, values, target)
    file = reading.file
    pods = file.kubernetes if reading.target == "kubernetes" else None
    docker = file.docker if reading.target == "docker" else None
    system = System(
        name=file.name,
        entry=file.entry,
        admin=file.admin or "",
        instances=reading.instances(),
        labels=tuple(file.labels),
        parameters={name: _flat(value) for name, value in written(values).items()},
        dependencies=tuple(
            Dependency(name, tuple(item.from_), item.to, item.lag or "")
            for name, item in file.dependencies.items()
            if item
        ),
        metrics=tuple(metric_of(name, item) for name, item in file.metrics.items()),
        alerts=tuple(alert_of(name, item) for name, item in file.alerts.items()),
        served=served_of(file.served),
        servers=servers_of(file.servers),
        indicators=indicators_of(file.indicators),
        traffic=traffic_of(file.traffic),
        pressure=pressure_of(file.backpressure),
        jobs=JobLedger(file.jobs.from_, file.jobs.path) if file.jobs else None,
        releases={
            name: Release(item.from_, item.path, str(item.version), str(item.stable), item.of)
            for name, item in file.releases.items()
        },
        docker=docker_spec(file),
        kubernetes=kubernetes_spec(file) if reading.target == "kubernetes" else None,
        target=reading.target,
        capacity={name: str(value) for name, value in file.capacity.items()},
        stop_timeout_s=seconds(
            (docker and docker.stop_timeout) or (file.process.stop_timeout if file.process else STOP_TIMEOUT)
        ),
        ready_timeout_s=seconds(
            (docker and docker.ready_timeout)
            or (pods and pods.ready_timeout)
            or (file.process.ready_timeout if file.process else READY_TIMEOUT)
        ),
        secrets=secrets_of(values),
    )
    reading.check_names(parameters)
    return system


def _flat(value: Plain) -> Value:
    """Lists as `--set` writes them, joined by commas."""
    return ",".join(str(item) for item in value) if isinstance(value, tuple) else value


class _Reading:
    def __init__(self, document: Document, values: Mapping[str, Filled], target: str) -> None:
        self.document = document
        self.values = values
        assert document.root is not None
        share_services(document)
        services = {name: self.services(name) for name in SECTIONS}
        there = [name for name in SECTIONS if name in document.root.entries]
        self.target = target if target in SECTIONS else (there or SECTIONS)[0]
        document.root = self.fill(document.root)
        self.file = Walker(document).table(document.root, SystemFile, "the system")
        self.check_section(there, target)
        self.sections = {name: Section(document, values, name, self.file) for name in SECTIONS}
        for name, section in self.sections.items():
            section.expand(services[name])

    def services(self, section: str) -> dict[str, Node]:
        """The section's services as they stand in the file."""
        node = self.document.node(section, "services")
        return {name: entry[1] for name, entry in node.entries.items()} if isinstance(node, Table) else {}

    def own(self) -> Section:
        """The section whose services the target runs: without services of their own, containers run the processes'."""
        found = self.sections[self.target]
        return found if found.services or self.target != "docker" else self.sections["process"]

    def instances(self) -> tuple[ServiceInstance, ...]:
        made = self.own().instances
        if self.target == "kubernetes" and self.file.kubernetes:
            return listening(self.file.kubernetes, made)
        return with_limits(self.file.docker, made) if self.target == "docker" and self.file.docker else tuple(made)

    def fill(self, root: Table) -> Table:
        """The tree with parameters filled in; in a service with `each`, the first of its values."""
        skip = unfilled(root, SystemFile) | set(SECTIONS)
        filler = Filler(self.document, self.values, KEPT)
        for table in header_tables(self.document):
            filler.hold(table)
        filled = filler.tree(root, skip=skip)
        assert isinstance(filled, Table)
        for name in SECTIONS:
            section = root.get(name)
            if isinstance(section, Table):
                table = Filler(self.document, self.values, KEPT).tree(section, skip=frozenset({"services"}))
                assert isinstance(table, Table)
                filled.entries[name] = (filled.entries[name][0], table)
                if isinstance(section.get("services"), Table):
                    services = fill_services(self.document, self.values, section)
                    table.entries["services"] = (table.entries["services"][0], services)
        return filled

    def check_section(self, there: list[str], target: str) -> None:
        """A file has one section for each target that it can run on."""
        meant = self.document.root is not None and any(at.broken for at, _ in self.document.root.entries.values())
        if not there and not meant:
            fix = f"write\n{TO_WRITE['process']}"
            self.document.problem(Place(1, 1), "no section says how the system runs", fix)
        elif target in SECTIONS and there and target not in there:
            what = f"no section {target}: this system does not say how it runs on --target {target}"
            fix = f"use --target {there[0]}, or write\n{TO_WRITE[target]}"
            self.document.problem(Place(1, 1), what, fix)

    def check_names(self, parameters: Mapping[str, Parameter]) -> None:
        document, file = self.document, self.file
        stem = Path(document.name).stem
        if file.name and file.name != stem:
            document.problem(document.place("name"), f"the name {file.name} is not the file's", f"write {stem}")
        for section in self.sections.values():
            if section is self.own() or section.services:
                self.check_mentioned(section)
        labels = file.labels
        for index, label in enumerate(labels):
            if label in labels[:index]:
                document.problem(document.place("labels", index), f"the label {label} twice", "remove one")
        check_sources(document, file)
        for section in self.sections.values():
            section.check(file.entry)
        check_docker(document, file)
        check_kubernetes(document, file)

    def check_mentioned(self, section: Section) -> None:
        document = self.document
        services = list(section.services)
        node = document.node(section.name, "services")
        odd = not isinstance(node, Table) or len(node.entries) > len(services)
        for name in self.file.backpressure.hops if self.file.backpressure else ():
            if name not in services and not odd:
                place = document.key("backpressure", "hops", name)
                document.problem(place, f"unknown service {name}", instead(name, services))
        for path, service in _mentioned(self.file):
            if service and service not in services and not odd and not document.broken(*path):
                document.problem(document.place(*path), f"unknown service {service}", instead(service, services))


def _mentioned(file: SystemFile) -> Iterable[tuple[tuple[str | int, ...], str]]:
    yield ("entry",), file.entry
    yield ("admin",), file.admin or ""
    for name, dependency in file.dependencies.items():
        yield ("dependencies", name, "to"), dependency.to
        for index, caller in enumerate(dependency.from_):
            yield ("dependencies", name, "from", index), caller
    for name, metric in file.metrics.items():
        yield ("metrics", name, "from"), metric.from_ or ""
    for name, alert in file.alerts.items():
        yield ("alerts", name, "from"), alert.from_ or ""
    for name, release in file.releases.items():
        yield ("releases", name, "from"), release.from_
        yield ("releases", name, "of"), release.of
    if file.indicators:
        yield ("indicators", "from"), file.indicators.from_
    if file.served:
        yield ("served", "from"), file.served.from_ or ""
    if file.jobs:
        yield ("jobs", "from"), file.jobs.from_
