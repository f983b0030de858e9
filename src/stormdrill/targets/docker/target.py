"""The docker target: which containers are the system, how they are reached, and what is done to them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import Protocol

from msgspec.structs import replace

from stormdrill.errors import Refused, StormdrillError, Unreachable
from stormdrill.keeper.limited import request
from stormdrill.model.event import ContainerStarted, Event, Warned
from stormdrill.model.plan import Injection
from stormdrill.model.system import Ready, ServiceInstance, System
from stormdrill.model.undo import Undo
from stormdrill.ports import Hop, Instance, Keeper, Mechanism, World
from stormdrill.spec.secrets import redactor_of
from stormdrill.targets.docker import logs
from stormdrill.targets.docker.attach import Attach
from stormdrill.targets.docker.companions import companions
from stormdrill.targets.docker.compose import Composed
from stormdrill.targets.docker.engine import Engine, is_local, unusable
from stormdrill.targets.docker.events import EngineEvents, Told
from stormdrill.targets.docker.fleet import COMPANION, ENDS, Fleet, Member
from stormdrill.targets.docker.halting import Crashing, Freezing
from stormdrill.targets.docker.launch import Launch
from stormdrill.targets.docker.limiting import Limiting
from stormdrill.targets.docker.pressing import Pressing
from stormdrill.targets.docker.severing import Severing
from stormdrill.targets.portable.beside import Besides, Standing
from stormdrill.targets.portable.devices import Devices
from stormdrill.targets.portable.elsewhere import ON_CLUSTERS
from stormdrill.targets.portable.proxied import WORDS as TOXICS
from stormdrill.targets.portable.proxied import Toxics
from stormdrill.targets.portable.telling import Telling
from stormdrill.targets.process.wiring import PROXY

ANSWER_LIMIT_S = 0.8
ROUND_LIMIT_S = 0.95


class Source(Protocol):
    """Where the containers come from."""

    system: System
    """With the ids of what is meant, once it is prepared."""

    def prepare(self) -> None:
        """Touches no container. Raises Refused."""
        ...

    def hops(self) -> tuple[Hop, ...]: ...
    def without_rules(self) -> str:
        """Why packet rules can't be changed here; empty when they can."""
        ...

    def address(self, instance: str) -> str:
        """Where its peers reach it. Raises Unreachable."""
        ...

    def published(self, member: Member) -> str:
        """host:port of this machine that leads to it, now that it was started again."""
        ...

    def start(self, keeper: Keeper, joined: Callable[[Member], None]) -> None:
        """Claims, makes or finds them, and tells of each. Raises SystemNotReady."""
        ...

    def leave(self) -> None:
        """Nothing will be started again."""
        ...


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
        self._run_dir = run_dir
        self._redactor = redactor_of(secrets or {})
        self._engine = Engine()
        self._fleet = Fleet()
        self._source: Source
        if system.docker is not None and system.docker.attach:
            self._source = Attach(system, self._engine)
        else:
            made = Composed if system.docker is not None and system.docker.compose else Launch
            self._source = made(
                system,
                run_dir,
                self._engine,
                self._fleet,
                injections=injections,
                lasts_s=lasts_s,
                secrets=secrets or {},
            )
        self._keeper: Keeper | None = None
        self._events = EngineEvents(self._engine.where, self._heard, self._troubled)
        self._pool = ThreadPoolExecutor(max_workers=16, thread_name_prefix="ready")
        self.mechanisms = self._mechanisms()

    def _mechanisms(self) -> dict[str, Mechanism]:
        engine, fleet, source = self._engine, self._fleet, self._source
        known, proxy = lambda: frozenset(hop.name for hop in source.hops()), lambda: (engine.where, fleet.of(PROXY).id)
        toxics = Toxics(self._control, known, proxy)
        standing = Standing(self._keeping, self._run_dir)
        return {
            "freeze": Freezing(engine, fleet),
            "crash": Crashing(engine, fleet, self.answers, self._ends_for_good),
            **dict.fromkeys(TOXICS, toxics),
            "sever": Severing(engine, fleet, source.address, source.without_rules, self._loses_address),
            "pressure": Pressing(engine, fleet, self._memory_mb, self._ends_for_good),
            "cpu-limit": Limiting(engine, fleet, self._cpus),
            "device": Devices(lambda name: self._run_dir / "work" / name, self._address),
            "tell": Telling(self._address),
            "beside": Besides(standing, self._run_dir, self.entries),
            **ON_CLUSTERS,
        }

    # --- before anything is touched --------------------------------------------------------------------------

    def world(self) -> World:
        """With the ids of images or containers in the system: they are part of what a plan's digest speaks of."""
        self._prepare()
        return World(self._source.system, self.inventory(), self._source.hops())

    def preflight(self) -> None:
        """Raises Refused, before anything is touched, for what can be known to fail."""
        self._prepare()
        if isinstance(self._source, Launch):
            from stormdrill.targets.docker import starting  # noqa: F401  (refuses when a library is missing)

    def _prepare(self) -> None:
        where = self._engine.where
        if not is_local(where):
            what = f"the engine at {where} is not on this machine, and its containers' ports would not be either"
            raise Refused(f"target docker: {what}; unset DOCKER_HOST, or name a local engine in it")
        heard = self._engine.call("GET", "/_ping")
        if heard.status != 200:
            raise Refused(f"target docker: {unusable(where, heard)}")
        self._source.prepare()

    # --- the run ---------------------------------------------------------------------------------------------

    def start(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._source.prepare()
        self._events.start()
        self._source.start(keeper, self._joined)

    def _joined(self, member: Member) -> None:
        early = self._fleet.join(replace(member, pid=self._engine.state(member.id).pid))
        self._note(self._started(member.instance))
        for told in early:
            if told.action in ENDS:  # the rest is how it was made
                self._heard(told)

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

    def leave(self) -> None:
        """Before the containers are removed: what they have written is kept, and the engine is listened to no more."""
        self._events.stop()
        kept = [self._pool.submit(self._save_log, member) for member in self._fleet.all() if member.role != "helper"]
        wait(kept, timeout=2 * logs.FETCH_LIMIT_S)
        self._source.leave()

    def _save_log(self, member: Member) -> None:
        logs.save(self._engine, member.id, self._log(member), self._redactor)

    def _last_words(self, member: Member) -> str:
        last = logs.last_line(self._log(member))
        return f"; its last words: {last}" if last else ""

    def _log(self, member: Member) -> Path:
        folder = self._run_dir / "logs"
        folder.mkdir(exist_ok=True)
        return folder / f"{member.instance}.log"

    # --- what the engine tells -------------------------------------------------------------------------------

    def _heard(self, told: Told) -> None:
        member = self._fleet.told_of(told)
        if member is None or self._fleet.is_how_it_was_made(told):
            return
        if told.action == "network-disconnect" and self._engine.state(member.id).life == "gone":
            return  # because it ended, which is told too
        pid = self._engine.state(member.id).pid if told.action == "start" else 0
        if pid and pid == member.pid:
            return  # its first start, of which is told already
        event = self._fleet.event(member, told)
        if told.action == "die" and member.role == COMPANION and not told.code:
            event = dataclasses.replace(event, expected=True)  # it prepares something for the others, and is done
        if told.action == "die":
            self._save_log(member)
            if not event.expected:
                event = dataclasses.replace(event, detail=f"{event.detail}{self._last_words(member)}")
        self._note(event, told.at_ms)
        if pid:
            self._fleet.join(replace(member, pid=pid, address=self._source.published(member)))
            self._note(self._started(member.instance))

    def _troubled(self, text: str) -> None:
        self._note(Warned(text))

    def _note(self, event: Event, at_ms: float | None = None) -> None:
        try:
            self._keeping().record(event, at_ms)
        except StormdrillError:
            return  # the conductor hears of a keeper that is gone, or a journal that takes no more, by itself

    # --- what is asked of it ---------------------------------------------------------------------------------

    def inventory(self) -> tuple[Instance, ...]:
        return tuple(self._instance(item) for item in self._source.system.instances)

    def companions(self) -> Mapping[str, int]:
        return companions(self._fleet)

    def respawned(self, instance: str, pid: int, start_ticks: int) -> None:
        """Containers are started again by the engine, whose event says so."""

    def ready(self) -> Mapping[str, bool]:
        checks: dict[str, Callable[[], bool]] = {
            item.name: partial(self.answers, item.name) for item in self._source.system.instances
        }
        if self._control():
            checks[PROXY] = lambda: _get(self._control(), Ready(path="/routes"))
        return self._at_once(checks)

    def _at_once(self, checks: Mapping[str, Callable[[], bool]]) -> dict[str, bool]:
        """All of them side by side; whoever has not answered when the limit is over is not ready."""
        asked = {name: self._pool.submit(check) for name, check in checks.items()}
        wait(asked.values(), timeout=ROUND_LIMIT_S)
        return {name: not future.cancel() and future.done() and future.result() for name, future in asked.items()}

    def answers(self, instance: str) -> bool:
        """Whether one instance answers its ready check now; without a check, whether it runs."""
        spec = next(item for item in self._source.system.instances if item.name == instance)
        try:
            member = self._fleet.of(instance)
        except Unreachable:
            return False
        if spec.ready is None or not member.address:
            return self._engine.state(member.id).life == "running"
        return _get(member.address, spec.ready)

    def admin(self) -> str:
        """URL of the first instance of the admin service that answers; empty when there is none."""
        system = self._source.system
        names = [item.name for item in system.instances if item.service == system.admin]
        answered = self._at_once({name: partial(self.answers, name) for name in names})
        return next((f"http://{self._address(name)}" for name in names if answered[name]), "")

    def entries(self) -> tuple[str, ...]:
        """Base URLs where load enters."""
        entry = self._source.system.entry
        return tuple(f"http://{item.address}" for item in self.inventory() if item.service == entry)

    def undo_of(self, injection: Injection) -> tuple[Undo, ...]:
        return self.mechanisms[injection.mechanism].undo(injection)

    # --- small things ----------------------------------------------------------------------------------------

    def _instance(self, item: ServiceInstance) -> Instance:
        try:
            member = self._fleet.of(item.name)
        except Unreachable:
            return Instance(name=item.name, service=item.service, labels=item.labels)
        return Instance(item.name, item.service, item.labels, member.address, member.pid)

    def _keeping(self) -> Keeper:
        assert self._keeper is not None, "nothing is injected before the start"
        return self._keeper

    def _address(self, instance: str) -> str:
        return self._fleet.of(instance).address

    def _control(self) -> str:
        """Where the fault proxy is told what to do; empty without one."""
        try:
            return self._fleet.of(PROXY).address
        except Unreachable:
            return ""

    def _memory_mb(self, instance: str) -> float:
        """Its limit as its container has it, or will have it; 0 without one."""
        spec = next(item for item in self._source.system.instances if item.name == instance)
        return spec.memory_mb or (self._source.memory_mb(instance) if isinstance(self._source, Attach) else 0.0)

    def _cpus(self, instance: str) -> float:
        """The same of the cores that it may use."""
        spec = next(item for item in self._source.system.instances if item.name == instance)
        return spec.cpus or (self._source.cpus(instance) if isinstance(self._source, Attach) else 0.0)

    def _loses_address(self, instance: str) -> str:
        """What taking it off its networks can't give back; empty for fixed addresses."""
        return self._source.loses_address(instance) if isinstance(self._source, Attach) else ""

    def _ends_for_good(self, instance: str) -> str:
        """Why nothing starts it again once it has ended; empty when the engine does."""
        return self._source.ends_for_good(instance) if isinstance(self._source, Attach) else ""


def _get(address: str, ready: Ready) -> bool:
    """A whole answer is required: a frozen server still accepts connections, and one that drips serves nobody."""
    heard = request(ready.method, f"http://{address}{ready.path}", "", ANSWER_LIMIT_S)
    return not heard.error and heard.status < 500
