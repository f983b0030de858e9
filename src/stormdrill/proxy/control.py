"""The control endpoint: small HTTP/1.1 requests, many on one connection if the caller likes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict
from typing import NamedTuple, cast
from urllib.parse import unquote

from stormdrill.proxy.board import Board
from stormdrill.proxy.relay import Hop
from stormdrill.proxy.toxic import ToxicError

HEAD_LIMIT_BYTES = 8 * 1024
BODY_LIMIT_BYTES = 4 * 1024 * 1024
"""Room for the names of many thousand hops."""
REQUEST_LIMIT_S = 5.0
"""For each request, and between two."""
REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}
KNOWN = "ask for /routes, /toxics, /toxics/TAG or /healthz"


class Request(NamedTuple):
    method: str
    path: str
    body_bytes: int
    last: bool
    """The caller wants the connection closed after the answer."""
    expects: bool
    """It waits for leave to send the body."""


class Control(asyncio.Protocol):
    def __init__(self, board: Board) -> None:
        self._board = board
        self._received = bytearray()
        self._asked: Request | None = None
        self._transport: asyncio.Transport | None = None
        self._limit: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._limit is not None:
            self._limit.cancel()

    def _wait(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
        if self._transport is not None:
            self._limit = asyncio.get_running_loop().call_later(REQUEST_LIMIT_S, self._transport.close)

    def data_received(self, data: bytes) -> None:
        self._received += data
        try:
            while self._transport is not None and not self._transport.is_closing() and self._one():
                self._wait()
        except ToxicError as error:
            self._send(error.status, {"error": str(error)}, last=True)

    def _one(self) -> bool:
        """Answer one request if all of it is here. Raises ToxicError for what is no request."""
        if self._asked is None:
            head, gap, rest = bytes(self._received).partition(b"\r\n\r\n")
            if not gap:
                if len(head) > HEAD_LIMIT_BYTES:
                    raise ToxicError(431, [f"the head is longer than {HEAD_LIMIT_BYTES} bytes; write a shorter one"])
                return False
            self._asked = _head_of(head)
            self._received = bytearray(rest)
            if self._asked.expects and self._transport is not None:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        asked = self._asked
        if len(self._received) < asked.body_bytes:
            return False
        body = bytes(self._received[: asked.body_bytes])
        del self._received[: asked.body_bytes]
        self._asked = None
        try:
            status, answer = 200, self._answer(asked.method, asked.path, body)
        except ToxicError as error:
            status, answer = error.status, {"error": str(error)}
        self._send(status, answer, asked.last)
        return True

    def _answer(self, method: str, path: str, body: bytes) -> object:
        board = self._board
        tag = path.removeprefix("/toxics/") if path.startswith("/toxics/") else None
        served: dict[str, Callable[[], object]]
        if tag is not None:
            served = {
                "PUT": lambda: board.put(_unquoted(tag), body),
                "DELETE": lambda: _removed(board.remove(_unquoted(tag))),
            }
        elif path == "/toxics":
            served = {"GET": board.list, "DELETE": lambda: _removed(board.clear())}
        elif path == "/routes":
            served = {"GET": lambda: [_shown(hop) for hop in board.hops.values()]}
        elif path in ("/healthz", "/"):
            served = {"GET": lambda: {"status": "ok", "routes": len(board.hops)}}
        else:
            raise ToxicError(404, [f"no {path[:100]} here; {KNOWN}"])
        if method not in served:
            raise ToxicError(405, [f"{method[:20]} is not served at {path[:100]}; use {' or '.join(served)}"])
        return served[method]()

    def _send(self, status: int, body: object, last: bool) -> None:
        if self._transport is None:
            return
        payload = json.dumps(body).encode()
        head = f"HTTP/1.1 {status} {REASONS.get(status, 'Refused')}\r\nContent-Type: application/json\r\n"
        head += f"Content-Length: {len(payload)}\r\nConnection: {'close' if last else 'keep-alive'}\r\n\r\n"
        self._transport.write(head.encode() + payload)
        if last:
            self._transport.close()


def _head_of(head: bytes) -> Request:
    line, *others = head.decode("latin-1").split("\r\n")
    words = line.split()
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise ToxicError(400, [f"{line[:60]!r} is no request; write METHOD PATH HTTP/1.1"])
    fields = {name.strip().lower(): value.strip() for name, _, value in (other.partition(":") for other in others)}
    if "transfer-encoding" in fields:
        raise ToxicError(411, ["the body has no length; send Content-Length, not Transfer-Encoding"])
    length = fields.get("content-length", "0")
    if not (length.isascii() and length.isdigit()) or int(length) > BODY_LIMIT_BYTES:
        raise ToxicError(413, [f"Content-Length is {length[:20]}; write a body of at most {BODY_LIMIT_BYTES} bytes"])
    asked = fields.get("connection", "").lower()
    last = "close" in asked or (words[2] == "HTTP/1.0" and "keep-alive" not in asked)
    return Request(words[0], words[1].split("?", 1)[0], int(length), last, "100-continue" in fields.get("expect", ""))


def _unquoted(tag: str) -> str:
    try:
        return unquote(tag, errors="strict")
    except UnicodeDecodeError:
        raise ToxicError(400, [f"the tag {tag[:40]!r} is not UTF-8; percent-encode it as UTF-8"]) from None


def _removed(count: int) -> dict[str, int]:
    return {"removed": count}


def _shown(hop: Hop) -> dict[str, object]:
    route = hop.route
    return {
        "name": route.name,
        "listen": route.listen,
        "to": f"{route.host}:{route.port}",
        **asdict(hop.traffic),
        "listening": hop.listener is None or hop.listener.listening,
        "toxics": [one.toxic.tag for one in hop.toxics],
    }
