"""Whether what is evicted finds room elsewhere, as far as requests, selectors and taints tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from stormdrill.targets.kubernetes.objects import KEEPS_AWAY, Node, Pod, Term
from stormdrill.targets.kubernetes.optin import tolerates
from stormdrill.targets.kubernetes.quantity import amount

PODS = "pods"


class Room(NamedTuple):
    """What becomes of the evicted."""

    stay_away: tuple[Pod, ...]
    """No node that is left is meant for them: they wait until theirs are back."""
    without: tuple[Pod, ...]
    """Nodes that are left are meant for them, and have no room."""


class _Asked(NamedTuple):
    """Pods that are alike for the scheduler, as far as it is looked at here."""

    requests: tuple[tuple[str, float], ...]
    selector: tuple[tuple[str, str], ...]
    terms: tuple[Term, ...]
    tolerations: tuple[object, ...]


def room(evicted: Sequence[Pod], nodes: Mapping[str, Node], pods: Iterable[Pod], lost: Iterable[str]) -> Room:
    """`pods`: all that run in the cluster; `lost`: nodes that are no more. Pods of one kind are fitted in one after
    the other, the largest kinds first; what spreads pods or keeps them apart is not looked at."""
    gone = set(lost)
    left = {name: node for name, node in nodes.items() if name not in gone and _takes(node)}
    free = _free(left, pods)
    kinds: dict[_Asked, list[Pod]] = {}
    for pod in evicted:
        kinds.setdefault(_asked(pod), []).append(pod)
    away: list[Pod] = []
    without: list[Pod] = []
    for asked, alike in sorted(kinds.items(), key=lambda item: dict(item[0].requests).get("cpu", 0.0), reverse=True):
        meant = [name for name, node in left.items() if _meant(node, alike[0])]
        if not meant:
            away += alike
            continue
        waiting = _fitted(asked.requests, len(alike), [free[name] for name in meant])
        without += alike[len(alike) - waiting :]
    return Room(tuple(away), tuple(without))


def _fitted(requests: Sequence[tuple[str, float]], count: int, rooms: Sequence[dict[str, float]]) -> int:
    """Takes the room of as many as there is room for; returns how many are left without."""
    for one in rooms:
        if not count:
            break
        most = min((int(one.get(name, 0.0) / wanted + 1e-9) for name, wanted in requests if wanted > 0), default=count)
        taken = max(0, min(count, most))
        for name, wanted in requests:
            one[name] = one.get(name, 0.0) - wanted * taken
        count -= taken
    return count


def _takes(node: Node) -> bool:
    return not node.spec.unschedulable and node.ready and node.metadata.deletion_timestamp is None


def _free(nodes: Mapping[str, Node], pods: Iterable[Pod]) -> dict[str, dict[str, float]]:
    free = {
        name: {key: number(value) for key, value in node.status.allocatable.items()} for name, node in nodes.items()
    }
    for pod in pods:
        there = free.get(pod.spec.node_name)
        if there is not None:
            for name, wanted in requests_of(pod).items():
                if name in there:
                    there[name] -= wanted
    return free


def requests_of(pod: Pod) -> Counter[str]:
    """What its containers ask for together; an extended resource may stand under limits alone."""
    found: Counter[str] = Counter({PODS: 1})
    for one in pod.spec.containers:
        for name, value in {**one.resources.limits, **one.resources.requests}.items():
            if name in one.resources.requests or "/" in name:
                found[name] += number(value)  # type: ignore[assignment]  # amounts are no whole numbers
    return found


_READ: dict[str, float] = {}


def number(written: str) -> float:
    """An amount; 0 for what is none. The same few stand in thousands of pods."""
    if written not in _READ:
        try:
            _READ[written] = float(amount(written))
        except ValueError:
            _READ[written] = 0.0
    return _READ[written]


def _asked(pod: Pod) -> _Asked:
    return _Asked(
        tuple(sorted(requests_of(pod).items())),
        tuple(sorted(pod.spec.node_selector.items())),
        _terms(pod),
        tuple(pod.spec.tolerations),
    )


def _terms(pod: Pod) -> tuple[Term, ...]:
    affinity = pod.spec.affinity.node_affinity if pod.spec.affinity else None
    return affinity.required.node_selector_terms if affinity and affinity.required else ()


def _meant(node: Node, pod: Pod) -> bool:
    """Whether the scheduler may put it there, room aside."""
    if not pod.spec.node_selector.items() <= node.metadata.labels.items():
        return False
    terms = _terms(pod)
    if terms and not any(term.meets(node) for term in terms):
        return False
    return all(
        any(tolerates(one, taint.key, taint.value, taint.effect) for one in pod.spec.tolerations)
        for taint in node.spec.taints
        if taint.effect in KEEPS_AWAY
    )
