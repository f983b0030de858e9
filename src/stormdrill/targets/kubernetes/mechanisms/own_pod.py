"""Words that a pod of ours carries out, in the namespace of the instance that it is for: made, and deleted again."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from stormdrill.cluster.changes import Change
from stormdrill.errors import Unreachable
from stormdrill.model.plan import Injection
from stormdrill.model.system import ImagePolicy
from stormdrill.targets.kubernetes.mechanism import SHARE_OF_LIMIT, Changing, Clusters, Object, at
from stormdrill.targets.kubernetes.mechanisms.ours import OF_ONE, Off, created, nowhere, pod, short
from stormdrill.targets.kubernetes.mechanisms.within import WhichPod
from stormdrill.targets.kubernetes.reach import Bound

REQUESTS = {"cpu": "10m", "memory": "32Mi"}
PLACED_S, RUNS_S = 30.0, 90.0
"""From its creation until a pod is on a node, and until it runs: one that is full, or an image that takes longer to be
pulled, is not waited for."""
LOOK_S = 0.2


class ByOwnPod(Changing):
    """Base of such words: one says how its pod is named, and what runs in it."""

    why = ""
    """What the pod is there for."""
    starts_up = True
    inject_timeout_s = RUNS_S / SHARE_OF_LIMIT
    """Until its pod runs; the plan gives it that."""

    def __init__(self, clusters: Clusters, image: ImagePolicy, which: WhichPod, off: Off = nowhere) -> None:
        super().__init__(clusters)
        self._image = image
        self._which = which
        self._off = off

    def name(self, injection: Injection) -> str:
        """Of the pod: the same in every run."""
        raise NotImplementedError

    def touches(self, injection: Injection) -> tuple[Change, ...]:
        found = self._which(injection.instance)
        return (self.made(found, {"metadata": {"name": self.name(injection)}}),) if found else ()

    def after(self, injection: Injection) -> None:
        """Until its pod runs, and does what it is there for. One that doesn't in time has not bitten."""
        undo, placed_s = self.applied(injection)[0].undo, time.monotonic() + PLACED_S
        hold = self.clusters.hold(undo.cluster)
        while time.monotonic() < self.until_s[injection.id] and not hold.over_for(injection.id):
            with contextlib.suppress(Unreachable):  # it may run all the same
                found = self.get(undo.cluster, undo.path)
                late = not at(found, "spec", "nodeName") and time.monotonic() >= placed_s
                if late or at(found, "status", "phase") != "Pending":
                    return
            time.sleep(LOOK_S)

    def met(self, injection: Injection, otherwise: str) -> tuple[Bound, Object | None]:
        """The pod of the instance, and the object that the server has of it. Raises Unreachable, with what can't be
        done while it has none."""
        found = self._which(injection.instance)
        if found is None:
            raise Unreachable(f"{injection.instance} has no pod now, and {otherwise}")
        return found, self.get(found.cluster, f"{pods_of(found.namespace)}/{found.pod}")

    def pod(
        self,
        injection: Injection,
        found: Bound,
        argv: Sequence[str],
        *,
        limits: Mapping[str, str],
        anywhere: bool = False,
        **spec: object,
    ) -> Object:
        """`anywhere`: also on nodes other than those that the suite's own pods are given. `spec`: whatever its
        specification says besides, or instead."""
        body = pod(
            self.name(injection),
            found.namespace,
            replace(self._image, nodes={}) if anywhere else self._image,
            argv,
            labels={OF_ONE: short(injection)},
            requests=REQUESTS,
            limits=limits,
            off=self._off(found.cluster),
        )
        inside = body["spec"]
        assert isinstance(inside, dict)
        inside.update(spec)
        return body

    def made(self, found: Bound, body: Object) -> Change:
        """As a change that is undone by deleting it."""
        return created(found.cluster, pods_of(found.namespace), self.clusters.run, body, self.why)


def pods_of(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/pods"
