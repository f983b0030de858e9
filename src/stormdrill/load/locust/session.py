"""Locust's own fast client, made honest: latency from the intended time, no hidden retries, nobody's cookies."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import gevent
from geventhttpclient.client import HTTPClient, HTTPClientPool
from geventhttpclient.url import URL
from locust.contrib.fasthttp import FastHttpSession
from locust.event import EventHook
from locust.exception import CatchResponseError

from stormdrill.load.locust.answers import REJECTED, retry_after
from stormdrill.load.locust.connections import Connections
from stormdrill.load.locust.flights import Flight, current_flight
from stormdrill.load.locust.http import told_headers
from stormdrill.store.records import Outcome

if TYPE_CHECKING:
    from locust.contrib.fasthttp import FastResponse, ResponseContextManager


class EntryClients(HTTPClientPool):  # type: ignore[misc]  # untyped library
    """One client an entry. The time limit is the flight's, so connections have none of their own."""

    def __init__(self, size: int) -> None:
        super().__init__(connection_timeout=None, network_timeout=None, concurrency=size, insecure=True)
        self._size = size

    def get_client(self, url: str | URL) -> HTTPClient:
        url = url if isinstance(url, URL) else URL(url)
        known = (url.host, url.port) in self.clients
        client = super().get_client(url)
        if not known:
            if not client.ssl:
                client._connection_pool = Connections(
                    client.host,
                    client.port,
                    client.host,
                    client.port,
                    size=self._size,
                    connection_timeout=None,
                    network_timeout=None,
                )
            # The library sends a GET again up to `size` + 1 times when connections are cut: a retry storm of the
            # generator's own making, which no record would show. -1 leaves the first attempt only.
            client._connection_pool.size = -1
        return client


class ArrivalSession(FastHttpSession):  # type: ignore[misc]  # untyped library
    """What a locustfile knows as `self.client`. Within `serve` it reports to the flight; outside it is Locust's."""

    def __init__(
        self,
        base_url: str,
        *,
        events: EventHook,
        user: object,
        size: int,
        note_sent: Callable[[Flight], None],
        region_header: str,
    ) -> None:
        super().__init__(base_url, _Reports(events), user, client_pool=EntryClients(size), max_retries=0)
        # Arrivals are strangers to each other: no cookie of one is sent by the next.
        self.client.cookiejar = None
        self._note_sent = note_sent
        self._region_header = region_header

    def request(self, method: str, url: str, catch_response: bool = False, **kwargs: object) -> ResponseContextManager:
        """As Locust's; `response_time` counts from the arrival's intended time."""
        flight = current_flight()
        if flight is None:
            return super().request(method, url, catch_response=catch_response, **kwargs)
        response = super().request(method, url, catch_response=True, **kwargs)
        done_s = time.monotonic()
        flight.ended(*_outcome_of(response), done_s)
        fields = response.headers or {}
        region = fields.get(self._region_header)
        flight.region = region if isinstance(region, str) else None
        if flight.status in REJECTED:
            flight.retry_after = retry_after(fields.get("Retry-After"))
        meta = response.request_meta
        meta["response_time"] = (done_s - flight.arrival.intended_s) * 1e3
        meta["start_time"] -= flight.sent_s - flight.arrival.intended_s
        meta["context"] = {**flight.arrival.labels, **meta["context"]}
        if not catch_response:
            self.request_event.fire(**meta)
        return response

    def _build_url(self, path: str) -> str:
        flight = current_flight()
        if flight is None or path.startswith(("http://", "https://")):
            return str(super()._build_url(path))
        return flight.arrival.entries[0] + path

    def _send_request_safe_mode(self, method: str, url: str, **kwargs: object) -> FastResponse:
        flight = current_flight()
        if flight is None:
            return super()._send_request_safe_mode(method, url, **kwargs)
        self._note_sent(flight)
        own = kwargs.get("headers")
        kwargs["headers"] = told_headers(flight.arrival, own if isinstance(own, dict) else None)
        response = super()._send_request_safe_mode(method, url, **kwargs)
        # An address that refuses the connection has seen nothing of the request: a client of a name with several
        # addresses goes on to the next one, once each. It is counted, and the time it takes is part of the latency.
        for entry in flight.arrival.entries[1:]:
            if not (isinstance(_cause(response), ConnectionRefusedError) and url.startswith(flight.arrival.entries[0])):
                break
            flight.refused_by += 1
            response = super()._send_request_safe_mode(method, entry + url[len(flight.arrival.entries[0]) :], **kwargs)
        return response


class _Reports:
    """Stands where the client expects Locust's request event: what `response.failure()` says reaches the flight."""

    def __init__(self, events: EventHook) -> None:
        self._events = events

    def fire(self, **meta: object) -> None:
        flight = current_flight()
        if flight is not None and isinstance(meta.get("exception"), CatchResponseError):
            # An answer that the locustfile refuses is no success whatever its status says: status 0.
            flight.status = 0
        self._events.fire(**meta)


def _cause(response: FastResponse) -> BaseException | None:
    error = getattr(response, "error", None)
    original = getattr(error, "original", None)
    return original if isinstance(original, BaseException) else error


def _outcome_of(response: ResponseContextManager) -> tuple[Outcome, int]:
    exception: BaseException | None = response.request_meta["exception"]
    cause = _cause(response)
    if isinstance(cause, gevent.Timeout | TimeoutError) or isinstance(exception, gevent.Timeout | TimeoutError):
        return Outcome.TIMED_OUT, 0
    status = response.status_code
    if not status or (exception is not None and getattr(exception, "code", None) != status):
        # No status line, or a body that was cut in the middle.
        return Outcome.REFUSED, 0
    return Outcome.ANSWERED, status
