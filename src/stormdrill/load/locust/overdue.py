"""One clock for all requests in flight: whoever is overdue is struck. A timer each would cost more than the waiting."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence

import gevent
from gevent.hub import get_hub

from stormdrill.load.locust.flights import Flight

_LOOK_EVERY_S = 0.02
_SHORT_QUEUE = 4096


class Struck(gevent.Timeout):  # type: ignore[misc]  # untyped library
    """The client gives up on this arrival. A `gevent.Timeout`, which clients know how to end by."""

    def __init__(self) -> None:
        super().__init__(None)

    def __str__(self) -> str:
        return "no answer within the deadline"


class Overdue:
    """Flights by their limits: those of one stream become overdue in the order in which they came."""

    def __init__(self, patience_s: Sequence[float]) -> None:
        """One a stream, from the intended time on."""
        self._queues: list[deque[Flight]] = [deque() for _ in patience_s]
        self._long = [_SHORT_QUEUE for _ in patience_s]

    def watch(self, flight: Flight) -> None:
        index = flight.arrival.stream_index
        queue = self._queues[index]
        queue.append(flight)
        if len(queue) > self._long[index]:
            # Answered ones wait here for the limit that they don't need any more; with long deadlines they are many.
            self._queues[index] = queue = deque(item for item in queue if not item.closed)
            self._long[index] = max(_SHORT_QUEUE, 2 * len(queue))

    def strike_for_ever(self) -> None:
        while True:
            gevent.sleep(_LOOK_EVERY_S)
            now_s = time.monotonic()
            for queue in self._queues:
                while queue and (queue[0].closed or queue[0].limit_s <= now_s):
                    flight = queue.popleft()
                    if not flight.closed:
                        get_hub().loop.run_callback(_strike, flight)


def _strike(flight: Flight) -> None:
    """In the hub, as gevent's own timers do. Whoever has not begun with its arrival looks at the time by itself."""
    if flight.serving and not flight.closed and flight.greenlet is not None:
        flight.struck = Struck()
        flight.greenlet.throw(flight.struck)
