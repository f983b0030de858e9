"""A run's own containers: claimed by name, then made side by side on a network of their own."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from stormdrill.errors import Refused, SystemNotReady, Unreachable
from stormdrill.keeper.limited import request
from stormdrill.model.event import ResourcesClaimed
from stormdrill.model.mechanism import Sever
from stormdrill.model.plan import Injection
from stormdrill.model.system import DockerSpec, ServiceInstance, System
from stormdrill.ports import Hop, Keeper
from stormdrill.spec import catalogue
from stormdrill.targets.docker.engine import Engine
from stormdrill.targets.docker.fleet import Fleet, Member
from stormdrill.targets.docker.image import OURS_TAG, Image, build, image_id
from stormdrill.targets.docker.layout import (
    CONTROL_PORT,
    DATA,
    LABEL,
    MOST_ADDRESSES,
    Layout,
    command,
    environment,
    lay_out,
    subnets,
)
from stormdrill.targets.docker.severing import helper_of
from stormdrill.targets.process.wiring import PROXY, FreePorts, hops_of

if TYPE_CHECKING:
    from stormdrill.targets.docker.starting import Wanted

AT_ONCE = 6
"""Containers that are started side by side: more only wait for the engine."""
PROXY_LIMIT_S = 10.0
PROXY_MEMORY_MB = 512.0
KEPT_S = 900.0
"""This long after the planned end a container that is still there is stale, whoever asks."""
EVERYWHERE = "0.0.0.0"  # noqa: S104  (of a container's own network namespace)


class Launch:
    """Implements `targets.docker.target.Source`."""

    def __init__(
        self,
        system: System,
        run_dir: Path,
        engine: Engine,
        fleet: Fleet,
        *,
        injections: Sequence[Injection],
        lasts_s: float,
        secrets: Mapping[str, str],
    ) -> None:
        self.system = system
        self._spec = system.docker or DockerSpec(image=OURS_TAG)
        self._run_dir = run_dir
        self._engine = engine
        self._fleet = fleet
        self._lasts_s = lasts_s
        self._secrets = secrets
        self._image: Image | None = None
        self._layout: Layout | None = None
        self._ports = FreePorts()
        cut = {item.instance for item in injections if isinstance(item.how, Sever) and item.how.peers}
        self._helped = tuple(sorted(cut))

    # --- before anything is touched --------------------------------------------------------------------------

    def prepare(self) -> None:
        """Every image is there; their ids stand in the system, and so in the plan's digest. Raises Refused."""
        if self._image is not None:
            return
        tag = self._spec.image or OURS_TAG
        folder = Path(self._spec.build or ".")
        shipped = catalogue.root()
        own = (folder / "Dockerfile").is_file() and folder.resolve() != shipped
        try:
            self._image = build(self._engine, OURS_TAG, shipped)
            built = self._built(tag, folder) if own and self._spec.build else self._image.id
            default = built if tag == OURS_TAG or self._spec.build else self._found(tag)
            instances = tuple(
                replace(item, image=self._found(item.image) if item.image else default)
                for item in self.system.instances
            )
        except Unreachable as error:
            raise Refused(f"target docker: {error}") from error
        self.system = replace(self.system, instances=instances)
        self._check_room()

    def _check_room(self) -> None:
        needed = len(self.system.instances) + len(self.hops()) + 1
        if needed > MOST_ADDRESSES:
            raise Refused(
                f"target docker: {needed} instances and hops, and a run's network has {MOST_ADDRESSES} addresses"
            )

    def _built(self, tag: str, folder: Path) -> str:
        """A user's own image. The engine's cache knows whether anything has changed."""
        from stormdrill.targets.docker.starting import build_image

        build_image(folder, tag, {}, {})
        return self._found(tag)

    def _found(self, image: str) -> str:
        id = image_id(self._engine, image)
        if not id:
            raise Refused(f"target docker: there is no image {image} here; docker pull {image}, or build it")
        return id

    def hops(self) -> tuple[Hop, ...]:
        return hops_of(self.system)

    def without_rules(self) -> str:
        """Why packet rules can't be changed here; empty when they can."""
        if self._image is not None and not self._image.base.iptables:
            help = "name a base with it in $STORMDRILL_BASE_IMAGE, such as the one of make base-image"
            return f"the image {self._image.base.name} has no iptables to cut packets with; {help}"
        return ""

    def address(self, instance: str) -> str:
        """On the run's network."""
        return self._laid().places[instance].ip

    def published(self, member: Member) -> str:
        """Ports are fixed when it is made."""
        return member.address

    def leave(self) -> None:
        self._ports.close()

    # --- the start -------------------------------------------------------------------------------------------

    def start(self, keeper: Keeper, joined: Callable[[Member], None]) -> None:
        """`joined` is told of each container as it runs. Raises SystemNotReady."""
        from stormdrill.targets.docker import starting

        assert self._image is not None
        run = self._run_dir.name
        try:
            order = subnets(run, starting.taken_subnets())
            layout = self._lay_out(order[0])
            helpers = [self._helper_name(layout, instance) for instance in self._helped]
            images = sorted({item.image for item in self.system.instances} | {self._image.id})
            claimed = layout.names + helpers + self._more_names(layout)
            keeper.record(ResourcesClaimed(self._engine.where, claimed, [layout.network], images))
            found = starting.make_network(layout.network, order, self._labels(""), way_out=self._way_out())
            if found != layout.subnet:
                self._ports.release()
                layout = self._lay_out(found)
        finally:
            self._ports.release()
        self._layout = layout
        todo = self._system_starts(joined)
        if layout.stand_ins:  # who calls by name may try once only, as it starts
            self._start_proxy(joined)
            self._wait_for_proxy()
        elif PROXY in layout.places:
            todo.insert(0, partial(self._start_proxy, joined))
        _side_by_side(todo)
        _side_by_side([partial(self._start_helper, instance, joined) for instance in self._helped])

    def _lay_out(self, subnet: str) -> Layout:
        """Programs that aren't ours know their callees by name: for them the proxy stands in under that name."""
        strangers = {item.name for item in self.system.instances if not self._is_ours(item)}
        return lay_out(self.system, self._run_dir.name, subnet, self._ports, strangers, self._names())

    def _names(self) -> Mapping[str, list[str]]:
        """Of callees, besides their own."""
        return {}

    def _more_names(self, layout: Layout) -> list[str]:
        """Of containers that are not instances."""
        return []

    def _way_out(self) -> bool:
        return not all(self._is_ours(item) for item in self.system.instances)

    def _system_starts(self, joined: Callable[[Member], None]) -> list[Callable[[], None]]:
        first = sorted(self.system.instances, key=lambda item: not item.devices)  # what has some warms up longest
        return [partial(self._start_one, item, joined) for item in first]

    def _start_one(self, item: ServiceInstance, joined: Callable[[Member], None]) -> None:
        from stormdrill.targets.docker.starting import Wanted

        layout = self._laid()
        place = layout.places[item.name]
        data = self._run_dir / "work" / item.name
        data.mkdir(parents=True, exist_ok=True)
        wanted = Wanted(
            name=place.container,
            image=item.image,
            command=command(item, place),
            env=environment(item, place, layout.peers[item.name], self._secrets),
            labels=self._labels(item.name) | {f"stormdrill.{key}": value for key, value in item.labels.items()},
            ip=place.ip,
            aliases=[item.name, *layout.direct(item.name)],
            hosts=layout.known_as.get(item.name, {}),
            inside=place.inside,
            published=place.published,
            data=str(data.resolve()),
            data_inside=DATA,
            memory_mb=item.memory_mb,
            cpus=item.cpus,
            confined=self._is_ours(item),
        )
        self._make(wanted, item.service, "system", item.labels, joined)

    def _start_proxy(self, joined: Callable[[Member], None]) -> None:
        from stormdrill.targets.docker.starting import Wanted

        assert self._image is not None
        layout = self._laid()
        place = layout.places[PROXY]
        served = {"host": EVERYWHERE, "control_host": EVERYWHERE, "control": CONTROL_PORT, "routes": layout.routes}
        further = (
            ["python3", "-m", "stormdrill.proxy.addresses", ",".join(layout.stand_ins)] if layout.stand_ins else []
        )
        wanted = Wanted(
            name=place.container,
            image=self._image.id,
            command=[*further, "python3", "-m", "stormdrill.proxy"],
            rights=("NET_ADMIN", "SETGID", "SETUID") if further else (),
            env={"STORMDRILL_PROXY": json.dumps(served)},
            labels=self._labels(PROXY),
            ip=place.ip,
            aliases=[PROXY],
            inside=place.inside,
            published=place.published,
            memory_mb=PROXY_MEMORY_MB,
            cpus=1.0,  # it has one thread
        )
        self._make(wanted, PROXY, "proxy", {}, joined)

    def _wait_for_proxy(self) -> None:
        until_s = time.monotonic() + PROXY_LIMIT_S
        while time.monotonic() < until_s:
            heard = request("GET", f"http://{self._laid().places[PROXY].address}/routes", "", 0.5)
            if heard.status == 200 and not heard.error:
                return
            time.sleep(0.02)
        raise SystemNotReady(f"the fault proxy did not answer within {PROXY_LIMIT_S:g} s; see logs/ of the run")

    def _make(
        self, wanted: Wanted, service: str, role: str, labels: Mapping[str, str], joined: Callable[[Member], None]
    ) -> None:
        from stormdrill.targets.docker.starting import start_container

        instance = wanted.aliases[0]
        id = start_container(self._laid().network, wanted)
        address = self._laid().places[instance].address
        joined(Member(instance, service, role, id, wanted.name, wanted.image, address, dict(labels)))

    def _start_helper(self, instance: str, joined: Callable[[Member], None]) -> None:
        """In the instance's network namespace, and with the right to change its packet rules, which it has not."""
        from stormdrill.targets.docker.starting import start_helper

        assert self._image is not None
        name, shares = helper_of(instance), self._fleet.of(instance)
        container = self._helper_name(self._laid(), instance)
        id = start_helper(container, self._image.id, shares.id, self._labels(name))
        joined(Member(name, name, "helper", id, container, self._image.id))

    # --- small things ----------------------------------------------------------------------------------------

    def _helper_name(self, layout: Layout, instance: str) -> str:
        return f"{layout.places[instance].container}.net"

    def _labels(self, instance: str) -> dict[str, str]:
        expires = datetime.now(UTC) + timedelta(seconds=self._lasts_s + KEPT_S)
        own = {"stormdrill.instance": instance} if instance else {}
        return {LABEL: self._run_dir.name, **own, "stormdrill.expires": expires.isoformat(timespec="seconds")}

    def _laid(self) -> Layout:
        if self._layout is None:
            raise SystemNotReady("the containers are not laid out yet")
        return self._layout

    def _is_ours(self, item: ServiceInstance) -> bool:
        return self._image is not None and item.image == self._image.id


def _side_by_side(todo: Sequence[Callable[[], None]]) -> None:
    """All of them, also when one fails; then the first failure is raised."""
    if not todo:
        return
    with ThreadPoolExecutor(max_workers=AT_ONCE, thread_name_prefix="start") as pool:
        made = [pool.submit(one) for one in todo]
        wait(made)
    for one in made:
        one.result()
