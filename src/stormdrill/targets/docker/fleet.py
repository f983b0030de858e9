"""The containers of one run: which instance each one is, and which of their engine's events are our own doing."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque

from msgspec import Struct

from stormdrill.errors import Unreachable
from stormdrill.model.event import ContainerEvent
from stormdrill.targets.docker.events import Told

COMPANION = "companion"
"""The role of what a compose file starts and the system doesn't name."""
ENDS = ("oom", "die")
EARLY = 200
"""Events of containers that aren't known: a run's own are told before they are, and strangers' for ever."""


class Member(Struct, frozen=True):
    instance: str
    service: str
    role: str
    """system, proxy, helper, companion"""
    id: str
    name: str
    image: str
    address: str = ""
    labels: dict[str, str] = {}
    owned: bool = True
    pid: int = 0


class Fleet:
    """Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._members: dict[str, Member] = {}
        self._joined_ms: dict[str, float] = {}
        self._early: deque[Told] = deque(maxlen=EARLY)
        self._expected: Counter[tuple[str, str]] = Counter()

    def join(self, member: Member) -> list[Told]:
        """Returns what was told of it before it was known."""
        with self._lock:
            self._members[member.instance] = member
            self._joined_ms.setdefault(member.id, time.monotonic() * 1000)
            early = [told for told in self._early if told.container == member.id]
            self._early = deque((told for told in self._early if told not in early), maxlen=EARLY)
            return early

    def is_how_it_was_made(self, told: Told) -> bool:
        """What came before it was known, but was told later; its death is none of that."""
        with self._lock:
            return told.at_ms < self._joined_ms.get(told.container, 0.0) and told.action not in ENDS

    def all(self) -> list[Member]:
        with self._lock:
            return list(self._members.values())

    def of(self, instance: str) -> Member:
        """Raises Unreachable before it is known."""
        with self._lock:
            found = self._members.get(instance)
        if found is None:
            raise Unreachable(f"{instance} has no container yet")
        return found

    def told_of(self, told: Told) -> Member | None:
        """Whose event this is; of one that isn't known yet it is kept."""
        with self._lock:
            found = next((item for item in self._members.values() if item.id == told.container), None)
            if found is None:
                self._early.append(told)
            return found

    def expect(self, instance: str, *actions: str) -> None:
        """These will be told once each because of us."""
        with self._lock:
            self._expected.update((instance, action) for action in actions)

    def event(self, member: Member, told: Told) -> ContainerEvent:
        """The event as it is journalled."""
        with self._lock:
            key = (member.instance, told.action)
            expected = self._expected[key] > 0
            self._expected[key] -= expected
        return ContainerEvent(member.instance, told.container, told.action, told.code, expected, told.detail)
