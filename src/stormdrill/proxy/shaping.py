"""How active toxics change one direction of one connection: when a chunk may leave, and how much of it."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from stormdrill.proxy.toxic import Toxic

BUFFER_BYTES = 64 * 1024
"""Kept of one direction of one connection at most, where nothing is delayed."""
DELAYED_BYTES = 1024 * 1024
"""Kept where something is delayed: what is on its way on a long line."""
TURN_S = 0.02
"""A rate is given out in portions of this length."""
PARETO_SHAPE = 3.0
RATED = ("trickle", "squeeze")
FELT_S = 0.001
"""A shorter wait is that of a rate nobody reaches."""


class Waiter(Protocol):
    """What stands in a line: one direction of one connection."""

    def wanted(self) -> int:
        """Bytes that it would send next; 0: nothing any more."""
        ...

    def pump(self) -> None: ...


class Rate:
    """A token bucket whose takers are served in turn: one connection (trickle) or many (squeeze)."""

    def __init__(self, bytes_per_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._per_s = bytes_per_s
        self._turn = max(1.0, bytes_per_s * TURN_S)
        self._tokens = 0.0
        self._at_s = self._loop.time()
        self._waiting: deque[Waiter] = deque()
        self._served: Waiter | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.felt = False
        """Somebody had to wait long enough to notice it."""

    def take(self, taker: Waiter, wanted: int) -> int:
        """Bytes that it may send, a turn at most. 0: it stands in line, and `pump` is called when its turn comes."""
        self._refill()
        portion = int(min(wanted, self._turn))
        if (self._waiting and taker is not self._served) or self._tokens < portion:
            self.felt = self.felt or (portion - self._tokens) / self._per_s >= FELT_S
            if taker not in self._waiting:
                self._waiting.append(taker)
            self._arm()
            return 0
        self._tokens -= portion
        self._served = None
        return portion

    def end(self) -> None:
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refill(self) -> None:
        now_s = self._loop.time()
        self._tokens = min(2 * self._turn, self._tokens + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s

    def _arm(self) -> None:
        if self._timer is None and self._waiting:
            missing = max(0.0, min(self._waiting[0].wanted(), self._turn) - self._tokens)
            self._timer = self._loop.call_later(missing / self._per_s, self._serve)

    def _serve(self) -> None:
        self._timer = None
        self._refill()
        for _ in range(len(self._waiting)):
            wanted = self._waiting[0].wanted()
            if wanted and self._tokens < int(min(wanted, self._turn)):
                break
            self._served = self._waiting.popleft()
            if wanted:
                self._served.pump()
            self._served = None
        self._arm()


@dataclass(slots=True, eq=False)
class Active:
    """A toxic in force, and what it has touched."""

    toxic: Toxic
    connections: int = 0
    bytes: int = 0
    refused: int = 0
    numbered: int = 0
    """Connections given a place in the seeded sequence."""
    shared: dict[str, Rate] = field(default_factory=dict)
    """A squeeze's line for each direction."""
    expiry: asyncio.TimerHandle | None = None

    def rate(self, direction: str) -> Rate:
        """A squeeze's one line for a direction."""
        if direction not in self.shared:
            self.shared[direction] = Rate(self.toxic.bytes_per_s)
        return self.shared[direction]

    def end(self) -> None:
        if self.expiry is not None:
            self.expiry.cancel()
        for rate in self.shared.values():
            rate.end()


class Jitter:
    """The delays of one direction of one connection: the same seed, connection and chunk give the same delay."""

    def __init__(self, toxic: Toxic, place: str) -> None:
        self._toxic = toxic
        self._random = random.Random(f"{toxic.seed} {place}") if toxic.jitter_ms else None  # noqa: S311

    def draw_s(self) -> float:
        toxic, source = self._toxic, self._random
        if source is None:
            return toxic.delay_ms / 1000
        if toxic.distribution == "uniform":
            extra = source.uniform(-1.0, 1.0)
        elif toxic.distribution == "normal":
            extra = source.gauss(0.0, 1.0)
        else:
            extra = source.paretovariate(PARETO_SHAPE) - 1.0
        return max(0.0, toxic.delay_ms + toxic.jitter_ms * extra) / 1000


class Shaping:
    """All toxics that touch one direction of one connection, together."""

    def __init__(self, numbered: Sequence[tuple[Active, int]], direction: str) -> None:
        """Each toxic with the number that this connection has in its seeded sequence."""
        active = [one for one, _ in numbered]
        self.touching = [one for one in active if one.toxic.kind not in RATED]
        """What has every byte in hand. What has a rate only has those that must wait for it."""
        self.slowed_by: Active | None = None
        """Whose rate was waited for last."""
        kinds = {one.toxic.kind for one in active}
        self.held = not kinds.isdisjoint(("stall", "cut"))
        self.limit = DELAYED_BYTES if "delay" in kinds else BUFFER_BYTES
        self._jitters = [Jitter(one.toxic, f"{at} {direction}") for one, at in numbered if one.toxic.kind == "delay"]
        trickles = [one for one in active if one.toxic.kind == "trickle"]
        squeezes = [one for one in active if one.toxic.kind == "squeeze"]
        self._own = [Rate(one.toxic.bytes_per_s) for one in trickles]
        self._rates = [*self._own, *(one.rate(direction) for one in squeezes)]
        self._rated = [*trickles, *squeezes]
        self._credits = [0] * len(self._rates)
        """Taken and not yet sent: so a taker of several rates waits for one after the other, never for both at once."""
        self._due_s = 0.0

    def due_s(self, at_s: float) -> float:
        """When what was read at `at_s` may leave; never before what was read earlier."""
        for jitter in self._jitters:
            at_s += jitter.draw_s()
        self._due_s = max(self._due_s, at_s)
        return self._due_s

    def allow(self, taker: Waiter, wanted: int) -> int:
        for index, rate in enumerate(self._rates):
            if not self._credits[index]:
                self._credits[index] = rate.take(taker, wanted)
            wanted = min(wanted, self._credits[index])
            if not wanted:
                self.slowed_by = self._rated[index] if rate.felt else None
                return 0
        return wanted

    def spend(self, sent: int) -> None:
        for index in range(len(self._credits)):
            self._credits[index] -= sent

    def end(self) -> None:
        for rate in self._own:
            rate.end()
