"""The runner's keeper on clusters: what was done there is undone by the runner, and written down by the keeper.

Before a change its undo stands in the cluster's ledger, for the watchdog, and then in the journal, for people.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Protocol

from stormdrill.cluster.changes import Undone
from stormdrill.cluster.ledger import Armed
from stormdrill.cluster.reverting import at_once, lanes_of
from stormdrill.errors import KeeperGone, StormdrillError, Unreachable
from stormdrill.keeper.client import KeeperClient
from stormdrill.keeper.outcome import FAILED, Outcome
from stormdrill.model.event import Event, Spawned
from stormdrill.model.undo import InCluster, Undo

RETURN_LIMIT_S = 60.0
"""How long a cluster that doesn't answer is waited for when something of it is to be undone: an outage of the API
server ends, and the runner should be there then."""
AGAIN_S = 0.5


class Holding(Protocol):
    """What a run holds in one cluster (`cluster.hold.Hold`)."""

    def arm(self, injection: str, undos: Sequence[InCluster], expires_in_s: float) -> None:
        """Raises Unreachable when it is not known to be written, Refused when there is no room."""
        ...

    def revert(self, injection: str) -> Undone:
        """All of its words there; may be called again."""
        ...

    def close(self) -> tuple[str, ...]:
        """Reverts what is left. Returns what could not be, which the watchdog goes on with."""
        ...


Holds = Mapping[str, Holding]
"""By the cluster's name."""


def by_cluster(undo: Sequence[Undo]) -> dict[str, list[InCluster]]:
    """The words that are carried out in clusters, in their order."""
    found: dict[str, list[InCluster]] = {}
    for word in undo:
        if isinstance(word, InCluster):
            found.setdefault(word.cluster, []).append(word)
    return found


def closed(holds: Holds) -> list[str]:
    """Gives all clusters back, side by side; what is left in them, each once."""
    with ThreadPoolExecutor(max_workers=max(1, len(holds))) as pool:
        each = list(pool.map(_close, holds.values()))
    return [
        f"{said}{f' (cluster {cluster})' if cluster else ''}"
        for cluster, told in zip(holds, each, strict=True)
        for said in told
    ]


def _close(held: Holding) -> tuple[str, ...]:
    try:
        return held.close()
    except Exception as error:  # the others must be given back, and the run must end
        return (f"{type(error).__name__}: {error}",)


class Carrying:
    """Undoes one injection in the clusters that it changed; all of a cluster at once, when its first word's turn has
    come. Waits for a cluster that doesn't answer. Never raises."""

    def __init__(self, holds: Callable[[], Holds], limit_s: float = RETURN_LIMIT_S) -> None:
        self._holds = holds
        self._limit_s = limit_s
        self._given_up: set[str] = set()
        """Clusters that were waited for in vain: what follows there is tried once, so that the run comes to its end."""

    def outcomes(self, injection: str, words: Sequence[InCluster]) -> list[Outcome]:
        told = {cluster: self._revert(injection, cluster) for cluster in dict.fromkeys(one.cluster for one in words)}
        return [told[word.cluster] for word in words]

    def _revert(self, injection: str, cluster: str) -> Outcome:
        until_s = time.monotonic() + (0.0 if cluster in self._given_up else self._limit_s)
        while (outcome := self._once(injection, cluster)).word == FAILED:
            if time.monotonic() + AGAIN_S > until_s:
                self._given_up.add(cluster)
                return outcome
            time.sleep(AGAIN_S)
        self._given_up.discard(cluster)
        return outcome

    def _once(self, injection: str, cluster: str) -> Outcome:
        try:
            held = self._holds().get(cluster)
            if held is None:
                return Outcome(FAILED, f"the run holds nothing in cluster {cluster or '(the only one)'}")
            undone = held.revert(injection)
        except StormdrillError as error:
            return Outcome(FAILED, str(error))
        except Exception as error:  # whatever it was, the other undos must still be carried out, and it be written down
            return Outcome(FAILED, f"{type(error).__name__}: {error}")
        return Outcome(undone.word, undone.detail, undone.witness, undone.at, undone.by)


class ClusterKeeper:
    """Satisfies `ports.Keeper`: whatever has nothing to do with clusters is the keeper's, as it was."""

    def __init__(self, inner: KeeperClient, holds: Callable[[], Holds], limit_s: float = RETURN_LIMIT_S) -> None:
        self._inner = inner
        self._holds = holds
        self._carrying = Carrying(holds, limit_s)
        self._armed: dict[str, tuple[Undo, ...]] = {}
        self._turns: dict[str, Lock] = {}

    # --- as it was -------------------------------------------------------------------------------------------

    def record(self, event: Event, mono_ms: float | None = None) -> int:
        return self._inner.record(event, mono_ms)

    def spawn(
        self,
        instance: str,
        *,
        service: str,
        role: str,
        argv: Sequence[str],
        env: Mapping[str, str],
        cwd: str,
        address: str,
        labels: Mapping[str, str],
    ) -> Spawned:
        return self._inner.spawn(
            instance, service=service, role=role, argv=argv, env=env, cwd=cwd, address=address, labels=labels
        )

    def secret(self, name: str, value: str) -> None:
        self._inner.secret(name, value)

    def disarm(self, injection: str) -> None:
        self._inner.disarm(injection)

    def stop(self, instance: str, timeout_s: float) -> None:
        self._inner.stop(instance, timeout_s)

    def close(self, status: str, reason: str) -> str:
        return self._inner.close(status, reason)

    # --- in clusters -----------------------------------------------------------------------------------------

    def arm(
        self, injection: str, *, fault: str, instance: str, mechanism: str, undo: Sequence[Undo], expires_in_s: float
    ) -> None:
        """Raises Unreachable when it could not be written into a ledger: then nothing may be changed."""
        for cluster, words in by_cluster(undo).items():
            held = self._holds().get(cluster)
            if held is None:
                raise Unreachable(f"the run holds nothing in cluster {cluster or '(the only one)'}")
            held.arm(injection, words, expires_in_s)
        self._inner.arm(
            injection, fault=fault, instance=instance, mechanism=mechanism, undo=undo, expires_in_s=expires_in_s
        )
        self._armed[injection] = tuple(undo)
        self._turns.setdefault(injection, Lock())

    def revert(self, injection: str, cause: str) -> str:
        undo = self._armed.get(injection, ())
        if not any(isinstance(word, InCluster) for word in undo):
            return self._inner.revert(injection, cause)
        with self._turns[injection]:
            if known := self._inner.begin_revert(injection, cause):
                return known
            return self._inner.tell_reverted(injection, self._carry(injection, undo))

    def teardown(self) -> list[str]:
        """What is open in clusters first, side by side, and of what has an object in common the last armed first; then
        the rest; then the clusters are given back. What could not be undone there, or not be given back, is the
        watchdog's to go on with, and left."""
        at_once(self._abort, lanes_of([self._entry(*one) for one in enumerate(self._inner.open_in_clusters())]))
        left = self._inner.teardown()
        return left + closed(self._holds())

    def _entry(self, number: int, injection: str) -> Armed:
        words = tuple(word for word in self._armed.get(injection, ()) if isinstance(word, InCluster))
        return Armed(injection, words, 0.0, number)

    def _abort(self, lane: Sequence[Armed]) -> None:
        for entry in lane:
            self.revert(entry.injection, "abort")

    def _carry(self, injection: str, undo: Sequence[Undo]) -> list[Outcome]:
        """Each word in its turn: in a cluster by this process, any other by the keeper."""
        told: dict[str, Outcome] = {}
        outcomes = []
        for index, word in enumerate(undo):
            if not isinstance(word, InCluster):
                outcomes.append(self._part(injection, index))
                continue
            if word.cluster not in told:
                told[word.cluster] = self._carrying.outcomes(injection, [word])[0]
            outcomes.append(told[word.cluster])
        return outcomes

    def _part(self, injection: str, index: int) -> Outcome:
        try:
            return self._inner.revert_part(injection, index)
        except KeeperGone:
            raise
        except Exception as error:  # the undos that follow must still be carried out
            return Outcome(FAILED, f"{type(error).__name__}: {error}")


class HeldHands:
    """`keeper.far.Hands` of a runner whose keeper is gone: it holds the clusters still."""

    def __init__(self, holds: Callable[[], Holds], limit_s: float = RETURN_LIMIT_S) -> None:
        self._holds = holds
        self._carrying = Carrying(holds, limit_s)

    def undo(self, injection: str, words: Sequence[InCluster]) -> Sequence[Outcome]:
        return self._carrying.outcomes(injection, words)

    def release(self, *, clean: bool) -> Sequence[str]:
        return closed(self._holds())
