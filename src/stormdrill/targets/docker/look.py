"""Which mechanisms work on this machine's container engine, asked by reading alone. Imports nothing heavy."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from stormdrill.keeper.engine import ask
from stormdrill.targets.docker.here import INSTALL, compose_tool, remembered_in
from stormdrill.targets.process.look import TOXICS, Seen

DEFAULT = "unix:///var/run/docker.sock"
LIMIT_S = 2.0
PLATFORM_IMAGE = "stormdrill-platform"
BASE_IMAGES = ("stormdrill-base:bookworm", "python:3.12-slim")
LEAST_API = (1, 40)


def findings() -> Iterator[Seen]:
    """The engine first: without it nothing else can be asked."""
    where = _address()
    yield _client()
    access = _access(where)
    if access is not None:
        yield access
        return
    version, info = _read(where, "/version"), _read(where, "/info")
    if version is None or info is None:
        yield Seen("engine", "missing", f"{where} does not answer", "start dockerd, or name another in DOCKER_HOST")
        return
    yield _engine(where, version, info)
    base = _base(where)
    yield from _images(where, base)
    yield _compose()
    yield from _mechanisms(info, base)


def _address() -> str:
    named = os.environ.get("DOCKER_HOST", "") or DEFAULT
    return f"http://{named.removeprefix('tcp://')}" if named.startswith("tcp://") else named


def _client() -> Seen:
    if find_spec("testcontainers") is None:
        return Seen("testcontainers", "missing", "not installed", INSTALL)
    return Seen("testcontainers", "ok", "installed")


def _access(where: str) -> Seen | None:
    """Why the socket can't be used; None when it can be tried."""
    if not where.startswith("unix://"):
        return None
    path = Path(where.removeprefix("unix://"))
    if not path.exists():
        return Seen("engine", "missing", f"no socket {path}", "start dockerd, or name another engine in DOCKER_HOST")
    if not os.access(path, os.R_OK | os.W_OK):
        return Seen("engine", "missing", f"{path} may not be used by this user", "be in its group (docker), or be root")
    return None


def _read(where: str, path: str) -> dict[str, object] | None:
    read = _answer(where, path)
    return read if isinstance(read, dict) else None


def _answer(where: str, path: str) -> object:
    heard = ask(where, "GET", path, "", LIMIT_S)
    if heard.error or heard.status != 200:
        return None
    try:
        return json.loads(heard.body)
    except ValueError:
        return None


def _engine(where: str, version: dict[str, object], info: dict[str, object]) -> Seen:
    api = str(version.get("ApiVersion", "0"))
    seen = f"{where}: {version.get('Version', '?')}, API {api}, cgroup v{info.get('CgroupVersion', '1')}"
    numbers = tuple(int(part) for part in api.split(".") if part.isdigit())
    if numbers < LEAST_API:
        least = ".".join(str(part) for part in LEAST_API)
        return Seen("engine", "weak", seen, f"older than API {least}, with which drills are proven")
    local = where.startswith("unix://") or where.split("://", 1)[-1].startswith(("127.", "localhost", "[::1]"))
    if not local:
        return Seen(
            "engine", "missing", seen, "it is not on this machine, and its ports would not be: unset DOCKER_HOST"
        )
    return Seen("engine", "ok", seen)


def _wanted() -> tuple[str, ...]:
    named = os.environ.get("STORMDRILL_BASE_IMAGE", "")
    return (named,) if named else BASE_IMAGES


def _base(where: str) -> tuple[str, str]:
    """Name and id of the base image that is taken; both empty when none is here."""
    for name in _wanted():
        found = _read(where, f"/images/{quote(name, safe='')}/json")
        if found is not None:
            return name, str(found.get("Id", ""))
    return "", ""


def _images(where: str, base: tuple[str, str]) -> Iterator[Seen]:
    filters = quote(json.dumps({"reference": [PLATFORM_IMAGE]}))
    built = bool(_answer(where, f"/images/json?filters={filters}"))  # each content has a tag of its own
    if base[0]:
        yield Seen("base image", "ok", base[0])
    else:
        help = "make base-image makes one from Debian packages; or name one in STORMDRILL_BASE_IMAGE"
        yield Seen("base image", "missing", f"none of {', '.join(_wanted())}", help)
    seen = "is there; built anew when the platform has changed" if built else "is built when it is first needed"
    yield Seen("platform image", "ok", f"{PLATFORM_IMAGE} {seen}")


def _compose() -> Seen:
    argv = compose_tool()
    if not argv:
        cost = "a system with compose: is refused; install docker-compose, or Docker's compose plugin"
        return Seen("compose", "weak", "neither docker compose nor docker-compose answers", cost)
    return Seen("compose", "ok", f"{' '.join(argv)} reads compose files")


def _sever(base: tuple[str, str]) -> Seen:
    """From what is remembered of the base: asking it anew would start a container."""
    name, id = base
    try:
        iptables = json.loads(remembered_in(id).read_bytes())["iptables"]
    except (OSError, ValueError, KeyError, TypeError):
        iptables = None
    if iptables:
        return Seen("sever", "ok", f"{_CUT}; from some peers only by packet rules of a helper")
    seen = f"from some peers only is refused: {name} has no iptables"
    if iptables is None:
        seen = "from some peers only if the base image has iptables, which is unknown until the first plan"
    help = "name a base with iptables in STORMDRILL_BASE_IMAGE, such as the one of make base-image"
    return Seen("sever", "weak", f"{_CUT}; {seen}", help)


_CUT = "networks disconnected by the engine"


def _mechanisms(info: dict[str, object], base: tuple[str, str]) -> Iterator[Seen]:
    yield Seen("freeze crash", "ok", "pause and kill by the engine")
    yield Seen(TOXICS, "ok", "the run's own proxy in a container; tc netem is not used")
    yield _sever(base)
    if info.get("MemoryLimit"):
        swap = "" if info.get("SwapLimit") else "; swap is not limited, so that a leak may swap first"
        yield Seen("pressure", "ok" if info.get("SwapLimit") else "weak", f"memory limits are enforced{swap}")
    else:
        yield Seen("pressure", "missing", "memory limits are not enforced", "enable the kernel's memory cgroup")
    if info.get("CpuCfsQuota"):
        yield Seen("cpu-limit", "ok", "CPU quotas can be changed while containers run")
    else:
        yield Seen("cpu-limit", "missing", "no CPU quotas", "enable the kernel's CFS bandwidth control")
    if info.get("PidsLimit"):
        yield Seen("pids", "ok", "the number of processes is limited")
    else:
        yield Seen("pids", "weak", "the number of processes is not limited", "a fork bomb inside reaches this machine")
    yield Seen("device tell beside", "ok", "files on a bind mount, requests, programs of stormdrill's own")
