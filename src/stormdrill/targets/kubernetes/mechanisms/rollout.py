"""Another version of a Deployment is rolled out: its template is changed, place by place, and put back so.

Deployments alone: a StatefulSet waits for ever for its broken pod, even when its template is put back.
"""

from __future__ import annotations

from stormdrill.cluster.changes import Change
from stormdrill.cluster.elements import OURS, state
from stormdrill.errors import Unreachable
from stormdrill.model.mechanism import Rollout
from stormdrill.model.permission import Need
from stormdrill.model.plan import Injection
from stormdrill.model.undo import Element, KubePatch
from stormdrill.ports import Effect
from stormdrill.targets.kubernetes import secretive
from stormdrill.targets.kubernetes.mechanism import (
    PREFIX,
    Changing,
    Left,
    Object,
    at,
    number,
    objects,
    rolled_back,
    says_ready,
    text,
)
from stormdrill.targets.kubernetes.mechanisms.scale import named, path_of

GATE = {"conditionType": PREFIX + "released"}
"""A condition that nobody ever sets: a pod with it never gets ready."""
STARTING = ("ContainerCreating", "PodInitializing")
"""Why a container waits that may yet run."""
TEMPLATE = ("spec", "template", "spec")
WHY = "to roll out another release, and to roll it back"


class RollingOut(Changing):
    """`rollout`: the witness is a pod that the controllers made of the changed template."""

    permission = "change the templates of Deployments through the cluster's API server"
    stands = True

    def refusal(self, injection: Injection) -> str:
        how = _how(injection)
        kind, _, _ = how.workload.partition("/")
        if kind != "deployments":
            why = "a StatefulSet waits for ever for a broken pod" if kind == "statefulsets" else "it rolls nothing out"
            return f"a release can't be rolled out on {how.workload}: {why}; name a Deployment"
        found = self.get(how.cluster, path_of(how))
        if found is None:
            return f"{named(how)} is not there; name one that is"
        if at(found, "spec", "paused"):
            return f"{named(how)} is paused, and would roll nothing out; resume it for the drill"
        if not number(at(found, "spec", "replicas")):
            return f"{named(how)} has 0 replicas, and nothing would be seen of a release; scale it up for the drill"
        try:
            _elements(found, how, self.clusters.run)
        except Unreachable as unable:
            return str(unable)
        return ""

    def notes(self, injection: Injection) -> tuple[str, ...]:
        how = _how(injection)
        found = self.get(how.cluster, path_of(how))
        told = [f"a ReplicaSet of the release stays in the history of {named(how)}, with no pods"]
        if at(found, "spec", "strategy", "type") == "Recreate":
            told.append(f"{named(how)} ends all of its pods before it makes new ones (strategy Recreate)")
        else:
            told.append(f"{named(how)} keeps old pods until new ones are ready: fewer are replaced, or only added to")
        return (*told, rolled_back(named(how)))

    def loses(self, injection: Injection) -> str:
        return "what the pods that are replaced hold only in memory or in emptyDir volumes"

    def changes(self, injection: Injection) -> tuple[Change, ...]:
        how = _how(injection)
        found = self.fresh(injection, path_of(how), how.cluster)
        elements = _elements(found, how, self.clusters.run)
        undo = KubePatch(how.cluster, path_of(how), str(at(found, "metadata", "uid")), self.marker(injection), elements)
        return (Change(undo, why=WHY),)

    def touches(self, injection: Injection) -> tuple[Change, ...]:
        how = _how(injection)
        return (Change(KubePatch(how.cluster, path_of(how), "", "", ()), why=WHY),)

    def also(self, injection: Injection) -> tuple[Need, ...]:
        how, why = _how(injection), "to see the pods that a release is given"
        return (
            Need("list", "apps", "replicasets", how.namespace, cluster=how.cluster, why=why),
            Need("list", "", "pods", how.namespace, cluster=how.cluster, why=why),
        )

    def look(self, injection: Injection, left: Left) -> Effect:
        how = _how(injection)
        pods = self._of_release(injection)
        ready = [pod for pod in pods if says_ready(pod)]
        runs = [pod for pod in pods if at(pod, "status", "phase") == "Running"]
        told = f"{len(pods)} pods of the release, {len(ready)} of them ready{_waiting(pods)}"
        if left.others:
            told = f"{told}; {left.said}"
        bit = any(map(_fails, pods)) and not ready if how.broken else bool(runs)
        return Effect(bit, False, f"the pods that {named(how)} got of it", told)

    def lingers(self, injection: Injection) -> str:
        pods = self._of_release(injection)
        names = ", ".join(str(at(pod, "metadata", "name")) for pod in pods[:3])
        return f"{len(pods)} pods of the release are still there ({names})" if pods else ""

    def _of_release(self, injection: Injection) -> list[Object]:
        """The pods of ReplicaSets that the Deployment made of the changed template."""
        bound = self._bound.get(injection.id)
        if not bound or not isinstance(undo := bound[0].undo, KubePatch):
            return []
        how = _how(injection)
        base = f"namespaces/{how.namespace}"
        sets = self.items(how.cluster, f"/apis/apps/v1/{base}/replicasets")
        ours = {str(at(one, "metadata", "uid")) for one in sets if _owned(one, {undo.uid}) and _carries(one, undo)}
        if not ours:
            return []
        return [pod for pod in self.items(how.cluster, f"/api/v1/{base}/pods") if _owned(pod, ours)]


def _elements(found: Object, how: Rollout, run: str) -> tuple[Element, ...]:
    """Raises Unreachable where there is nothing to change, no such container, or what would be replaced is not to be
    written down."""
    containers = objects(at(found, *TEMPLATE, "containers"))
    names = [str(one.get("name")) for one in containers]
    if how.container and how.container not in names:
        raise Unreachable(f"{named(how)} has no container {how.container}; name one of {', '.join(names)}")
    container = containers[names.index(how.container or names[0])]
    _refuse_secrets(container, how)
    place = (*TEMPLATE, "containers", f"[name={container['name']}]")
    elements = [
        *_replaced(container, place, "image", how.image.replace("$run", run)),
        *_replaced(container, place, "command", list(how.command)),
        *(element for name, value in how.env.items() for element in _set(container, place, name, value)),
    ]
    if how.unready:
        elements.append(Element((*TEMPLATE, "readinessGates"), text(GATE), key=("conditionType",)))
    if not elements:
        raise Unreachable(f"{named(how)} is that release already; name another one")
    return tuple(elements)


def _refuse_secrets(container: Object, how: Rollout) -> None:
    """What is replaced stands in the ledger and in the record, so that it can be put back. Raises Unreachable where
    that looks like a secret."""
    of, why = f"container {container['name']} of {named(how)}", "what a fault replaces is written down to be put back"
    for one in objects(container.get("env")):
        name = str(one.get("name"))
        if name in how.env and secretive.variable(name, str(one.get("value") or "")):
            raise Unreachable(
                f"variable {name} of {of} holds in clear what looks like a secret, and {why}; take it from a Secret "
                f"(valueFrom: {{secretKeyRef}}), or leave {name} out of the release"
            )
    command = container.get("command")
    if how.command and isinstance(command, list) and secretive.command([str(word) for word in command]):
        raise Unreachable(
            f"the command of {of} holds in clear what looks like a secret, and {why}; take it from a Secret by a "
            "variable, or roll out something that leaves the command alone (mode image, unready)"
        )


def _replaced(container: Object, place: tuple[str, ...], name: str, ours: str | list[str]) -> list[Element]:
    before = container.get(name)
    if not ours or before == ours:
        return []
    return [Element((*place, name), text(ours), "" if before is None else text(before))]


def _set(container: Object, place: tuple[str, ...], name: str, value: str) -> list[Element]:
    """One environment variable: added, or where it is there already, changed in its place."""
    ours: Object = {"name": name, "value": value}
    known = next((one for one in objects(container.get("env")) if one.get("name") == name), None)
    if known is None:
        return [Element((*place, "env"), text(ours), key=("name",))]
    if not value:  # the server keeps no empty one, and an item that isn't as it was written is somebody else's
        del ours["value"]
    return [] if known == ours else [Element((*place, "env", f"[name={name}]"), text(ours), text(known))]


def _carries(made: Object, undo: KubePatch) -> bool:
    """Whether a ReplicaSet's template is the changed one, wherever in the list its container stands by now."""
    return all(state(element, made) == OURS for element in undo.elements)


def _owned(found: Object, by: set[str]) -> bool:
    owners = objects(at(found, "metadata", "ownerReferences"))
    return any(owner.get("controller") and owner.get("uid") in by for owner in owners)


def _fails(pod: Object) -> bool:
    """Whether it was seen not to work. One that was only just made isn't ready either."""
    told = {str(one.get("type")): one.get("status") for one in objects(at(pod, "status", "conditions"))}
    if told.get("ContainersReady") == "True" and told.get("Ready") != "True":
        return True
    for one in objects(at(pod, "status", "containerStatuses")):
        if at(one, "state", "waiting", "reason") not in (None, *STARTING):
            return True
        if at(one, "state", "terminated") or number(one.get("restartCount")):
            return True
    return False


def _waiting(pods: list[Object]) -> str:
    """What keeps their containers from running, as the kubelet says."""
    states = [at(one, "state") for pod in pods for one in objects(at(pod, "status", "containerStatuses"))]
    reasons = [at(state, kind, "reason") for state in states for kind in ("waiting", "terminated")]
    told = sorted({str(reason) for reason in reasons if reason})
    return f" ({', '.join(told)})" if told else ""


def _how(injection: Injection) -> Rollout:
    assert isinstance(injection.how, Rollout)
    return injection.how
