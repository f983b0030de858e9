"""What a locustfile sends without `self.client`: any protocol, with the same honesty as HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

import gevent
from locust.event import EventHook

from stormdrill.load.locust.flights import Flight, RetryAfter
from stormdrill.store.records import Outcome

_OK = 200
_REJECTED = 503
_NOT_ACCEPTED = 0
"""As for an HTTP answer that the locustfile refuses."""


class RefusedAnswerError(Exception):
    """Locust's statistics count it as a failure."""


class Attempt:
    """`with self.attempt("SET") as attempt:` one request; its end is the arrival's, unless another attempt follows.

    Left in peace: answered, a success unless `attempt.refuse(why)` was called. Left by OSError or EOFError: the
    connection was refused or cut; by TimeoutError: no answer. These three are taken as answers and go no further, so
    that a loop may try again; whatever else is raised is a mistake of the locustfile's and does.
    """

    def __init__(
        self, name: str, flight: Flight, note_sent: Callable[[Flight], None], request_event: EventHook
    ) -> None:
        self._name = name
        self._flight = flight
        self._note_sent = note_sent
        self._request_event = request_event
        self._refused = ""
        self._rejected = False
        self.succeeded = False

    def refuse(self, why: str) -> None:
        """There was an answer, and it is no success."""
        self._refused = why

    def reject(self, why: str, retry_after_s: float | None = None) -> None:
        """The system turned it away: recorded as 503, and asked again where the profile says so."""
        self._refused, self._rejected = why, True
        self._flight.retry_after = None if retry_after_s is None else RetryAfter(max(retry_after_s, 0.0))

    def __enter__(self) -> Attempt:
        self._note_sent(self._flight)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is None:
            self.succeeded = not self._refused
            status = _REJECTED if self._rejected else _NOT_ACCEPTED if self._refused else _OK
            self._end(Outcome.ANSWERED, status)
            self._report(RefusedAnswerError(self._refused) if self._refused else None)
            return False
        if isinstance(error, gevent.Timeout):
            # The driver's limit, which it handles and reports, or one of the locustfile's own, which it handles.
            self._end(Outcome.TIMED_OUT, 0)
            return False
        if isinstance(error, OSError | EOFError):
            self._end(Outcome.TIMED_OUT if isinstance(error, TimeoutError) else Outcome.REFUSED, 0)
            self._report(error)
            return True
        return False

    def _end(self, outcome: Outcome, status: int) -> None:
        self._flight.ended(outcome, status, time.monotonic())

    def _report(self, error: BaseException | None) -> None:
        arrival = self._flight.arrival
        self._request_event.fire(
            request_type="ATTEMPT",
            name=self._name,
            response_time=(time.monotonic() - arrival.intended_s) * 1e3,
            response_length=0,
            exception=error,
            context=dict(arrival.labels),
        )
