"""What faults ask of instances, as what a cluster can do: nodes, workloads, Services."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from stormdrill.core.reach import ends
from stormdrill.errors import Problem, Refused, Unreachable
from stormdrill.model.mechanism import Capacity, Device, Isolate, Nodes, Rollout, Scale, Sever, Toxic
from stormdrill.model.plan import Injection
from stormdrill.targets.kubernetes import neighbours
from stormdrill.targets.kubernetes.emptying import Emptied, crowded_out, emptied
from stormdrill.targets.kubernetes.losing import Refusing, lost, made, placed
from stormdrill.targets.kubernetes.objects import Service
from stormdrill.targets.kubernetes.view import View

HALTS = ("freeze", "crash")
KEEPERS = {
    "argocd.argoproj.io/tracking-id": "Argo CD",
    "argocd.argoproj.io/instance": "Argo CD",
    "kustomize.toolkit.fluxcd.io/name": "Flux",
    "helm.toolkit.fluxcd.io/name": "Flux",
}
"""Labels and annotations by which those who keep objects as they are in a repository mark what is theirs."""


def bind(view: View, asked: Sequence[Injection]) -> tuple[Injection, ...]:
    """Raises Refused with every problem."""
    problems: list[Problem] = []
    found: list[Injection] = []
    try:
        for use in dict.fromkeys(one.use for one in asked):
            group = [one for one in asked if one.use == use]
            refuse = Refusing()
            found += _bound(view, group, refuse)
            problems += [Problem("", 0, 0, f"{group[0].fault}: {what}", fix) for what, fix in refuse.problems]
        for one in emptied(view, found):
            problems += one.problems(view.where)
            found = [one.told(item) if _on(one, item) else item for item in found]
        found = [neighbours.placed(view, one) for one in found]
        problems += [*neighbours.problems(view, found), *crowded_out(view, found)]
        found = [neighbours.told(view, one) for one in found]
    except Unreachable as error:
        raise Refused(f"target kubernetes: {error}") from error
    if problems:
        raise Refused(problems)
    return tuple(found)


def _on(one: Emptied, item: Injection) -> bool:
    return isinstance(item.how, Nodes) and item.how.cluster == one.cluster.name


def _bound(view: View, group: Sequence[Injection], refuse: Refusing) -> list[Injection]:
    """One use of a fault: what it asks for by its words, each in its own way."""
    slow = view.spec.stands_for.get("slow") == "crash"
    halts = [one for one in group if one.mechanism in HALTS or (slow and slows_caller(one))]
    cuts = [one for one in group if _cuts(one)]
    toxics = [one for one in group if isinstance(one.how, Toxic) and not _cuts(one) and not one.how.service]
    toxics = [one for one in toxics if not (slow and slows_caller(one))]
    devices = [one for one in group if isinstance(one.how, Device)]
    if view.spec.stands_for.get("devices") == "crash" and all(map(loses_device, devices)):
        halts += _workers(view, devices, refuse)
        devices = []
    releases = [one for one in group if isinstance(one.how, Rollout) and not one.how.workload]
    apart = {id(one) for part in (halts, cuts, toxics, releases) for one in part}
    found = []
    if any(one.mechanism == "freeze" for one in halts) and view.spec.stands_for.get("freeze") != "crash":
        refuse(
            "a pod can't be frozen from outside",
            "let it crash, or say in the system file what stands for it: kubernetes: {stands_for: {freeze: crash}}",
        )
    elif halts:
        found += lost(view, halts, refuse)
    found += _isolated(view, cuts, refuse) if cuts else []
    found += _fronted(view, toxics, refuse) if toxics else []
    found += _withdrawn(view, devices, refuse) if devices else []
    found += _rolled_out(view, releases, refuse) if releases else []
    for one in group:
        if one.mechanism == "cpu-limit":
            refuse("the cores of a pod that runs can't be limited", "use noisy-neighbour with mode: cpu beside it")
        elif id(one) not in apart and not isinstance(one.how, Device):
            found.append(one)
    return found


def notes(view: View, bound: Sequence[Injection], asked: Sequence[Injection]) -> Iterator[str]:
    """What the plan says aloud of what was bound, beyond what each mechanism says."""
    if any(one.mechanism == "freeze" for one in asked):
        yield "a pod can't be frozen: crash stands for freeze here, so that connections break and memory is lost"
    if view.spec.stands_for.get("slow") and any(map(slows_caller, asked)):
        yield "one caller of a Service can't be slowed alone: crash stands for slow here: it does nothing at all"
    if view.spec.stands_for.get("devices") and any(map(loses_device, asked)):
        yield "pods keep the devices that they have: crash stands for lost devices here, so that their workers go"
    for one in emptied(view, bound):
        yield from one.notes()
    yield from neighbours.notes(view, bound)
    isolated = {name for item in bound if isinstance(item.how, Isolate) for name in item.how.reaches}
    spared = sorted({item.instance for item in asked if _cuts(item)} - isolated) if isolated else []
    if spared:
        yield f"{', '.join(spared)} can't be told from entries elsewhere by labels, and would not be cut off"
    for item in bound:
        how = item.how
        if isinstance(how, Scale | Rollout):
            yield from _kept_by(view, how.cluster, how.workload)
        known = view.workloads.get((how.cluster, how.workload)) if isinstance(how, Scale) else None
        if isinstance(how, Scale) and known is not None and how.away < known.replicas:
            yield f"which {how.away} of the {known.replicas} pods of {how.workload} go is its controller's choice"


def _kept_by(view: View, cluster: str, workload: str) -> Iterator[str]:
    found = view.clusters[cluster].controllers.get(workload)
    if found is not None:
        marks = {*found.metadata.labels, *found.metadata.annotations}
        for keeper in sorted({name for mark, name in KEEPERS.items() if mark in marks}):
            yield f"{keeper} keeps {workload} as it is in its repository, and may put the change back"


def slows_caller(one: Injection) -> bool:
    """Whether the harm is meant for who calls, on its own ways alone."""
    how = one.how
    return isinstance(how, Toxic) and bool(how.delay_ms) and all(ends(hop)[0] == one.instance for hop in how.hops)


# --- cut off from others -------------------------------------------------------------------------------------


def _cuts(one: Injection) -> bool:
    return isinstance(one.how, Sever) or (isinstance(one.how, Toxic) and one.how.kind == "cut")


def _isolated(view: View, asked: Sequence[Injection], refuse: Refusing) -> list[Injection]:
    """Each workload by a policy of its own, which lets it hear those that are cut off with it."""
    if asked[0].fault == "partition" or any(isinstance(o.how, Sever) and o.how.direction != "both" for o in asked):
        what = "NetworkPolicies say who may be heard, not who may not: one part can't be cut off from one other alone"
        refuse(what, "isolate a region from everybody instead: region-loss, mode: isolate")
        return []
    hit = _cut_off(view, asked)
    groups: dict[tuple[str, str], list[str]] = {}
    for name in hit:
        groups.setdefault(view.made_by[name], []).append(name)
    among: dict[str, list[dict[str, str]]] = {}
    for (cluster, workload), names in groups.items():
        known = view.workloads.get((cluster, workload))
        controller = view.clusters[cluster].controllers.get(workload)
        others = [name for name in known.instances if name not in hit] if known else []
        if known is None or controller is None or controller.spec.selector.match_expressions:
            what = f"{', '.join(names)} can't be told from other pods by labels of a workload"
            refuse(what, "let a Deployment or a StatefulSet that selects by labels alone run it")
        elif others and all(view.slot(name).instance.service == view.system.entry for name in names):
            continue  # where users come in, and the same everywhere: the plan says that it is left as it is
        elif others:
            what = (
                f"{', '.join(others)} have the same labels as {', '.join(names)} ({workload}), and would be cut off too"
            )
            refuse(what, "hit all of them, or run them as workloads of their own")
        else:
            among.setdefault(cluster, []).append(known.labels)
    if not among and not refuse.problems:
        what = "nobody but the entry would be cut off, and it can't be told from where it runs elsewhere"
        refuse(what, "choose a part of the system that has services of its own")
    if refuse.problems:
        return []
    return [
        _isolation(view, key, tuple(names), tuple(among[key[0]]), asked)
        for key, names in groups.items()
        if view.workloads[key].labels in among.get(key[0], ())
    ]


def _cut_off(view: View, asked: Sequence[Injection]) -> list[str]:
    """With those who have no way across: nothing had to be asked for them, and they are on this side all the same."""
    found = list(dict.fromkeys(one.instance for one in asked))
    if any(isinstance(one.how, Sever) and not one.how.peers for one in asked):
        return found
    cut = {hop for one in asked if isinstance(one.how, Toxic) for hop in one.how.hops}
    near: dict[str, list[str]] = {}
    for hop in view.world.hops:
        if hop.name not in cut:
            near.setdefault(hop.caller, []).append(hop.callee)
            near.setdefault(hop.callee, []).append(hop.caller)
    known = set(found)
    for name in found:  # which grows meanwhile
        new = [other for other in near.get(name, ()) if other not in known]
        known.update(new)
        found += dict.fromkeys(new)
    return found


def _isolation(
    view: View,
    key: tuple[str, str],
    names: tuple[str, ...],
    among: tuple[dict[str, str], ...],
    asked: Sequence[Injection],
) -> Injection:
    cluster, workload = key
    known = view.workloads[key]
    short = workload.partition("/")[2]
    how = Isolate(known.namespace, known.labels, among, names, cluster, workload)
    mine = [one for one in asked if one.instance in names] or asked
    switches = tuple(f"net of {name}" for name in names)
    subject = placed(cluster, short)
    return made(mine, subject, "isolate", how, "delete the NetworkPolicy", switches, instance=short)


# --- slowed on the way ---------------------------------------------------------------------------------------


def _fronted(view: View, asked: Sequence[Injection], refuse: Refusing) -> list[Injection]:
    """On the Services that lead to whom the hops lead to, one injection each."""
    wanted = {hop for one in asked if isinstance(one.how, Toxic) for hop in one.how.hops}
    known = {hop.name: hop for hop in view.world.hops}
    callees = dict.fromkeys(known[name].callee for name in wanted if name in known)
    others = sorted({hop.caller for hop in known.values() if hop.callee in callees and hop.name not in wanted})
    if others:
        led_to = ", ".join(sorted(callees))
        what = f"{', '.join(others)} call {led_to} too, and a Service can't tell its callers apart"
        fix = "leave callers out, so that everybody who calls is meant"
        if any(map(slows_caller, asked)):
            fix = (
                "leave slow out, or say in the system file what stands for it: kubernetes: {stands_for: {slow: crash}}"
            )
        refuse(what, fix)
        return []
    led: dict[tuple[str, str], tuple[str, ...]] = {}
    for name, cluster in view.clusters.items():
        behind = [slot for slot in view.slots.all() if slot.cluster == name]
        for service in cluster.services:
            mine = tuple(s.instance.name for s in behind if _leads_to(service, s.pod.metadata.labels))
            if mine and set(mine) & set(callees):
                led[name, service.metadata.name] = mine
    whole = {key: names for key, names in led.items() if set(names) <= set(callees)}
    for callee in callees:
        if not any(callee in names for names in whole.values()):
            wider = [
                f"{key[1]} leads to {', '.join(n for n in names if n not in callees)} too" for key, names in led.items()
            ]
            why = f": {'; '.join(wider)}" if wider else ""
            refuse(f"no Service leads to {callee} and nobody else{why}", "make one, and let its callers use it")
    if refuse.problems:
        return []
    return [_on_service(view, key, names, asked) for key, names in whole.items()]


def _leads_to(service: Service, labels: dict[str, str]) -> bool:
    return bool(service.spec.selector) and service.spec.selector.items() <= labels.items()


def _on_service(view: View, key: tuple[str, str], names: tuple[str, ...], asked: Sequence[Injection]) -> Injection:
    cluster, service = key
    first = next(one for one in asked if isinstance(one.how, Toxic))
    assert isinstance(first.how, Toxic)
    wanted = {hop for one in asked if isinstance(one.how, Toxic) for hop in one.how.hops}
    hops = tuple(hop.name for hop in view.world.hops if hop.name in wanted and hop.callee in names)
    how = replace(first.how, hops=hops, service=f"{view.spec.namespace}/{service}", cluster=cluster)
    subject = placed(cluster, service)
    undo = f"lead Service {service} to its pods again"
    switches = (f"selector of Service {subject}",)
    return made(asked, subject, first.mechanism, how, undo, switches, instance=names[0])


# --- devices and releases ------------------------------------------------------------------------------------


def loses_device(one: Injection) -> bool:
    return isinstance(one.how, Device) and one.how.state == "lost"


def _workers(view: View, asked: Sequence[Injection], refuse: Refusing) -> list[Injection]:
    """One for each worker that loses all of its devices."""
    hit: dict[str, list[Injection]] = {}
    for one in asked:
        hit.setdefault(one.instance, []).append(one)
    for name, mine in hit.items():
        if len(mine) < len(view.slot(name).instance.devices):
            refuse(f"{name} would lose some of its devices, and can only be taken away whole", "leave share out")
    return [] if refuse.problems else [mine[0] for mine in hit.values()]


def _withdrawn(view: View, asked: Sequence[Injection], refuse: Refusing) -> list[Injection]:
    """Devices that are lost, as nodes that advertise none any more."""
    states = {one.how.state for one in asked if isinstance(one.how, Device)}
    if states != {"lost"}:
        refuse("devices can't be made slow, hang or run cold from outside", "use mode: gone, or mode: devices")
        return []
    hit = {(one.instance, one.how.device) for one in asked if isinstance(one.how, Device)}
    workers = dict.fromkeys(one.instance for one in asked)
    beside = [name for one in workers for name in view.on_nodes[view.slot(one).cluster, view.slot(one).node]]
    kept = [
        f"{device} of {name}"
        for name in dict.fromkeys(beside)
        for device in view.slot(name).instance.devices
        if (name, device) not in hit
    ]
    if kept or len({one.start_s for one in asked}) > 1:
        what = (
            f"a node advertises all of its devices or none{', and ' + ', '.join(kept) + ' would stay' if kept else ''}"
        )
        refuse(what, "leave share and over out")
        return []
    nodes: dict[str, list[str]] = {}
    for name in workers:
        slot = view.slot(name)
        if slot.node not in nodes.setdefault(slot.cluster, []):
            nodes[slot.cluster].append(slot.node)
    resource, plugin = view.spec.gpu_resource, view.spec.gpu_plugin
    found = []
    for cluster, names in nodes.items():
        reaches = tuple(name for name in workers if view.slot(name).cluster == cluster)
        how = Capacity(tuple(names), resource, plugin, reaches, cluster)
        subject = cluster or (names[0] if len(names) == 1 else f"{len(names)}-nodes")
        switches = tuple(f"{resource} of {placed(cluster, name)}" for name in names)
        found.append(made(asked, subject, "capacity", how, f"advertise {resource} again", switches))
    return found


def _rolled_out(view: View, asked: Sequence[Injection], refuse: Refusing) -> list[Injection]:
    """Each workload once, with all whose template it is."""
    groups: dict[tuple[str, str], list[Injection]] = {}
    for one in asked:
        groups.setdefault(view.made_by[one.instance], []).append(one)
    found = []
    for (cluster, workload), mine in groups.items():
        known = view.workloads.get((cluster, workload))
        if known is None:
            names = ", ".join(one.instance for one in mine)
            refuse(f"nothing rolls a release out to {names}", "let a Deployment run it")
            continue
        first = mine[0].how
        assert isinstance(first, Rollout)
        how = replace(first, workload=workload, namespace=known.namespace, reaches=known.instances, cluster=cluster)
        short = workload.partition("/")[2]
        subject = placed(cluster, short)
        switches = (f"template of {placed(cluster, workload)}",)
        found.append(made(mine, subject, "rollout", how, "put the template back", switches, instance=short))
    return found
