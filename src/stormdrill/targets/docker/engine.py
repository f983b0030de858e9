"""Which engine is asked, and what it says of one container: raw HTTP, a few milliseconds a call."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import cast
from urllib.parse import quote

from msgspec import Struct

from stormdrill.errors import Unreachable
from stormdrill.keeper.engine import ask
from stormdrill.keeper.heard import Heard
from stormdrill.ports import Life

DEFAULT = "unix:///var/run/docker.sock"
LOOK_LIMIT_S = 2.0
ACT_LIMIT_S = 4.0
FRAME_HEADER = 8


class State(Struct, frozen=True):
    """What the engine says of a container now."""

    id: str = ""
    """64 hex digits; empty: there is no such container."""
    status: str = "gone"
    """created, running, paused, restarting, exited, dead; `gone`, or `unknown` when the engine doesn't answer."""
    pid: int = 0
    code: int | None = None
    """The exit code of one that ended."""
    oom_killed: bool = False
    started_at: str = ""

    @property
    def life(self) -> Life:
        known: dict[str, Life] = {"running": "running", "paused": "frozen", "unknown": "unknown"}
        return known.get(self.status, "gone")


def address() -> str:
    """$DOCKER_HOST, as other programs take it, else the usual socket."""
    named = os.environ.get("DOCKER_HOST", "") or DEFAULT
    return f"http://{named.removeprefix('tcp://')}" if named.startswith("tcp://") else named


def as_docker_host(engine: str) -> str:
    """An engine's address as other programs take it from $DOCKER_HOST."""
    return f"tcp://{engine.removeprefix('http://')}" if engine.startswith("http://") else engine


def is_local(engine: str) -> bool:
    """Whether its containers' processes and published ports are on this machine."""
    return engine.startswith("unix://") or engine.split("://", 1)[-1].startswith(("127.", "localhost", "[::1]"))


class Engine:
    """One engine's API. Bounded; raises Unreachable where an answer is needed and none comes."""

    def __init__(self, where: str = "") -> None:
        self.where = where or address()

    def call(self, method: str, path: str, body: object = None, timeout_s: float = ACT_LIMIT_S) -> Heard:
        return ask(self.where, method, path, "" if body is None else json.dumps(body), timeout_s)

    def act(self, method: str, path: str, body: object = None, done: tuple[int, ...] = (200, 201, 204)) -> Heard:
        """A call that must succeed. Raises Unreachable with what the engine said."""
        heard = self.call(method, path, body)
        if heard.error or heard.status not in done:
            raise Unreachable(f"{method} {path}: {heard.error or f'{heard.status}: {said(heard)}'}")
        return heard

    def get(self, path: str, timeout_s: float = LOOK_LIMIT_S) -> object:
        """The JSON of one look; None when there is no such thing. Raises Unreachable."""
        heard = self.call("GET", path, None, timeout_s)
        if heard.status == 404:
            return None
        if heard.error or heard.status != 200:
            raise Unreachable(f"the engine at {self.where}: {heard.error or said(heard)}")
        return json.loads(heard.body)

    def inspect(self, container: str) -> dict[str, object] | None:
        """All that the engine knows of a container by id or name; None when there is none. Raises Unreachable."""
        return cast("dict[str, object] | None", self.get(f"/containers/{quote(container)}/json"))

    def prepare_exec(self, container: str, argv: Sequence[str], *, output: bool = False) -> str:
        """The id of an exec that is not started yet. Raises Unreachable."""
        wanted = {"Cmd": list(argv), "AttachStdout": output, "AttachStderr": output}
        heard = self.act("POST", f"/containers/{quote(container)}/exec", wanted)
        return str(json.loads(heard.body)["Id"])

    def run(self, container: str, argv: Sequence[str], timeout_s: float = ACT_LIMIT_S) -> tuple[int, str]:
        """Run a program in a container to its end: exit code and output. Raises Unreachable."""
        number = self.prepare_exec(container, argv, output=True)
        heard = self.call("POST", f"/exec/{number}/start", {"Detach": False, "Tty": False}, timeout_s)
        if heard.error or heard.status != 200:
            raise Unreachable(f"{' '.join(argv)} in {container[:12]}: {heard.error or said(heard)}")
        ended = cast("dict[str, object]", self.get(f"/exec/{number}/json") or {})
        code = ended.get("ExitCode")
        return (code if isinstance(code, int) else -1), joined(heard.body).decode("utf-8", "replace")

    def state(self, container: str) -> State:
        """Never raises."""
        try:
            found = self.inspect(container)
        except Unreachable:
            return State(status="unknown")
        return state_of(found) if found else State()


def state_of(inspected: dict[str, object]) -> State:
    state = cast("dict[str, object]", inspected["State"])
    status = str(state["Status"])
    return State(
        id=str(inspected["Id"]),
        status="paused" if state.get("Paused") else status,
        pid=cast("int", state["Pid"]),
        code=cast("int", state["ExitCode"]) if status in ("exited", "dead") else None,
        oom_killed=bool(state.get("OOMKilled")),
        started_at=str(state["StartedAt"]),
    )


def joined(framed: bytes) -> bytes:
    """Output without the header that precedes each piece where there is no terminal; what has none stays as it is."""
    parts, at = [], 0
    while at + FRAME_HEADER <= len(framed):
        size = int.from_bytes(framed[at + 4 : at + FRAME_HEADER])
        if framed[at] > 2 or framed[at + 1 : at + 4] != b"\0\0\0":
            return framed
        parts.append(framed[at + FRAME_HEADER : at + FRAME_HEADER + size])
        at += FRAME_HEADER + size
    return b"".join(parts)


def said(heard: Heard) -> str:
    """The engine's own words, on one line."""
    try:
        message = json.loads(heard.body).get("message", "")
    except (ValueError, AttributeError):
        message = heard.body[:200].decode("utf-8", "replace")
    return " ".join(str(message).split())


def unusable(engine: str, heard: Heard) -> str:
    """Why nothing can be asked of it, and what would help."""
    reason = heard.error.removeprefix(engine).lstrip(": ") or f"it answered {heard.status}"
    if reason == "permission denied":
        return f"{engine}: this user may not use it; be root, or in the group docker"
    help = "start one (systemctl start docker, or dockerd), or name another on this machine in DOCKER_HOST"
    return f"no container engine answers at {engine} ({reason}); {help}"
