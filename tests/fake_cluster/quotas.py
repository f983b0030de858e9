"""Admission of Pods and of whatever a quota counts: priorities, accounts, limit ranges, resource quotas."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from decimal import Decimal

from fake_cluster.ground import Ground
from fake_cluster.kinds import Kind
from fake_cluster.loop import Change, Key
from fake_cluster.matching import Obj, deleted_at, ended, quantity, requests_of, written
from fake_cluster.problems import Problem, forbidden
from fake_cluster.registry import Admitted, Registry

SYSTEM_CLASSES = {"system-node-critical": 2_000_001_000, "system-cluster-critical": 2_000_000_000}
COMPUTE = ("cpu", "memory")


def install(registry: Registry) -> None:
    registry.admission(lambda admitted: _admit(registry, admitted))


def _admit(registry: Registry, admitted: Admitted) -> None:
    if admitted.operation != "CREATE" or admitted.obj is None:
        return
    if admitted.kind.resource == "pods":
        _limits(registry, admitted)
        _account(registry, admitted)
        _priority(registry, admitted)
    if admitted.namespace:
        _quotas(registry, admitted)


def _no(admitted: Admitted, why: str) -> Problem:
    kind = admitted.kind
    return forbidden(kind.resource, kind.group, kind.plural, admitted.name, why)


def _account(registry: Registry, admitted: Admitted) -> None:
    spec = (admitted.obj or {})["spec"]
    name = spec.get("serviceAccountName", "default")
    if registry.store.get(registry.kinds.named("serviceaccounts"), admitted.namespace, name) is None:
        where = f"error looking up service account {admitted.namespace}/{name}"
        raise _no(admitted, f'{where}: serviceaccount "{name}" not found')


def _priority(registry: Registry, admitted: Admitted) -> None:
    spec = (admitted.obj or {})["spec"]
    classes = {one["metadata"]["name"]: one for one in registry.list("priorityclasses")}
    name, policy = spec.get("priorityClassName", ""), "PreemptLowerPriority"
    if not name:
        default = next((one for one in classes.values() if one.get("globalDefault")), None)
        value = default["value"] if default else 0
        if default:
            spec["priorityClassName"], policy = default["metadata"]["name"], default["preemptionPolicy"]
    elif name in classes:
        value, policy = classes[name]["value"], classes[name]["preemptionPolicy"]
    elif name in SYSTEM_CLASSES:
        value = SYSTEM_CLASSES[name]
    else:
        raise _no(admitted, f"no PriorityClass with name {name} was found")
    if spec.get("priority", value) != value:
        told = f"the integer value of priority ({spec['priority']}) must not be provided in pod spec"
        raise _no(admitted, f"{told}; priority admission controller computed {value} from the given PriorityClass name")
    spec["priority"] = value
    spec.setdefault("preemptionPolicy", policy)


def _limits(registry: Registry, admitted: Admitted) -> None:
    """Defaults and maxima of LimitRanges, for containers."""
    obj = admitted.obj or {}
    said = []
    for held in registry.list("limitranges", admitted.namespace):
        for rule in held["spec"].get("limits") or []:
            if rule.get("type") != "Container":
                continue
            for container in obj["spec"]["containers"]:
                said += _fill_limits(container, rule)
                _check_limits(admitted, container, rule)
    if said:
        notes = obj["metadata"].setdefault("annotations", {})
        notes["kubernetes.io/limit-ranger"] = f"LimitRanger plugin set: {'; '.join(said)}"


def _fill_limits(container: Obj, rule: Obj) -> list[str]:
    said = []
    resources = container.setdefault("resources", {})
    for part, defaults, word in (
        ("requests", rule.get("defaultRequest"), "request"), ("limits", rule.get("default"), "limit"),
    ):  # fmt: skip
        missing = {key: value for key, value in (defaults or {}).items() if key not in (resources.get(part) or {})}
        if missing:
            resources[part] = {**missing, **(resources.get(part) or {})}
            said.append(f"{', '.join(sorted(missing))} {word} for container {container['name']}")
    return said


def _check_limits(admitted: Admitted, container: Obj, rule: Obj) -> None:
    for name, most in (rule.get("max") or {}).items():
        given = (container["resources"].get("limits") or {}).get(name)
        if given is not None and quantity(given) > quantity(most):
            raise _no(admitted, f"maximum {name} usage per Container is {most}, but limit is {given}")


def usage(kind: Kind, obj: Obj, hard: Iterable[str]) -> dict[str, Decimal]:
    """What one object takes of the resources that a quota names."""
    found: dict[str, Decimal] = {}
    live_pod = kind.resource == "pods" and not ended(obj)
    asked = requests_of(obj["spec"]) if live_pod else {}
    for name in hard:
        amount = Decimal(0)
        if (
            name == f"count/{kind.resource}"
            or (name == kind.plural and name != "pods")
            or (live_pod and name == "pods")
        ):
            amount = Decimal(1)
        elif live_pod and name.startswith("limits."):
            amount = sum(
                (
                    quantity((one["resources"].get("limits") or {}).get(name[7:], 0))
                    for one in obj["spec"]["containers"]
                ),
                Decimal(0),
            )
        elif live_pod:
            amount = asked.get(name.removeprefix("requests."), Decimal(0))
        found[name] = amount
    return found


def used(registry: Registry, namespace: str, hard: Iterable[str]) -> dict[str, Decimal]:
    totals = {name: Decimal(0) for name in hard}
    for kind in list(registry.kinds.known.values()):
        if kind.namespaced and _counted(kind, totals):
            for stored in registry.store.all(kind, namespace):
                for name, amount in usage(kind, stored.obj, totals).items():
                    totals[name] += amount
    return totals


def _counted(kind: Kind, hard: Iterable[str]) -> bool:
    return kind.resource == "pods" or any(name in (f"count/{kind.resource}", kind.plural) for name in hard)


def _quotas(registry: Registry, admitted: Admitted) -> None:
    obj, kind = admitted.obj or {}, admitted.kind
    for quota in registry.list("resourcequotas", admitted.namespace):
        hard = quota["spec"].get("hard") or {}
        if not _counted(kind, hard):
            continue
        name = quota["metadata"]["name"]
        if kind.resource == "pods" and (missing := _unsaid(obj, hard)):
            raise _no(admitted, f"failed quota: {name}: must specify {missing}")
        asked = {key: amount for key, amount in usage(kind, obj, hard).items() if amount}
        if not asked:
            continue
        so_far = used(registry, admitted.namespace, hard)
        over = sorted(key for key, amount in asked.items() if so_far[key] + amount > quantity(hard[key]))
        if over:
            requested, already, limited = (
                ",".join(f"{key}={said[key]}" for key in over)
                for said in (
                    {key: written(asked[key], key) for key in over},
                    {key: written(so_far[key], key) for key in over}, hard,
                )
            )  # fmt: skip
            raise _no(admitted, f"exceeded quota: {name}, requested: {requested}, used: {already}, limited: {limited}")
        if not admitted.dry_run:
            total = {key: so_far[key] + asked.get(key, Decimal(0)) for key in hard}
            registry.change("resourcequotas", admitted.namespace, name, _told(hard, total))


def _unsaid(pod: Obj, hard: Obj) -> str:
    """ "requests.cpu for: c": what containers must say under this quota and do not."""
    said = []
    for name in sorted(hard):
        part, _, resource = (
            name.rpartition(".") if name.startswith(("requests.", "limits.")) else ("requests", "", name)
        )
        if resource not in COMPUTE:
            continue
        silent = [
            one["name"] for one in pod["spec"]["containers"] if resource not in (one["resources"].get(part) or {})
        ]
        if silent:
            said.append(f"{name} for: {','.join(silent)}")
    return "; ".join(said)


def _told(hard: Obj, totals: dict[str, Decimal]):  # type: ignore[no-untyped-def]  # a closure for Registry.change
    def put(thing: Obj) -> None:
        thing["status"] = {"hard": copy.deepcopy(hard), "used": {key: written(totals[key], key) for key in hard}}

    return put


class Quotas:
    """Says what is used."""

    def __init__(self, ground: Ground, registry: Registry) -> None:
        self.ground = ground
        self.registry = registry

    def concerns(self, change: Change) -> Iterable[Key]:
        if change.resource == "resourcequotas":
            return [(change.namespace, change.name)]
        if not change.namespace or (
            change.resource != "pods" and change.before is not None and change.after is not None
        ):
            return ()
        held = self.ground.all("resourcequotas", change.namespace)
        return [(change.namespace, one["metadata"]["name"]) for one in held]

    def act(self, namespace: str, name: str) -> float | None:
        quota = self.ground.get("resourcequotas", namespace, name)
        if quota is not None and not deleted_at(quota):
            hard = quota["spec"].get("hard") or {}
            with self.registry.store.lock:
                total = used(self.registry, namespace, hard)
                self.registry.change("resourcequotas", namespace, name, _told(hard, total))
        return None
