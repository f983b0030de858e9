"""Ports, environment and proxied hops of a system on local processes: who listens where and calls whom."""

from __future__ import annotations

import errno
import random
import socket
from pathlib import Path

from msgspec import Struct

from stormdrill.errors import Problem, Refused
from stormdrill.model.system import ServiceInstance, System
from stormdrill.ports import Hop

HOST = "127.0.0.1"
PROXY = "proxy"
LOWEST_PORT = 15_000
BLOCK = 128


class Route(Struct, frozen=True):
    """One caller's way to one instance of a dependency, through one listener of the proxy."""

    name: str
    """`edge-1>gateway-eu`"""
    listen: int
    to: str
    """host:port of the callee."""


class Wiring(Struct, frozen=True):
    ports: dict[str, int]
    """Instance → port where it listens."""
    hops: tuple[Route, ...]
    control_port: int
    """Where the proxy answers; 0 without hops."""
    peers: dict[str, dict[str, str]]
    """Caller instance → environment variable → `instance=host:port,…`."""


class FreePorts:
    """Ports that nobody listens on, held open until `release` so that two askers never get the same one.

    They come in blocks. The first port of a block stays bound until `close` and says whose the block is: between the
    release and the moment when everything listens, and while an instance is down, no other run takes its ports.

    Below those that the kernel gives to outgoing connections: one of these could take the port of an instance that is
    down, even by connecting to itself, and keep it from coming back.
    """

    def __init__(self) -> None:
        self._held: list[socket.socket] = []
        self._blocks_held: list[socket.socket] = []
        starts = range(LOWEST_PORT, _first_outgoing_port() - BLOCK + 1, BLOCK)
        self._blocks = random.sample(starts, len(starts))
        self._left: list[int] = []

    def take(self) -> int:
        while (held := _bound(port := self._next())) is None:
            if not port:
                raise OSError(errno.EADDRINUSE, f"no port of {HOST} is free")
        self._held.append(held)
        taken: int = held.getsockname()[1]
        return taken

    def _next(self) -> int:
        """A port of a block of ours; 0, the kernel's choice, where no block is to be had."""
        while not self._left and self._blocks:
            start = self._blocks.pop()
            held = _bound(start)
            if held is not None:
                self._blocks_held.append(held)
                self._left = list(range(start + BLOCK - 1, start, -1))
        return self._left.pop() if self._left else 0

    def release(self) -> None:
        """The ports may be listened on now; the blocks stay ours."""
        while self._held:
            self._held.pop().close()

    def close(self) -> None:
        self.release()
        while self._blocks_held:
            self._blocks_held.pop().close()


def _bound(port: int) -> socket.socket | None:
    """None: somebody has it."""
    held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        held.bind((HOST, port))
    except OSError as error:
        held.close()
        if error.errno == errno.EADDRINUSE:
            return None
        raise
    return held


def _first_outgoing_port() -> int:
    """0 where the kernel doesn't tell."""
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 0


def check_fixed_ports(system: System) -> None:
    """Raises Refused for every fixed port that is taken, before anything is touched."""
    problems = []
    for instance in system.instances:
        if instance.port is None:
            continue
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, instance.port))
            except OSError as error:
                what = f"port {instance.port} of {instance.name} is taken on {HOST} ({error.strerror})"
                fix = "stop what listens there, or leave `port:` out and use $port in the command"
                problems.append(Problem(f"system {system.name}", 0, 0, what, fix))
    if problems:
        raise Refused(problems)


def hops_of(system: System) -> tuple[Hop, ...]:
    """Every hop that passes a proxy: one for each caller and each callee of a dependency."""
    found: dict[str, Hop] = {}
    for dependency in system.dependencies:
        for caller in system.instances:
            for callee in system.instances:
                if caller.service in dependency.callers and callee.service == dependency.to and caller is not callee:
                    name = f"{caller.name}>{callee.name}"
                    found.setdefault(name, Hop(name, dependency.name, caller.name, callee.name))
    return tuple(found.values())


def wire(system: System, free: FreePorts) -> Wiring:
    ports = {item.name: item.port if item.port is not None else free.take() for item in system.instances}
    routes = {
        hop.name: Route(name=hop.name, listen=free.take(), to=f"{HOST}:{ports[hop.callee]}") for hop in hops_of(system)
    }
    peers: dict[str, dict[str, str]] = {item.name: {} for item in system.instances}
    for dependency in system.dependencies:
        callees = [item.name for item in system.instances if item.service == dependency.to]
        variable = f"STORMDRILL_PEERS_{dependency.name.upper().replace('-', '_')}"
        for caller in (item.name for item in system.instances if item.service in dependency.callers):
            ways = {name: routes[f"{caller}>{name}"].listen for name in callees if name != caller}
            peers[caller][variable] = ",".join(f"{name}={HOST}:{port}" for name, port in ways.items())
    return Wiring(ports=ports, hops=tuple(routes.values()), control_port=free.take() if routes else 0, peers=peers)


def command_of(instance: ServiceInstance, port: int) -> tuple[str, ...]:
    return tuple(word.replace("$port", str(port)) for word in instance.command)


def uses_port(instance: ServiceInstance) -> bool:
    """Whether the instance is known to listen, so that an address may be given for it."""
    return instance.port is not None or instance.ready is not None or any("$port" in w for w in instance.command)
