"""How much is inside, and how fast slot time is taken up: two quantities over time, made readable at a moment. Pure."""

from __future__ import annotations

import math
from collections import deque

MEAN_OVER_S = 1.0


class InFlight:
    """What was accepted and isn't answered, as its mean over the last second: a reading each second misses none."""

    def __init__(self, now_s: float) -> None:
        self.now = 0
        self._area = 0.0
        """Integral of the number over time."""
        self._marks: deque[tuple[float, float]] = deque([(now_s, 0.0)])
        """When the number changed, and the area until then."""

    def enter(self, now_s: float) -> None:
        self._mark(now_s)
        self.now += 1

    def leave(self, now_s: float) -> None:
        self._mark(now_s)
        self.now -= 1

    def mean(self, now_s: float) -> float:
        self._mark(now_s)
        since_s = max(now_s - MEAN_OVER_S, self._marks[0][0])
        if now_s <= since_s:
            return float(self.now)
        return (self._area - self._area_at(since_s)) / (now_s - since_s)

    def _area_at(self, at_s: float) -> float:
        """Between two marks the number doesn't change."""
        marks = iter(self._marks)
        before_s, before = next(marks)
        for mark_s, area in marks:
            if mark_s >= at_s:
                share = (at_s - before_s) / (mark_s - before_s) if mark_s > before_s else 1.0
                return before + share * (area - before)
            before_s, before = mark_s, area
        return before

    def _mark(self, now_s: float) -> None:
        last_s, _ = self._marks[-1]
        self._area += self.now * (now_s - last_s)
        self._marks.append((now_s, self._area))
        while len(self._marks) > 2 and self._marks[1][0] <= now_s - MEAN_OVER_S:
            self._marks.popleft()


class Rate:
    """Amounts a second, the past forgotten with a time constant."""

    def __init__(self, memory_s: float = 2.0) -> None:
        self._memory_s = memory_s
        self._sum = 0.0
        self._at_s = -math.inf

    def add(self, amount: float, now_s: float) -> None:
        self._sum = self._faded(now_s) + amount
        self._at_s = now_s

    def per_s(self, now_s: float) -> float:
        return self._faded(now_s) / self._memory_s

    def _faded(self, now_s: float) -> float:
        return self._sum * math.exp(-max(0.0, now_s - self._at_s) / self._memory_s) if self._sum else 0.0
