"""One HTTP/1.1 exchange on a unix socket or a literal address, as steps that wait: no fork, no thread, no look-up of
a name, and one limit on everything.

`http.client` costs 18 ms to import at the moment when a revert is due; this costs nothing, and a keeper can have
several exchanges under way at once.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import time
from collections.abc import Callable
from typing import NamedTuple

from stormdrill.keeper.heard import Heard
from stormdrill.keeper.loop import Steps, Wait, run_now

BODY_LIMIT = 16_000_000
"""Bytes of an answer that are read at most: an engine's list of containers is long."""
HEAD_LIMIT = 65_536
_CHUNK = 65_536
_TRY_AGAIN_S = 0.01
"""Between two attempts to connect to a unix socket whose queue is full: the kernel tells of no room in it."""


class Place(NamedTuple):
    """Where to connect."""

    family: socket.AddressFamily
    address: str | tuple[str, int]
    name: str
    """As it is shown."""
    host: str
    """For the Host header."""


def place_of(url: str) -> Place:
    """`unix:///path`, `http://127.0.0.1:port` or `127.0.0.1:port`. Raises ValueError, also for a name to look up."""
    if url.startswith("unix://"):
        path = url.removeprefix("unix://")
        if not path.startswith("/") or len(path.encode()) > 107:
            raise ValueError(f"{url!r} is not unix:///path of at most 107 bytes")
        return Place(socket.AF_UNIX, path, url, "localhost")
    rest = url.split("://", 1)
    if len(rest) == 2 and rest[0] not in ("http", "tcp"):
        raise ValueError(f"{url!r}: only unix://, http:// and tcp:// are spoken here")
    host, _, port = rest[-1].rstrip("/").rpartition(":")
    host = "127.0.0.1" if host == "localhost" else host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.inet_pton(family, host)
        if not 0 < int(port) < 65536:
            raise ValueError(port)
    except (OSError, ValueError):
        raise ValueError(f"{url!r}: write an address and a port, like http://127.0.0.1:2375") from None
    return Place(family, (host, int(port)), f"{host}:{port}", f"[{host}]:{port}" if ":" in host else f"{host}:{port}")


def request_bytes(host: str, method: str, path: str, body: str) -> bytes:
    """Raises ValueError for what would be more than one request line."""
    if not method.isalpha() or not path.startswith("/") or any(c <= " " or c == "\x7f" for c in path):
        raise ValueError(f"{method!r} {path!r} is not a request")
    data = body.encode()
    head = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close", "User-Agent: stormdrill", "Accept: */*"]
    if body:
        head.append("Content-Type: application/json")
    if body or method in ("POST", "PUT", "PATCH"):
        head.append(f"Content-Length: {len(data)}")
    return "\r\n".join([*head, "", ""]).encode("utf-8") + data


class Answer:
    """Reads one answer from bytes as they come; raises ValueError for what is no HTTP."""

    def __init__(self, method: str, body_limit: int = BODY_LIMIT) -> None:
        self.status = 0
        self.body = bytearray()
        self.complete = False
        self._bodiless = method == "HEAD"
        self._limit = body_limit
        self._raw = bytearray()
        self._left: int | None = None
        """Bytes of the body, or of its current chunk, that are to come; None: until the other side closes."""
        self._chunked = False

    def feed(self, data: bytes) -> None:
        """Some bytes; none at the end of the stream."""
        self._raw += data
        if not data and not self.complete:
            self._ended()
        while not self.status and b"\r\n\r\n" in self._raw:
            self._read_head()
        if not self.status and len(self._raw) > HEAD_LIMIT:
            raise ValueError("not HTTP (an endless head)")
        if not self.status and self._raw and not b"HTTP/1.".startswith(self._raw[:7]):
            raise ValueError("not HTTP")
        if self.status and not self.complete:
            self._read_body()
        if len(self.body) > self._limit:
            raise ValueError(f"the answer has more than {self._limit} bytes")

    def _read_head(self) -> None:
        head, _, rest = bytes(self._raw).partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        words = first.split(" ", 2)
        if not words[0].startswith("HTTP/1.") or len(words) < 2 or not (words[1].isdigit() and len(words[1]) == 3):
            raise ValueError("not HTTP")
        self._raw = bytearray(rest)
        status = int(words[1])
        if 100 <= status < 200 and status != 101:
            return
        self.status = status
        fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        self._chunked = "chunked" in fields.get("transfer-encoding", "").lower()
        if self._bodiless or status in (204, 304):
            self.complete = True
        elif self._chunked:
            self._left = 0
        elif "content-length" in fields:
            if not fields["content-length"].isdigit():
                raise ValueError("not HTTP (a length that is no number)")
            self._left = int(fields["content-length"])

    def _read_body(self) -> None:
        if self._chunked:
            self._read_chunks()
            return
        size = len(self._raw) if self._left is None else min(self._left, len(self._raw))
        self._take(size)
        self.complete = self._left == 0

    def _read_chunks(self) -> None:
        while not self.complete:
            if self._left:
                if not self._raw:
                    return
                self._take(min(self._left, len(self._raw)))
                continue
            line, found, rest = bytes(self._raw[:HEAD_LIMIT]).lstrip(b"\r\n").partition(b"\r\n")
            if not found:
                return
            try:
                self._left = int(line.split(b";")[0], 16)
            except ValueError:
                raise ValueError("not HTTP (a chunk without a size)") from None
            self._raw = bytearray(rest + bytes(self._raw[HEAD_LIMIT:]))
            self.complete = self._left == 0

    def _take(self, size: int) -> None:
        self.body += self._raw[:size]
        del self._raw[:size]
        if self._left is not None:
            self._left -= size

    def _ended(self) -> None:
        if not self.status:
            raise ValueError("closed the connection without an answer" if not self._raw else "not HTTP")
        if self._chunked or self._left:
            raise ValueError("the answer ended early")
        self.complete = True


def exchange(
    where: str, method: str, path: str, body: str = "", timeout_s: float = 10.0, body_limit: int = BODY_LIMIT
) -> Steps[Heard]:
    """One request and its answer. Never raises."""
    began_s = time.monotonic()
    sent = False
    answer = Answer(method, body_limit)

    def left_s() -> float:
        return began_s + timeout_s - time.monotonic()

    def heard(error: str = "") -> Heard:
        took_ms = (time.monotonic() - began_s) * 1000
        return Heard(answer.status, bytes(answer.body), error, sent, took_ms)

    try:
        place = place_of(where)
        data = request_bytes(place.host, method, path, body)
        sock = socket.socket(place.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    except (ValueError, OSError) as error:
        return heard(str(error))
    late = f"{place.name} did not answer {method} {path} within {timeout_s:g} s"
    with contextlib.closing(sock):
        try:
            if not (yield from _connect(sock, place, left_s)):
                return heard(f"{place.name} did not accept a connection within {timeout_s:g} s")
            sent = True
            if not ((yield from _send(sock, data, left_s)) and (yield from _receive(sock, answer, left_s))):
                return heard(late)
        except (OSError, ValueError) as error:
            return heard(f"{place.name}: {_reason(error)}")
    return heard()


def exchange_now(
    where: str, method: str, path: str, body: str = "", timeout_s: float = 10.0, body_limit: int = BODY_LIMIT
) -> Heard:
    """The same, blocking."""
    return run_now(exchange(where, method, path, body, timeout_s, body_limit))


def until_ready(sock: socket.socket, wanted: int, timeout_s: float) -> Wait:
    poll = select.poll()
    poll.register(sock, wanted)
    return Wait(lambda: bool(poll.poll(0)), max(0.0, timeout_s), ((sock.fileno(), wanted),))


def _connect(sock: socket.socket, place: Place, left_s: Callable[[], float]) -> Steps[bool]:
    while True:
        code = sock.connect_ex(place.address)
        if code in (0, errno.EISCONN):
            return True
        if code == errno.EAGAIN:  # a unix socket whose queue is full
            if left_s() <= 0:
                return False
            yield Wait(lambda: False, min(_TRY_AGAIN_S, max(0.0, left_s())))
            continue
        if code != errno.EINPROGRESS:
            raise OSError(code, os.strerror(code))
        if not (yield until_ready(sock, select.POLLOUT, left_s())):
            return False
        if code := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(code, os.strerror(code))
        return True


def _send(sock: socket.socket, data: bytes, left_s: Callable[[], float]) -> Steps[bool]:
    unsent = memoryview(data)
    while unsent:
        try:
            unsent = unsent[sock.send(unsent) :]
        except BlockingIOError:
            if not (yield until_ready(sock, select.POLLOUT, left_s())):
                return False
    return True


def _receive(sock: socket.socket, answer: Answer, left_s: Callable[[], float]) -> Steps[bool]:
    while not answer.complete:
        try:
            answer.feed(sock.recv(_CHUNK))
        except BlockingIOError:
            if not (yield until_ready(sock, select.POLLIN, left_s())):
                return False
        if left_s() <= 0 and not answer.complete:  # it drips
            return False
    return True


def _reason(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, ConnectionError):
        return "the connection was cut"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__
