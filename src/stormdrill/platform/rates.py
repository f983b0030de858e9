"""How much arrived over the last seconds."""

from __future__ import annotations

from collections import Counter, deque


class Arrivals:
    """Counts by label over a sliding window of whole seconds, the running one left out."""

    def __init__(self, window_s: int = 5) -> None:
        self._window_s = window_s
        self._seconds: deque[tuple[int, Counter[str]]] = deque()

    def add(self, label: str, now_s: float) -> None:
        second = int(now_s)
        if not self._seconds or self._seconds[-1][0] != second:
            self._seconds.append((second, Counter()))
        self._seconds[-1][1][label] += 1
        self._forget(second)

    def per_s(self, now_s: float) -> dict[str, float]:
        second = int(now_s)
        self._forget(second)
        total: Counter[str] = Counter()
        for at, counts in self._seconds:
            if at != second:
                total.update(counts)
        return {label: count / self._window_s for label, count in total.items()}

    def _forget(self, second: int) -> None:
        while self._seconds and self._seconds[0][0] < second - self._window_s:
            self._seconds.popleft()
