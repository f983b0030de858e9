"""What must hold before nodes are taken: whose pods are on them, which budgets they count in, where they find room. And
that a node is left for the watchdog, beside burnt cores as well."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from stormdrill.cluster.confined import away_from
from stormdrill.cluster.job import REQUESTS
from stormdrill.core.reach import on_nodes
from stormdrill.errors import Problem
from stormdrill.model.mechanism import Beside, Nodes
from stormdrill.model.plan import Injection
from stormdrill.targets.kubernetes.mechanisms.nodes import TAINT
from stormdrill.targets.kubernetes.objects import Affinity, Amounts, Budget, Container, Meta, Pod, PodSpec, Toleration
from stormdrill.targets.kubernetes.optin import bystander_problems, goes, node_problems
from stormdrill.targets.kubernetes.several import several
from stormdrill.targets.kubernetes.slots import alive
from stormdrill.targets.kubernetes.spare import Room, room

if TYPE_CHECKING:
    from stormdrill.targets.kubernetes.inventory import Cluster
    from stormdrill.targets.kubernetes.view import View

WATCHDOG = "watchdog of the run"
AUTOSCALED = (
    "karpenter.sh/nodepool",
    "eks.amazonaws.com/nodegroup",
    "cloud.google.com/gke-nodepool",
    "kubernetes.azure.com/agentpool",
)
"""Labels of nodes that somebody keeps as a group: Karpenter, or a cluster autoscaler where one is set up."""


class Emptied:
    """All nodes of one cluster that a plan takes out of service, together: they may be lost at the same time."""

    def __init__(self, cluster: Cluster, taken: Sequence[Nodes]) -> None:
        self.cluster = cluster
        self.empties = taken[0].empties
        self.nodes = tuple(dict.fromkeys(name for how in taken for name in how.nodes))
        mine = set(self.nodes)
        there = [pod for pod in cluster.all_pods if pod.spec.node_name in mine and alive(pod)]
        self.going = tuple(pod for pod in there if goes(pod, self.empties, TAINT))
        self.staying = tuple(pod for pod in there if not goes(pod, self.empties, TAINT))
        self.budgets = tuple(self._short())

    def _short(self) -> Iterator[tuple[Budget, int]]:
        """The budgets of which more pods go than they allow, and how many."""
        for budget in self.cluster.budgets:
            count = sum(budget.covers(pod) for pod in self.going)
            if count > budget.status.disruptions_allowed:
                yield budget, count

    def room(self) -> Room:
        found = self._room()
        return found._replace(stay_away=tuple(pod for pod in found.stay_away if pod.controller is not None))

    def _room(self) -> Room:
        """The watchdog's too: for want of it the scheduler would end it for a pod of higher priority."""
        movable = [pod for pod in self.going if pod.controller is not None and pod.controller.kind != "DaemonSet"]
        all_that_goes = [*movable, _watchdog(self.cluster)]
        return room(all_that_goes, self.cluster.nodes, self.cluster.all_pods, self.nodes)

    def problems(self, where: str) -> Iterator[Problem]:
        known = self.cluster.nodes
        for name in self.nodes:
            if name not in known:
                yield Problem(where, 0, 0, f"there is no node {name}", f"nodes here: {several(sorted(known))}")
        yield from node_problems((known[name] for name in self.nodes if name in known), where)
        yield from bystander_problems(self.cluster, self.going, where)
        if self.empties == "evict":
            for budget, count in self.budgets:
                if not budget.status.disruptions_allowed:
                    what = (
                        f"disruption budget {_named(budget)} allows nobody to go, and {count} of its pods would have to"
                    )
                    yield Problem(where, 0, 0, what, "wait until its pods are healthy, or write empties: taint")
            twice = [pod for pod in self.going if sum(one.covers(pod) for one in self.cluster.budgets) > 1]
            if twice:
                what = f"more than one disruption budget covers {_pods(twice)}, and the API server evicts no such pod"
                yield Problem(where, 0, 0, what, "let one budget cover it, or write empties: taint")
        without, away = self._room().without, self._room().stay_away
        if any(pod.controller is None for pod in away):
            what = f"no node is left on which a {WATCHDOG} may stand, and nobody would revert if this machine vanished"
            yield Problem(where, 0, 0, what, f"take fewer nodes{_allowed(self.cluster)}")
        if without:
            count = sum(pod.controller is not None for pod in without)
            who = f"{count} of the pods that go" if count else f"all that goes and a {WATCHDOG}"
            what = f"{who} would find no room elsewhere: {_pods(without)}"
            yield Problem(where, 0, 0, what, "take fewer nodes, or make room on those that are left")

    def _autoscaled(self) -> Iterator[str]:
        """Nodes that come and go by themselves."""
        labels = {name: self.cluster.nodes[name].metadata.labels for name in self.nodes if name in self.cluster.nodes}
        for label in AUTOSCALED:
            if found := sorted(name for name, mine in labels.items() if label in mine):
                yield (
                    f"an autoscaler may keep {several(found)} ({label}), and take away what stands empty: annotations "
                    "ask it not to until the revert; what it ends all the same comes back by no undo"
                )

    def notes(self) -> Iterator[str]:
        """What the plan says aloud of it."""
        yield from self._autoscaled()
        for budget, count in self.budgets:
            allowed = budget.status.disruptions_allowed
            kept = "the others stay until it lets them" if self.empties == "evict" else "they go past it"
            yield f"disruption budget {_named(budget)} allows {allowed} to be missing, and {count} would go: {kept}"
        away = self.room().stay_away
        if away:
            yield f"no other node is meant for {_pods(away)}: they stay away until the revert"
        kept_there = sorted({f"{pod.metadata.namespace}/{_maker(pod)}" for pod in self.staying})
        if kept_there:
            yield f"what stays on the nodes: pods of {several(kept_there)}"
        bare = [pod for pod in self.going if pod.controller is None]
        if bare:
            yield f"nothing makes {_pods(bare)} again once they have gone"

    def told(self, injection: Injection) -> Injection:
        """With how many pods go from its own nodes, and the budgets that all together fall short of."""
        how = injection.how
        assert isinstance(how, Nodes)
        mine = [pod for pod in self.going if pod.spec.node_name in how.nodes]
        short = tuple(_named(one) for one, _ in self.budgets if any(one.covers(pod) for pod in mine))
        others = tuple(sorted({pod.metadata.namespace for pod in mine} - {self.cluster.spec.namespace}))
        budgets = short if self.empties != "evict" else ()
        return replace(injection, how=replace(how, pods=len(mine), budgets=budgets, others=others))


def emptied(view: View, injections: Iterable[Injection]) -> list[Emptied]:
    """For each cluster that loses nodes."""
    taken: dict[str, list[Nodes]] = {}
    for one in injections:
        if isinstance(one.how, Nodes):
            taken.setdefault(one.how.cluster, []).append(one.how)
    return [Emptied(view.clusters[name], hows) for name, hows in taken.items()]


def crowded_out(view: View, injections: Sequence[Injection]) -> Iterator[Problem]:
    """Where cores are burnt: the watchdog stands there no more than on a node that is lost, whichever comes when."""
    off = on_nodes(injections, crowded=True)
    for name in sorted({one.how.cluster for one in injections if isinstance(one.how, Beside) and one.how.nodes}):
        cluster = view.clusters[name]
        found = room([_watchdog(cluster)], cluster.nodes, cluster.all_pods, [node for of, node in off if of == name])
        if found.stay_away or found.without:
            left = "no other node is left for one" if found.stay_away else "no other node has room for one"
            what = f"a {WATCHDOG} keeps off burnt cores, and {left}: nobody would revert if this machine vanished"
            yield Problem(view.where, 0, 0, what, f"burn cores of fewer nodes{_allowed(cluster)}")


def _allowed(cluster: Cluster) -> str:
    """What would help where the system file says on which nodes the suite's own stand."""
    named = ", ".join(f"{name}={value}" for name, value in cluster.spec.image.nodes.items())
    return f", or name others than {named} with nodes: in the kubernetes section" if named else ""


def _watchdog(cluster: Cluster) -> Pod:
    """As the scheduler will see it, whatever it stands on by then."""
    asked = Container(WATCHDOG, Amounts(dict(REQUESTS), {}))
    spec = PodSpec(
        node_selector=cluster.spec.image.nodes,
        tolerations=(Toleration(operator="Exists"),),
        affinity=msgspec.convert(away_from(cluster.unfit), Affinity),
        containers=(asked,),
    )
    return Pod(Meta(WATCHDOG, cluster.spec.suite), spec)


def _named(budget: Budget) -> str:
    return f"{budget.metadata.namespace}/{budget.metadata.name}"


def _maker(pod: Pod) -> str:
    return pod.controller.name if pod.controller else pod.metadata.name


def _pods(pods: Sequence[Pod]) -> str:
    return several(sorted(pod.metadata.name for pod in pods))
