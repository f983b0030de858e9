"""Whether a marker that another run left still tells of a change.

A Deployment's controller copies annotations to its ReplicaSets, and `kubectl rollout undo` brings them back: a marker
may stand on an object long after its run was reverted. The run's ledger tells, and it alone: what can't be read may
be in force.
"""

from __future__ import annotations

from dataclasses import dataclass

from stormdrill.cluster import naming
from stormdrill.cluster.api import Api
from stormdrill.cluster.asking import Until, read, under
from stormdrill.cluster.ledger import CLOSED, Ledger
from stormdrill.errors import Unreachable

LIMIT_S = 5.0


@dataclass(frozen=True, slots=True)
class Others:
    """Asked only where a marker of another run is met."""

    api: Api
    suite: str

    def in_force(self, run: str) -> str:
        """Why changes of that run may still be in force; empty when it is known to be over. Never raises."""
        try:
            book = Ledger(self.api, self.suite, run).read(Until(LIMIT_S))
            if book is None:
                return self._watched(run)
        except Unreachable as error:
            return f"whether that run is over can't be read: {error}"
        if book.run != run:
            return f"the ledger of that name is not of run {run}"
        if book.state != CLOSED:
            return f"that run has not ended: its ledger is {book.state}"
        if book.left or book.unreadable:
            return "that run was closed, and not everything of it is known to be reverted"
        return ""

    def _watched(self, run: str) -> str:
        """Without a ledger: its watchdog goes on with what it has read, where somebody removed it too early."""
        path = f"/apis/batch/v1/namespaces/{self.suite}/jobs/{naming.watchdog(run)}"
        there = read(self.api, path, Until(LIMIT_S))
        if there is None or under(there, "status").get("succeeded"):
            return ""
        return "that run has no ledger any more, and its watchdog has not ended"


def settled_by(path: str, marker: str) -> str:
    """What a person does who knows better."""
    parts = path.split("/")
    where = f" -n {parts[parts.index('namespaces') + 1]}" if "namespaces" in parts[:-2] else ""
    return f"kubectl annotate {parts[-2]} {parts[-1]}{where} {marker}-"
