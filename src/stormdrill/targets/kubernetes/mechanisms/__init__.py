"""The words of a cluster, each in a module that is imported when the target's mechanisms are made.

What lives here: which objects a word changes, who has seen that it bit. What must not: applying and undoing
(`stormdrill.cluster` does), choosing (faults do), or binding to slots (the target does).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stormdrill.targets.kubernetes.mechanism import Clusters, KubeMechanism


def mechanisms(clusters: Clusters) -> dict[str, KubeMechanism]:
    """Each word that a cluster can do."""
    from stormdrill.targets.kubernetes.mechanisms.capacity import Withdrawing
    from stormdrill.targets.kubernetes.mechanisms.nodes import LosingNodes
    from stormdrill.targets.kubernetes.mechanisms.rollout import RollingOut
    from stormdrill.targets.kubernetes.mechanisms.scale import Scaling

    return {
        "nodes": LosingNodes(clusters),
        "scale": Scaling(clusters),
        "rollout": RollingOut(clusters),
        "capacity": Withdrawing(clusters),
    }
