"""Pods of a workload are taken away by its own number of replicas, patched in the workload itself: a Scale leaves the
number out where it is 0, so that nothing could be tested there."""

from __future__ import annotations

from stormdrill.cluster.changes import Change
from stormdrill.errors import Unreachable
from stormdrill.model.mechanism import Rollout, Scale
from stormdrill.model.permission import Need
from stormdrill.model.plan import Injection
from stormdrill.model.undo import Element, KubePatch
from stormdrill.ports import Effect
from stormdrill.targets.kubernetes.mechanism import (
    Changing,
    Clusters,
    Left,
    Object,
    at,
    number,
    rolled_back,
    text,
    texts,
)

KINDS = {"deployments": "Deployment", "statefulsets": "StatefulSet"}
KEDA = "scaledobject.keda.sh/name"
"""Label of an autoscaler that belongs to KEDA, which scales from 0 by itself."""
WHY = "to take pods away, and to give them back"


class Scaling(Changing):
    """`scale`: the witness is the workload's controller, which counts its ready pods."""

    permission = "scale workloads through the cluster's API server"
    stands = True

    def __init__(self, clusters: Clusters) -> None:
        super().__init__(clusters)
        self._ready: dict[str, int] = {}
        """Injection → how many were ready before."""

    def refusal(self, injection: Injection) -> str:
        how = _how(injection)
        if how.workload.partition("/")[0] not in KINDS:
            return f"{how.workload} can't be scaled; deployments/NAME and statefulsets/NAME can"
        found = self.get(how.cluster, path_of(how))
        if found is None:
            return f"{named(how)} is not there; name one that is"
        replicas = number(at(found, "spec", "replicas"))
        if not 0 < how.away <= replicas:
            return f"{named(how)} has {replicas} replicas, and {how.away} can't be taken away; take 1 to {replicas}"
        scaler = self._scaler(how)
        if scaler is None:
            return ""
        name = at(scaler, "metadata", "name")
        if KEDA in texts(at(scaler, "metadata", "labels")):
            return f"KEDA scales {named(how)} by itself ({name}), from 0 too; pause its ScaledObject for the drill"
        if how.away < replicas:
            why = f"the HorizontalPodAutoscaler {name} would give {named(how)} its pods back at once"
            return f"{why}; take all {replicas} away (it pauses at 0), or remove it for the drill"
        return ""

    def notes(self, injection: Injection) -> tuple[str, ...]:
        how = _how(injection)
        told = [] if how.workload.startswith("statefulsets/") else [rolled_back(named(how))]
        if (scaler := self._scaler(how)) is not None:
            name, while_ = at(scaler, "metadata", "name"), f"pauses while {named(how)} is at 0"
            told.append(f"the HorizontalPodAutoscaler {name} {while_}, and goes on after the revert")
        return tuple(told)

    def loses(self, injection: Injection) -> str:
        return "what the pods that are taken away hold only in memory or in emptyDir volumes"

    def changes(self, injection: Injection) -> tuple[Change, ...]:
        how = _how(injection)
        found = self.fresh(injection, path_of(how), how.cluster)
        replicas = number(at(found, "spec", "replicas"))
        if replicas < how.away:
            raise Unreachable(f"{named(how)} has {replicas} replicas by now, and {how.away} were to be taken away")
        element = Element(("spec", "replicas"), text(replicas - how.away), text(replicas))
        uid = str(at(found, "metadata", "uid"))
        undo = KubePatch(how.cluster, path_of(how), uid, self.marker(injection), (element,))
        return (Change(undo, why=WHY),)

    def touches(self, injection: Injection) -> tuple[Change, ...]:
        how = _how(injection)
        return (Change(KubePatch(how.cluster, path_of(how), "", "", ()), why=WHY),)

    def also(self, injection: Injection) -> tuple[Need, ...]:
        how = _how(injection)
        why = "to see whether an autoscaler would give the pods back"
        return (Need("list", "autoscaling", "horizontalpodautoscalers", how.namespace, cluster=how.cluster, why=why),)

    def bound(self, injection: Injection) -> None:
        how = _how(injection)
        self._ready[injection.id] = number(at(self.get(how.cluster, path_of(how)), "status", "readyReplicas"))

    def look(self, injection: Injection, left: Left) -> Effect:
        how = _how(injection)
        found = self.get(how.cluster, path_of(how))
        ready, before = number(at(found, "status", "readyReplicas")), self._ready.get(injection.id, 0)
        told = f"{ready} of {before} pods of {named(how)} are ready"
        if left.others:
            told = f"{told}; {left.said}"
        # a number from before the change was seen by the controller says nothing
        observed = number(at(found, "status", "observedGeneration")) >= number(at(found, "metadata", "generation"))
        return Effect(observed and ready < before, False, f"the controller of {named(how)}", told)

    def _scaler(self, how: Scale) -> Object | None:
        """The autoscaler that has this workload in its hands."""
        kind, name = KINDS[how.workload.partition("/")[0]], how.workload.partition("/")[2]
        path = f"/apis/autoscaling/v2/namespaces/{how.namespace}/horizontalpodautoscalers"
        for one in self.items(how.cluster, path):
            target = at(one, "spec", "scaleTargetRef")
            if (at(target, "kind"), at(target, "name")) == (kind, name):
                return one
        return None


def path_of(how: Scale | Rollout) -> str:
    """Of its workload in the API."""
    return f"/apis/apps/v1/namespaces/{how.namespace}/{how.workload}"


def named(how: Scale | Rollout) -> str:
    return f"{how.namespace}/{how.workload}"


def _how(injection: Injection) -> Scale:
    assert isinstance(injection.how, Scale)
    return injection.how
