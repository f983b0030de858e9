"""Whoever ends a run of which the runner is gone: its hands in the clusters where it changed something."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from stormdrill.keeper.far import Hands
    from stormdrill.keeper.sweep import Swept


class ClusterPlace(NamedTuple):
    """Where runs keep something in a cluster."""

    context: str = ""
    """Of the kubeconfig; empty: the current one, or the cluster that this process is in."""
    suite: str = "stormdrill"
    """The suite's own namespace."""


def hands_for(run_dir: Path) -> Hands | None:
    """From the run directory and the kubeconfig alone; None for a run that was on no cluster."""
    import msgspec

    from stormdrill.model.plan import Plan

    try:
        plan = msgspec.json.decode((run_dir / "plan.json").read_bytes(), type=Plan)
    except (OSError, msgspec.MsgspecError):
        return None  # killed before it was written, which is before anything was touched
    if plan.target != "kubernetes" or plan.system.kubernetes is None:
        return None
    from stormdrill.targets.kubernetes.clusters import LiveClusters
    from stormdrill.targets.kubernetes.handing import ClusterHands

    clusters = LiveClusters(plan.system.kubernetes, run=run_dir.name, system=plan.system.name)
    return ClusterHands(clusters, plan.system)


def swept_too(swept: Swept, place: ClusterPlace, run: str, *, dry_run: bool) -> Swept:
    """With what is in that cluster. Raises Refused where there is no way to it, Unreachable."""
    from dataclasses import replace

    from stormdrill.cluster.api import Api
    from stormdrill.targets.kubernetes import leftovers
    from stormdrill.targets.kubernetes.kubeconfig import access_for
    from stormdrill.targets.kubernetes.sweeping import before, missing, sweep

    api = Api(access_for(place.context))
    earlier = before(api, place.suite, run)
    found = sweep(api, place.suite, run, dry_run=dry_run)
    absent = [said] if (said := missing(api, place.suite)) else []
    left, notes = leftovers.sweep(api, place.suite, run, dry_run=dry_run)
    return replace(swept, things=(*swept.things, *found, *left), notes=(*swept.notes, *absent, *earlier, *notes))
