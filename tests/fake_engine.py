"""A tiny container engine on a unix socket, for what a real one does only on a bad day: late answers, 500s, garbage,
a connection that is cut, a restart in the middle. It speaks as Docker Engine 20.10 was seen to speak."""

from __future__ import annotations

import json
import re
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

Trouble = str
"""late (acts, answers 0.6 s later), 500 (doesn't act), garbage (acts), cut (doesn't act), lost (acts, then cuts)."""
LATE_S = 0.6
_VERSION = r"^/v\d[.\d]*"
"""Of the API, which the docker SDK puts before each path."""


@dataclass
class Box:
    id: str
    name: str
    labels: dict[str, str]
    running: bool = True
    paused: bool = False
    networks: set[str] = field(default_factory=set)
    ends: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Network → what it asked for when it joined, and what it got."""
    limits: dict[str, int] = field(default_factory=dict)
    joins: str = ""
    """The id of the container whose network it uses."""
    started_at: str = "2026-01-01T00:00:00Z"


@dataclass
class FakeEngine:
    path: Path
    boxes: dict[str, Box] = field(default_factory=dict)
    networks: dict[str, dict[str, str]] = field(default_factory=dict)
    """Name (which is its id) → labels."""
    execs: dict[str, tuple[str, list[str]]] = field(default_factory=dict)
    """Exec id → container, argv."""
    exit_codes: dict[str, int] = field(default_factory=dict)
    """Program → the code with which it ends; 0 else."""
    taken: set[str] = field(default_factory=set)
    """Addresses that others have."""
    asked: list[str] = field(default_factory=list)
    troubles: list[tuple[str, Trouble]] = field(default_factory=list)
    """(part of `METHOD path`, trouble), each used once, in order."""
    on_request: Callable[[int], None] = lambda _: None
    """Told the number of each request before it is acted upon, and again, negative, when it was."""
    _server: socketserver.BaseServer | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    def add(self, name: str, *networks: str, **labels: str) -> Box:
        box = Box(f"{len(self.boxes) + 1:064x}", name, labels, networks=set(networks))
        self.boxes[box.id] = box
        return box

    def trouble_for(self, asked: str) -> Trouble:
        for number, (part, trouble) in enumerate(self.troubles):
            if part in asked:
                del self.troubles[number]
                return trouble
        return ""

    # --- what it answers ---

    def answer(self, method: str, path: str, body: Any) -> tuple[int, object]:
        parts = urlsplit(path)
        if isinstance(body, dict) and (named := parse_qs(parts.query).get("name")):
            body["Name"] = named[0]
        labels = json.loads(parse_qs(parts.query).get("filters", ["{}"])[0]).get("label", [])
        for pattern, serve in self._served():
            if found := re.fullmatch(pattern, f"{method} {re.sub(_VERSION, '', parts.path)}"):
                return serve([unquote(group) for group in found.groups()], body, labels)
        return 404, {"message": "page not found"}

    def _served(self) -> list[tuple[str, Callable[[list[str], Any, list[str]], tuple[int, object]]]]:
        return [
            (r"GET /version", lambda _g, _b, _w: (200, {"Version": "20.10.24", "ApiVersion": "1.41"})),
            (r"GET /info", lambda _g, _b, _w: (200, {"MemoryLimit": True, "SwapLimit": True, "CpuCfsQuota": True})),
            (r"GET /images/(.+)/json", lambda g, _b, _w: (200, {"Id": f"sha256:{g[0]}"})),
            (r"GET /_ping", lambda _g, _b, _w: (200, "")),
            (r"GET /containers/json", lambda _g, _b, wanted: (200, self._listed(wanted))),
            (r"GET /networks", lambda _g, _b, wanted: (200, self._nets(wanted))),
            (r"POST /containers/create", self._create),
            (r"GET /volumes", lambda _g, _b, _w: (200, {"Volumes": None})),
            (r"GET /networks/([^/]+)", self._net),
            (r"DELETE /networks/([^/]+)", self._remove_net),
            (r"POST /networks/([^/]+)/(connect|disconnect)", self._plug),
            (
                r"GET /containers/([^/]+)/json",
                lambda g, _b, _w: self._of(g[0], lambda box: (200, self._inspected(box))),
            ),
            (r"DELETE /containers/([^/]+)", lambda g, _b, _w: self._of(g[0], self._remove)),
            (r"POST /containers/([^/]+)/pause", lambda g, _b, _w: self._of(g[0], self._pause)),
            (r"POST /containers/([^/]+)/unpause", lambda g, _b, _w: self._of(g[0], self._unpause)),
            (r"POST /containers/([^/]+)/start", lambda g, _b, _w: self._of(g[0], self._start)),
            (r"POST /containers/([^/]+)/restart", lambda g, _b, _w: self._of(g[0], self._restart)),
            (r"POST /containers/([^/]+)/update", lambda g, b, _w: self._of(g[0], lambda box: self._update(box, b))),
            (r"POST /containers/([^/]+)/exec", lambda g, b, _w: self._of(g[0], lambda box: self._exec(box, b))),
            (r"POST /exec/([^/]+)/start", lambda g, _b, _w: (200, "") if g[0] in self.execs else (404, {})),
            (r"GET /exec/([^/]+)/json", self._exec_told),
        ]

    def _of(self, name: str, serve: Callable[[Box], tuple[int, object]]) -> tuple[int, object]:
        for box in list(self.boxes.values()):
            if name in (box.id, box.name):
                return serve(box)
        return 404, {"message": f"No such container: {name}"}

    def _listed(self, wanted: list[str]) -> object:
        return [
            {
                "Id": box.id,
                "Names": [f"/{box.name}"],
                "Labels": box.labels,
                "State": "paused" if box.paused else "running",
                "Image": "image",
                "Ports": [{"IP": "127.0.0.1", "PrivatePort": 8080, "PublicPort": 18080, "Type": "tcp"}],
            }
            for box in self.boxes.values()
            if _has(box.labels, wanted)
        ]

    def _inspected(self, box: Box) -> object:
        return {
            "Id": box.id,
            "State": {
                "Running": box.running,
                "Paused": box.paused,
                "Pid": 0,
                "Status": "running" if box.running else "exited",
                "ExitCode": 0,
                "StartedAt": box.started_at,
            },
            "HostConfig": box.limits,
            "NetworkSettings": {
                "Networks": {name: {"NetworkID": name, **box.ends.get(name, {})} for name in box.networks}
            },
        }

    def _create(self, _groups: list[str], body: dict[str, Any], _wanted: object) -> tuple[int, object]:
        box = self.add(body.get("Name", f"made{len(self.boxes)}"), **body.get("Labels") or {})
        box.running = False
        return 201, {"Id": box.id}

    def _remove(self, box: Box) -> tuple[int, object]:
        if box.paused:
            return 500, {"message": "cannot kill what is paused"}
        del self.boxes[box.id]
        return 204, ""

    def _pause(self, box: Box) -> tuple[int, object]:
        box.paused = True
        return 204, ""

    def _unpause(self, box: Box) -> tuple[int, object]:
        if not box.paused:
            return 500, {"message": f"Container {box.id} is not paused"}
        box.paused = False
        return 204, ""

    def _start(self, box: Box) -> tuple[int, object]:
        if box.joins and not self.boxes[box.joins].running:
            return 409, {"message": f"cannot join network of a non running container: {box.joins}"}
        was, box.running = box.running, True
        return (304 if was else 204), ""

    def _restart(self, box: Box) -> tuple[int, object]:
        box.running, box.started_at = False, datetime.now(UTC).isoformat().replace("+00:00", "Z")
        status, answer = self._start(box)
        return (204 if status == 304 else status), answer

    def _update(self, box: Box, body: dict[str, int]) -> tuple[int, object]:
        set_already = next((one for one in ("CpuPeriod", "CpuQuota") if box.limits.get(one, 0) > 0), "")
        if "NanoCpus" in body and set_already:
            return 400, {"message": f"NanoCPUs cannot be updated as {set_already} has already been set"}
        box.limits |= body
        return 200, {"Warnings": None}

    def _exec(self, box: Box, body: dict[str, list[str]]) -> tuple[int, object]:
        if not box.running or box.paused:
            return 409, {"message": f"Container {box.id} is not running"}
        number = f"exec{len(self.execs)}"
        self.execs[number] = (box.id, body["Cmd"])
        return 201, {"Id": number}

    def _exec_told(self, groups: list[str], _body: object, _wanted: object) -> tuple[int, object]:
        if groups[0] not in self.execs:
            return 404, {"message": "No such exec instance"}
        container, argv = self.execs[groups[0]]
        code = self.exit_codes.get(argv[0], 0)
        return 200, {"Running": False, "ExitCode": code, "Pid": 0, "ContainerID": container}

    def _nets(self, wanted: list[str]) -> object:
        return [
            {"Id": name, "Name": name, "Labels": labels}
            for name, labels in self.networks.items()
            if _has(labels, wanted)
        ]

    def _net(self, groups: list[str], _body: object, _wanted: object) -> tuple[int, object]:
        if groups[0] not in self.networks:
            return 404, {"message": "network not found"}
        inside: dict[str, object] = {box.id: {} for box in self.boxes.values() if groups[0] in box.networks}
        return 200, {"Id": groups[0], "Name": groups[0], "Containers": inside}

    def _remove_net(self, groups: list[str], _body: object, _wanted: object) -> tuple[int, object]:
        if any(groups[0] in box.networks for box in self.boxes.values()):
            return 403, {"message": "network has active endpoints"}
        return (204, "") if self.networks.pop(groups[0], None) is not None else (404, {"message": "not found"})

    def _plug(self, groups: list[str], body: dict[str, Any], _wanted: object) -> tuple[int, object]:
        network, verb = groups
        asked = body.get("EndpointConfig", {}).get("IPAMConfig", {}).get("IPv4Address")

        def plug(box: Box) -> tuple[int, object]:
            if verb == "connect" and network not in self.networks:
                return 404, {"message": f"network {network} not found"}
            if verb == "connect" and asked in self.taken:
                return 403, {"message": "Address already in use"}
            if (network in box.networks) == (verb == "connect"):
                return 403 if verb == "connect" else 500, {"message": "it is so already"}
            (box.networks.add if verb == "connect" else box.networks.discard)(network)
            box.ends[network] = body.get("EndpointConfig", {}) if verb == "connect" else {}
            return 200, ""

        return self._of(body["Container"], plug)

    # --- its socket ---

    def listen(self) -> None:
        self._server = _Server(str(self.path), _handler_of(self))
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """As a daemon that restarts: nobody listens, and the socket file may still be there."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


def _has(labels: dict[str, str], wanted: list[str]) -> bool:
    return set(wanted) <= {*labels, *(f"{key}={value}" for key, value in labels.items())}


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 64


def _handler_of(engine: FakeEngine) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = f"{self.command} {self.path}"
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            engine.asked.append(asked)
            number = len(engine.asked)
            engine.on_request(number)
            trouble = engine.trouble_for(asked)
            answer: object
            if trouble in ("cut", "500"):
                status, answer = 500, {"message": "a bad day"}
            else:
                status, answer = engine.answer(self.command, self.path, json.loads(data) if data else {})
            engine.on_request(-number)
            if trouble == "late":
                time.sleep(LATE_S)  # what is tested is an answer that comes too late
            if trouble in ("cut", "lost"):
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            if trouble == "garbage":
                self.wfile.write(b"\x00\x01 what?\r\n\r\n")
                return
            body = b"" if answer == "" else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_DELETE = do_GET  # noqa: N815  (the names that http.server calls)

        def address_string(self) -> str:
            return "a client"

        def log_message(self, *_: object) -> None:
            pass

        def handle(self) -> None:
            try:
                super().handle()
            except OSError:  # whoever asked is gone
                return

    return Handler


@contextmanager
def fake_engine(folder: Path) -> Iterator[FakeEngine]:
    engine = FakeEngine(folder / "e.sock")
    engine.listen()
    try:
        yield engine
    finally:
        engine.stop()
