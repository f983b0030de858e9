"""The control endpoint: one short HTTP answer a connection, on loopback only."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import cast

from stormdrill.proxy.relay import Hop

REQUEST_LIMIT_BYTES = 8 * 1024
REQUEST_LIMIT_S = 5.0


class Control(asyncio.Protocol):
    """`GET /routes`: every hop with its connections and bytes. `GET /healthz`: `ok`."""

    def __init__(self, hops: Sequence[Hop]) -> None:
        self._hops = hops
        self._received = b""
        self._transport: asyncio.Transport | None = None
        self._limit: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._limit = asyncio.get_running_loop().call_later(REQUEST_LIMIT_S, transport.close)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if b"\r\n\r\n" in self._received or b"\n\n" in self._received:
            self._answer(*_request_line(self._received))
        elif len(self._received) > REQUEST_LIMIT_BYTES:
            self._send(431, {"error": "request too large"})

    def connection_lost(self, exc: Exception | None) -> None:
        if self._limit is not None:
            self._limit.cancel()

    def _answer(self, method: str, path: str) -> None:
        if method != "GET":
            self._send(405, {"error": f"{method} is not served here; use GET"})
        elif path == "/routes":
            self._send(200, [_shown(hop) for hop in self._hops])
        elif path in ("/healthz", "/"):
            self._send(200, {"status": "ok", "routes": len(self._hops)})
        else:
            self._send(404, {"error": f"no {path} here; ask for /routes"})

    def _send(self, status: int, body: object) -> None:
        if self._transport is None:
            return
        payload = json.dumps(body).encode()
        head = f"HTTP/1.1 {status} {'OK' if status == 200 else 'Refused'}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\nConnection: close\r\n\r\n"
        self._transport.write(head.encode() + payload)
        self._transport.close()


def _request_line(received: bytes) -> tuple[str, str]:
    words = received.split(b"\n", 1)[0].decode("latin-1").split()
    return (words[0], words[1].split("?", 1)[0]) if len(words) >= 2 else ("?", "")


def _shown(hop: Hop) -> dict[str, object]:
    route = hop.route
    return {"name": route.name, "listen": route.listen, "to": f"{route.host}:{route.port}", **asdict(hop.traffic)}
