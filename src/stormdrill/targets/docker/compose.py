"""A run's own containers from a compose file: resolved and started by the compose tool, in the run's network, under the
run's names."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from stormdrill.errors import Refused, SystemNotReady, Unreachable
from stormdrill.model.system import ServiceInstance
from stormdrill.spec import catalogue
from stormdrill.targets.docker import tool
from stormdrill.targets.docker.composition import Composition, Wish, arranged, problems, read, to_build
from stormdrill.targets.docker.fleet import COMPANION, Member
from stormdrill.targets.docker.image import OURS_TAG, build
from stormdrill.targets.docker.launch import Launch
from stormdrill.targets.docker.layout import DATA, FIRST_HOST, Layout, environment
from stormdrill.targets.process.wiring import HOST

BUILD_LIMIT_S = 900.0


class Composed(Launch):
    """Implements `targets.docker.target.Source`."""

    _composition: Composition
    _tool: tool.Tool

    def prepare(self) -> None:
        """The file is resolved and every image is there; both stand in the system, and so in the plan's digest."""
        if self._image is not None:
            return
        path = Path(self._spec.compose)
        if not path.is_file():
            raise Refused(f"target docker: there is no compose file {path}; it is looked for from where you are")
        self._tool = tool.find(self._engine.where, path.resolve().parent)
        try:
            said = tool.resolved(self._tool, path)
        except tool.ToolFailedError as error:
            raise Refused(f"{path}: {error}") from error
        found = read(said, [item.service for item in self.system.instances])
        if wrong := problems(found, self.system, str(path)):
            raise Refused(wrong)
        self._composition = found
        self._build(found)
        try:
            image = build(self._engine, OURS_TAG, catalogue.root())
            self._images = {name: self._found(found.image(name, self.system.name)) for name in found.services}
        except Unreachable as error:
            raise Refused(f"target docker: {error}") from error
        resolved = hashlib.sha256(f"{found.resolved}{sorted(self._images.items())}".encode()).hexdigest()
        if self._spec.resolved not in ("", resolved):
            raise Refused(f"target docker: what {path} comes to, or one of its images, has changed since the plan")
        instances = tuple(replace(item, image=self._images[item.service]) for item in self.system.instances)
        self._spec = replace(self._spec, resolved=resolved)
        self.system = replace(self.system, instances=instances, docker=self._spec)
        self._image = image
        self._check_room()

    def _build(self, found: Composition) -> None:
        if not found.built:
            return
        try:
            self._tool.ask("--file", "-", "build", given=to_build(found, self.system.name), limit_s=BUILD_LIMIT_S)
        except tool.ToolFailedError as error:
            raise Refused(f"{self._spec.compose}: {', '.join(found.built)} can't be built: {error}") from error

    # --- the start -------------------------------------------------------------------------------------------

    def _way_out(self) -> bool:
        return self._composition.way_out

    def _names(self) -> Mapping[str, list[str]]:
        return {item.name: self._composition.also_known_as(item.service) for item in self.system.instances}

    def _beside(self) -> list[str]:
        """Services that the system doesn't name, which run all the same."""
        named = {item.service for item in self.system.instances}
        return [name for name in self._composition.services if name not in named]

    def _more_names(self, layout: Layout) -> list[str]:
        return [f"{layout.network}-{name}" for name in self._beside()]

    def _system_starts(self, joined: Callable[[Member], None]) -> list[Callable[[], None]]:
        return [partial(self._up, joined)]

    def _up(self, joined: Callable[[Member], None]) -> None:
        layout = self._laid()
        run = self._run_dir.name
        wishes = {item.service: self._wish(item) for item in self.system.instances}
        first = FIRST_HOST + len(layout.places)
        for number, name in enumerate(self._beside()):
            ip = layout.address(first + number)
            wishes[name] = Wish(f"{layout.network}-{name}", ip, self._labels(name), aliases=self._aliases(name))
        given = arranged(self._composition, self.system.name, run, layout.network, wishes, self._labels(""))
        words = ("--file", "-", "up", "--detach", "--no-build")
        try:
            self._tool.ask(*words, given=given, project=layout.network.lower(), limit_s=self.system.ready_timeout_s)
        except tool.ToolFailedError as error:
            self._join_started(wishes, joined)  # their output tells more
            raise SystemNotReady(f"{self._spec.compose} could not be started: {error}") from error
        missing = self._join_started(wishes, joined)
        if missing:
            raise SystemNotReady(f"{self._spec.compose}: no container was made for {', '.join(missing)}")

    def _join_started(self, wishes: Mapping[str, Wish], joined: Callable[[Member], None]) -> list[str]:
        """Tells of those that are there; returns the services that have none."""
        known = {item.service: item for item in self.system.instances}
        missing = []
        for service, wish in wishes.items():
            try:
                found = self._engine.inspect(wish.container)
            except Unreachable:
                found = None
            if found is None:
                missing.append(service)
                continue
            if found["Image"] != self._images[service]:
                raise SystemNotReady(f"{service} was made from another image than the one that was planned")
            item = known.get(service)
            address = wish.published.rpartition(":")[0]
            role = "system" if item else COMPANION
            labels = dict(item.labels) if item else {}
            joined(
                Member(service, service, role, str(found["Id"]), wish.container, str(found["Image"]), address, labels)
            )
        return missing

    def _wish(self, item: ServiceInstance) -> Wish:
        layout = self._laid()
        place = layout.places[item.name]
        env = environment(item, place, layout.peers[item.name], self._secrets)
        data = ""
        if item.devices:
            folder = self._run_dir / "work" / item.name
            folder.mkdir(parents=True, exist_ok=True)
            data = f"{folder.resolve()}:{DATA}"
        else:
            del env["STORMDRILL_DATA"]
        return Wish(
            container=place.container,
            ip=place.ip,
            labels=self._labels(item.name) | {f"stormdrill.{key}": value for key, value in item.labels.items()},
            published=f"{HOST}:{place.published}:{place.inside}" if item.port else "",
            env=env,
            hosts=layout.known_as.get(item.name, {}),
            data=data,
            memory_mb=item.memory_mb,
            cpus=item.cpus,
            aliases=(*self._aliases(item.service), *layout.direct(item.name)),
        )

    def _aliases(self, service: str) -> tuple[str, ...]:
        return tuple(self._composition.also_known_as(service))
