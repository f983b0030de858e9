"""The edge's restraint: a circuit breaker for each gateway, and a budget for retries. Pure."""

from __future__ import annotations

FAILURES_TO_OPEN = 5
"""In a row."""
OPEN_S = 1.0
"""So long nothing passes an open breaker, then one trial at a time."""
SUCCESSES_TO_CLOSE = 3
BUDGET_SHARE = 0.1
"""Retries earned by a request."""
BUDGET_MOST = 10.0


class Breaker:
    def __init__(self) -> None:
        self._failures = 0
        self._successes = 0
        self._open_until_s: float | None = None
        self._trial_until_s = float("-inf")
        self.trials = 0
        """Requests that went while it was open."""

    @property
    def is_open(self) -> bool:
        """Open or half-open: not every request passes."""
        return self._open_until_s is not None

    def would_pass(self, now_s: float) -> bool:
        """Whether a request may go now; half-open, one trial a time."""
        if self._open_until_s is None:
            return True
        return now_s >= self._open_until_s and now_s >= self._trial_until_s

    def passing(self, now_s: float, limit_s: float) -> None:
        """A request goes now; as a trial it keeps others back until it ends, at most for its limit."""
        if self._open_until_s is not None:
            self._trial_until_s = now_s + limit_s
            self.trials += 1

    def succeeded(self) -> None:
        self._failures = 0
        if self._open_until_s is None:
            return
        self._trial_until_s = float("-inf")
        self._successes += 1
        if self._successes >= SUCCESSES_TO_CLOSE:
            self._open_until_s = None

    def failed(self, now_s: float) -> None:
        self._failures += 1
        self._successes = 0
        if self._failures >= FAILURES_TO_OPEN or self._open_until_s is not None:
            self._open_until_s = now_s + OPEN_S
            self._trial_until_s = float("-inf")


class StuckBreaker(Breaker):
    """The bug: once open, it is never tried again."""

    def would_pass(self, now_s: float) -> bool:
        return not self.is_open


class RetryBudget:
    """At most a tenth of the requests may be tried again, however many fail."""

    def __init__(self) -> None:
        self.tokens = BUDGET_MOST

    def earn(self) -> None:
        self.tokens = min(BUDGET_MOST, self.tokens + BUDGET_SHARE)

    def spend(self) -> bool:
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True
