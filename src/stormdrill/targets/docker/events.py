"""What the engine tells of containers and networks, as it happens: read in a thread of its own, and from where it broke
off when the engine comes back. Events are evidence; nothing is decided here."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import cast
from urllib.parse import quote

from msgspec import Struct

from stormdrill.keeper.exchange import Answer, place_of, request_bytes

READ_LIMIT_S = 0.5
"""How long one read waits, so that the thread sees that it is to end."""
CONNECT_LIMIT_S = 3.0
AGAIN_S = 0.2
OVERLAP_NS = 1_000_000_000
"""Events of things that happen side by side come in any order: after a break it is read again from before the last."""
REMEMBERED = 512
TOLD = frozenset({"start", "die", "oom", "kill", "pause", "unpause", "stop", "destroy"})
"""Of containers; of networks, connect and disconnect."""


class Told(Struct, frozen=True):
    """One event of one container."""

    container: str
    """Its id."""
    action: str
    """die, oom, pause, …, network-disconnect, network-connect."""
    code: int | None
    """The exit code of a `die`."""
    at_ms: float
    """Monotonic."""
    detail: str = ""


class EngineEvents:
    """Calls `hear` with each event, and `trouble` with a sentence when the engine goes and when it is back."""

    def __init__(self, engine: str, hear: Callable[[Told], None], trouble: Callable[[str], None]) -> None:
        self._engine = engine
        self._hear = hear
        self._trouble = trouble
        self._stop = threading.Event()
        self._since_ns = time.time_ns()
        self._seen: deque[tuple[int, str, str]] = deque(maxlen=REMEMBERED)
        self._away = False
        self._connected = threading.Event()
        self._socket: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, name="engine-events", daemon=True)

    def start(self) -> None:
        """Returns when it listens, or when that has taken too long."""
        self._since_ns = time.time_ns()
        self._thread.start()
        self._connected.wait(CONNECT_LIMIT_S)

    def stop(self) -> None:
        self._stop.set()
        if self._socket is not None:
            with contextlib.suppress(OSError):  # it may be closed
                self._socket.shutdown(socket.SHUT_RDWR)
        if self._thread.is_alive():
            self._thread.join(timeout=READ_LIMIT_S + 1.0)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                for event in self._stream():
                    self._take(event)
            except (OSError, ValueError, KeyError) as error:
                if not self._away and not self._stop.is_set():
                    self._trouble(f"the container engine at {self._engine} tells nothing any more ({error})")
                self._away = True
            self._stop.wait(AGAIN_S)

    def _stream(self) -> Iterator[dict[str, object]]:
        """Events until the engine ends the stream, which is an OSError, or this is to stop."""
        filters = quote(json.dumps({"type": ["container", "network"]}))
        since_ns = self._since_ns - (OVERLAP_NS if self._connected.is_set() else 0)
        since = f"{since_ns // 10**9}.{since_ns % 10**9:09d}"
        place = place_of(self._engine)
        answer, held = Answer("GET"), b""
        with contextlib.closing(socket.socket(place.family, socket.SOCK_STREAM)) as sock:
            sock.settimeout(CONNECT_LIMIT_S)
            sock.connect(place.address)
            self._socket = sock
            sock.sendall(request_bytes(place.host, "GET", f"/events?since={since}&filters={filters}", ""))
            sock.settimeout(READ_LIMIT_S)
            while not self._stop.is_set():
                with contextlib.suppress(TimeoutError):
                    answer.feed(sock.recv(65_536))
                if answer.status and answer.status != 200:
                    raise OSError(f"it answers {answer.status}")
                if answer.status and not self._connected.is_set():
                    self._connected.set()
                if answer.status and self._away:
                    self._away = False
                    self._trouble("the container engine is back")
                *lines, held = (held + bytes(answer.body)).split(b"\n")
                answer.body.clear()
                yield from (json.loads(line) for line in lines if line.strip())
                if answer.complete:
                    raise OSError("it ended the stream")

    def _take(self, event: dict[str, object]) -> None:
        at_ns = cast("int", event["timeNano"])
        key = (at_ns, str(event["Action"]), str(cast("dict[str, str]", event["Actor"])["ID"]))
        if key in self._seen:
            return  # told before the stream broke off
        self._seen.append(key)
        self._since_ns = max(self._since_ns, at_ns)
        told = told_by(event, time.monotonic() * 1000 - (time.time_ns() - at_ns) / 1e6)
        if told is not None:
            self._hear(told)


def told_by(event: dict[str, object], at_ms: float) -> Told | None:
    """None for what says nothing of a container's life."""
    actor = cast("dict[str, dict[str, str]]", event["Actor"])
    attributes = actor["Attributes"] or {}
    action = str(event["Action"])
    if event["Type"] == "network" and action in ("connect", "disconnect"):
        return Told(attributes.get("container", ""), f"network-{action}", None, at_ms, attributes.get("name", ""))
    if event["Type"] != "container" or action not in TOLD:
        return None
    code = attributes.get("exitCode")
    said = {"kill": f"signal {attributes.get('signal', '')}", "die": f"exit code {code}"}.get(action, "")
    return Told(str(actor["ID"]), action, int(code) if code is not None else None, at_ms, said)
