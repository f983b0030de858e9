"""One intended request on its way, its attempts, and where their ends are written down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import gevent
from greenlet import greenlet

from stormdrill.model.experiment import Scalar
from stormdrill.model.profile import Stream
from stormdrill.store.records import UNTOLD, Flag, Outcome, RecordWriter

_LONGEST_REGION = 64


class Arrival:
    """What `serve` is asked to send: one logical request."""

    __slots__ = ("_run", "_stream", "attempt", "entries", "intended_s", "job", "stream_index")

    def __init__(
        self, job: int, run: str, intended_s: float, stream: Stream, stream_index: int, entries: tuple[str, ...]
    ) -> None:
        self.job = job
        """Number of the request, unique in the run."""
        self.intended_s = intended_s
        """When it was meant to be sent, on the monotonic clock."""
        self.attempt = 0
        """0 for the first; the profile's `retry` and further requests of one `serve` make more."""
        self.stream_index = stream_index
        self.entries = entries
        """Base URLs of the entry's instances, in the order in which this request tries them."""
        self._run = run
        self._stream = stream

    @property
    def id(self) -> str:
        """`<run>-<job>`, unique for ever, and the same for all attempts."""
        return f"{self._run}-{self.job}"

    @property
    def stream(self) -> str:
        """The profile's name for this kind of request."""
        return self._stream.name

    @property
    def labels(self) -> dict[str, str]:
        return self._stream.labels

    @property
    def deadline_s(self) -> float:
        """Since the intended time; an answer after it isn't a success."""
        return self._stream.deadline_s

    @property
    def parameters(self) -> dict[str, Scalar]:
        return self._stream.parameters


class Flight:
    """An arrival from its dispatch to its last record. Kept by the driver; a client finds it on its greenlet."""

    __slots__ = (
        "again", "arrival", "attempt", "closed", "done_s", "first_sent_s", "greenlet", "limit_s", "outcome",
        "refused_by", "region", "report", "retry_after", "sent_s", "serving", "status", "struck",
    )  # fmt: skip

    def __init__(self, arrival: Arrival, limit_s: float) -> None:
        self.arrival = arrival
        self.limit_s = limit_s
        """When the client gives up, on the monotonic clock."""
        self.greenlet: greenlet | None = None
        self.first_sent_s = 0.0
        """0: nothing was sent yet."""
        self.refused_by = 0
        """How many entries refused the connection and were followed by another."""
        self.struck: BaseException | None = None
        """The limit has passed: nothing more may be sent."""
        self.serving = False
        """Its greenlet has begun with it."""
        self.closed = False
        self.again = False
        """The retry budget has paid for it."""
        # Of the attempt that is under way, or was the last one:
        self.attempt = 0
        self.sent_s = 0.0
        self.done_s = 0.0
        self.outcome: Outcome | None = None
        self.status = 0
        self.retry_after: RetryAfter | None = None
        self.region: str | None = None
        self.report: Callable[[], None] | None = None
        """Tells Locust's own statistics of it, once it is certain what the locustfile takes it for."""

    def sending(self, now_s: float) -> None:
        """The next attempt begins."""
        if self.first_sent_s:
            self.attempt += 1
            self.done_s, self.outcome, self.status = 0.0, None, 0
            self.retry_after = self.region = self.report = None
        else:
            self.first_sent_s = now_s
        self.arrival.attempt = self.attempt
        self.sent_s = now_s

    def ended(self, outcome: Outcome, status: int, done_s: float) -> None:
        """What a client saw of this attempt. The last one counts."""
        self.outcome = outcome
        self.status = status
        self.done_s = done_s


class RetryAfter:
    """What an answer said of when to come back."""

    __slots__ = ("wait_s",)

    def __init__(self, wait_s: float | None) -> None:
        self.wait_s = wait_s
        """None: it can't be read."""


class Recorder(Protocol):
    def add(self, flight: Flight, now_s: float, *, final: bool) -> None:
        """An attempt is over, with an outcome, at `now_s` at the latest."""
        ...

    def flush(self) -> None: ...
    def close(self) -> None: ...


class RecordFile:
    """Writes attempts as records."""

    def __init__(self, writer: RecordWriter, epoch_s: float) -> None:
        self.writer = writer
        self.epoch_s = epoch_s
        self.flush = writer.flush
        self.close = writer.close
        self._regions: dict[str, int] = {}

    def add(self, flight: Flight, now_s: float, *, final: bool) -> None:
        arrival, outcome = flight.arrival, flight.outcome
        if outcome is None:
            raise ValueError(f"request {arrival.id} ended without an outcome")
        intended_s = arrival.intended_s
        latency_s = (flight.done_s or now_s) - intended_s
        if final and outcome is not Outcome.ANSWERED and outcome is not Outcome.REFUSED:
            latency_s = max(latency_s, arrival.deadline_s)
        flags, wait_s = int(final), 0
        if flight.retry_after is not None:
            asked_s = flight.retry_after.wait_s
            flags |= Flag.GARBLED if asked_s is None else Flag.RETRY_AFTER
            wait_s = whole_seconds(asked_s)
        self.writer.add(
            intended_us=round((intended_s - self.epoch_s) * 1e6),
            lag_us=round(((flight.first_sent_s or now_s) - intended_s) * 1e6),
            latency_us=round(latency_s * 1e6),
            job=arrival.job,
            status=flight.status,
            labels=arrival.stream_index,
            outcome=outcome,
            sent_us=round(((flight.sent_s or now_s) - intended_s) * 1e6),
            attempt=flight.attempt,
            flags=flags,
            retry_after_s=wait_s,
            region=UNTOLD if flight.region is None else self.region(flight.region),
        )

    def region(self, name: str) -> int:
        """Its index; untold where there is no room for more of them."""
        known = self._regions.get(name)
        if known is None:
            try:
                found = self.writer.learn_region(name) if 0 < len(name) <= _LONGEST_REGION else None
            except OSError:
                # A disk that fails is told of when records are flushed, where the load can end for it.
                found = None
            known = self._regions[name] = UNTOLD if found is None else found
        return known


def whole_seconds(asked_s: float | None) -> int:
    """As a record holds it: rounded up, 255 for longer."""
    return 0 if asked_s is None else min(-int(-asked_s // 1), 255)


def current_flight() -> Flight | None:
    """The flight that the running greenlet serves; None outside of `serve`."""
    return getattr(gevent.getcurrent(), "flight", None)
