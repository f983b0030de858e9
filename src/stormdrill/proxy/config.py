"""The routes that a proxy serves, read from JSON and checked before anything listens."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass

LAST_PORT = 65535
LOOPBACK = "127.0.0.1"


class ConfigError(Exception):
    """The configuration can't be served; the message says which entry and what to write."""


@dataclass(frozen=True, slots=True)
class Route:
    """One hop: what connects to `listen` is carried to `host`:`port`."""

    name: str
    listen: int
    host: str
    port: int
    at: str = ""
    """The address it listens on; empty: where all do."""


@dataclass(frozen=True, slots=True)
class Config:
    control: int
    """Port of the control endpoint; 0 picks a free one, which is printed."""
    routes: tuple[Route, ...]
    host: str = LOOPBACK
    """Where the routes listen."""
    control_host: str = LOOPBACK
    toxics: tuple[tuple[str, bytes], ...] = ()
    """In force from the first connection on: each its tag, and the body of the request that would put it."""


def parse(text: str, control: int = 0) -> Config:
    """An object with `control`, `control_host`, `host`, `routes`, `toxics`, or the list of routes alone. Raises
    ConfigError."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"not JSON ({error}); write a list of {{name, listen, to}}") from None
    host = control_host = LOOPBACK
    toxics: tuple[tuple[str, bytes], ...] = ()
    if isinstance(document, dict):
        host = _address(document.get("host", host), "host")
        control_host = _address(document.get("control_host", control_host), "control_host")
        control = _port(document.get("control", control), "control", lowest=0)
        toxics = _toxics(document.get("toxics", {}))
        document = document.get("routes")
    if not isinstance(document, list):
        raise ConfigError("no routes; write a list of {name, listen, to}, or an object with `routes`")
    routes = tuple(_route(entry, index) for index, entry in enumerate(document))
    listened: dict[tuple[str, int], str] = {}
    for route in routes:
        place = (route.at or host, route.listen)
        if place in listened:
            raise ConfigError(f"{listened[place]} and {route.name} both listen on port {route.listen}")
        listened[place] = route.name
    names = [route.name for route in routes]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"{', '.join(twice)}: more than one route has this name; give each its own")
    return Config(control=control, routes=routes, host=host, control_host=control_host, toxics=toxics)


def _toxics(value: object) -> tuple[tuple[str, bytes], ...]:
    """What they say is checked by the board, as where a request brings them."""
    if not isinstance(value, dict):
        raise ConfigError(f"toxics is {value!r}; write an object: tag -> {{routes, kind, ...}}")
    return tuple((tag, json.dumps(body).encode()) for tag, body in value.items())


def _address(value: object, where: str) -> str:
    try:
        return str(ipaddress.ip_address(str(value)))
    except ValueError:
        raise ConfigError(f"{where} is {value!r}; write an address to listen on, such as {LOOPBACK}") from None


def _route(entry: object, index: int) -> Route:
    if not isinstance(entry, dict):
        raise ConfigError(f"route {index} is not an object; write {{name, listen, to}}")
    name = entry.get("name")
    if not isinstance(name, str) or not name:
        raise ConfigError(f'route {index} has no name; write one like "edge-1>gateway-eu"')
    to = entry.get("to")
    host, _, port = str(to).rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(f"{name}: `to` is {to!r}; write host:port")
    listen = _port(entry.get("listen"), f"{name}: `listen`")
    at = _address(entry["at"], f"{name}: `at`") if "at" in entry else ""
    return Route(name, listen, host, _port(int(port), f"{name}: `to`"), at)


def _port(value: object, where: str, lowest: int = 1) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= LAST_PORT:
        raise ConfigError(f"{where} is {value!r}; write a port from {lowest} to {LAST_PORT}")
    return value
