"""One HTTP request with one limit on everything: name look-up, connect, each byte of the answer.

Standard library, so that nothing of the environment (proxies, netrc, cookies) joins in, and no redirect is followed.
It stands here because ready checks (`targets`) and probes both make such calls and are strangers to each other.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

from stormdrill.keeper.heard import Heard as Heard

BODY_LIMIT = 1_000_000
"""Bytes of an answer that are read at most."""
CHUNK = 65_536


class OverLimitError(Exception):
    """The limit was reached."""


class Clock:
    def __init__(self, limit_s: float) -> None:
        self.began = time.monotonic()
        self._end = self.began + limit_s

    def left(self) -> float:
        """Seconds, more than 0. Raises OverLimitError at the limit."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise OverLimitError
        return left

    def took_ms(self) -> float:
        return (time.monotonic() - self.began) * 1000


class _Raw(io.RawIOBase):
    """Reads a socket under the call's one limit, however slowly the bytes drip."""

    def __init__(self, sock: socket.socket, clock: Clock) -> None:
        self._sock, self._clock = sock, clock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # what BufferedReader gives
        self._sock.settimeout(self._clock.left())
        return self._sock.recv_into(buffer)


class _Limited:
    """The part of a socket that http.client uses, with the limit on every operation."""

    def __init__(self, sock: socket.socket, clock: Clock) -> None:
        self._sock, self._clock = sock, clock

    def sendall(self, data: bytes) -> None:
        self._sock.settimeout(self._clock.left())
        self._sock.sendall(data)

    def makefile(self, mode: str, *args: object, **kwargs: object) -> io.BufferedReader:
        return io.BufferedReader(_Raw(self._sock, self._clock), CHUNK)

    def close(self) -> None:
        """http.client closes before the body is read; the socket is closed by whoever opened it."""


def request(
    method: str,
    url: str,
    body: str,
    timeout_s: float,
    *,
    body_limit: int = BODY_LIMIT,
    more_headers: Mapping[str, str] | None = None,
) -> Heard:
    """One request. Never raises; `sent` says whether the other side may have acted where there is an error."""
    clock = Clock(timeout_s)
    try:
        target = urlsplit(url)
        host, port = target.hostname, target.port
    except ValueError as error:
        return Heard(error=f"{url!r}: {error}")
    if target.scheme not in {"http", "https"} or not host:
        return Heard(error=f"{url!r} is not an http(s) address")
    port = port or (443 if target.scheme == "https" else 80)
    where = f"{host}:{port}"
    try:
        sock = _connect(host, port, clock, secure=target.scheme == "https")
    except (OverLimitError, TimeoutError):
        return Heard(error=f"{where} did not accept a connection within {timeout_s:g} s", took_ms=clock.took_ms())
    except (OSError, UnicodeError) as error:
        return Heard(error=f"{where}: {_reason(error)}", took_ms=clock.took_ms())
    with contextlib.closing(sock):
        path = (target.path or "/") + (f"?{target.query}" if target.query else "")
        return _exchange(sock, clock, (method, path, where), body, body_limit, timeout_s, more_headers or {})


def _exchange(
    sock: socket.socket,
    clock: Clock,
    asked: tuple[str, str, str],
    body: str,
    body_limit: int,
    timeout_s: float,
    more_headers: Mapping[str, str],
) -> Heard:
    method, path, where = asked
    headers = {"Accept": "*/*", "Connection": "close", "User-Agent": "stormdrill", **more_headers}
    if body:
        headers["Content-Type"] = "application/json"
    host, _, port = where.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port))
    connection.sock = _Limited(sock, clock)
    status, data, error = 0, b"", ""
    try:
        connection.request(method, path, body.encode() if body or method in {"POST", "PUT", "PATCH"} else None, headers)
        answer = connection.getresponse()
        status = answer.status
        data, error = _body(answer, body_limit)
    except (OverLimitError, TimeoutError):
        error = f"{where} did not answer {method} {path} within {timeout_s:g} s"
    except (http.client.HTTPException, OSError, ValueError) as problem:
        error = f"{where}: {_reason(problem)}"
    return Heard(status=status, body=data, error=error, sent=True, took_ms=clock.took_ms())


def _body(answer: http.client.HTTPResponse, limit: int) -> tuple[bytes, str]:
    """The body up to `limit`; longer ones are an error, since a part of an answer proves nothing."""
    parts, size = [], 0
    while True:
        part = answer.read1(CHUNK)
        if not part:
            break
        parts.append(part)
        size += len(part)
        if size > limit:
            return b"", f"the answer has more than {limit} bytes"
    if answer.length:
        return b"".join(parts), f"the answer ended {answer.length} bytes early"
    return b"".join(parts), ""


def _connect(host: str, port: int, clock: Clock, *, secure: bool) -> socket.socket:
    last: OSError | None = None
    for family, kind, protocol, address in _addresses(host, port, clock):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(clock.left())
            sock.connect(address)
            if secure:
                sock = ssl.create_default_context().wrap_socket(sock, server_hostname=host)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
        except (OSError, OverLimitError) as error:
            sock.close()
            if isinstance(error, OverLimitError | TimeoutError):
                raise
            last = error
    raise last or OSError("no address")


_Address = tuple[socket.AddressFamily, socket.SocketKind, int, tuple[str, int] | tuple[str, int, int, int]]


def _addresses(host: str, port: int, clock: Clock) -> list[_Address]:
    """Looked up within the limit; a look-up that hangs is left behind in a daemon thread."""
    with contextlib.suppress(ValueError):
        family = socket.AF_INET6 if ip_address(host).version == 6 else socket.AF_INET
        return [(family, socket.SOCK_STREAM, 0, (host, port))]
    found: list[_Address] = []
    failed: list[OSError | UnicodeError] = []

    def look_up() -> None:
        try:
            for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
                found.append((family, kind, protocol, address))  # type: ignore[arg-type]  # IPv4 or IPv6
        except (OSError, UnicodeError) as error:
            failed.append(error)

    thread = threading.Thread(target=look_up, name="name-look-up", daemon=True)
    thread.start()
    thread.join(clock.left())
    if failed:
        raise failed[0]
    if thread.is_alive():
        raise OverLimitError
    return found


def _reason(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, http.client.RemoteDisconnected):
        return "closed the connection without an answer"
    if isinstance(error, ConnectionError):
        return "the connection was cut"
    if isinstance(error, http.client.IncompleteRead):
        return f"the answer ended {error.expected or 'some'} bytes early"
    if isinstance(error, http.client.HTTPException):
        return f"not HTTP ({type(error).__name__})"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__
