"""Asking again has an end, and a pace: whatever a server answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from stormdrill.cluster.api import JSON, Answer, Api
from stormdrill.cluster.asking import LONGEST_PAUSE_S, Until, patient, read
from stormdrill.cluster.setting import books
from stormdrill.errors import Unreachable


@dataclass
class Clock:
    at_s: float = 0.0
    slept: list[float] = field(default_factory=list)

    def until(self, limit_s: float) -> Until:
        return Until(limit_s, now=lambda: self.at_s, sleep=self._sleep)

    def _sleep(self, wait_s: float) -> None:
        self.slept.append(wait_s)
        self.at_s += wait_s


class Always(Api):
    """A server that says the same, whatever it is asked."""

    def __init__(self, status: int, heads: Mapping[str, str] | None = None) -> None:
        self.answer, self.asked = Answer(status, dict(heads or {}), b"{}"), 0

    def call(self, method: str, path: str, body: object = None, *, query: Mapping[str, str] | None = None,
             content_type: str = JSON, limit_s: float = 0.0) -> Answer:  # fmt: skip
        self.asked += 1
        return self.answer


@pytest.mark.parametrize("heads", [{}, {"retry-after": "0"}])
def test_a_server_that_wants_to_be_asked_at_once_is_asked_at_a_pace_all_the_same(heads: dict[str, str]) -> None:
    clock, server = Clock(), Always(429, heads)
    with pytest.raises(Unreachable):
        read(server, "/x", clock.until(10.0))
    assert server.asked < 20
    assert clock.slept == sorted(clock.slept)
    assert max(clock.slept) <= LONGEST_PAUSE_S


def test_what_the_server_says_of_waiting_is_heeded_where_it_is_longer() -> None:
    clock, server = Clock(), Always(503, {"retry-after": "3"})
    assert patient(clock.until(10.0), lambda: server.call("GET", "/x")).status == 503
    assert clock.slept == [3.0, 3.0, 3.0]


def test_a_list_that_expires_again_and_again_is_given_up_in_time() -> None:
    clock, server = Clock(), Always(410)
    with pytest.raises(Unreachable):
        books(server, "suite", clock.until(5.0))
    assert server.asked < 20
