"""How fast something is taken up, readable at any moment. Pure."""

from __future__ import annotations

import math


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
