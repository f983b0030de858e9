"""Which run holds a system in a cluster, for whoever comes second: perhaps from another machine."""

from __future__ import annotations

from datetime import UTC, datetime

from stormdrill.cluster import naming
from stormdrill.cluster.api import Api
from stormdrill.cluster.asking import Until, read, text
from stormdrill.cluster.ledger import CLOSED, Book
from stormdrill.cluster.setting import books
from stormdrill.errors import Problem
from stormdrill.targets.kubernetes.clusters import LiveClusters, named

LIMIT_S = 3.0
FRESH = 3.0
"""In the Lease's own time: a run that has renewed it so lately, by whoever's clock, is there."""


def occupied(api: Api, clusters: LiveClusters, cluster: str) -> list[Problem]:
    """Runs on this system that are going on, or have left something in force. One that never armed anything and isn't
    there any more is none: it is cleared away by whoever comes. Raises Unreachable."""
    suite, found = clusters.spec.suite, []
    until = Until(LIMIT_S)
    for one in books(api, suite, until, clusters.system):
        if one.state == CLOSED or one.run == clusters.run:
            continue
        lease = naming.lease(clusters.system)
        there = read(api, f"/apis/coordination.k8s.io/v1/namespaces/{suite}/leases/{lease}", until)
        if one.left or one.unreadable or (_held_by(there, one.run) and _fresh(there, one)):
            began = str(one.about.get("began", ""))[:19]
            since = f" since {began.replace('T', ' ')} UTC" if began else ""
            does = "holds this system" if one.state == "open" else f"has not ended on this system ({one.state})"
            what = f"run {one.run} {does} in {named(cluster)}{since}: {len(one.left)} of its injections are in force"
            fix = f"wait for its end; where its runner is gone: stormdrill recover {one.run}"
            found.append(Problem("", 0, 0, what, fix))
    return found


def _held_by(lease: object, run: str) -> bool:
    return text(lease, "spec", "holderIdentity").startswith(f"{run}/")


def _fresh(lease: object, one: Book) -> bool:
    try:
        renewed = datetime.fromisoformat(text(lease, "spec", "renewTime"))
    except ValueError:
        return False
    lasts_s = one.about.get("lease_s")
    age_s = abs((datetime.now(UTC) - renewed).total_seconds())
    return age_s < FRESH * (float(lasts_s) if isinstance(lasts_s, int | float) else 10.0)
