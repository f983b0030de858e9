"""Whether a marker that another run left still tells of a change.

A Deployment's controller copies annotations to its ReplicaSets, and `kubectl rollout undo` brings them back: a marker
may stand on an object long after its run was reverted. The run's ledger tells, and it alone: what can't be read may
be in force. A marker names the suite whose ledger that is: where there are several in one cluster, each keeps its own,
and nobody needs a right to read another's. Who has none takes its runs for open.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from stormdrill.cluster import naming
from stormdrill.cluster.api import Api
from stormdrill.cluster.asking import Until, read, under
from stormdrill.cluster.ledger import CLOSED, Ledger
from stormdrill.errors import StormdrillError

LIMIT_S = 5.0
_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Others:
    """Asked only where a marker of another run is met."""

    api: Api
    suite: str

    def in_force(self, run: str, suite: str = "") -> str:
        """Why changes of that run may still be in force; empty when it is known to be over. `suite`: as its marker
        names it; empty: an older one, which is taken for our own's. Never raises."""
        where = suite or self.suite
        if not _NAMESPACE.fullmatch(where):  # it is part of a path, and whoever may annotate has written it
            return "its marker names no namespace in which that run could have a ledger"
        try:
            why = self._why(run, where)
        except StormdrillError as error:
            why = f"whether that run is over can't be read: {error}"
        if why and where != self.suite:
            return f"{why}; it is of the suite in namespace {where}: ask whoever drills from there"
        return why

    def _why(self, run: str, suite: str) -> str:
        book = Ledger(self.api, suite, run).read(Until(LIMIT_S))
        if book is None:
            return self._watched(run, suite)
        if book.run != run:
            return f"the ledger of that name is not of run {run}"
        if book.state != CLOSED:
            return f"that run has not ended: its ledger is {book.state}"
        if book.left or book.unreadable:
            return "that run was closed, and not everything of it is known to be reverted"
        return ""

    def _watched(self, run: str, suite: str) -> str:
        """Without a ledger: its watchdog goes on with what it has read, where somebody removed it too early."""
        path = f"/apis/batch/v1/namespaces/{suite}/jobs/{naming.watchdog(run)}"
        there = read(self.api, path, Until(LIMIT_S))
        if there is None or under(there, "status").get("succeeded"):
            return ""
        return "that run has no ledger any more, and its watchdog has not ended"


def settled_by(path: str, marker: str) -> str:
    """What a person does who knows better."""
    parts = path.split("/")
    where = f" -n {parts[parts.index('namespaces') + 1]}" if "namespaces" in parts[:-2] else ""
    return f"kubectl annotate {parts[-2]} {parts[-1]}{where} {marker}-"
