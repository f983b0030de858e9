"""The open loop: walks the schedule of absolute times, whatever the system under test does.

A greenlet an arrival, at most `max_in_flight` of them. Nothing is silent: what could not be sent is recorded as
dropped, what is in flight at the end as unfinished, with at least its deadline as its latency.

At thousands of arrivals a second the generator's own work is what makes it late, so greenlets are used again, and one
clock for all strikes what is overdue instead of a timer each.
"""

from __future__ import annotations

import logging
import math
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import chain

import gevent
from gevent.event import Event
from gevent.hub import get_hub
from greenlet import greenlet

from stormdrill.load.arrivals import Arrival as Planned
from stormdrill.load.locust.alarm import Alarm
from stormdrill.load.locust.answers import REGION_HEADER
from stormdrill.load.locust.flights import Arrival, Flight, Recorder
from stormdrill.load.locust.overdue import Overdue, Struck
from stormdrill.load.locust.retrying import Retries
from stormdrill.load.messages import GRACE_S, PROGRESS_EVERY_S, Ended, Progress
from stormdrill.model.profile import Retry, Stream
from stormdrill.store.records import Outcome

now = time.monotonic
_FLUSH_EVERY_S = 0.05
_LONGEST_NAP_S = 0.5
_INTERVALS_A_SECOND = round(1 / PROGRESS_EVERY_S)
_SUCCESSES, _NOT_ACCEPTED = range(200, 300), 0

log = logging.getLogger(__name__)


class _Server(greenlet):  # type: ignore[misc]  # untyped library
    """Serves one arrival after another."""

    flight: Flight | None = None


class Driver:
    """Sends arrivals at their times and follows each to its end."""

    def __init__(
        self,
        planned: Iterator[Planned],
        *,
        run: str,
        streams: tuple[Stream, ...],
        entries: tuple[str, ...],
        max_in_flight: int,
        lost: Callable[[Flight], None],
        retries: Sequence[Retry | None] = (),
        seed: int = 0,
        region_header: str = REGION_HEADER,
    ) -> None:
        """`lost` is told of what no client ever reports: dropped, unfinished, and time-outs outside of a request.
        `retries`: one a stream."""
        self._planned = planned
        self._run = run
        self._streams = streams
        # Each request starts at the next entry and knows where to go when that one refuses.
        self._turns = [entries[turn:] + entries[:turn] for turn in range(len(entries))]
        self._max_in_flight = max_in_flight
        self._lost = lost
        self.region_header = region_header
        self._recorder: Recorder | None = None
        self._in_flight: set[Flight] = set()
        self._retries = Retries(retries or [None] * len(streams), seed)
        self._overdue = Overdue([item.deadline_s + GRACE_S for item in streams])
        self._idle: list[_Server] = []
        self._landed = Event()
        self._begun = Event()
        self._cut_short = Event()
        """Nothing is sent a second time any more."""
        self.waiting = Event()
        """The user has started and waits for `begin`."""
        self.finished = Event()
        self.asked_to_end = Event()
        self.failure = ""
        """Why the load could not go on."""
        self._epoch_s = 0.0
        self._last_s = math.inf
        self._wait_until_s = math.inf
        self._lags: deque[list[float]] = deque([[]], maxlen=_INTERVALS_A_SECOND)
        self.scheduled = self.sent = self.done = self.dropped = self.unfinished = self.failovers = self.errors = 0
        self.first_error = ""

    def begin(self, epoch_s: float, recorder: Recorder) -> None:
        """Arrivals count from `epoch_s` on the monotonic clock."""
        self._epoch_s, self._recorder = epoch_s, recorder
        self._begun.set()

    def end(self, last_intended_s: float, timeout_s: float, *, retries: bool = True) -> None:
        """No arrival after `last_intended_s`; what is in flight `timeout_s` later is unfinished.

        Without `retries`, who waits to try again has its last answer, now.
        """
        if not retries:
            self._cut_short.set()
        self._last_s = last_intended_s
        self._wait_until_s = max(last_intended_s, now()) + timeout_s
        self.asked_to_end.set()
        self._begun.set()
        self._landed.set()

    def stop(self) -> None:
        """No further arrival; what is in flight is followed to its deadline."""
        self.end(min(self._last_s, now()), max(item.deadline_s for item in self._streams) + GRACE_S)

    def fail(self, text: str) -> None:
        """The load can't go on, and nothing is waited for."""
        self.failure = self.failure or text
        self.end(min(self._last_s, now()), 0.0, retries=False)

    @property
    def begun(self) -> bool:
        return self._recorder is not None

    def flush(self) -> None:
        if self._recorder is not None and not self.finished.is_set():
            self._recorder.flush()

    def run(self, serve: Callable[[Arrival], object]) -> None:
        """Serve all arrivals. Returns when the last one is recorded, also when the greenlet is killed meanwhile."""
        self.waiting.set()
        self._begun.wait()
        if self._recorder is None:
            self.finished.set()
            return
        self._hub = get_hub()
        clocks = [gevent.spawn(self._flush_often), gevent.spawn(self._overdue.strike_for_ever)]
        try:
            self._walk(serve)
            self._follow()
        except gevent.GreenletExit:
            if now() < self._last_s:
                self.failure = self.failure or "the load was stopped from within: the locustfile ended its own user"
            self.stop()
            self._follow()
            raise
        finally:
            self._give_up()
            gevent.killall(clocks)
            try:
                self._recorder.close()
            except OSError as error:
                self.failure = self.failure or f"the records can't be written: {error}"
            self.finished.set()

    def progress(self) -> Progress:
        """Totals, and the lag of the last second; starts a new interval of it."""
        lags = sorted(chain.from_iterable(self._lags))
        self._lags.append([])
        p99 = lags[min(math.ceil(0.99 * len(lags)), len(lags)) - 1] if lags else 0.0
        return Progress(now() * 1e3, self.scheduled, self.sent, self.done, self.dropped, p99 * 1e3)

    def summary(self, cpu_s: float) -> Ended:
        return Ended(
            self.scheduled,
            self.sent,
            self.done,
            self.dropped,
            self.unfinished,
            self.failovers,
            self.errors,
            self.first_error,
            cpu_s,
        )

    def _walk(self, serve: Callable[[Arrival], object]) -> None:
        alarm = Alarm()
        self._send = serve
        turns, streams, epoch_s = self._turns, self._streams, self._epoch_s
        try:
            for job, at_s, index in self._planned:
                intended_s = epoch_s + at_s
                while (now_s := now()) < intended_s and intended_s <= self._last_s:
                    # The end may be brought forward at any time, so no nap is long.
                    alarm.wait_until(min(intended_s, now_s + _LONGEST_NAP_S))
                if intended_s > self._last_s:
                    return
                self._dispatch(Arrival(job, self._run, intended_s, streams[index], index, turns[job % len(turns)]))
        finally:
            alarm.close()

    def _dispatch(self, arrival: Arrival) -> None:
        self.scheduled += 1
        if self._retries.any:
            self._retries.arrived(arrival.stream_index)
        flight = Flight(arrival, arrival.intended_s + arrival.deadline_s + GRACE_S)
        if len(self._in_flight) >= self._max_in_flight:
            self._drop(flight)
            return
        self._in_flight.add(flight)
        self._overdue.watch(flight)
        server = self._idle.pop() if self._idle else _Server(self._serve_for_ever, self._hub)
        server.flight = flight
        flight.greenlet = server
        self._hub.loop.run_callback(server.switch)

    def _serve_for_ever(self) -> None:
        server = gevent.getcurrent()
        while True:
            flight = server.flight
            try:
                if flight is None:
                    self._hub.switch()
                    continue
                self._serve(flight)
            except gevent.GreenletExit:
                return
            except gevent.Timeout:
                # Started by an earlier `serve`, which didn't close it: it is of no arrival any more.
                continue
            server.flight = None
            self._idle.append(server)

    def _serve(self, flight: Flight) -> None:
        errors = self.errors
        flight.serving = True
        try:
            if now() < flight.limit_s:
                self._serve_until_it_counts(flight)
        except Struck:
            self._cut(flight)
        except gevent.Timeout as caught:
            self._defect(f"a time-out of the locustfile's own was not handled: {caught}")
        except gevent.GreenletExit:
            raise
        except Exception as error:
            self._defect("".join(traceback.format_exception(error)))
            if flight.outcome is Outcome.ANSWERED and not flight.closed and flight.status in _SUCCESSES:
                # A check of the locustfile's that failed, or an answer that it could make nothing of.
                flight.status = _NOT_ACCEPTED
        if flight.outcome is None and errors == self.errors and flight.struck is None and now() < flight.limit_s:
            self._defect(
                f"serve() ended without an answer for {flight.arrival.stream}: it sends with self.http, self.client "
                "or self.attempt"
            )
        if not flight.closed:
            self._land(flight)

    def _serve_until_it_counts(self, flight: Flight) -> None:
        arrival = flight.arrival
        self._send(arrival)
        if not self._retries.any:
            return
        while (wait_s := self._retries.wait_s(flight, now())) is not None:
            if self._cut_short.wait(wait_s):
                return
            arrival.attempt = flight.attempt + 1
            self._send(arrival)

    def _cut(self, flight: Flight) -> None:
        """The limit struck while `serve` was outside of a request of its client, or waited to try again."""
        if flight.first_sent_s and flight.outcome is None:
            flight.ended(Outcome.TIMED_OUT, 0, now())
            self._lost(flight)

    def note_sent(self, flight: Flight) -> None:
        """The client is about to send. Raises the limit again for a `serve` that didn't heed it."""
        now_s = now()
        if flight.first_sent_s and self._cut_short.is_set():
            flight.struck = flight.struck or Struck()  # a `serve` of several requests
        if flight.struck is not None:
            raise flight.struck
        if not flight.first_sent_s:
            self.sent += 1
            self._lags[-1].append(now_s - flight.arrival.intended_s)
        else:
            if flight.outcome is None:
                # A request that its client never told the end of.
                flight.ended(Outcome.UNFINISHED, 0, now_s)
            self._record(flight, final=False)
        flight.sending(now_s)

    def _land(self, flight: Flight) -> None:
        self._in_flight.discard(flight)
        if flight.first_sent_s:
            if flight.outcome is None:
                # Sent, and its client never told: at least it was not seen to succeed.
                flight.ended(Outcome.UNFINISHED, 0, now())
            self.done += 1
            self.failovers += flight.refused_by > 0 and flight.outcome is Outcome.ANSWERED
            self._close(flight)
        else:
            self._drop(flight)
        if not self._in_flight:
            self._landed.set()

    def _drop(self, flight: Flight) -> None:
        self.dropped += 1
        flight.ended(Outcome.DROPPED, 0, now())
        self._lost(flight)
        self._close(flight)

    def _close(self, flight: Flight) -> None:
        flight.closed = True
        self._record(flight, final=True)

    def _record(self, flight: Flight, *, final: bool) -> None:
        if flight.report is not None:
            flight.report()
        if self._recorder is not None:
            self._recorder.add(flight, now(), final=final)

    def _follow(self) -> None:
        """Wait for what is in flight, up to the limit that `end` set, which may still change."""
        while self._in_flight:
            self._landed.clear()
            remaining_s = self._wait_until_s - now()
            if remaining_s <= 0 or not self._in_flight:
                return
            self._landed.wait(None if math.isinf(remaining_s) else remaining_s)

    def _give_up(self) -> None:
        left = sorted(self._in_flight, key=lambda flight: flight.arrival.job)
        self._in_flight.clear()
        for flight in left:
            if not flight.first_sent_s:
                self._drop(flight)
                continue
            if flight.outcome is None:
                self.unfinished += 1
                flight.ended(Outcome.UNFINISHED, 0, now())
                self._lost(flight)
            else:
                # It waited to try again: its last answer is what it has.
                self.done += 1
            self._close(flight)
        idle, self._idle = self._idle, []
        for server in [flight.greenlet for flight in left] + idle:
            gevent.kill(server)

    def _defect(self, text: str) -> None:
        self.errors += 1
        if not self.first_error:
            self.first_error = text.strip().splitlines()[-1]
            log.error("The locustfile's serve() went wrong; this is told once.\n%s", text.strip())

    def _flush_often(self) -> None:
        while True:
            gevent.sleep(_FLUSH_EVERY_S)
            try:
                self.flush()
            except OSError as error:
                self.fail(f"the records can't be written: {error}")
                return
