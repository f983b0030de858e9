"""Nodes are taken out of service: cordoned and tainted in one patch, and emptied. A Node itself is never deleted: its
kubelet would not register again before it is restarted."""

from __future__ import annotations

import time
from collections.abc import Iterator

from stormdrill.cluster import standing
from stormdrill.cluster.api import Answer
from stormdrill.cluster.changes import Change
from stormdrill.errors import Unreachable
from stormdrill.model.mechanism import Nodes
from stormdrill.model.permission import Need
from stormdrill.model.plan import Injection
from stormdrill.model.undo import Element, KubePatch
from stormdrill.ports import Effect
from stormdrill.targets.kubernetes.mechanism import (
    API_SERVER,
    PREFIX,
    Changing,
    Clusters,
    Left,
    Object,
    at,
    objects,
    says_ready,
    text,
    texts,
)
from stormdrill.targets.kubernetes.mechanisms.evicting import Evicting, Pod, Told
from stormdrill.targets.kubernetes.neighbours import opted_in, to_be_harmed
from stormdrill.targets.kubernetes.several import several

TAINT = PREFIX + "lost"
CORDONED = "node.kubernetes.io/unschedulable"
"""The taint that the node controller adds to a cordoned node in a change of its own, and takes away by itself."""
KEEPS = ("karpenter.sh/do-not-disrupt", "cluster-autoscaler.kubernetes.io/scale-down-disabled")
"""Annotations by which autoscalers are asked to leave a node be: one that stands empty would be taken away for good."""
ASKED_ONCE_S = 5.0
"""For so long the needs of a plan's many nodes rest on one question, which namespaces opted in."""
NAMED = 3
"""So many pods are named in a sentence."""


class LosingNodes(Changing):
    """`nodes`: the witness is what the API server shows of the pods that were there; of a node without any, the
    taint that the node controller adds."""

    permission = "cordon and taint nodes, and end the pods on them, through the cluster's API server"
    stands = True

    def __init__(self, clusters: Clusters) -> None:
        super().__init__(clusters)
        self._there: dict[str, tuple[Pod, ...]] = {}
        self._evicting: dict[str, Evicting] = {}
        self._asked: dict[str, tuple[float, frozenset[str]]] = {}

    def changes(self, injection: Injection) -> tuple[Change, ...]:
        how = _how(injection)
        return tuple(self._taken(injection, how, name) for name in how.nodes)

    def touches(self, injection: Injection) -> tuple[Change, ...]:
        how = _how(injection)
        return tuple(Change(KubePatch(how.cluster, _path(name), "", "", ()), why=WHY) for name in how.nodes)

    def also(self, injection: Injection) -> tuple[Need, ...]:
        how = _how(injection)
        seeing = (
            Need("list", "", "pods", cluster=how.cluster, why="to see what becomes of the pods on the nodes"),
            Need("list", "", "namespaces", cluster=how.cluster, why="to end pods only where they may be drilled"),
        )
        if how.empties == "taint":
            return seeing
        at_s, willing = self._asked.get(how.cluster, (0.0, frozenset()))
        if time.monotonic() - at_s > ASKED_ONCE_S:
            willing = opted_in(self, how.cluster, lasting=True)
            self._asked[how.cluster] = (time.monotonic(), willing)
        return (*seeing, *(self._ending(how, namespace) for namespace in sorted(willing)))

    def loses(self, injection: Injection) -> str:
        return "what pods on the nodes hold only in memory or in emptyDir volumes"

    def notes(self, injection: Injection) -> tuple[str, ...]:
        how = _how(injection)
        who = ", ".join(how.nodes)
        if how.empties == "taint":
            return (f"the taint on {who} ends pods at once, past their disruption budgets",)
        if how.empties == "delete":
            return (f"pods on {who} are deleted without grace, past their disruption budgets",)
        kept = "who is kept by a budget is asked again until the revert, and the record says who stayed"
        return (f"pods on {who} are evicted within their disruption budgets: {kept}",)

    def bound(self, injection: Injection) -> None:
        """Whoever came since the plan has to be asked too."""
        there = tuple(self._pods(_how(injection)))
        if strangers := [str(pod) for pod in there if pod.leaves and not pod.meant]:
            said = f"{several(strangers, NAMED)} would go too, and their namespaces didn't opt in"
            raise Unreachable(f"{', '.join(_how(injection).nodes)}: {said}: nothing was changed")
        self._there[injection.id] = there

    def after(self, injection: Injection) -> None:
        """Each pod is asked once; whoever stays goes on being asked until the revert, behind this call."""
        how = _how(injection)
        if how.empties == "taint":
            return
        hold = self.clusters.hold(how.cluster)

        def ask(pod: Pod) -> Told:
            with hold.step(injection.id):  # before each: no version of an object keeps a late eviction off
                return self._end(how, pod)

        def over() -> str:
            return hold.over_for(injection.id)

        going = [pod for pod in self._pods(how) if pod.goes]
        evicting = Evicting(going, ask, over, lambda node: self._taken_back(injection, node), injection.for_s)
        self._evicting[injection.id] = evicting
        evicting.begin(self.until_s[injection.id])

    def dry_run(self, injection: Injection) -> tuple[str, ...]:
        refused = super().dry_run(injection)
        how = _how(injection)
        if how.empties == "taint":
            return refused
        told = {str(pod): self._end(how, pod, dry=True).why for pod in self._pods(how) if pod.goes}
        return (*refused, *(f"{name} would stay: {why}" for name, why in told.items() if why))

    def look(self, injection: Injection, left: Left) -> Effect:
        how = _how(injection)
        going = [pod for pod in self._there.get(injection.id, ()) if pod.goes]
        if not going:
            return self._look_at_nodes(how)
        now = {uid: pod for name in how.nodes for uid, pod in self._on(how.cluster, name)}
        well = [pod for pod in going if _well(pod, now.get(pod.uid))]
        bit = len(well) < len(going) if how.empties == "evict" else not well
        still = [f"{pod} is still there{self._why(injection, pod)}" for pod in well]
        told = f"{len(going) - len(well)} of {len(going)} pods that were on {', '.join(how.nodes)} are gone or going"
        if still:
            told = f"{told}; {several(still, NAMED, '; ')}"
        return Effect(bit, False, f"{API_SERVER}, of the pods", told)

    def came_to(self, injection: Injection) -> str:
        """How many stayed until the end: of whoever a budget kept, the fault never had what it was meant to have."""
        going = [pod for pod in self._there.get(injection.id, ()) if pod.goes]
        if not going or injection.id not in self.until_s:
            return ""
        how = _how(injection)
        try:
            now = {uid: pod for name in how.nodes for uid, pod in self._on(how.cluster, name)}
        except Unreachable as error:
            return f"how many of {len(going)} pods stayed until the end can't be seen: {error}"
        stayed = [pod for pod in going if (there := now.get(pod.uid)) is not None and not _ends(there)]
        said = f"{len(stayed) or 'none'} of {len(going)} pods stayed on {', '.join(how.nodes)} until the end"
        names = [f"{pod}{self._why(injection, pod)}" for pod in stayed]
        return f"{said}: {several(names, NAMED, '; ')}" if names else said

    def _why(self, injection: Injection, pod: Pod) -> str:
        """It is there still, as the answer to its eviction has it."""
        evicting = self._evicting.get(injection.id)
        why = evicting.stay.get(str(pod), "") if evicting is not None else ""
        return f" ({why})" if why else ""

    def _look_at_nodes(self, how: Nodes) -> Effect:
        """Nobody was there who could go: the node controller's answer to the cordon is what can be seen."""
        open_ = []
        for name in how.nodes:
            node = self.get(how.cluster, _path(name))
            if not any(taint.get("key") == CORDONED for taint in objects(at(node, "spec", "taints"))):
                open_.append(name)
        told = f"no pod that would go was there; open for new ones: {', '.join(open_) or 'none of the nodes'}"
        return Effect(not open_, False, "the node controller", told)

    def _taken(self, injection: Injection, how: Nodes, name: str) -> Change:
        node = self.fresh(injection, _path(name), how.cluster)
        to_be_harmed(node)
        effect = "NoExecute" if how.empties == "taint" else "NoSchedule"
        held = [taint for taint in objects(at(node, "spec", "taints")) if taint.get("key") == TAINT]
        if held:
            by = held[0].get("value", "")
            raise Unreachable(f"nodes/{name} carries the taint {TAINT}={by} already; take it back: stormdrill recover")
        taint = {"key": TAINT, "value": self.clusters.run, "effect": effect}
        elements = [Element(("spec", "taints"), text(taint), key=("key", "effect"))]
        if at(node, "spec", "unschedulable") is not True:  # who was cordoned before stays so
            elements.insert(0, Element(("spec", "unschedulable"), text(True)))
        noted = texts(at(node, "metadata", "annotations"))
        for keeps in KEEPS:
            if noted.get(keeps) != "true":
                before = text(noted[keeps]) if keeps in noted else ""
                elements.append(Element(("metadata", "annotations", keeps), text("true"), before))
        uid = str(at(node, "metadata", "uid"))
        undo = KubePatch(how.cluster, _path(name), uid, self.marker(injection), tuple(elements))
        return Change(undo, why=WHY)

    def _taken_back(self, injection: Injection, node: str) -> bool:
        """Whether somebody took the node back meanwhile. They need not know of our marker, which stays for the undo."""
        undos = [change.undo for change in self.applied(injection) if change.undo.path == _path(node)]
        try:
            looks = [(undo, self.get(undo.cluster, undo.path)) for undo in undos]
        except Unreachable:
            return False
        return all(there is None or not standing.of(undo, there).stood for undo, there in looks)

    def _end(self, how: Nodes, pod: Pod, *, dry: bool = False) -> Told:
        """Evict or delete exactly this pod."""
        options: Object = {"preconditions": {"uid": pod.uid}}
        query = {"dryRun": "All"} if dry else None
        if dry:
            options["dryRun"] = ["All"]  # with options in the body the query alone has no effect
        if how.empties == "delete":
            options |= {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0}
        name = {"name": pod.name, "namespace": pod.namespace}
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": name, "deleteOptions": options}
        try:
            if how.empties == "delete":
                answer = self.ask(how.cluster, "DELETE", pod.path, options, query=query)
            else:
                answer = self.ask(how.cluster, "POST", f"{pod.path}/eviction", eviction, query=query)
        except Unreachable as error:  # done or not: to ask for it again does no more harm
            return Told(str(error))
        # gone, or another pod by that name: the one that was there is there no more
        if answer.good or answer.status in (404, 409):
            return Told()
        return _kept(answer)

    def _pods(self, how: Nodes) -> Iterator[Pod]:
        willing = opted_in(self, how.cluster)
        for node in how.nodes:
            for uid, pod in self._on(how.cluster, node):
                namespace, name = str(at(pod, "metadata", "namespace")), str(at(pod, "metadata", "name"))
                meant, leaves = namespace in willing, _leaves(pod, how)
                goes = meant and leaves and (how.empties != "taint" or not _tolerates(pod))
                if at(pod, "status", "phase") not in ("Succeeded", "Failed"):
                    yield Pod(namespace, name, uid, says_ready(pod), meant, leaves, goes, node)

    def _on(self, cluster: str, node: str) -> Iterator[tuple[str, Object]]:
        """Uid and object of each pod of a node."""
        for pod in self.items(cluster, "/api/v1/pods", fieldSelector=f"spec.nodeName={node}"):
            yield str(at(pod, "metadata", "uid")), pod

    @staticmethod
    def _ending(how: Nodes, namespace: str) -> Need:
        if how.empties == "delete":
            return Need("delete", "", "pods", namespace, cluster=how.cluster, why="to delete the pods on the nodes")
        why = "to evict the pods on the nodes within their disruption budgets"
        return Need("create", "", "pods", namespace, subresource="eviction", cluster=how.cluster, why=why)


WHY = "to keep new pods off the node, and to open it again"


def _well(pod: Pod, now: Object | None) -> bool:
    """Whether nothing has happened to it."""
    if now is None or at(now, "metadata", "deletionTimestamp"):
        return False
    return says_ready(now) or not pod.ready


def _ends(found: Object) -> bool:
    return bool(at(found, "metadata", "deletionTimestamp"))


def _leaves(pod: Object, how: Nodes) -> bool:
    if "kubernetes.io/config.mirror" in texts(at(pod, "metadata", "annotations")):
        return False
    if how.empties == "taint":  # a DaemonSet's pods tolerate a cordon by themselves, and our taint no more than others
        return not _tolerates(pod, for_ever=True)
    return not any(owner.get("kind") == "DaemonSet" for owner in objects(at(pod, "metadata", "ownerReferences")))


def _tolerates(pod: Object, *, for_ever: bool = False) -> bool:
    """Our taint, at least for a time."""
    for one in objects(at(pod, "spec", "tolerations")):
        meant = one.get("effect", "") in ("", "NoExecute") and one.get("key", "") in ("", TAINT)
        # nobody can know the run, which is the value
        if meant and one.get("operator") == "Exists" and not (for_ever and "tolerationSeconds" in one):
            return True
    return False


def _kept(answer: Answer) -> Told:
    causes = objects(at(answer.read(), "details", "causes"))
    if answer.status == 429 and any(cause.get("reason") == "DisruptionBudget" for cause in causes):
        return Told("its disruption budget allows no eviction now", answer.retry_after_s)
    return Told(answer.said, answer.retry_after_s, ever=answer.status == 429 or answer.status >= 500)


def _how(injection: Injection) -> Nodes:
    assert isinstance(injection.how, Nodes)
    return injection.how


def _path(node: str) -> str:
    return f"/api/v1/nodes/{node}"
