"""Containers that run already and carry an opt-in label: found, never started, stopped or removed by the run."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import cast
from urllib.parse import quote

from msgspec.structs import replace

from stormdrill.errors import Problem, Refused, Unreachable
from stormdrill.model.event import ResourcesClaimed
from stormdrill.model.system import ServiceInstance, System
from stormdrill.ports import Hop, Keeper
from stormdrill.targets.docker.engine import Engine
from stormdrill.targets.docker.fleet import Member
from stormdrill.targets.docker.limiting import cpus_of
from stormdrill.targets.docker.severing import NO_HELPER

BOUND = "container:"
"""What stands in `ServiceInstance.image` once it is known which container is meant: its id, so that the plan's digest
speaks of it."""
Container = dict[str, object]


class Attach:
    """Implements `targets.docker.target.Source`."""

    def __init__(self, system: System, engine: Engine) -> None:
        self.system = system
        self._engine = engine
        self._found: dict[str, Member] = {}
        self._told: dict[str, Container] = {}
        """Instance → all that the engine knew of its container when it was found."""

    def prepare(self) -> None:
        """Which containers are meant, by their labels; or the very ones that were planned. Raises Refused."""
        if self._found:
            return
        try:
            listed = self._listed()
            told = {str(one["Id"]): self._engine.inspect(str(one["Id"])) or {} for one in listed}
        except Unreachable as error:
            raise Refused(f"target docker: {error}") from error
        problems: list[Problem] = []
        instances: list[ServiceInstance] = []
        for item in self.system.instances:
            mine = [one for one in listed if _is_meant(item, one)]
            if not mine:
                problems.append(self._problem(self._nothing(item, listed)))
            for number, one in enumerate(mine, 1):
                named = item.name if len(mine) == 1 else f"{item.name}-{number}"
                bound = self._bound(replace(item, name=named), one, problems)
                instances.append(bound)
                self._told[named] = told[str(one["Id"])]
        if problems:
            raise Refused(problems)
        self.system = replace(self.system, instances=tuple(instances))

    def memory_mb(self, instance: str) -> float:
        """The limit that the container has; 0 for none."""
        return cast("int", self._set(instance).get("Memory", 0)) / (1 << 20)

    def cpus(self, instance: str) -> float:
        """The cores that the container may use; 0 for no limit."""
        return cpus_of(cast("dict[str, int]", self._set(instance)))

    def ends_for_good(self, instance: str) -> str:
        """Why nothing starts it again once it has ended, and what would help; empty when the engine does."""
        if not self._set(instance).get("AutoRemove"):
            return ""
        return (
            f"{instance} was started with --rm, so that the engine removes it and its anonymous volumes when it ends; "
            "start it without --rm, or drill it with what doesn't end it (freeze)"
        )

    def hops(self) -> tuple[Hop, ...]:
        """None passes a proxy of ours: what runs already calls whom it calls."""
        return ()

    def without_rules(self) -> str:
        return NO_HELPER

    def address(self, instance: str) -> str:
        raise Unreachable(f"{instance}: {NO_HELPER}")

    def leave(self) -> None:
        """What ran before goes on."""

    def published(self, member: Member) -> str:
        """A port that the engine chose is another one after each start."""
        spec = next(item for item in self.system.instances if item.name == member.instance)
        try:
            one = next((item for item in self._listed() if item["Id"] == member.id), None)
        except Unreachable:
            return member.address
        port = _published(one, spec.port) if one else 0
        return f"127.0.0.1:{port}" if port else member.address

    def start(self, keeper: Keeper, joined: Callable[[Member], None]) -> None:
        keeper.record(ResourcesClaimed(self._engine.where, [], [], []))
        for member in self._found.values():
            joined(member)

    def _listed(self) -> list[Container]:
        """The running containers that opted in, by name."""
        assert self.system.docker is not None
        labels = [f"{key}={value}" for key, value in self.system.docker.attach.items()]
        filters = quote(json.dumps({"label": labels, "status": ["running", "paused"]}))
        found = cast("list[Container]", self._engine.get(f"/containers/json?filters={filters}") or [])
        return sorted(found, key=_name)

    def loses_address(self, instance: str) -> str:
        """What is lost when it is taken off its networks; empty where it asks for its addresses by itself.

        Asking for the one that it happens to have would bind it to that for ever, and it may be somebody's by then."""
        settings = cast("dict[str, dict[str, dict[str, object]]]", self._told[instance].get("NetworkSettings") or {})
        for end in (settings.get("Networks") or {}).values():
            asked = cast("dict[str, object]", end.get("IPAMConfig") or {})
            if end.get("IPAddress") and not asked.get("IPv4Address"):
                return "the address that its engine chose (it may get another)"
        return ""

    def _set(self, instance: str) -> Container:
        """What it was started with."""
        return cast("Container", self._told[instance].get("HostConfig") or {})

    def _bound(self, item: ServiceInstance, one: Container, problems: list[Problem]) -> ServiceInstance:
        carried = _labels(one)
        labels = {name: carried[name] for name in self.system.labels if name in carried} | item.labels
        port = _published(one, item.port)
        if not port and (item.ready is not None or item.service == self.system.entry):
            what = f"{_name(one)} publishes no port {item.port or ''}".rstrip() + " on this machine"
            example = item.port or 8080
            problems.append(self._problem(what, f"start it with -p 127.0.0.1:{example}:{example}, or say which port"))
        id = str(one["Id"])
        address = f"127.0.0.1:{port}" if port else ""
        member = Member(
            item.name, item.service, "system", id, _name(one), str(one["Image"]), address, labels, owned=False
        )
        self._found[item.name] = member
        return replace(item, labels=labels, image=BOUND + id)

    def _nothing(self, item: ServiceInstance, listed: list[Container]) -> str:
        assert self.system.docker is not None
        wanted = ", ".join(f"{key}={value}" for key, value in {**self.system.docker.attach, **item.select}.items())
        if item.image.startswith(BOUND):
            return f"{item.name} was planned for container {item.image[len(BOUND) :][:12]}, which no longer runs"
        others = ", ".join(_name(one) for one in listed) or "none"
        return f"no running container is {item.service}: labels {wanted}; with the opt-in run: {others}"

    def _problem(self, what: str, fix: str = "") -> Problem:
        help = fix or "give the containers that are meant these labels when they are started"
        return Problem(f"system {self.system.name}", 0, 0, what, help)


def _is_meant(item: ServiceInstance, one: Container) -> bool:
    if item.image.startswith(BOUND):
        return one["Id"] == item.image[len(BOUND) :]
    return item.select.items() <= _labels(one).items()


def _labels(one: Container) -> dict[str, str]:
    return cast("dict[str, str]", one.get("Labels") or {})


def _name(one: Container) -> str:
    return cast("list[str]", one["Names"])[0].lstrip("/")


def _published(one: Container, port: int | None) -> int:
    """The port of this machine that leads to it; 0 when there is none, or when it isn't clear which."""
    found = {
        (cast("int", item["PrivatePort"]), cast("int", item["PublicPort"]))
        for item in cast("list[dict[str, object]]", one.get("Ports") or [])
        if item.get("PublicPort") and item.get("IP") in ("127.0.0.1", "0.0.0.0") and item.get("Type") == "tcp"  # noqa: S104
    }
    mine = [public for private, public in found if port in (None, private)]
    return mine[0] if len(mine) == 1 else 0
