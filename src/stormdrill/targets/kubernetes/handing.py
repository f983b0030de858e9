"""The hands of whoever ends a run whose runner is gone: from its directory and the kubeconfig, through the ledgers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stormdrill.cluster import mended, naming, recovering
from stormdrill.cluster.api import Api
from stormdrill.cluster.asking import Until
from stormdrill.cluster.changes import Undone
from stormdrill.cluster.exec import Exec
from stormdrill.cluster.mended import Mended
from stormdrill.cluster.recovering import Account
from stormdrill.cluster.undoing import DONE, SUPERSEDED, undo
from stormdrill.errors import StormdrillError, Unreachable
from stormdrill.keeper.far import Way
from stormdrill.keeper.outcome import FAILED, Outcome
from stormdrill.model.system import System
from stormdrill.model.undo import InCluster
from stormdrill.targets.kubernetes.clusters import LiveClusters, named
from stormdrill.targets.kubernetes.leading import Leader

LIMIT_S = 10.0
NO_LEDGER = "who reverted it, and when, is not known: the run's ledger is gone, and its Lease doesn't tell"


class ClusterHands:
    """`keeper.far.Hands`. Each cluster is mended once: what its watchdog does is waited for, what it has done is
    taken over."""

    def __init__(
        self, clusters: LiveClusters, system: System | None = None, tell: Callable[[str], None] = lambda _: None
    ) -> None:
        """`system`: whose instances are called; None where none is."""
        self._clusters = clusters
        self._leader = Leader(clusters, system) if system is not None else None
        self._tell = tell
        self._accounts: dict[str, Account | StormdrillError] = {}

    def hide(self, redact: Callable[[str], None]) -> None:
        self._clusters.hide(lambda _, value: redact(value))

    def undo(self, injection: str, words: Sequence[InCluster]) -> Sequence[Outcome]:
        return [self._one(injection, word) for word in words]

    def lead(self, way: Way) -> str:
        """Raises StormdrillError."""
        if self._leader is None:
            raise Unreachable("nobody leads to it")
        return self._leader.lead(way)

    def release(self, *, clean: bool) -> Sequence[str]:
        """Ledger and watchdog go when nothing is left that they are needed for."""
        if self._leader is not None:
            self._leader.close()
        left = []
        for cluster in self._clusters.names if clean else ():
            try:
                account = self._account(cluster)
                if account.left:
                    left.append(f"{named(cluster)}: not known to be reverted: {', '.join(account.left)}")
                    continue
                if said := recovering.forget(self._clusters.api(cluster), account.run, self._clusters.spec.suite):
                    left.append(f"{named(cluster)}: {said}")
            except StormdrillError as error:
                left.append(f"{named(cluster)}: what the run keeps there could not be removed: {error}")
        return left

    def _one(self, injection: str, word: InCluster) -> Outcome:
        try:
            account = self._account(word.cluster)
            for ended in account.ended:
                if ended.injection == injection and ended.undone.word in (DONE, SUPERSEDED):
                    said = f"by the {ended.by} at {ended.at}: {ended.undone.detail}"
                    return Outcome(ended.undone.word, said, ended.undone.witness, ended.at, ended.by)
            # nothing in the cluster tells of it any more: the run's own record does, and an undo looks first
            api = self._clusters.api(word.cluster)
            undone = undo(api, word, Exec(api))
            if not account.state:
                return self._as_told(api, injection, undone)
        except StormdrillError as error:
            return Outcome(FAILED, f"{named(word.cluster)}: {error}")
        except Exception as error:  # the undos that follow must still be carried out
            return Outcome(FAILED, f"{named(word.cluster)}: {type(error).__name__}: {error}")
        return Outcome(undone.word, undone.detail, undone.witness)

    def _as_told(self, api: Api, injection: str, undone: Undone) -> Outcome:
        """Where the ledger is gone: whoever reverted it has left nothing to undo, and has done so, not a stranger. What
        is found there all the same was put there after them."""
        one, why = self._before(api)
        became = one.became(injection) if one is not None else None
        if became is None or undone.word != SUPERSEDED or became[0] not in (DONE, SUPERSEDED):
            return Outcome(undone.word, f"{one or why}: {undone.detail}", undone.witness)
        word, by, at = became
        return Outcome(word, f"by the {by} at {at}: {undone.detail} ({one})", undone.witness, at, by)

    def _before(self, api: Api) -> tuple[Mended | None, str]:
        """Who has mended the run whose ledger is gone, or why nobody knows; the undo doesn't depend on it."""
        lease = naming.lease(self._clusters.system)
        try:
            told = mended.look_at(api, self._clusters.spec.suite, lease, Until(LIMIT_S))
        except StormdrillError as error:
            return None, f"{NO_LEDGER}: {error}"
        return next((one for one in told if one.run == self._clusters.run), None), NO_LEDGER

    def _account(self, cluster: str) -> Account:
        """Raises what was met the first time, so that a cluster that doesn't answer is waited for once."""
        if cluster not in self._accounts:
            try:
                self._accounts[cluster] = self._mended(cluster)
            except StormdrillError as error:
                self._accounts[cluster] = error
        found = self._accounts[cluster]
        if isinstance(found, StormdrillError):
            raise found
        return found

    def _mended(self, cluster: str) -> Account:
        api = self._clusters.api(cluster)
        return recovering.mend(api, self._clusters.run, self._clusters.spec.suite, runs=Exec(api), tell=self._tell)
