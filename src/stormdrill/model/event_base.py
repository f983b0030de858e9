"""What every event is: a frozen class with its word, and the envelope it is read back with. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple, TypeVar

EVENTS: dict[str, type[Event]] = {}
_E = TypeVar("_E", bound="type[Event]")


class Event:
    """Base of all events; `type` is the word in the journal."""

    __slots__ = ()
    type: ClassVar[str]
    durable: ClassVar[bool] = False
    """True: fsynced before it is acknowledged. False: committed with others within 100 ms."""


def event(word: str, *, durable: bool = False):  # type: ignore[no-untyped-def]  # a class decorator
    def register(cls: _E) -> _E:
        cls.type = word
        cls.durable = durable
        EVENTS[word] = cls
        return cls

    return register


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event with its envelope, as read back from the journal."""

    seq: int
    at: str
    mono_ms: float
    event: Event


class Spawned(NamedTuple):
    """Which process was started: with the boot id, pid and start time name one process for ever."""

    pid: int
    start_ticks: int
