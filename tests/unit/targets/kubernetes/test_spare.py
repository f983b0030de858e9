"""Whether the evicted find room, as far as requests, selectors and taints tell."""

from __future__ import annotations

import pytest

from stormdrill.targets.kubernetes.objects import (
    Affinity,
    Amounts,
    Condition,
    Container,
    Meta,
    Node,
    NodeAffinity,
    NodeSpec,
    NodeStatus,
    Pod,
    PodSpec,
    Requirement,
    Taint,
    Term,
    Terms,
    Toleration,
)
from stormdrill.targets.kubernetes.spare import room


def node(name: str, cpu: str = "4", taints: tuple[Taint, ...] = (), cordoned: bool = False, **more: str) -> Node:
    labels = {"zone": name[0], "kubernetes.io/hostname": name}
    return Node(
        Meta(name, labels=labels),
        NodeSpec(cordoned, taints),
        NodeStatus({"cpu": cpu, "memory": "8Gi", "pods": "10", **more}),
    )


def pod(name: str, on: str, cpu: str = "1", **spec: object) -> Pod:
    container = Container("main", Amounts({"cpu": cpu, "memory": "1Gi"}, {}))
    return Pod(Meta(name), PodSpec(node_name=on, containers=(container,), **spec))  # type: ignore[arg-type]


def fate(evicted: list[Pod], nodes: list[Node], others: list[Pod] | None = None) -> tuple[list[str], list[str]]:
    """Names of those that stay away, and of those without room, when the node `lost` goes."""
    known = {one.name: one for one in [*nodes, node("lost")]}
    found = room(evicted, known, [*evicted, *(others or [])], ["lost"])
    return [one.metadata.name for one in found.stay_away], [one.metadata.name for one in found.without]


def pods(count: int, cpu: str = "1", **spec: object) -> list[Pod]:
    return [pod(f"p{number}", "lost", cpu, **spec) for number in range(count)]


def test_room_is_what_requests_leave_on_the_nodes_that_are_left() -> None:
    assert fate(pods(4), [node("a")]) == ([], [])
    assert fate(pods(4), [node("a")], [pod("other", "a", "500m")]) == ([], ["p3"])
    assert fate(pods(6), [node("a"), node("b", "2")]) == ([], [])


def test_any_resource_may_be_what_is_short() -> None:
    asking = Container("main", Amounts({}, {"nvidia.com/gpu": "1"}))  # which is asked for by its limit
    wanting = [Pod(Meta(name), PodSpec(node_name="lost", containers=(asking,))) for name in ("p0", "p1")]
    assert fate(wanting, [node("a", **{"nvidia.com/gpu": "1"})]) == ([], ["p1"])
    assert fate(wanting, [node("a")]) == ([], ["p0", "p1"])
    assert fate(pods(11, "10m"), [node("a", "40", memory="80Gi")]) == ([], ["p10"])  # a node takes ten pods


@pytest.mark.parametrize(
    "left",
    [
        node("a", cordoned=True),
        node("a", taints=(Taint("gpu", "NoSchedule", "yes"),)),
        Node(Meta("a"), NodeSpec(), NodeStatus({"cpu": "9", "pods": "9"}, (Condition("Ready", "False"),))),
        Node(Meta("a", deletion_timestamp="2026-01-01T00:00:00Z"), NodeSpec(), NodeStatus({"cpu": "9", "pods": "9"})),
    ],
    ids=["cordoned", "tainted", "not ready", "being deleted"],
)
def test_a_node_that_takes_nobody_is_no_room(left: Node) -> None:
    assert fate(pods(1), [left]) == (["p0"], [])


def test_a_taint_that_is_tolerated_keeps_nobody_away() -> None:
    tolerant = (Toleration("gpu", "Equal", "yes", "NoSchedule"),)
    assert fate(pods(1, tolerations=tolerant), [node("a", taints=(Taint("gpu", "NoSchedule", "yes"),))]) == ([], [])
    assert fate(pods(1), [node("a", taints=(Taint("gpu", "PreferNoSchedule", "yes"),))]) == ([], [])


def test_who_is_meant_for_the_lost_nodes_alone_stays_away_and_needs_no_room() -> None:
    assert fate(pods(9, node_selector={"zone": "l"}), [node("a")]) == ([f"p{number}" for number in range(9)], [])
    terms = Terms((Term((Requirement("zone", "In", ("l", "x")),)),))
    affine = Affinity(NodeAffinity(terms))
    assert fate(pods(1, affinity=affine), [node("a")]) == (["p0"], [])
    assert fate(pods(1, affinity=affine), [node("x")]) == ([], [])


def test_the_largest_are_fitted_in_first() -> None:
    assert fate([*pods(2), pod("big", "lost", "3")], [node("a")]) == ([], ["p1"])


def test_a_node_that_is_left_out_by_its_name_is_not_meant() -> None:
    term = Term(match_fields=(Requirement("metadata.name", "NotIn", ("a",)),))
    affinity = Affinity(NodeAffinity(Terms((term,))))
    assert fate(pods(1, affinity=affinity), [node("a")]) == (["p0"], [])
    assert fate(pods(1, affinity=affinity), [node("a"), node("b")]) == ([], [])
