"""The lean HTTP client of the open loop: `self.http`.

The parser and the connection pool are geventhttpclient's. What is left out, compared with Locust's client on the same
library, is what costs the time: redirects, cookies, compression, statistics of each request. What is kept is what
honesty needs: one attempt a call, connections as many as there are requests in flight, and the next entry where one
refuses the connection.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

import gevent
import msgspec
from geventhttpclient.connectionpool import SSLConnectionPool
from geventhttpclient.response import HTTPParseError, HTTPSocketPoolResponse
from locust.contrib.fasthttp import insecure_ssl_context_factory

from stormdrill.load.locust.answers import REJECTED, retry_after
from stormdrill.load.locust.connections import Connections
from stormdrill.load.locust.flights import Arrival, Flight, current_flight
from stormdrill.store.records import Outcome

IDEMPOTENCY_KEY, ATTEMPT = "Idempotency-Key", "X-Attempt"
LABEL_HEADERS = {"tier": "X-Tier", "kind": "X-Kind"}
"""Labels of a stream that the server is told."""
_TARGET = re.compile(r"/[!-~]*")
_METHOD = re.compile(r"[A-Z]+")
_FIELD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t -~\x80-\xff]*")
_BODY_METHODS = ("POST", "PUT", "PATCH")
_CONNECTIONS = 10_000
"""More than requests can be in flight: the driver caps those, and the pool must never make one wait."""
_FIRST_FINAL = 200
"""Statuses below it announce the answer, and aren't it."""
_OUTSIDE_LIMIT_S = 60.0
"""For requests outside of `serve`, which have no deadline."""

Headers = Mapping[str, str]
Report = Callable[[str, str, "Answer", Flight], None]


class Answer:
    """What came back. Without an answer `status` is 0 and `error` says why."""

    __slots__ = ("_flight", "_headers", "body", "error", "refused", "status")

    def __init__(self, status: int, headers: Headers, body: bytes, error: BaseException | None, flight: Flight | None):
        self.status = status
        self.body = body
        self.error = error
        self.refused = ""
        """Why the locustfile refused it."""
        self._headers = headers
        self._flight = flight

    @property
    def ok(self) -> bool:
        """2xx, and not refused."""
        return 200 <= self.status < 300 and not self.refused

    @property
    def headers(self) -> Headers:
        """By names in any case."""
        return self._headers

    def json(self) -> object:
        """The body, decoded. Raises ValueError (msgspec.DecodeError) for what is no JSON."""
        return msgspec.json.decode(self.body)

    def refuse(self, why: str) -> None:
        """It is no success, whatever its status says: recorded with status 0."""
        self.refused = why or "refused"
        if self._flight is not None and not self._flight.closed and self._flight.outcome is Outcome.ANSWERED:
            self._flight.status = 0


class HttpClient:
    """Requests of one user. Within `serve` each is an attempt at the arrival; outside of it nothing is recorded."""

    def __init__(
        self,
        base_url: str,
        *,
        note_sent: Callable[[Flight], None],
        region_header: str,
        report: Report | None,
    ) -> None:
        """`report` is told of every attempt, when it is certain what the locustfile takes it for."""
        self._outside = (base_url.rstrip("/"),)
        self._note_sent = note_sent
        self._region_header = region_header.lower()
        self._report = report
        self._entries: dict[str, _Entry] = {}
        self._told: dict[int, str] = {}

    def get(self, path: str, *, headers: Headers | None = None, name: str = "", timeout_s: float = 0.0) -> Answer:
        return self.request("GET", path, headers=headers, name=name, timeout_s=timeout_s)

    def post(
        self,
        path: str,
        *,
        json: object = None,
        data: bytes | str | None = None,
        headers: Headers | None = None,
        name: str = "",
        timeout_s: float = 0.0,
    ) -> Answer:
        return self.request("POST", path, json=json, data=data, headers=headers, name=name, timeout_s=timeout_s)

    def request(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        data: bytes | str | None = None,
        headers: Headers | None = None,
        name: str = "",
        timeout_s: float = 0.0,
    ) -> Answer:
        """Send it once and wait for the whole answer, for `timeout_s` at most, never beyond the arrival's limit.

        `json`: anything that msgspec encodes. `name` is for Locust's statistics. No answer is an answer with status
        0. Raises ValueError for what can't be sent.
        """
        # What can't be sent is said before it counts as sent: the system never saw it.
        _check(method, path, headers)
        body, more = _body(method, json, data)
        flight = current_flight()
        if flight is not None:
            self._note_sent(flight)
        head = self._head(path, headers, more, flight)
        limit_s = timeout_s or (0.0 if flight is not None else _OUTSIDE_LIMIT_S)
        limit = gevent.Timeout.start_new(limit_s) if limit_s else None
        try:
            answer = self._exchange(method, head, body, flight)
        except gevent.Timeout as caught:
            if flight is not None:
                self._ended(flight, Outcome.TIMED_OUT, 0)
            answer = Answer(0, {}, b"", caught, flight)
            if caught is not limit:
                # The driver's, or one of the locustfile's own, which ends more than this request.
                self._tell(method, name or path, answer, flight)
                raise
        finally:
            if limit is not None:
                limit.close()
        self._tell(method, name or path, answer, flight)
        return answer

    def _exchange(self, method: str, head: str, body: bytes, flight: Flight | None) -> Answer:
        entries = flight.arrival.entries if flight is not None else self._outside
        last = len(entries) - 1
        for turn, url in enumerate(entries):
            entry = self._entries.get(url) or self._entry(url)
            try:
                sock = entry.pool.get_socket()
                try:
                    sock.sendall(entry.request(method, head, body))
                except BaseException:
                    entry.pool.release_socket(sock)
                    raise
                response = _Response(sock, entry.pool, block_size=16_384, method=method)
                content = response.read()
                return self._answered(response, content, flight, getattr(sock, "arrived_s", 0.0))
            except ConnectionRefusedError as error:
                # An address that refuses the connection has seen nothing of the request: a client of a name with
                # several addresses goes on to the next one, once each.
                if turn < last:
                    if flight is not None:
                        flight.refused_by += 1
                    continue
                return self._lost(error, flight)
            except TimeoutError as error:
                if flight is not None:
                    self._ended(flight, Outcome.TIMED_OUT, 0)
                return Answer(0, {}, b"", error, flight)
            except (OSError, HTTPParseError) as error:
                return self._lost(error, flight)
        raise ValueError("there is no entry to send to")

    def _lost(self, error: Exception, flight: Flight | None) -> Answer:
        if flight is not None:
            self._ended(flight, Outcome.REFUSED, 0)
        return Answer(0, {}, b"", error, flight)

    def _answered(
        self, response: HTTPSocketPoolResponse, content: bytes, flight: Flight | None, arrived_s: float
    ) -> Answer:
        status = response.get_code()
        headers = response.info()
        if flight is not None:
            # A clock that was set meanwhile tells nonsense: then the moment at which it was read counts.
            self._ended(flight, Outcome.ANSWERED, status, arrived_s if arrived_s > flight.sent_s else 0.0)
            region = headers.get(self._region_header)
            flight.region = region if isinstance(region, str) else None
            if status in REJECTED:
                flight.retry_after = retry_after(headers.get("retry-after"))
        return Answer(status, headers, content, None, flight)

    def _ended(self, flight: Flight, outcome: Outcome, status: int, done_s: float = 0.0) -> None:
        if not flight.closed:
            flight.ended(outcome, status, done_s or time.monotonic())

    def _tell(self, method: str, name: str, answer: Answer, flight: Flight | None) -> None:
        if self._report is not None and flight is not None:
            report = self._report
            flight.report = lambda: report(method, name, answer, flight)

    def _entry(self, url: str) -> _Entry:
        entry = self._entries[url] = _Entry(url)
        return entry

    def _head(self, path: str, headers: Headers | None, more: str, flight: Flight | None) -> str:
        told = "" if flight is None else self._labels(flight.arrival)
        if headers:
            # What the locustfile says itself is not said twice.
            mine = {field.lower() for field in headers}
            lines = [line for line in (told + more).split("\r\n") if line and line.split(":", 1)[0].lower() not in mine]
            lines += [f"{field}: {value}" for field, value in headers.items()]
            return path + "\n" + "".join(f"{line}\r\n" for line in lines)
        return f"{path}\n{told}{more}"

    def _labels(self, arrival: Arrival) -> str:
        fixed = self._told.get(arrival.stream_index)
        if fixed is None:
            labels = arrival.labels
            fixed = self._told[arrival.stream_index] = "".join(
                f"{header}: {labels[label]}\r\n"
                for label, header in LABEL_HEADERS.items()
                if label in labels and _VALUE.fullmatch(labels[label])
            )
        return f"{IDEMPOTENCY_KEY}: {arrival.id}\r\n{ATTEMPT}: {arrival.attempt}\r\n{fixed}"


def told_headers(arrival: Arrival, own: Headers | None) -> dict[str, str]:
    """What the server is told of a request, for other clients than this one; the locustfile's own headers win."""
    found = {IDEMPOTENCY_KEY: arrival.id, ATTEMPT: str(arrival.attempt)}
    found.update({header: arrival.labels[label] for label, header in LABEL_HEADERS.items() if label in arrival.labels})
    mine = {field.lower() for field in own or ()}
    return {field: value for field, value in found.items() if field.lower() not in mine} | dict(own or {})


class _Response(HTTPSocketPoolResponse):  # type: ignore[misc]  # untyped library
    """One answer. The library takes what follows it at once for a newer answer to the same request."""

    def _on_message_begin(self) -> None:
        if self.message_complete and self.get_code() >= _FIRST_FINAL:
            raise HTTPParseError("two answers to one request")
        super()._on_message_begin()


class _Entry:
    """One instance: its connections, and what every request to it begins with."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or parts.hostname is None:
            raise ValueError(f"{url!r} is no address of an HTTP service; write http://HOST:PORT")
        tls = parts.scheme == "https"
        port = parts.port or (443 if tls else 80)
        self._prefix = parts.path.rstrip("/")
        self._host = f"Host: {parts.netloc.rpartition('@')[2]}\r\n"
        place = (parts.hostname, port, parts.hostname, port)
        # The time limit is the flight's, so connections have none of their own.
        limits = {"size": _CONNECTIONS, "connection_timeout": None, "network_timeout": None}
        # As Locust's client: what is measured is the service, whose certificate is often a test's own.
        tls_options = {"server_hostname": parts.hostname}
        self.pool = (
            SSLConnectionPool(
                *place,
                insecure=True,
                ssl_options=tls_options,
                ssl_context_factory=insecure_ssl_context_factory,
                **limits,
            )
            if tls
            else Connections(*place, **limits)
        )

    def request(self, method: str, head: str, body: bytes) -> bytes:
        path, fields = head.split("\n", 1)
        return f"{method} {self._prefix}{path} HTTP/1.1\r\n{self._host}{fields}\r\n".encode("latin-1") + body


def _check(method: str, path: str, headers: Headers | None) -> None:
    if not _TARGET.fullmatch(path):
        raise ValueError(f"{path!r} is no path; write one that begins with / and is percent-encoded")
    if not _METHOD.fullmatch(method):
        raise ValueError(f"{method!r} is no method; write capital letters, as in PATCH")
    for field, value in (headers or {}).items():
        if not _FIELD.fullmatch(field) or not _VALUE.fullmatch(value):
            raise ValueError(f"header {field!r}: {value!r} can't be sent")


def _body(method: str, json: object, data: bytes | str | None) -> tuple[bytes, str]:
    """The body, and the header lines that announce it."""
    if json is not None:
        if data is not None:
            raise ValueError("json= and data= are two bodies; a request has one")
        body = msgspec.json.encode(json)
        return body, f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    if data is not None:
        body = data.encode() if isinstance(data, str) else data
        return body, f"Content-Length: {len(body)}\r\n"
    return b"", "Content-Length: 0\r\n" if method in _BODY_METHODS else ""
