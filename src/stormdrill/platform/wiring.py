"""What the target tells a process about its place: name, port, state directory, and its way to each dependency."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

LOOPBACK = "127.0.0.1"
IDLE_S = 30.0


class WiringError(Exception):
    """The environment does not say what this process needs; the message names the variable."""


class Peer(Struct, frozen=True):
    """One instance of a dependency; `address` is our own hop through the proxy."""

    instance: str
    address: str

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def region(self, service: str) -> str:
        """`gateway-eu` → `eu`."""
        return self.instance.removeprefix(f"{service}-")


class Wiring(Struct, frozen=True):
    instance: str
    host: str
    """Where it listens: loopback, or every address of a container's own network namespace."""
    port: int
    data: Path
    """State that outlives the process."""
    peers: dict[str, tuple[Peer, ...]]
    """Dependency in lower case → its instances."""
    release: str = "stable"
    leak_mb_per_s: float = 4.0
    """What a worker of the release `leaky` keeps."""
    memory_limit_mb: float = 0.0
    """A worker that holds more is killed; 0: never."""
    connection_age_s: float = 0.0
    """Older connections are closed with their next answer; 0: never."""

    @property
    def idle_s(self) -> float:
        """How long a caller keeps a connection that it doesn't use: shorter than its other end keeps any."""
        return self.connection_age_s / 2 or IDLE_S

    def peers_of(self, dependency: str) -> tuple[Peer, ...]:
        """Raises WiringError when the system file declares no such dependency for this service."""
        if dependency not in self.peers:
            raise WiringError(
                f"{self.instance} needs STORMDRILL_PEERS_{dependency.upper()} (instance=host:port, comma separated); "
                f"declare the dependency `{dependency}` in the system file"
            )
        return self.peers[dependency]


def read_wiring(environment: Mapping[str, str] = os.environ) -> Wiring:
    """Raises WiringError with everything that is missing."""
    missing = [name for name in ("STORMDRILL_INSTANCE", "STORMDRILL_PORT") if not environment.get(name)]
    if missing:
        raise WiringError(f"set {' and '.join(missing)}: a platform process is started by a target, not by hand")
    if not environment["STORMDRILL_PORT"].isdigit():
        raise WiringError(f"STORMDRILL_PORT is {environment['STORMDRILL_PORT']!r}; give a port number")
    prefix = "STORMDRILL_PEERS_"
    peers = {
        name.removeprefix(prefix).lower(): _peers(name, value)
        for name, value in environment.items()
        if name.startswith(prefix)
    }
    return Wiring(
        instance=environment["STORMDRILL_INSTANCE"],
        host=environment.get("STORMDRILL_HOST") or LOOPBACK,
        port=int(environment["STORMDRILL_PORT"]),
        data=Path(environment.get("STORMDRILL_DATA") or "."),
        peers=peers,
        release=environment.get("STORMDRILL_RELEASE") or "stable",
        leak_mb_per_s=_number(environment, "STORMDRILL_LEAK_MB_PER_S", 4.0),
        memory_limit_mb=_number(environment, "STORMDRILL_MEMORY_LIMIT_MB", 0.0),
        connection_age_s=_number(environment, "STORMDRILL_CONNECTION_AGE_S", 0.0),
    )


def _number(environment: Mapping[str, str], name: str, default: float) -> float:
    written = environment.get(name)
    if not written:
        return default
    try:
        number = float(written)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise WiringError(f"{name} is {written!r}; give a number, 0 or more")
    return number


def _peers(name: str, value: str) -> tuple[Peer, ...]:
    peers = []
    for part in filter(None, value.split(",")):
        instance, equals, address = part.partition("=")
        if not equals or ":" not in address:
            raise WiringError(f"{name} holds {part!r}; write instance=host:port")
        peers.append(Peer(instance, address))
    return tuple(peers)
