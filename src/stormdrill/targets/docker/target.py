"""The docker target: a run's own containers on a network of their own, their inventory, and what is done to them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import msgspec

from stormdrill.errors import Refused, StormdrillError, SystemNotReady, Unreachable
from stormdrill.keeper.limited import request
from stormdrill.model.event import ContainerStarted, Event, ResourcesClaimed, Warned
from stormdrill.model.plan import Injection
from stormdrill.model.system import DockerSpec, Ready, ServiceInstance, System
from stormdrill.model.undo import Undo
from stormdrill.ports import Instance, Keeper, Mechanism, World
from stormdrill.spec import catalogue
from stormdrill.targets.docker import logs
from stormdrill.targets.docker.engine import Engine, is_local
from stormdrill.targets.docker.events import EngineEvents, Told
from stormdrill.targets.docker.fleet import Fleet, Member
from stormdrill.targets.docker.halting import Crashing, Freezing
from stormdrill.targets.docker.image import Image, build
from stormdrill.targets.docker.layout import (
    CONTROL_PORT,
    DATA,
    LABEL,
    Layout,
    Place,
    command,
    environment,
    lay_out,
    subnets,
)
from stormdrill.targets.portable.proxied import WORDS as TOXICS
from stormdrill.targets.portable.proxied import Toxics
from stormdrill.targets.process.wiring import PROXY, FreePorts, hops_of

ANSWER_LIMIT_S = 0.8
ROUND_LIMIT_S = 0.95
AT_ONCE = 6
"""Containers that are started side by side: more only wait for the engine."""
KEPT_S = 900.0
"""After its expiry a container that is still there is stale, whoever asks."""
OUR_IMAGE = DockerSpec(build=".", image="stormdrill-platform")


class DockerTarget:
    """One system in containers. Implements `ports.Target` and the capability `ports.Mechanisms`."""

    name = "docker"
    permission = "use the container engine's API, which is as good as root on this machine"

    def __init__(
        self,
        system: System,
        run_dir: Path,
        *,
        injections: Sequence[Injection] = (),
        lasts_s: float = 0.0,
        secrets: Mapping[str, str] | None = None,
    ) -> None:
        self._spec = system.docker or OUR_IMAGE
        self._run_dir = run_dir
        self._injections = injections
        self._lasts_s = lasts_s
        self._secrets = secrets or {}
        self._engine = Engine()
        self._fleet = Fleet()
        self._layout: Layout | None = None
        self._image: Image | None = None
        self._system = system
        self._keeper: Keeper | None = None
        self._events = EngineEvents(self._engine.where, self._heard, self._troubled)
        self.mechanisms = self._mechanisms()
        self._pool = ThreadPoolExecutor(max_workers=16, thread_name_prefix="ready")

    def _mechanisms(self) -> dict[str, Mechanism]:
        hops = frozenset(hop.name for hop in hops_of(self._system))
        toxics = Toxics(self._control, lambda: hops)
        return {
            "freeze": Freezing(self._engine, self._fleet),
            "crash": Crashing(self._engine, self._fleet, self.answers),
            **dict.fromkeys(TOXICS, toxics),
        }

    # --- before anything is touched --------------------------------------------------------------------------

    def world(self) -> World:
        """With the image's id in the system: it is part of what a plan's digest speaks of."""
        self._prepare()
        return World(self._system, self.inventory(), hops_of(self._system))

    def preflight(self) -> None:
        """Raises Refused, before anything is touched, for what can be known to fail."""
        self._prepare()
        from stormdrill.targets.docker import starting  # noqa: F401  (refuses when a library is missing)

    def inventory(self) -> tuple[Instance, ...]:
        return tuple(self._instance(item) for item in self._system.instances)

    def _prepare(self) -> None:
        """The engine answers, and the image is there. Raises Refused."""
        if self._image is not None:
            return
        if not is_local(self._engine.where):
            what = f"the engine at {self._engine.where} is not on this machine, and its ports would not be either"
            raise Refused(f"target docker: {what}; unset DOCKER_HOST, or name a local engine in it")
        heard = self._engine.call("GET", "/_ping")
        if heard.status != 200:
            help = "start it (dockerd, or systemctl start docker), and be root or in the group docker"
            raise Refused(f"target docker: {heard.error or 'the engine does not answer'}; {help}")
        try:
            self._image = build(self._engine, self._spec.image or "stormdrill-platform", _folder(self._spec))
        except Unreachable as error:
            raise Refused(f"target docker: {error}") from error
        instances = tuple(
            item if item.image else msgspec.structs.replace(item, image=self._image.id)
            for item in self._system.instances
        )
        self._system = msgspec.structs.replace(self._system, instances=instances)

    # --- the run ---------------------------------------------------------------------------------------------

    def start(self, keeper: Keeper) -> None:
        """Claimed by name, then made: network, proxy and all instances side by side. Raises SystemNotReady."""
        from stormdrill.targets.docker import starting

        self._prepare()
        assert self._image is not None
        self._keeper = keeper
        run = self._run_dir.name
        free = FreePorts()
        try:
            order = subnets(run, starting.taken_subnets())
            layout = lay_out(self._system, run, order[0], free)
            images = sorted({item.image for item in self._system.instances} | {self._image.id})
            keeper.record(ResourcesClaimed(self._engine.where, layout.names, [layout.network], images))
            self._events.start()
            labels = self._labels("")
            found = starting.make_network(layout.network, order, labels, way_out=not self._all_ours())
            if found != layout.subnet:
                free.release()
                layout = lay_out(self._system, run, found, free)
        finally:
            free.release()
        self._layout = layout
        todo: list[Callable[[], None]] = [partial(self._start_one, item) for item in self._system.instances]
        if PROXY in layout.places:
            todo.insert(0, self._start_proxy)
        with ThreadPoolExecutor(max_workers=AT_ONCE, thread_name_prefix="start") as pool:
            made = [pool.submit(one) for one in todo]
            wait(made)
        for one in made:
            one.result()

    def _start_one(self, item: ServiceInstance) -> None:
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
            aliases=[item.name],
            inside=place.inside,
            published=place.published,
            data=str(data.resolve()),
            data_inside=DATA,
            memory_mb=item.memory_mb,
            cpus=item.cpus,
            confined=self._is_ours(item),
        )
        self._make(wanted, item.name, item.service, "system", item.labels, place)

    def _start_proxy(self) -> None:
        from stormdrill.targets.docker.starting import Wanted

        assert self._image is not None
        layout = self._laid()
        place = layout.places[PROXY]
        everywhere = "0.0.0.0"  # noqa: S104  (of the container's own network namespace)
        served = {"host": everywhere, "control_host": everywhere, "control": CONTROL_PORT, "routes": layout.routes}
        wanted = Wanted(
            name=place.container,
            image=self._image.id,
            command=["python3", "-m", "stormdrill.proxy"],
            env={"STORMDRILL_PROXY": json.dumps(served)},
            labels=self._labels(PROXY),
            ip=place.ip,
            aliases=[PROXY],
            inside=place.inside,
            published=place.published,
        )
        self._make(wanted, PROXY, PROXY, "proxy", {}, place)

    def _make(
        self, wanted: object, instance: str, service: str, role: str, labels: Mapping[str, str], place: Place
    ) -> None:
        from stormdrill.targets.docker.starting import Wanted, start_container

        assert isinstance(wanted, Wanted)
        id = start_container(self._laid().network, wanted)
        pid = self._engine.state(id).pid
        member = Member(instance, service, role, id, place.container, wanted.image, place.address, dict(labels))
        self._fleet.join(msgspec.structs.replace(member, pid=pid))
        self._note(self._started(instance))

    def _started(self, instance: str) -> ContainerStarted:
        member = self._fleet.of(instance)
        return ContainerStarted(
            instance=member.instance,
            service=member.service,
            role=member.role,
            container=member.id,
            name=member.name,
            pid=member.pid,
            image=member.image,
            address=member.address,
            labels=member.labels,
            owned=member.owned,
        )

    def _labels(self, instance: str) -> dict[str, str]:
        run = self._run_dir.name
        expires = datetime.now(UTC) + timedelta(seconds=self._lasts_s + KEPT_S)
        own = {"stormdrill.instance": instance} if instance else {}
        return {LABEL: run, **own, "stormdrill.expires": expires.isoformat(timespec="seconds")}

    def leave(self) -> None:
        """Before the containers are removed: what they have written is kept, and the engine is listened to no more."""
        self._events.stop()
        kept = [self._pool.submit(self._save_log, member) for member in self._fleet.all()]
        wait(kept, timeout=2 * logs.FETCH_LIMIT_S)

    def _save_log(self, member: Member) -> None:
        folder = self._run_dir / "logs"
        folder.mkdir(exist_ok=True)
        logs.save(self._engine, member.id, folder / f"{member.instance}.log")

    # --- what the engine tells -------------------------------------------------------------------------------

    def _heard(self, told: Told) -> None:
        event = self._fleet.event(told)
        if event is None:
            return
        self._note(event, told.at_ms)
        if told.action == "start":
            before = self._fleet.of(event.instance).pid
            pid = self._engine.state(told.container).pid
            if pid and pid != before:
                self._fleet.restarted(event.instance, pid)
                self._note(self._started(event.instance))
        elif told.action == "die":
            self._save_log(self._fleet.of(event.instance))

    def _troubled(self, text: str) -> None:
        self._note(Warned(text))

    def _note(self, event: Event, at_ms: float | None = None) -> None:
        if self._keeper is not None:
            try:
                self._keeper.record(event, at_ms)
            except StormdrillError:
                return  # the conductor hears of a keeper that is gone, or a journal that takes no more, by itself

    # --- what is asked of it ---------------------------------------------------------------------------------

    def respawned(self, instance: str, pid: int, start_ticks: int) -> None:
        """Containers are started again by the engine, whose event says so."""

    def ready(self) -> Mapping[str, bool]:
        checks: dict[str, Callable[[], bool]] = {
            item.name: partial(self.answers, item.name) for item in self._system.instances
        }
        if PROXY in self._laid().places:
            checks[PROXY] = lambda: _get(self._control(), Ready(path="/routes"))
        return self._at_once(checks)

    def _at_once(self, checks: Mapping[str, Callable[[], bool]]) -> dict[str, bool]:
        """All of them side by side; whoever has not answered when the limit is over is not ready."""
        asked = {name: self._pool.submit(check) for name, check in checks.items()}
        wait(asked.values(), timeout=ROUND_LIMIT_S)
        return {name: not future.cancel() and future.done() and future.result() for name, future in asked.items()}

    def answers(self, instance: str) -> bool:
        """Whether one instance answers its ready check now; without a check, whether it runs."""
        spec = next(item for item in self._system.instances if item.name == instance)
        try:
            member = self._fleet.of(instance)
        except Unreachable:
            return False
        if spec.ready is None:
            return self._engine.state(member.id).life == "running"
        return _get(member.address, spec.ready)

    def admin(self) -> str:
        """URL of the first instance of the admin service that answers; empty when there is none."""
        names = [item.name for item in self._system.instances if item.service == self._system.admin]
        answered = self._at_once({name: partial(self.answers, name) for name in names})
        return next((f"http://{self._fleet.of(name).address}" for name in names if answered[name]), "")

    def entries(self) -> tuple[str, ...]:
        """Base URLs where load enters."""
        found = [item for item in self.inventory() if item.service == self._system.entry]
        return tuple(f"http://{item.address}" for item in found)

    def undo_of(self, injection: Injection) -> tuple[Undo, ...]:
        return self.mechanisms[injection.mechanism].undo(injection)

    # --- small things ----------------------------------------------------------------------------------------

    def _instance(self, item: ServiceInstance) -> Instance:
        try:
            member = self._fleet.of(item.name)
        except Unreachable:
            return Instance(name=item.name, service=item.service, labels=item.labels)
        return Instance(item.name, item.service, item.labels, member.address, member.pid)

    def _laid(self) -> Layout:
        if self._layout is None:
            raise SystemNotReady("the containers are not laid out yet")
        return self._layout

    def _control(self) -> str:
        return self._laid().places[PROXY].address

    def _is_ours(self, item: ServiceInstance) -> bool:
        return self._image is not None and item.image == self._image.id

    def _all_ours(self) -> bool:
        return all(self._is_ours(item) for item in self._system.instances)


def _folder(spec: DockerSpec) -> Path:
    """Where the Dockerfile is: the one that is named, else the one that stormdrill ships."""
    named = Path(spec.build or ".")
    return named if (named / "Dockerfile").is_file() else catalogue.root()


def _get(address: str, ready: Ready) -> bool:
    """A whole answer is required: a frozen server still accepts connections, and one that drips serves nobody."""
    heard = request(ready.method, f"http://{address}{ready.path}", "", ANSWER_LIMIT_S)
    return not heard.error and heard.status < 500
