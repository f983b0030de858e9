"""A way to an instance for whoever ends a run of which the runner, and its way, is gone."""

from __future__ import annotations

import time

from stormdrill.cluster.asking import Until, read, text
from stormdrill.errors import StormdrillError, Unreachable
from stormdrill.keeper.far import Way
from stormdrill.model.system import System
from stormdrill.targets.kubernetes import view
from stormdrill.targets.kubernetes.clusters import LiveClusters
from stormdrill.targets.kubernetes.mechanisms.within import is_ready
from stormdrill.targets.kubernetes.reach import Bound, Reach

LIMIT_S = 30.0
"""A pod that was lost with its node, or is made anew, is back after some time once the fault is undone."""
AGAIN_S = 0.5


class Leader:
    """To the pod that the runner had known while it is there, else to the one that the instance is now."""

    def __init__(self, clusters: LiveClusters, system: System, limit_s: float = LIMIT_S) -> None:
        self._clusters, self._system, self._limit_s = clusters, system, limit_s
        self._bound: dict[str, Bound] = {}
        self._reach = Reach(clusters.api, self._bound.get)

    def lead(self, way: Way) -> str:
        """host:port. Raises StormdrillError when no pod of it is ready in time."""
        until_s = time.monotonic() + self._limit_s
        while True:
            try:
                self._bound[way.instance] = self._pod(way)
                return self._reach.address(way.instance)
            except OSError as error:
                raise Unreachable(str(error)) from error
            except StormdrillError:
                if time.monotonic() + AGAIN_S > until_s:
                    raise
            time.sleep(AGAIN_S)

    def close(self) -> None:
        self._reach.close()

    def _pod(self, way: Way) -> Bound:
        known = Bound(way.cluster, way.namespace, way.pod, way.uid, way.port)
        if self._ready(known):
            return known
        slots = view.read(self._system, self._clusters, self._clusters.names).slots
        now = slots.bound(way.instance)
        if now is None or not self._ready(now):
            raise Unreachable(f"no pod of {way.instance} is ready")
        return now

    def _ready(self, bound: Bound) -> bool:
        path = f"/api/v1/namespaces/{bound.namespace}/pods/{bound.pod}"
        there = read(self._clusters.api(bound.cluster), path, Until(AGAIN_S * 4))
        return text(there, "metadata", "uid") == bound.uid and is_ready(there)
