"""What was done in a cluster is undone there, by the runner or by its watchdog. The keeper has no credentials and
perhaps no network: it holds such an undo, writes down what became of it, and never carries it out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable
from urllib.parse import urlsplit

from stormdrill.keeper.outcome import FAILED, Outcome
from stormdrill.model.event_base import Event
from stormdrill.model.event_cluster import PodBound
from stormdrill.model.undo import Call, InCluster

LEFT = "left to the watchdog"


class Hands(Protocol):
    """Carries out what is undone in clusters, for whoever takes a run over. Raises nothing."""

    def undo(self, injection: str, words: Sequence[InCluster]) -> Sequence[Outcome]:
        """One outcome each; what the watchdog has done already is taken over from its ledger."""
        ...

    def release(self, *, clean: bool) -> Sequence[str]:
        """Nothing more is undone: take away what the run keeps in the clusters, if everything is `clean`. Returns what
        could not be taken away."""
        ...


@runtime_checkable
class Hiding(Protocol):
    """Capability: hands with credentials of their own."""

    def hide(self, redact: Callable[[str], None]) -> None:
        """`redact` is given each of them, and each later one before it is used."""
        ...


@runtime_checkable
class Leading(Protocol):
    """Capability: hands that make a way to an instance where the runner's own has ended with it."""

    def lead(self, way: Way) -> str:
        """Its new address. Raises StormdrillError."""
        ...


class Way(NamedTuple):
    """Where the runner had led connections to, as its journal says."""

    instance: str
    cluster: str
    namespace: str
    pod: str
    uid: str
    port: int

    @property
    def named(self) -> str:
        where = f", cluster {self.cluster}" if self.cluster else ""
        return f"instance {self.instance} (port {self.port} of pod {self.namespace}/{self.pod}{where})"


class Ways:
    """All that the runner had led, by the addresses of its own where they began. They end with it: who listens there
    afterwards is somebody else."""

    def __init__(self) -> None:
        self._by_address: dict[str, Way] = {}

    def note(self, event: Event) -> None:
        if isinstance(event, PodBound) and event.address:
            place = (event.cluster, event.namespace, event.pod, event.uid, event.port)
            self._by_address[event.address] = Way(event.instance, *place)

    def of(self, undo: object) -> Way | None:
        """That by which the runner would carry it out."""
        return self._by_address.get(urlsplit(undo.url).netloc) if isinstance(undo, Call) else None


def is_far(undo: object) -> bool:
    return isinstance(undo, InCluster)


def wholly_far(undos: Iterable[object]) -> bool:
    """Whether nothing of it is anybody's but the runner's or the watchdog's."""
    found = list(undos)
    return bool(found) and all(is_far(undo) for undo in found)


def left(undo: InCluster, run: str) -> Outcome:
    """What is said of an undo that nobody here may carry out."""
    where = f"cluster {undo.cluster}" if undo.cluster else "the cluster"
    return Outcome(FAILED, f"{LEFT} in {where}: stormdrill recover {run} looks whether it has mended it")


def left_without_a_way(what: str, run: str) -> Outcome:
    """What is said of a call where the runner is gone and nobody here can lead to its instance."""
    return Outcome(FAILED, f"{what}: the way there ended with the runner: stormdrill recover {run} leads anew")


def left_after(tried: Outcome | None, undo: InCluster, run: str) -> Outcome:
    """The same, after the runner has tried in vain."""
    now = left(undo, run)
    if tried is None or tried.word != FAILED or LEFT in tried.detail:
        return now
    return Outcome(FAILED, f"{tried.detail}; {now.detail}")
