"""What a run writes down of containers. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass

from stormdrill.model.event_base import Event
from stormdrill.model.event_base import event as _event


@_event("resources-claimed", durable=True)
@dataclass(frozen=True, slots=True)
class ResourcesClaimed(Event):
    """Written before the first of them is made: whoever ends the run looks for them on this engine, and removes
    them by name and by the label `stormdrill=<run>`."""

    engine: str
    """unix:///var/run/docker.sock or http://127.0.0.1:port"""
    containers: list[str]
    """Names; empty for a system of containers that ran before: then nothing of it is ever started or removed."""
    networks: list[str]
    images: list[str]
    """What they are made from, with the image's id where it is known; never removed."""


@_event("container-started", durable=True)
@dataclass(frozen=True, slots=True)
class ContainerStarted(Event):
    """A container that is an instance: made by the run, found running already, or started again by an undo."""

    instance: str
    service: str
    role: str
    """system, proxy, helper, companion"""
    container: str
    """Its id, 64 hex digits."""
    name: str
    pid: int
    """Of its first process, as the host numbers it; 0 where the engine is not on this machine."""
    image: str
    address: str
    """host:port on 127.0.0.1, or empty."""
    labels: dict[str, str]
    owned: bool
    """True: the run made it and removes it."""


@_event("container-event", durable=True)
@dataclass(frozen=True, slots=True)
class ContainerEvent(Event):
    """What the engine told of an instance: die, oom, pause, unpause, start, destroy, network-disconnect, …"""

    instance: str
    container: str
    action: str
    code: int | None
    """The exit code of a `die`."""
    expected: bool
    """True when stormdrill did it (an injection, an undo or the tear-down)."""
    detail: str
