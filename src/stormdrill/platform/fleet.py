"""What a gateway knows of its workers' memory: which of them grow, and how fast. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from msgspec import Struct

from stormdrill.platform.jobs import Pool

SPAN_S = 4.0
"""A slope is reckoned over at least this."""
APART_S = 0.2
LEAK_BYTES_PER_S = 1024.0**2
FRESH_S = 2.0
FREED_BYTES = 2e6
"""A fall by this much is a fresh start."""


class Leak(Struct, frozen=True):
    instance: str
    pool: Pool
    version: str
    bytes_per_s: float


@dataclass(slots=True)
class _Seen:
    pool: Pool
    version: str
    samples: deque[tuple[float, float]] = field(default_factory=deque)
    """When, and how much."""

    def slope(self) -> float:
        """Of the flatter half: what grows once and stays isn't leaking. 0 while the span is short."""
        (first_s, first), (last_s, last) = self.samples[0], self.samples[-1]
        if last_s - first_s < SPAN_S:
            return 0.0
        middle_s, middle = min(self.samples, key=lambda sample: abs(sample[0] - (first_s + last_s) / 2))
        if not first_s < middle_s < last_s:
            return 0.0
        return min((middle - first) / (middle_s - first_s), (last - middle) / (last_s - middle_s))


class Fleet:
    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}

    def heard(self, worker: str, pool: Pool, version: str, rss_bytes: float, now_s: float) -> None:
        seen = self._seen.get(worker)
        if seen is None or seen.version != version or rss_bytes < seen.samples[-1][1] - FREED_BYTES:
            seen = self._seen[worker] = _Seen(pool, version)
        elif now_s - seen.samples[-1][0] < APART_S:
            return
        seen.samples.append((now_s, rss_bytes))
        while len(seen.samples) > 1 and now_s - seen.samples[1][0] >= SPAN_S:
            seen.samples.popleft()

    def slopes(self, now_s: float) -> tuple[Leak, ...]:
        """Of every worker that was heard lately."""
        return tuple(
            Leak(name, seen.pool, seen.version, seen.slope())
            for name, seen in self._seen.items()
            if now_s - seen.samples[-1][0] < FRESH_S
        )

    def leaks(self, now_s: float) -> tuple[Leak, ...]:
        return tuple(found for found in self.slopes(now_s) if found.bytes_per_s > LEAK_BYTES_PER_S)
