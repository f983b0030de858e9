"""The sections of a system file, one a target: services expanded into instances, each checked where it stands."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from stormdrill.model.system import MEMORY_LIMIT, Ready, ServiceInstance
from stormdrill.spec.files_kubernetes import PodFile
from stormdrill.spec.files_system import ContainerFile, ServiceFile, SystemFile
from stormdrill.spec.kinds import NAME
from stormdrill.spec.parameters import Filled, Filler
from stormdrill.spec.scalars import instead, megabytes, short
from stormdrill.spec.walk import Walker
from stormdrill.spec.yaml import Document, Node, Table

KEPT = frozenset({"port"})
SECTIONS = ("process", "docker", "kubernetes")
MAX_INSTANCES = 200
LEAST_MB = 6.0
"""A container engine takes no lower limit."""
RESERVED = frozenset({"proxy", "keeper", "undo"})
"""Processes of stormdrill's own in a run; those of the load generator begin with GENERATOR."""
GENERATOR = "generator"
Service = ServiceFile | ContainerFile | PodFile
MODELS: Mapping[str, type[Service]] = {"process": ServiceFile, "docker": ContainerFile, "kubernetes": PodFile}


def each_of(document: Document, values: Mapping[str, Filled], service: Node) -> tuple[str, tuple[str, ...]] | None:
    """The name of the parameter that stands for one item (`region` of `regions`), and the items."""
    node = service.get("each") if isinstance(service, Table) else None
    name = getattr(node, "text", None)
    if node is None or not isinstance(name, str):
        return None
    if document.broken("parameters") or document.broken("parameters", name):
        return None
    items = values.get(name)
    if not isinstance(items, tuple) or not items:
        lists = [key for key, value in values.items() if isinstance(value, tuple) and value]
        document.problem(node, f"{short(name)} is no list parameter", instead(name, lists, "list parameters"))
    elif not name.endswith("s") or len(name) < 2:
        document.problem(node, f"each needs a plural: {name} does not end in s", f"name it {name}s")
    elif not all(isinstance(value, str) and re.fullmatch(NAME, value) for value in items):
        said = ", ".join(str(value) for value in items)
        document.problem(node, f"{name} holds {short(said)}", "write names: lower-case letters, digits, dashes")
    elif len(set(items)) < len(items):
        document.problem(node, f"{name} holds a value twice", "remove one")
    else:
        return name[:-1], tuple(str(value) for value in items)
    return None


def fill_services(document: Document, values: Mapping[str, Filled], section: Table) -> Table:
    """The section's services with parameters filled in; in a service with `each`, the first of its items."""
    written = section.get("services")
    assert isinstance(written, Table)
    copy = Table(written.place)
    copy.broken = written.broken
    for name, (key, node) in written.entries.items():
        each = each_of(document, values, node)
        local = {each[0]: each[1][0]} if each else {}
        lenient = each is None and isinstance(node, Table) and node.get("each") is not None
        copy.entries[name] = (key, Filler(document, {**values, **local}, KEPT, lenient).service(node))
    return copy


class Section:
    """The services of one section, and the instances that they make."""

    def __init__(self, document: Document, values: Mapping[str, Filled], name: str, file: SystemFile) -> None:
        self.document = document
        self.values = values
        self.name = name
        self.model = MODELS[name]
        part = {"process": file.process, "docker": file.docker, "kubernetes": file.kubernetes}[name]
        self.services: Mapping[str, Service] = part.services if part else {}
        self.labels = file.labels
        self.instances: list[ServiceInstance] = []

    def expand(self, written: Mapping[str, Node]) -> None:
        """`written`: each service as it stands in the file, before parameters are filled in."""
        for name, node in written.items():
            if name in self.services:
                self.instances += self._expanded(name, node, self.services[name])
        if len(self.instances) > MAX_INSTANCES:
            place = self.document.place(self.name, "services")
            what = f"{len(self.instances)} instances"
            self.document.problem(place, what, f"at most {MAX_INSTANCES} run on one machine")

    def _expanded(self, name: str, node: Node, first: Service) -> Iterable[ServiceInstance]:
        each = each_of(self.document, self.values, node)
        if first.each and not each:
            return
        items = each[1] if each else ("",)
        if self.document.problems:
            items = items[:1]  # what is wrong with one item is wrong with all, and was said
        for item in items:
            local = {each[0]: item} if each else {}
            file = first  # which was read with the first item filled in
            if item != items[0]:
                filled = Filler(self.document, {**self.values, **local}, KEPT).service(node)
                file = Walker(self.document).table(filled, self.model, name)
            own = {key: str(value) for key, value in file.labels.items()}
            labels = {**local, **own} if each and each[0] in self.labels else own
            base = f"{name}-{item}" if item else name
            many = 1 if isinstance(file, PodFile) else file.instances  # how many pods there are, the cluster knows
            count = many if many == many else 1  # a refused number is nan
            for number in range(1, count + 1):
                yield _instance(base if count == 1 else f"{base}-{number}", name, file, labels)
        if isinstance(first, ServiceFile) and first.port and (len(items) > 1 or first.instances != 1):
            place = self.document.place("process", "services", name, "port")
            self.document.problem(place, "one fixed port for several instances", "remove it: each gets a free one")

    def check(self, entry: str) -> None:
        found = self.services.get(entry)
        if found and not found.ready and not self.document.broken(self.name, "services", entry, "ready"):
            place = self.document.place(self.name, "services", entry)
            fix = "add ready: GET / with a path that it answers when it is ready"
            self.document.problem(place, f"the entry {entry} has no ready check", fix)
        for name, service in self.services.items():
            self._check_labels(name, service)
            self._check_numbers(name, service)
        self._check_instances()

    def _check_labels(self, name: str, service: Service) -> None:
        if self.document.broken("labels"):
            return
        for label in service.labels:
            if label not in self.labels:
                place = self.document.key(self.name, "services", name, "labels", label)
                fix = instead(label, self.labels, "labels")
                self.document.problem(place, f"unknown label {label}", f"{fix}, or add it to labels")

    def _check_numbers(self, name: str, service: Service) -> None:
        where = (self.name, "services", name)
        if not isinstance(service, PodFile):
            check_memory(self.document, service.memory, *where, "memory")
        for index, device in enumerate(service.devices):
            if device and device in service.devices[:index]:
                place = self.document.place(*where, "devices", index)
                self.document.problem(place, f"the device {device} twice", "remove one")

    def _check_instances(self) -> None:
        names: set[str] = set()
        ports: dict[int, str] = {}
        for instance in self.instances:
            place = self.document.key(self.name, "services", instance.service)
            if instance.name in names:
                self.document.problem(place, f"two instances are named {instance.name}", "rename the service")
            names.add(instance.name)
            if instance.name in RESERVED or instance.name.startswith(GENERATOR):
                fix = f"rename the service, my-{instance.service} for one"
                self.document.problem(place, f"{instance.name} is a name of stormdrill's own", fix)
            taken = self.name == "process" and instance.port  # a container has ports of its own
            if taken and ports.setdefault(taken, instance.service) != instance.service:
                place = self.document.place("process", "services", instance.service, "port")
                self.document.problem(place, f"the port {taken} is {ports[taken]}'s", "choose another")


def check_memory(document: Document, size: str | None, *path: str) -> None:
    if size and megabytes(size) < LEAST_MB:
        document.problem(document.place(*path), f"{size} is too small for a process", f"write at least {LEAST_MB:g}MB")


def told(memory_mb: float, env: dict[str, str]) -> dict[str, str]:
    """The memory limit, for programs that size themselves by it; what the file says itself stands."""
    return {MEMORY_LIMIT: f"{memory_mb:g}", **env} if memory_mb else env


def _instance(name: str, service: str, file: Service, labels: dict[str, str]) -> ServiceInstance:
    method, _, path = (file.ready or "").partition(" ")
    ready = Ready(method, path) if file.ready else None
    if isinstance(file, PodFile):
        known_by = {key: str(value) for key, value in (file.select or {}).items()}
        return ServiceInstance(
            name, service, (), labels, ready=ready, port=file.port, devices=tuple(file.devices), select=known_by
        )
    memory_mb = megabytes(file.memory) if file.memory else 0.0
    select = (file.select or {}) if isinstance(file, ContainerFile) else {}
    return ServiceInstance(
        name=name,
        service=service,
        command=tuple(str(argument) for argument in file.command),
        labels=labels,
        env=told(memory_mb, {key: str(value) for key, value in file.env.items()}),
        ready=ready,
        port=file.port,
        devices=tuple(file.devices),
        memory_mb=memory_mb,
        cpus=file.cpus or 0.0,
        image=(file.image or "") if isinstance(file, ContainerFile) else "",
        select={key: str(value) for key, value in select.items()},
    )
