"""Where a run's load is sent from: this machine, or pods of the cluster that the system is in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

from stormdrill.errors import Refused, Unreachable

if TYPE_CHECKING:
    from pathlib import Path

    from stormdrill.cluster.api import Api
    from stormdrill.load.in_cluster import Inside
    from stormdrill.load.in_cluster_pods import Owner
    from stormdrill.model.experiment import LoadUse
    from stormdrill.model.permission import Need
    from stormdrill.model.plan import Plan
    from stormdrill.model.system import KubernetesSpec, System

PORT_FORWARD = "a port-forward of the API server"


@runtime_checkable
class Entered(Protocol):
    """Capability: a target that is entered otherwise from inside than from this machine."""

    def entered(self) -> tuple[str, ...]:
        """Base URLs by which load enters from inside of the cluster."""
        ...

    def api(self, cluster: str) -> Api: ...
    def unfit(self, cluster: str) -> Sequence[str]:
        """Nodes of that cluster on which nothing of the suite's own would run."""
        ...


class Sending(NamedTuple):
    entries: tuple[str, ...]
    inside: Inside | None = None
    """None: from this machine."""
    through: str = ""
    """What leads from here to the entries that users don't pass."""


def sending(plan: Plan, target: object, entries: Callable[[], tuple[str, ...]], run_dir: Path) -> Sending:
    """`entries`: by which load enters from this machine. Raises Refused."""
    use, spec = plan.experiment.load, plan.system.kubernetes
    if use is None or plan.target != "kubernetes" or spec is None:
        return Sending(entries())
    if use.here:
        return Sending(entries(), through=PORT_FORWARD)
    assert isinstance(target, Entered)
    from stormdrill.load.in_cluster import Inside
    from stormdrill.load.in_cluster_pods import Place

    cluster = sent_in(plan.system)
    api = target.api(cluster)
    place = Place(
        namespace=spec.suite,
        image=spec.image.name,
        run=run_dir.name,
        longest_s=plan.longest_s + plan.system.ready_timeout_s,
        pull=spec.image.pull,
        pull_secret=spec.image.pull_secret,
        account=spec.account,
        owner=_owner(api, spec, run_dir.name),
        avoid=tuple(sorted({*harmed(plan, cluster), *target.unfit(cluster)})),
        nodes=spec.image.nodes,
    )
    try:
        entered = target.entered()
    except Unreachable as error:
        raise Refused(f"where the load enters can't be found out: {error}") from error
    if not entered:
        raise Refused(
            f"no Service in namespace {spec.namespace} leads to {plan.system.entry} by a cluster address, and load "
            "would enter there; make one that selects its pods"
        )
    return Sending(entered, Inside(api, place, spec.load_workers))


def needs(system: System, use: LoadUse | None) -> Callable[[str], Sequence[Need]]:
    """What it takes to send it, by cluster. Raises Refused where it can't be sent: a plan asks for it first."""
    spec = system.kubernetes
    if spec is None or use is None or use.here:
        return lambda _: ()
    sender = sent_in(system)

    def of(cluster: str) -> Sequence[Need]:
        from stormdrill.load.in_cluster_pods import needs as of_load
        from stormdrill.model.permission import Need

        if cluster != sender:
            return ()
        why = "to find the Service by which load enters"
        return (*of_load(spec.suite, cluster), Need("list", "", "services", spec.namespace, cluster=cluster, why=why))

    return of


def sent_in(system: System) -> str:
    """The cluster that the load is sent in. Raises Refused where there are several."""
    spec = system.kubernetes
    names = tuple(spec.contexts) if spec is not None else ()
    if len(names) > 1:
        raise Refused(
            f"system {system.name} is on several clusters, and a load is sent inside of one only: {', '.join(names)}; "
            "drill one of them, or take the traffic that it has (load: observed)"
        )
    return names[0] if names else ""


def harmed(plan: Plan, cluster: str) -> tuple[str, ...]:
    """Nodes that a fault takes out of service, or whose cores it burns."""
    from stormdrill.core.reach import on_nodes

    return tuple(sorted(name for where, name in on_nodes(plan.injections, crowded=True) if where == cluster))


def _owner(api: Api, spec: KubernetesSpec, run: str) -> Owner | None:
    """The run's ledger, with which goes what belongs to it; None where it can't be read."""
    from stormdrill.cluster import naming
    from stormdrill.cluster.api import Lost
    from stormdrill.cluster.asking import text
    from stormdrill.load.in_cluster_pods import Owner

    name = naming.ledger(run)
    try:
        found = api.call("GET", f"/api/v1/namespaces/{spec.suite}/configmaps/{name}").read()
    except Lost:
        return None
    uid = text(found, "metadata", "uid")
    return Owner(name, uid) if uid else None
