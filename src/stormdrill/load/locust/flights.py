"""One intended request on its way, and where its end is written down."""

from __future__ import annotations

from typing import Protocol

import gevent
from gevent.greenlet import Greenlet

from stormdrill.model.experiment import Scalar
from stormdrill.model.profile import Stream
from stormdrill.store.records import Outcome, RecordWriter


class Arrival:
    """What `serve` is asked to send: one logical request."""

    __slots__ = ("_stream", "entries", "id", "intended_s", "job", "stream_index")

    def __init__(
        self, job: int, id: str, intended_s: float, stream: Stream, stream_index: int, entries: tuple[str, ...]
    ) -> None:
        self.job = job
        """Number of the request, unique in the run."""
        self.id = id
        """The same with the run's name before it, unique for ever."""
        self.intended_s = intended_s
        """When it was meant to be sent, on the monotonic clock."""
        self.stream_index = stream_index
        self.entries = entries
        """Base URLs of the entry's instances, in the order in which this request tries them."""
        self._stream = stream

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
    """An arrival from its dispatch to its record. Kept by the driver; a client finds it on its greenlet."""

    __slots__ = ("arrival", "closed", "done_s", "greenlet", "outcome", "refused_by", "sent_s", "status")

    def __init__(self, arrival: Arrival) -> None:
        self.arrival = arrival
        self.greenlet: Greenlet | None = None
        self.sent_s = 0.0
        """0: nothing was sent yet."""
        self.done_s = 0.0
        self.outcome: Outcome | None = None
        self.status = 0
        self.refused_by = 0
        """How many entries refused the connection."""
        self.closed = False

    def ended(self, outcome: Outcome, status: int, done_s: float) -> None:
        """What a client saw. Where `serve` sends several requests (a retry, say), the last one counts."""
        self.outcome = outcome
        self.status = status
        self.done_s = done_s


class Recorder(Protocol):
    def add(self, flight: Flight, now_s: float) -> None:
        """The flight is over, with an outcome, at `now_s` at the latest."""
        ...

    def flush(self) -> None: ...
    def close(self) -> None: ...


class RecordFile:
    """Writes flights as records."""

    def __init__(self, writer: RecordWriter, epoch_s: float) -> None:
        self._writer = writer
        self._epoch_s = epoch_s
        self.flush = writer.flush
        self.close = writer.close

    def add(self, flight: Flight, now_s: float) -> None:
        arrival, outcome = flight.arrival, flight.outcome
        if outcome is None:
            raise ValueError(f"request {arrival.id} ended without an outcome")
        latency_s = (flight.done_s or now_s) - arrival.intended_s
        if outcome not in (Outcome.ANSWERED, Outcome.REFUSED):
            latency_s = max(latency_s, arrival.deadline_s)
        self._writer.add(
            intended_us=round((arrival.intended_s - self._epoch_s) * 1e6),
            lag_us=round(((flight.sent_s or now_s) - arrival.intended_s) * 1e6),
            latency_us=round(latency_s * 1e6),
            job=arrival.job,
            status=flight.status,
            labels=arrival.stream_index,
            outcome=outcome,
        )


def current_flight() -> Flight | None:
    """The flight that the running greenlet serves; None outside of `serve`."""
    return getattr(gevent.getcurrent(), "flight", None)
