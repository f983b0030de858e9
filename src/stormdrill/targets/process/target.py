"""The process target: starts any system that its file describes, knows its inventory, stops and thaws instances."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path

import msgspec

from stormdrill.keeper.limited import request
from stormdrill.model.plan import Injection
from stormdrill.model.system import Ready, ServiceInstance, System
from stormdrill.model.undo import Undo
from stormdrill.ports import Instance, Keeper, Mechanism, World
from stormdrill.targets.portable.beside import Besides, Standing
from stormdrill.targets.portable.devices import Devices
from stormdrill.targets.portable.elsewhere import ON_CLUSTERS
from stormdrill.targets.portable.proxied import WORDS as TOXICS
from stormdrill.targets.portable.proxied import Toxics
from stormdrill.targets.portable.telling import Telling
from stormdrill.targets.process.halting import Crashing, Freezing, life_of
from stormdrill.targets.process.pressing import CPU_LIMIT, SEVER, Pressing, free_mb
from stormdrill.targets.process.wiring import (
    HOST,
    PROXY,
    FreePorts,
    Wiring,
    check_fixed_ports,
    command_of,
    hops_of,
    uses_port,
    wire,
)

ANSWER_LIMIT_S = 0.8
ROUND_LIMIT_S = 0.95
"""For a round over all instances, however many there are."""


class ProcessTarget:
    """One system on local processes. Implements `ports.Target` and the capability `ports.Mechanisms`."""

    name = "process"
    permission = "start and signal this user's own processes; listen on 127.0.0.1"

    def __init__(self, system: System, run_dir: Path) -> None:
        self._system = system
        self._run_dir = run_dir
        self._keeper: Keeper | None = None
        self._proxy: Instance | None = None
        self._ports = FreePorts()
        self._known: dict[str, Instance] = {item.name: self._before_start(item) for item in system.instances}
        self.mechanisms = self._mechanisms()
        self._pool = ThreadPoolExecutor(max_workers=16, thread_name_prefix="ready")

    def _mechanisms(self) -> dict[str, Mechanism]:
        hops = frozenset(hop.name for hop in hops_of(self._system))
        toxics = Toxics(lambda: self._proxy.address if self._proxy else "", lambda: hops)
        standing = Standing(self._keeping, self._run_dir)
        return {
            "freeze": Freezing(self._known.__getitem__),
            "crash": Crashing(self._known.__getitem__, self.answers),
            **dict.fromkeys(TOXICS, toxics),
            "sever": SEVER,
            "pressure": Pressing(standing, free_mb),
            "cpu-limit": CPU_LIMIT,
            "device": Devices(lambda name: self._run_dir / "work" / name, self._address),
            "tell": Telling(self._address),
            "beside": Besides(standing, self._run_dir, self.entries),
            **ON_CLUSTERS,
        }

    def _keeping(self) -> Keeper:
        assert self._keeper is not None, "nothing is injected before the start"
        return self._keeper

    def _address(self, instance: str) -> str:
        return self._known[instance].address

    def inventory(self) -> tuple[Instance, ...]:
        return tuple(self._known.values())

    def preflight(self) -> None:
        """Raises Refused, before anything is touched, for what can be known to fail."""
        check_fixed_ports(self._system)

    def start(self, keeper: Keeper) -> None:
        self._keeper = keeper
        wiring = wire(self._system, self._ports)
        work = self._run_dir / "work"
        work.mkdir(parents=True, exist_ok=True)
        self._ports.release()
        if wiring.hops:
            self._start_proxy(keeper, wiring, work)
        for item in self._system.instances:
            data = work / item.name
            data.mkdir(exist_ok=True)
            port = wiring.ports[item.name]
            address = f"{HOST}:{port}" if uses_port(item) else ""
            env = {
                **wiring.peers[item.name],
                "STORMDRILL_INSTANCE": item.name,
                "STORMDRILL_PORT": str(port),
                "STORMDRILL_DATA": str(data),
                **{name: value.replace("$port", str(port)) for name, value in item.env.items()},
            }
            argv = command_of(item, port)
            if argv[0] in ("python", "python3"):
                argv = (sys.executable, *argv[1:])  # the interpreter that has what stormdrill has
            spawned = keeper.spawn(
                item.name,
                service=item.service,
                role="system",
                argv=argv,
                env=env,
                cwd=str(Path.cwd()),
                address=address,
                labels=item.labels,
            )
            self._known[item.name] = Instance(
                name=item.name,
                service=item.service,
                labels=item.labels,
                address=address,
                pid=spawned.pid,
                start_ticks=spawned.start_ticks,
            )

    def respawned(self, instance: str, pid: int, start_ticks: int) -> None:
        """The keeper has started an instance again: that process is the instance now."""
        if instance in self._known:
            self._known[instance] = msgspec.structs.replace(self._known[instance], pid=pid, start_ticks=start_ticks)

    def ready(self) -> Mapping[str, bool]:
        checks = {item.name: partial(self.answers, item.name) for item in self._system.instances}
        if self._proxy is not None:
            checks[PROXY] = partial(_get, self._proxy.address, Ready(path="/healthz"))
        return self._at_once(checks)

    def _at_once(self, checks: Mapping[str, Callable[[], bool]]) -> dict[str, bool]:
        """All of them side by side; whoever has not answered when the limit is over is not ready."""
        asked = {name: self._pool.submit(check) for name, check in checks.items()}
        wait(asked.values(), timeout=ROUND_LIMIT_S)
        return {name: not future.cancel() and future.done() and future.result() for name, future in asked.items()}

    def answers(self, instance: str) -> bool:
        """Whether one instance answers its ready check now (bounded by ANSWER_LIMIT_S)."""
        spec = next(item for item in self._system.instances if item.name == instance)
        return self._answers(self._known[instance], spec.ready)

    def admin(self) -> str:
        """URL of the first instance of the admin service that answers; empty when there is none."""
        names = [item.name for item in self._system.instances if item.service == self._system.admin]
        answered = self._at_once({name: partial(self.answers, name) for name in names})
        return next((f"http://{self._known[name].address}" for name in names if answered[name]), "")

    def entries(self) -> tuple[str, ...]:
        """Base URLs where load enters."""
        found = [item for item in self._known.values() if item.service == self._system.entry]
        return tuple(f"http://{item.address}" for item in found)

    def undo_of(self, injection: Injection) -> tuple[Undo, ...]:
        return self.mechanisms[injection.mechanism].undo(injection)

    def companions(self) -> Mapping[str, int]:
        """The keeper's children are told already; there is nobody else."""
        return {}

    def leave(self) -> None:
        """Nothing is lost: the processes' output and data are in the run directory already."""
        self._ports.close()

    def world(self) -> World:
        return World(self._system, self.inventory(), hops_of(self._system))

    def _before_start(self, item: ServiceInstance) -> Instance:
        return Instance(name=item.name, service=item.service, labels=item.labels)

    def _answers(self, known: Instance, ready: Ready | None) -> bool:
        if life_of(known) != "running":
            return False
        return ready is None or not known.address or _get(known.address, ready)

    def _start_proxy(self, keeper: Keeper, wiring: Wiring, work: Path) -> None:
        config = work / "proxy.json"
        routes = [{"name": hop.name, "listen": hop.listen, "to": hop.to} for hop in wiring.hops]
        config.write_text(json.dumps({"control": wiring.control_port, "routes": routes}, indent=1))
        address = f"{HOST}:{wiring.control_port}"
        spawned = keeper.spawn(
            PROXY,
            service=PROXY,
            role="proxy",
            argv=(sys.executable, "-m", "stormdrill.proxy", "--config", str(config)),
            env={},
            cwd=str(Path.cwd()),
            address=address,
            labels={},
        )
        self._proxy = Instance(name=PROXY, service=PROXY, labels={}, address=address, pid=spawned.pid)


def _get(address: str, ready: Ready) -> bool:
    """A whole answer is required: a frozen server still accepts connections, and one that drips serves nobody."""
    heard = request(ready.method, f"http://{address}{ready.path}", "", ANSWER_LIMIT_S)
    return not heard.error and heard.status < 500
