"""The words of a cluster, each in a module that is imported when the target's mechanisms are made.

What lives here: which objects a word changes, who has seen that it bit. What must not: applying and undoing
(`stormdrill.cluster` does), choosing (faults do), or binding to slots (the target does).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stormdrill.model.system import ImagePolicy
    from stormdrill.targets.kubernetes.mechanism import Changing, Clusters
    from stormdrill.targets.kubernetes.mechanisms.telling import Asks
    from stormdrill.targets.kubernetes.mechanisms.within import WhichPod


def mechanisms(clusters: Clusters) -> dict[str, Changing]:
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


def pod_mechanisms(
    clusters: Clusters,
    image: ImagePolicy,
    which: WhichPod,
    entries: Callable[[], tuple[str, ...]],
    asks: Asks,
    off: Callable[[str], Sequence[str]] = lambda _: (),
) -> dict[str, Changing]:
    """The words around Services, policies, quotas and what runs in or beside pods.

    `image`: of the suite's own pods. `which`: instance -> the pod that it is now. `entries`: base URLs where load
    enters, as pods of the cluster reach them. `asks`: how the runner sees what the system was told (`Telling`).
    `off`: nodes of a cluster on which nothing of the suite's own would run.
    """
    from stormdrill.targets.kubernetes.mechanisms.beside import StandingBeside
    from stormdrill.targets.kubernetes.mechanisms.isolate import Isolating
    from stormdrill.targets.kubernetes.mechanisms.pressure import PressingPods
    from stormdrill.targets.kubernetes.mechanisms.quota import Quotas
    from stormdrill.targets.kubernetes.mechanisms.segment import Segmenting
    from stormdrill.targets.kubernetes.mechanisms.swap import Swapping
    from stormdrill.targets.kubernetes.mechanisms.telling import TellingByPod
    from stormdrill.targets.portable.proxied import WORDS as TOXICS

    return {
        **dict.fromkeys(TOXICS, Swapping(clusters, image, off=off)),
        "isolate": Isolating(clusters),
        "segment": Segmenting(clusters),
        "quota": Quotas(clusters),
        "beside": StandingBeside(clusters, image, which, entries, off),
        "pressure": PressingPods(clusters, which),
        "tell": TellingByPod(clusters, image, which, asks, off),
    }
