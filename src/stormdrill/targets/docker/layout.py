"""Where everything of a run will be: names, addresses on a network of its own, ports, environment, limits. Pure, but
for looking for free ports."""

from __future__ import annotations

import ipaddress
import zlib
from collections.abc import Collection, Mapping

from msgspec import Struct

from stormdrill.model.system import MEMORY_LIMIT, ServiceInstance, System
from stormdrill.targets.process.wiring import HOST, PROXY, FreePorts, hops_of

INSIDE_PORT = 8000
CONTROL_PORT = 8474
FIRST_HOP_PORT = 9000
DATA = "/stormdrill/data"
LABEL = "stormdrill"
POOL = ipaddress.IPv4Network("10.196.0.0/14")
"""Where runs' networks are: 1,024 of 254 addresses, rarely used by others."""
FIRST_HOST = 10
"""Lower addresses are the gateway's and what a person may add."""
MOST_ADDRESSES = 230
"""In a network of 254."""


class Place(Struct, frozen=True):
    """One instance's place in a run."""

    instance: str
    container: str
    """Its name."""
    ip: str
    inside: int
    """The port it listens on, in its own network namespace."""
    published: int
    """The same on 127.0.0.1."""

    @property
    def address(self) -> str:
        return f"{HOST}:{self.published}"


class Layout(Struct, frozen=True):
    run: str
    network: str
    subnet: str
    gateway: str
    places: dict[str, Place]
    """Instance → place; the proxy's under its own name where there are hops."""
    routes: tuple[dict[str, object], ...]
    """What the proxy serves."""
    peers: dict[str, dict[str, str]]
    """Caller → environment variable → `instance=host:port,…`, by way of the proxy."""
    known_as: dict[str, dict[str, str]] = {}
    """Caller → name of a callee → the proxy's address that stands for it, for callers that know names alone."""

    @property
    def stand_ins(self) -> list[str]:
        """The proxy's further addresses: one for each hop whose caller knows names alone."""
        return [str(route["at"]) for route in self.routes if "at" in route]

    def direct(self, instance: str) -> list[str]:
        """The name by which it is reached past the proxy, where its own name leads there."""
        stood_for = any(instance in names for names in self.known_as.values())
        return [f"{instance}-direct"] if stood_for else []

    def address(self, number: int) -> str:
        return str(ipaddress.ip_network(self.subnet)[number])

    @property
    def names(self) -> list[str]:
        return [place.container for place in self.places.values()]


def subnets(run: str, taken: Collection[str]) -> list[str]:
    """Networks to try, in an order of the run's own: those that overlap with none that is taken."""
    used = [ipaddress.IPv4Network(item, strict=False) for item in taken]
    every = list(POOL.subnets(new_prefix=24))
    first = zlib.crc32(run.encode()) % len(every)
    return [str(item) for item in every[first:] + every[:first] if not any(item.overlaps(other) for other in used)]


def lay_out(
    system: System,
    run: str,
    subnet: str,
    free: FreePorts,
    by_name: Collection[str] = (),
    names: Mapping[str, Collection[str]] | None = None,
) -> Layout:
    """`by_name`: callers that reach their callees by name, `names`: further names of a callee than its own."""
    network = ipaddress.ip_network(subnet)
    base = f"stormdrill-{run}"
    hops = hops_of(system)
    all_names = [item.name for item in system.instances] + ([PROXY] if hops else [])
    ports = {item.name: item.port or INSIDE_PORT for item in system.instances} | {PROXY: CONTROL_PORT}
    places = {
        name: Place(name, f"{base}-{name}", str(network[FIRST_HOST + number]), ports[name], free.take())
        for number, name in enumerate(all_names)
    }
    routes: list[dict[str, object]] = []
    ways: dict[str, str] = {}
    known_as: dict[str, dict[str, str]] = {}
    spare = iter(range(2, network.num_addresses))
    for number, hop in enumerate(hops):
        at, listen = places[PROXY].ip, FIRST_HOP_PORT + number
        route: dict[str, object] = {"name": hop.name, "to": f"{places[hop.callee].ip}:{ports[hop.callee]}"}
        if hop.caller in by_name:
            # the callee's own port, which other callees may have too: so it needs an address of its own
            at, listen = str(network[-next(spare)]), ports[hop.callee]
            route["at"] = at
            alike = [hop.callee, *(names or {}).get(hop.callee, ())]
            known_as.setdefault(hop.caller, {}).update(dict.fromkeys(alike, at))
        ways[hop.name] = f"{at}:{listen}"
        routes.append(route | {"listen": listen})
    return Layout(run, base, subnet, str(network[1]), places, tuple(routes), _peers(system, ways), known_as)


def _peers(system: System, ways: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """As on local processes: each caller's way to each instance of each of its dependencies."""
    peers: dict[str, dict[str, str]] = {item.name: {} for item in system.instances}
    for dependency in system.dependencies:
        callees = [item.name for item in system.instances if item.service == dependency.to]
        variable = f"STORMDRILL_PEERS_{dependency.name.upper().replace('-', '_')}"
        for caller in (item.name for item in system.instances if item.service in dependency.callers):
            known = [f"{name}={ways[f'{caller}>{name}']}" for name in callees if name != caller]
            peers[caller][variable] = ",".join(known)
    return peers


def environment(
    item: ServiceInstance, place: Place, peers: Mapping[str, str], secrets: Mapping[str, str]
) -> dict[str, str]:
    """What its processes are told, as on local processes; secrets by value, since nobody else fills them in."""
    port = str(place.inside)
    own = {name: value.replace("$port", port) for name, value in item.env.items()}
    for name, value in secrets.items():
        own = {key: text.replace(f"${{secret:{name}}}", value) for key, text in own.items()}
    return {
        **peers,
        "STORMDRILL_INSTANCE": item.name,
        "STORMDRILL_PORT": port,
        "STORMDRILL_HOST": "0.0.0.0",  # noqa: S104  (of the container's own network namespace)
        "STORMDRILL_DATA": DATA,
        **own,
        **(
            {MEMORY_LIMIT: "0"} if own.get(MEMORY_LIMIT) == f"{item.memory_mb:g}" else {}
        ),  # the kernel holds it to that
    }


def command(item: ServiceInstance, place: Place) -> list[str]:
    words = [word.replace("$port", str(place.inside)) for word in item.command]
    return ["python3", *words[1:]] if words[:1] == ["python"] else words
