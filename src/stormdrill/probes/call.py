"""One HTTP request or one command, with one limit on everything: name look-up, connect, each byte of the answer.

Standard library, so that nothing of the environment (proxies, netrc, cookies) joins in, and no redirect is followed.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import os
import selectors
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Sequence
from ipaddress import ip_address
from typing import IO
from urllib.parse import urlsplit

from stormdrill.ports import Ran, Reply

BODY_LIMIT = 1_000_000
"""Bytes of an answer or of standard output that are read at most."""
COMPLAINT_LIMIT = 4_000
CHUNK = 65_536
KILL_AFTER_S = 0.5


class Calls:
    """The `Caller` of `stormdrill.ports`: no state, any number of threads."""

    def __init__(self, *, body_limit: int = BODY_LIMIT, cwd: str | None = None) -> None:
        self._body_limit, self._cwd = body_limit, cwd

    def http(self, method: str, url: str, body: str, timeout_s: float) -> Reply:
        return http_call(method, url, body, timeout_s, body_limit=self._body_limit)

    def command(self, argv: Sequence[str], timeout_s: float) -> Ran:
        return run_command(argv, timeout_s, output_limit=self._body_limit, cwd=self._cwd)


class _OverError(Exception):
    """The limit was reached."""


class _Clock:
    def __init__(self, limit_s: float) -> None:
        self.began = time.monotonic()
        self._end = self.began + limit_s

    def left(self) -> float:
        """Seconds, more than 0. Raises _OverError at the limit."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise _OverError
        return left

    def took_ms(self) -> float:
        return (time.monotonic() - self.began) * 1000


# --- HTTP ------------------------------------------------------------------------------------------------


class _Raw(io.RawIOBase):
    """Reads a socket under the call's one limit, however slowly the bytes drip."""

    def __init__(self, sock: socket.socket, clock: _Clock) -> None:
        self._sock, self._clock = sock, clock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # what BufferedReader gives
        self._sock.settimeout(self._clock.left())
        return self._sock.recv_into(buffer)


class _Limited:
    """The part of a socket that http.client uses, with the limit on every operation."""

    def __init__(self, sock: socket.socket, clock: _Clock) -> None:
        self._sock, self._clock = sock, clock

    def sendall(self, data: bytes) -> None:
        self._sock.settimeout(self._clock.left())
        self._sock.sendall(data)

    def makefile(self, mode: str, *args: object, **kwargs: object) -> io.BufferedReader:
        return io.BufferedReader(_Raw(self._sock, self._clock), CHUNK)

    def close(self) -> None:
        """http.client closes before the body is read; the socket is closed by whoever opened it."""


def http_call(method: str, url: str, body: str, timeout_s: float, *, body_limit: int = BODY_LIMIT) -> Reply:
    """One request. Never raises; `sent` says whether the other side may have acted where there is an error."""
    clock = _Clock(timeout_s)
    try:
        target = urlsplit(url)
        host, port = target.hostname, target.port
    except ValueError as error:
        return Reply(error=f"{url!r}: {error}")
    if target.scheme not in {"http", "https"} or not host:
        return Reply(error=f"{url!r} is not an http(s) address")
    port = port or (443 if target.scheme == "https" else 80)
    where = f"{host}:{port}"
    try:
        sock = _connect(host, port, clock, secure=target.scheme == "https")
    except (_OverError, TimeoutError):
        return Reply(error=f"{where} did not accept a connection within {timeout_s:g} s", took_ms=clock.took_ms())
    except (OSError, UnicodeError) as error:
        return Reply(error=f"{where}: {_reason(error)}", took_ms=clock.took_ms())
    with contextlib.closing(sock):
        path = (target.path or "/") + (f"?{target.query}" if target.query else "")
        return _exchange(sock, clock, (method, path, where), body, body_limit, timeout_s)


def _exchange(
    sock: socket.socket, clock: _Clock, asked: tuple[str, str, str], body: str, body_limit: int, timeout_s: float
) -> Reply:
    method, path, where = asked
    headers = {"Accept": "*/*", "Connection": "close", "User-Agent": "stormdrill"}
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
    except (_OverError, TimeoutError):
        error = f"{where} did not answer {method} {path} within {timeout_s:g} s"
    except (http.client.HTTPException, OSError, ValueError) as problem:
        error = f"{where}: {_reason(problem)}"
    text = data.decode("utf-8", "replace")
    return Reply(status=status, text=text, error=error, sent=True, took_ms=clock.took_ms())


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


def _connect(host: str, port: int, clock: _Clock, *, secure: bool) -> socket.socket:
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
        except (OSError, _OverError) as error:
            sock.close()
            if isinstance(error, _OverError | TimeoutError):
                raise
            last = error
    raise last or OSError("no address")


_Address = tuple[socket.AddressFamily, socket.SocketKind, int, tuple[str, int] | tuple[str, int, int, int]]


def _addresses(host: str, port: int, clock: _Clock) -> list[_Address]:
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
        raise _OverError
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


# --- commands --------------------------------------------------------------------------------------------


def run_command(
    argv: Sequence[str], timeout_s: float, *, output_limit: int = BODY_LIMIT, cwd: str | None = None
) -> Ran:
    """One program in a session of its own, never through a shell; its group is ended at the limit. Never raises."""
    clock = _Clock(timeout_s)
    try:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        name = argv[0] if argv else "no command"
        return Ran(error=f"{name} does not start: {why.lower()}", took_ms=clock.took_ms())
    wrong = ""
    streams = _Streams(process, output_limit)
    try:
        streams.read(clock)
        process.wait(clock.left())
    except (_OverError, subprocess.TimeoutExpired):
        wrong = f"{argv[0]} did not end within {timeout_s:g} s and was ended"
    except OSError as problem:
        wrong = f"{argv[0]}: {problem}"
    finally:
        _end(process)
        streams.close()
    if not wrong and streams.overflow:
        wrong = f"{argv[0]} wrote more than {output_limit} bytes"
    output, complaint = streams.texts()
    code = None if wrong else process.returncode
    return Ran(code=code, output=output, complaint=complaint, error=wrong, started=True, took_ms=clock.took_ms())


class _Streams:
    """Standard output up to a limit, and the end of standard error, read side by side."""

    def __init__(self, process: subprocess.Popen[bytes], limit: int) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self._process, self._limit = process, limit
        self._out, self._err = process.stdout, process.stderr
        self._output, self._complaint = bytearray(), bytearray()
        self.overflow = False

    def read(self, clock: _Clock) -> None:
        """Until both are closed, or the process has ended and nothing more comes. Raises _OverError."""
        with selectors.DefaultSelector() as selector:
            for stream in (self._out, self._err):
                os.set_blocking(stream.fileno(), False)
                selector.register(stream, selectors.EVENT_READ)
            while selector.get_map():
                ready = selector.select(min(clock.left(), 0.1))
                for key, _ in ready:
                    if not self._take(key.fileobj):  # type: ignore[arg-type]  # registered above
                        selector.unregister(key.fileobj)
                if not ready and self._process.poll() is not None:
                    return

    def _take(self, stream: IO[bytes]) -> bool:
        data = os.read(stream.fileno(), CHUNK)
        if stream is self._out:
            room = self._limit - len(self._output)
            self.overflow = self.overflow or len(data) > room
            self._output += data[: max(0, room)]
        else:
            self._complaint = (self._complaint + data)[-COMPLAINT_LIMIT:]
        return bool(data)

    def texts(self) -> tuple[str, str]:
        return self._output.decode("utf-8", "replace"), self._complaint.decode("utf-8", "replace")

    def close(self) -> None:
        self._out.close()
        self._err.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    """End what is left of the process's group; afterwards the process itself is reaped."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(KILL_AFTER_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
