"""The transport to one API server: one request, one limit, no hidden retry. Thread-safe; connections are kept alive."""

from __future__ import annotations

import http.client
import json
import select
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Protocol
from urllib.parse import urlencode, urlsplit

from stormdrill.errors import StormdrillError

JSON = "application/json"
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
LIMIT_S = 5.0
"""For a whole exchange. A runner that was frozen for longer must look before it goes on."""
LARGEST_ANSWER = 64_000_000
"""Bytes."""
KEPT_CONNECTIONS = 8
KEPT_IDLE_S = 20.0
"""Servers and what stands before them close idle connections; a request on one that is just being closed would be
in doubt."""


class Lost(StormdrillError):
    """No complete answer. `sent`: the server may have acted on it."""

    def __init__(self, what: str, *, sent: bool) -> None:
        super().__init__(what)
        self.sent = sent


class Access(Protocol):
    """Who asks, and where. Says nothing of it in any message."""

    @property
    def server(self) -> str:
        """Base URL, https://10.0.0.1:6443."""
        ...

    def context(self) -> ssl.SSLContext | None:
        """None: plain HTTP, on loopback in tests only."""
        ...

    def headers(self) -> Mapping[str, str]:
        """Authorization, read anew where it comes from a file that is replaced."""
        ...

    def refresh(self) -> bool:
        """After a 401: get new credentials. False when there is no way to."""
        ...


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def good(self) -> bool:
        return 200 <= self.status < 300

    def read(self) -> dict[str, object]:
        """The JSON object in it; empty when it is none."""
        try:
            read = json.loads(self.body)
        except ValueError:
            return {}
        return read if isinstance(read, dict) else {}

    @property
    def reason(self) -> str:
        """The reason of a Status (NotFound, Conflict, …); empty where there is none."""
        return str(self.read().get("reason", "")) if not self.good else ""

    @property
    def said(self) -> str:
        """What the server said, for messages."""
        if self.good:
            return f"{self.status}"
        told = str(self.read().get("message", "")) or self.body[:200].decode("utf-8", "replace")
        return f"{self.status} {told}".strip()

    @property
    def retry_after_s(self) -> float | None:
        try:
            return float(self.headers["retry-after"])
        except (KeyError, ValueError):
            return None


@dataclass(slots=True)
class Api:
    """Requests to one API server."""

    access: Access
    name: str = ""
    """Of the cluster, as the system file has it; empty for the only one."""
    agent: str = "stormdrill"
    server_s: float = 0.0
    """The server's time in its last answer (header Date, whole seconds since 1970); 0: it has told none."""
    _idle: list[tuple[http.client.HTTPConnection, float]] = field(default_factory=list)
    """Each with the time (monotonic) when it was last used."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        query: Mapping[str, str] | None = None,
        content_type: str = JSON,
        accept: str = JSON,
        limit_s: float = LIMIT_S,
    ) -> Answer:
        """One request. Raises Lost when no complete answer came within the limit. A 401 is answered once with new
        credentials, where there are any: nothing was acted on."""
        target = urlsplit(self.access.server).path.rstrip("/") + (f"{path}?{urlencode(query)}" if query else path)
        data = None if body is None else json.dumps(body).encode()
        until_s = time.monotonic() + limit_s
        answer = self._once(method, target, data, content_type, accept, until_s)
        if answer.status == 401 and self.access.refresh():
            answer = self._once(method, target, data, content_type, accept, until_s)
        return answer

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection, _ in idle:
            connection.close()

    def _once(
        self, method: str, target: str, data: bytes | None, content_type: str, accept: str, until_s: float
    ) -> Answer:
        headers = {"Accept": accept, "User-Agent": self.agent, **self.access.headers()}
        if data is not None:
            headers["Content-Type"] = content_type
        connection, fresh = self._connection()
        try:
            return self._exchange(connection, method, target, data, headers, until_s)
        except Lost as lost:
            # a kept connection that the server has closed meanwhile; a read may be asked twice, a change may not
            if fresh or (lost.sent and method != "GET") or time.monotonic() >= until_s:
                raise
        return self._exchange(self._new(), method, target, data, headers, until_s)

    def _exchange(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        target: str,
        data: bytes | None,
        headers: Mapping[str, str],
        until_s: float,
    ) -> Answer:
        what = f"{method} {target.partition('?')[0]}"
        sent = False
        timer = threading.Timer(max(0.0, until_s - time.monotonic()), _cut, [connection])
        timer.daemon = True
        timer.start()  # a socket's own limit begins anew with each byte
        try:
            connection.timeout = max(0.01, until_s - time.monotonic())
            if connection.sock is None:
                connection.connect()
            left_s = until_s - time.monotonic()
            if left_s <= 0:  # the timer has found no socket to cut
                raise TimeoutError
            connection.sock.settimeout(left_s)
            sent = True
            connection.request(method, target, data, dict(headers))
            response = connection.getresponse()
            read = response.read(LARGEST_ANSWER + 1)
            answer = Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, read)
            reusable = not response.will_close and response.isclosed()
            self.server_s = _time_of(answer.headers.get("date", "")) or self.server_s
        except (OSError, http.client.HTTPException, AttributeError, ValueError) as error:
            connection.close()
            why = "no answer in time" if time.monotonic() >= until_s else str(error) or type(error).__name__
            raise Lost(f"{what}: {why}", sent=sent) from error
        finally:
            timer.cancel()
        if len(answer.body) > LARGEST_ANSWER:
            connection.close()
            raise Lost(f"{what}: the answer is larger than {LARGEST_ANSWER} bytes", sent=True)
        self._keep(connection, reusable)
        return answer

    def _connection(self) -> tuple[http.client.HTTPConnection, bool]:
        while True:
            with self._lock:
                if not self._idle:
                    break
                connection, used_s = self._idle.pop()
            if time.monotonic() - used_s < KEPT_IDLE_S and _quiet(connection):
                return connection, False
            connection.close()
        return self._new(), True

    def _new(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.access.server)
        context = self.access.context()
        if context is None:
            return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=LIMIT_S)
        return http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=LIMIT_S, context=context)

    def _keep(self, connection: http.client.HTTPConnection, reusable: bool) -> None:
        with self._lock:
            if reusable and len(self._idle) < KEPT_CONNECTIONS:
                self._idle.append((connection, time.monotonic()))
                return
        connection.close()


def _time_of(date: str) -> float:
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError):
        return 0.0


def _cut(connection: http.client.HTTPConnection) -> None:
    sock = connection.sock
    if sock is not None:
        try:
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            return


def _quiet(connection: http.client.HTTPConnection) -> bool:
    """Whether nothing was heard on it since the last answer: what can be read there now is its end."""
    poll = select.poll()
    try:
        poll.register(connection.sock, select.POLLIN)
        return not poll.poll(0)
    except (OSError, ValueError, TypeError):
        return False
