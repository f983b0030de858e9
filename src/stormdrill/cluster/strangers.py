"""Whether a marker that another run left still tells of a change.

A Deployment's controller copies annotations to its ReplicaSets, and `kubectl rollout undo` brings them back: a marker
may stand on an object long after its run was reverted. The run's ledger tells: what can't be read may be in force.
Where ledger and watchdog are gone, maybe with the suite's namespace and before anything was reverted, the server's
account of writers does: what the fault wrote is its own until somebody puts something else there.

A marker names the suite whose ledger that is: where there are several in one cluster, each keeps its own, and nobody
needs a right to read another's. Who has none takes its runs for open.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from stormdrill.cluster import naming, owning
from stormdrill.cluster.api import Api
from stormdrill.cluster.asking import Until, read, text, under
from stormdrill.cluster.ledger import CLOSED, Ledger
from stormdrill.errors import StormdrillError

LIMIT_S = 5.0
_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Others:
    """Asked only where a marker of another run is met."""

    api: Api
    suite: str

    def in_force(self, there: Mapping[str, object], marker: str) -> str:
        """Why changes of the run that a marker on that object names may still be in force; empty when it is known to be
        over. A marker that names no suite is an older one, which is taken for our own's. Never raises."""
        written = text(there, "metadata", "annotations", marker)
        run, where = naming.run_of(written), naming.suite_of(written) or self.suite
        if not run:
            return "it can't be told whether that run is over"
        if not _NAMESPACE.fullmatch(where):  # it is part of a path, and whoever may annotate has written it
            return "its marker names no namespace in which that run could have a ledger"
        try:
            why = self._why(run, where, there, marker)
        except StormdrillError as error:
            why = f"whether that run is over can't be read: {error}"
        if why and where != self.suite:
            return f"{why}; it is of the suite in namespace {where}: ask whoever drills from there"
        return why

    def _why(self, run: str, suite: str, there: Mapping[str, object], marker: str) -> str:
        book = Ledger(self.api, suite, run).read(Until(LIMIT_S))
        if book is None:
            return self._watched(run, suite) or _standing(there, marker)
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


def _standing(there: Mapping[str, object], marker: str) -> str:
    """With ledger and watchdog both gone nobody tells any more, and nobody reverts; the object itself is left."""
    gone = "that run has neither ledger nor watchdog any more, and"
    look = "make it what it should be"
    if not owning.kept(there):
        return f"{gone} the server keeps no account of who wrote what here (metadata.managedFields): {look}"
    if places := owning.holds(there, naming.manager(marker)):
        return f"{gone} {', '.join(places)} is as it wrote it, by the server's account of writers: {look}"
    return ""


def settled_by(path: str, marker: str) -> str:
    """What a person does who knows better."""
    parts = path.split("/")
    where = f" -n {parts[parts.index('namespaces') + 1]}" if "namespaces" in parts[:-2] else ""
    return f"kubectl annotate {parts[-2]} {parts[-1]}{where} {marker}-"
