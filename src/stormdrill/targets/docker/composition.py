"""A compose file as its own tool resolves it, read and arranged anew as one run's: other names and ports, one network,
the run's labels. Pure: asks nobody and starts nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import cast

import yaml
from msgspec import Struct

from stormdrill.errors import Problem, Refused
from stormdrill.model.system import System

NETWORK = "run"
CPU_PERIOD_US = 100_000
LOG_MB = 20
PIDS = 256
Values = dict[str, object]
REPLACED = frozenset({"ports", "networks", "network_mode", "restart", "deploy", "container_name", "profiles"}) | {
    "scale",
    "build",
    "pull_policy",
    "expose",
}
"""What a service says that the run says instead."""
UNCHANGED = ("secrets", "configs")


class Composition(Struct, frozen=True):
    services: dict[str, Values]
    """Those that are started: the ones of no profile, and the ones that the system names."""
    volumes: dict[str, Values]
    networks: dict[str, Values]
    others: dict[str, Values]
    resolved: str
    """SHA-256 of all that the tool made of the file: it may hold secrets, so it is kept nowhere."""

    def image(self, service: str, system: str) -> str:
        """Its image, or how the one that is built for it is called."""
        return str(self.services[service].get("image") or f"{system}-{service}")

    @property
    def built(self) -> list[str]:
        return [name for name, service in self.services.items() if service.get("build")]

    @property
    def way_out(self) -> bool:
        """Whether its containers may reach other networks than their own."""
        return not self.networks or not all(network.get("internal") for network in self.networks.values())

    def also_known_as(self, service: str) -> list[str]:
        """Names besides the service's own by which others find it."""
        found = self.services[service]
        names = [alias for way in _ways(found).values() for alias in cast("list[str]", way.get("aliases") or [])]
        names += [str(found["container_name"])] if found.get("container_name") else []
        for link in (str(link) for other in self.services.values() for link in _list(other.get("links"))):
            target, _, alias = link.partition(":")
            names += [alias] if target == service and alias else []
        return list(dict.fromkeys(names))


class Wish(Struct, frozen=True):
    """What one service is in the run."""

    container: str
    ip: str
    labels: dict[str, str]
    published: str = ""
    """`127.0.0.1:15000:8080`; empty: nothing."""
    env: dict[str, str] = {}
    hosts: dict[str, str] = {}
    """Name → the address that stands for it."""
    data: str = ""
    """`/folder/here:/folder/inside`, or empty."""
    memory_mb: float = 0.0
    cpus: float = 0.0
    aliases: tuple[str, ...] = ()


def read(text: bytes, named: Iterable[str]) -> Composition:
    """`named`: services that are started even where a profile holds them back. Raises Refused."""
    try:
        found = yaml.safe_load(text)
        services = {str(name): dict(service or {}) for name, service in found["services"].items()}
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise Refused(f"target docker: the compose file has no services that can be read ({error})") from error
    meant = {name: item for name, item in services.items() if not item.get("profiles") or name in set(named)}
    held = _used(item for name, item in services.items() if name not in meant) - _used(meant.values())
    parts = [
        {str(key): dict(item or {}) for key, item in (found.get(part) or {}).items() if (part, str(key)) not in held}
        for part in _PARTS
    ]
    others = {part: found[part] for part in UNCHANGED if found.get(part)}
    return Composition(meant, parts[0], parts[1], others, hashlib.sha256(text).hexdigest())


_PARTS = ("volumes", "networks")


def _used(services: Iterable[Values]) -> set[tuple[str, str]]:
    """Volumes and networks that these services name."""
    found = set()
    for service in services:
        found |= {("networks", name) for name in _ways(service)}
        for one in _list(service.get("volumes")):
            found.add(("volumes", str(one.get("source") if isinstance(one, dict) else str(one).partition(":")[0])))
    return found


def problems(composition: Composition, system: System, path: str) -> list[Problem]:
    """What a run can't carry out, or what would reach beyond it."""
    found: list[Problem] = []

    def tell(what: str, fix: str) -> None:
        found.append(Problem(path, 0, 0, what, fix))

    called = {dependency.to for dependency in system.dependencies}
    for item in system.instances:
        if item.service not in composition.services:
            there = ", ".join(composition.services) or "none"
            tell(f"no service {item.service}, which the system {system.name} names", f"it has: {there}")
        elif item.name != item.service:
            tell(f"{item.name}: a service is one container here", f"remove instances of {item.service}; add services")
        if item.port is None and (item.service in called or item.service == system.entry or item.ready):
            what = f"nothing says where {item.service} listens inside, and it is called"
            tell(what, f"add port: 8080 to {item.service} in the system file")
    for name, service in composition.services.items():
        _check(name, service, tell)
        for other in _needed(service) - set(composition.services):
            fix = f"name {other} in the system file too, or remove it from depends_on"
            tell(f"{name} depends on {other}, which its profile holds back", fix)
    for kind, many in (("volume", composition.volumes), ("network", composition.networks)):
        for name, one in many.items():
            if one.get("external"):
                what = f"the {kind} {name} is external: a drill would reach what isn't its own"
                tell(what, f"let the file make the {kind}, or start it yourself and use attach")
    return found


def _check(name: str, service: Values, tell: Callable[[str, str], None]) -> None:
    mode = str(service.get("network_mode") or "")
    if mode:
        tell(f"{name} has network_mode: {mode}", "remove it: the run's containers share one network of their own")
    deploy = _values(service.get("deploy"))
    if max(_number(service.get("scale")), _number(deploy.get("replicas"))) > 1:
        tell(f"{name} is to run several times", "write a service for each, with a name of its own")
    if any(way.get("ipv4_address") or way.get("ipv6_address") for way in _ways(service).values()):
        tell(f"{name} has a fixed address", "remove it, and let others use its name: each run has a network of its own")


def to_build(composition: Composition, system: str) -> str:
    """For the tool, which builds it; each image under the name by which it is looked for."""
    services = {
        name: {"build": composition.services[name]["build"], "image": composition.image(name, system)}
        for name in composition.built
    }
    return json.dumps({"services": services})


def arranged(
    composition: Composition, system: str, run: str, network: str, wishes: Mapping[str, Wish], labels: Mapping[str, str]
) -> str:
    """For the tool, which starts it. `labels`: those of everything that the run makes."""
    volumes = {
        name: {**one, "name": f"stormdrill-{run}-{name}", "labels": {**_labels(one.get("labels")), **labels}}
        for name, one in composition.volumes.items()
    }
    services = {
        name: _arranged(service, composition.image(name, system), wishes[name])
        for name, service in composition.services.items()
    }
    networks = {NETWORK: {"external": True, "name": network}}
    made = {"services": services, "networks": networks, "volumes": volumes, **composition.others}
    return json.dumps({key: value for key, value in made.items() if value})


def _arranged(service: Values, image: str, wish: Wish) -> Values:
    made: Values = {key: value for key, value in service.items() if key not in REPLACED and value is not None}
    env = {key: value.replace("$", "$$") for key, value in wish.env.items()}
    hosts = [f"{name}:{address}" for name, address in wish.hosts.items()]
    volumes = [wish.data] if wish.data else []
    made |= {
        "image": image,
        "container_name": wish.container,
        "restart": "no",
        "labels": {**_labels(service.get("labels")), **wish.labels},
        "environment": {**_labels(service.get("environment")), **env},
        "networks": {NETWORK: {"ipv4_address": wish.ip, "aliases": list(wish.aliases)}},
        "extra_hosts": hosts + _hosts(service.get("extra_hosts")),
        "volumes": _list(service.get("volumes")) + volumes,
        "ports": [wish.published] if wish.published else [],
    }
    made.setdefault("dns_opt", ["ndots:0"])  # else a name that is missing for a moment hides the recovery for seconds
    made.setdefault("logging", {"driver": "json-file", "options": {"max-size": f"{LOG_MB}m"}})
    return {key: value for key, value in (made | _limits(service, made, wish)).items() if value not in ([], None)}


def _limits(service: Values, made: Values, wish: Wish) -> Values:
    """The system file's, else those of the file, which each version of the tool reads from another place. No swap."""
    deployed = _values(_values(_values(service.get("deploy")).get("resources")).get("limits"))
    memory = f"{round(wish.memory_mb * 1024)}k" if wish.memory_mb else made.get("mem_limit") or deployed.get("memory")
    found: Values = {"pids_limit": made.get("pids_limit", deployed.get("pids") or PIDS)}
    if memory:
        swap = None if wish.memory_mb else made.get("memswap_limit")
        found |= {"mem_limit": memory, "memswap_limit": swap or memory}
    if wish.cpus:
        quota = round(wish.cpus * CPU_PERIOD_US)
        found |= {"cpus": None, "cpu_period": CPU_PERIOD_US, "cpu_quota": quota}
    elif deployed.get("cpus") and "cpus" not in made:
        found["cpus"] = float(str(deployed["cpus"]))
    return found


def _ways(service: Values) -> dict[str, Values]:
    networks = service.get("networks")
    if isinstance(networks, list):
        return {str(name): {} for name in networks}
    return {name: _values(way) for name, way in _values(networks).items()}


def _needed(service: Values) -> set[str]:
    """Services without which the tool won't start this one."""
    names = service.get("depends_on")
    if isinstance(names, list):
        return {str(name) for name in names}
    return {name for name, how in _values(names).items() if _values(how).get("required", True)}


def _values(value: object) -> Values:
    return cast("Values", value) if isinstance(value, dict) else {}


def _list(value: object) -> list[object]:
    return list(value) if isinstance(value, list) else []


def _labels(value: object) -> Values:
    """As a table, however it is written."""
    if isinstance(value, list):
        return {name: (text if is_set else None) for name, is_set, text in (str(one).partition("=") for one in value)}
    return _values(value)


def _hosts(value: object) -> list[str]:
    if isinstance(value, list):
        return [str(one) for one in value]
    return [f"{name}:{address}" for name, address in _values(value).items()]


def _number(value: object) -> int:
    return value if isinstance(value, int) else 1
