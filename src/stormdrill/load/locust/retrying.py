"""Whether a client that was not served asks again, and when: what the profile's `retry` says, carried out."""

from __future__ import annotations

import random
from collections.abc import Sequence

from stormdrill.load.locust.answers import REJECTED
from stormdrill.load.locust.flights import Flight
from stormdrill.model.profile import Retry
from stormdrill.store.records import Outcome

_MOST_ATTEMPTS = 255
"""A record holds the number of an attempt in a byte."""


class Retries:
    """The policies of a load's streams, and what is left of their budgets."""

    def __init__(self, policies: Sequence[Retry | None], seed: int) -> None:
        """`policies`: one a stream; streams that share one share its budget."""
        self._policies = tuple(policies)
        self._seed = seed
        self.any = any(policy is not None for policy in policies)
        self._arrived: dict[int, int] = {}
        self._retried: dict[int, int] = {}

    def arrived(self, stream: int) -> None:
        policy = id(self._policies[stream])
        self._arrived[policy] = self._arrived.get(policy, 0) + 1

    def wait_s(self, flight: Flight, now_s: float) -> float | None:
        """How long to wait before the next attempt; None when there is none. Takes from the budget."""
        policy = self._policies[flight.arrival.stream_index]
        if policy is None or not self._wanted(flight, policy):
            return None
        wait_s = policy.wait_s * 2.0**flight.attempt
        if policy.jitter:
            # The same run gives the same waits, whatever else happened and whoever else drew.
            dice = random.Random(f"stormdrill/{self._seed}/retry/{flight.arrival.job}/{flight.attempt}")  # noqa: S311
            wait_s *= 1.0 - policy.jitter * dice.random()
        asked = flight.retry_after
        if policy.obey and asked is not None and asked.wait_s is not None:
            wait_s = max(wait_s, asked.wait_s)
        arrival = flight.arrival
        if now_s + wait_s >= arrival.intended_s + arrival.deadline_s:
            return None
        return wait_s if self._allowed(flight, policy) else None

    def _wanted(self, flight: Flight, policy: Retry) -> bool:
        if flight.attempt + 1 >= min(policy.attempts, _MOST_ATTEMPTS) or flight.struck is not None:
            return False
        if flight.outcome is Outcome.ANSWERED:
            return flight.status in REJECTED
        return flight.outcome is Outcome.TIMED_OUT or flight.outcome is Outcome.REFUSED

    def _allowed(self, flight: Flight, policy: Retry) -> bool:
        if flight.again:
            return True
        retried = self._retried.get(id(policy), 0) + 1
        if retried > policy.share * self._arrived.get(id(policy), 0):
            return False
        self._retried[id(policy)] = retried
        flight.again = True
        return True
