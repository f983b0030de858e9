"""Who answers is asked in rounds: none takes longer than its limit, and no answer is lost that comes after it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from stormdrill.targets.kubernetes.answering import STALE_S, Answering


class Pods:
    """Who answers at once, who never does, and one that takes its time."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.heard = threading.Event()
        self.asked: list[str] = []

    def check(self, name: str) -> bool:
        self.asked.append(name)
        if name == "slow":
            self.go_on.wait(10)
            self.heard.set()
        return name != "down"


@pytest.fixture
def pods() -> Iterator[Pods]:
    found = Pods()
    yield found
    found.go_on.set()


def test_an_answer_that_comes_after_the_round_is_heard_in_the_next(pods: Pods) -> None:
    asking = Answering(pods.check)
    assert asking.round(["quick", "slow", "down"], 0.05) == {"quick": True, "slow": False, "down": False}
    assert asking.round(["quick", "slow", "down"], 0.05) == {"quick": True, "slow": False, "down": False}
    pods.go_on.set()
    assert asking.round(["quick", "slow"], 5.0) == {"quick": True, "slow": True}
    assert pods.asked.count("slow") == 1, "who is being asked is not asked once more"
    assert pods.asked.count("quick") == 3


def test_what_was_heard_long_ago_says_nothing_of_now(pods: Pods) -> None:
    now_s = 0.0
    asking = Answering(pods.check, lambda: now_s)
    assert asking.round(["slow"], 0.05) == {"slow": False}
    pods.go_on.set()
    assert pods.heard.wait(5)
    asking._asked["slow"].result(5)
    now_s = STALE_S + 1
    assert asking.round(["slow"], 5.0) == {"slow": True}
    assert pods.asked == ["slow", "slow"]


def test_the_first_that_answers_is_preferred_and_a_slow_one_is_waited_for(pods: Pods) -> None:
    asking = Answering(pods.check)
    assert asking.first(["down", "quick", "other"], 5.0) == "quick"
    assert asking.first(["down"], 5.0) == ""
    threading.Timer(1.2, pods.go_on.set).start()  # after the round
    assert asking.first(["down", "slow"], 10.0) == "slow"
