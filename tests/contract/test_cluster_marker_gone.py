"""Somebody takes the marker away while the value is still the fault's: the account of who wrote a field tells, where
there is one, and only where it is plain."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import cluster_rig as rig
from cluster_rig import GPU_NODE, WORKER, patch_of, scaled
from fake_cluster import FakeCluster, scenes
from fake_cluster.registry import Admitted
from stormdrill.cluster import naming
from stormdrill.cluster.api import JSON_PATCH, MERGE_PATCH, Api
from stormdrill.cluster.changes import NotApplied
from stormdrill.cluster.changing import apply, dry_run
from stormdrill.cluster.owning import is_sole
from stormdrill.cluster.undoing import undo
from stormdrill.errors import Refused, Unreachable
from stormdrill.model.undo import Element, KubePatch

SET = "/apis/apps/v1/namespaces/platform/deployments"
RELEASE = f"{SET}/release-eu"
IMAGE = ("spec", "template", "spec", "containers", "[name=release]", "image")


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    """Nothing acts in it but who is asked."""
    with FakeCluster(world=False) as made:
        rig.small_world(made)
        made_by_hand = scenes.deployment("release", "eu", 3, "cpu")
        query = {"fieldManager": "kubectl-create"}
        assert Api(made.admin).call("POST", SET, made_by_hand, query=query).good
        yield made


def read(cluster: FakeCluster, path: str) -> dict[str, Any]:
    found = cluster.read(path)
    assert found is not None, path
    return found


def harmed(cluster: FakeCluster, path: str, *elements: Element) -> KubePatch:
    change = patch_of(read(cluster, path), path, "r1", "a", *elements)
    apply(Api(cluster.admin), change, "r1", "a", lambda: None)
    assert isinstance(change.undo, KubePatch)
    return change.undo


def rollout_undone(cluster: FakeCluster, path: str) -> None:
    """What kubectl sends for `rollout undo`: template and all annotations as they were in an earlier release."""
    template = read(cluster, path)["spec"]["template"]
    template["spec"]["containers"][0]["image"] = "platform:0"
    sent = [
        {"op": "replace", "path": "/spec/template", "value": template},
        {"op": "replace", "path": "/metadata/annotations", "value": {}},
    ]
    query = {"fieldManager": "kubectl-rollout"}
    assert Api(cluster.admin).call("PATCH", path, sent, content_type=JSON_PATCH, query=query).good


def test_replicas_that_the_fault_wrote_are_put_back_after_a_rollout_undo(cluster: FakeCluster) -> None:
    word = harmed(cluster, RELEASE, scaled(0, 3))
    rollout_undone(cluster, RELEASE)
    undone = undo(Api(cluster.admin), word)
    assert undone.word == "done", undone.detail
    spec = read(cluster, RELEASE)["spec"]
    assert spec["replicas"] == 3
    assert spec["template"]["spec"]["containers"][0]["image"] == "platform:0"


def test_what_a_rollout_undo_set_is_left_as_it_is(cluster: FakeCluster) -> None:
    word = harmed(cluster, RELEASE, Element(IMAGE, '"platform:bad"', '"platform:1"'), scaled(0, 3))
    rollout_undone(cluster, RELEASE)
    undone = undo(Api(cluster.admin), word)
    assert undone.word == "superseded"
    spec = read(cluster, RELEASE)["spec"]
    assert spec["replicas"] == 3
    assert spec["template"]["spec"]["containers"][0]["image"] == "platform:0"


def test_where_nobody_keeps_account_it_stays_to_be_told(cluster: FakeCluster) -> None:
    word = harmed(cluster, WORKER, scaled(0, 3))
    rollout_undone(cluster, WORKER)
    assert "managedFields" not in read(cluster, WORKER)["metadata"]
    undone = undo(Api(cluster.admin), word)
    assert undone.word == "failed"
    assert "somebody took the marker away" in undone.detail


def test_what_somebody_wrote_to_the_same_value_since_is_not_taken_for_the_faults(cluster: FakeCluster) -> None:
    word = harmed(cluster, RELEASE, scaled(0, 3))
    api = Api(cluster.admin)
    for replicas in (2, 0):
        query = {"fieldManager": "kubectl-scale"}
        body = {"spec": {"replicas": replicas}, "metadata": {"annotations": {word.marker: None}}}
        assert api.call("PATCH", RELEASE, body, content_type=MERGE_PATCH, query=query).good
    undone = undo(api, word)
    assert undone.word == "failed"
    assert read(cluster, RELEASE)["spec"]["replicas"] == 0


def stripping(cluster: FakeCluster) -> None:
    """As a webhook does that takes away annotations which it doesn't know."""

    def strip(asked: Admitted) -> None:
        held = (asked.obj or {}).get("metadata", {}).get("annotations", {})
        for name in [name for name in held if name.startswith(naming.PREFIX)]:
            del held[name]

    cluster.registry.admission(strip)


def test_where_no_marker_would_stay_nothing_is_harmed(cluster: FakeCluster) -> None:
    stripping(cluster)
    api = Api(cluster.admin)
    gone = Element(("status", "allocatable", "nvidia.com/gpu"), '"0"', '"4"')
    for change in (
        patch_of(read(cluster, WORKER), WORKER, "r1", "a", scaled(0, 3)),
        patch_of(read(cluster, GPU_NODE), GPU_NODE, "r1", "a", gone, status=True),
    ):
        with pytest.raises(Refused, match="the server takes the marker off"):
            dry_run(api, change, "r1", "a")
    assert read(cluster, WORKER)["spec"]["replicas"] == 3


def test_a_marker_that_was_taken_off_in_spite_of_that_is_no_success(cluster: FakeCluster) -> None:
    stripping(cluster)
    api = Api(cluster.admin)
    change = patch_of(read(cluster, RELEASE), RELEASE, "r1", "a", scaled(0, 3))
    with pytest.raises(Unreachable, match="the server takes the marker off") as told:
        apply(api, change, "r1", "a", lambda: None)
    assert not isinstance(told.value, NotApplied), "it was made"
    assert undo(api, change.undo).word == "done"
    assert read(cluster, RELEASE)["spec"]["replicas"] == 3


OURS = naming.manager(naming.marker("r1", "a"))
IN_CONTAINER = {"f:spec": {"f:template": {"f:spec": {"f:containers": {'k:{"name":"web"}': {"f:image": {}}}}}}}


@pytest.mark.parametrize(
    ("owned", "path", "holds"),
    [
        ([(OURS, {"f:spec": {"f:replicas": {}}})], ("spec", "replicas"), True),
        ([(OURS, {"f:spec": {"f:paused": {}}})], ("spec", "replicas"), False),
        (
            [(OURS, {"f:spec": {"f:replicas": {}}}), ("hpa", {"f:spec": {"f:replicas": {}}})],
            ("spec", "replicas"),
            False,
        ),
        ([("hpa", {"f:spec": {"f:replicas": {}}})], ("spec", "replicas"), False),
        ([(OURS, IN_CONTAINER)], ("spec", "template", "spec", "containers", "[name=web]", "image"), True),
        ([(OURS, IN_CONTAINER)], ("spec", "template", "spec", "containers", "[name=other]", "image"), False),
        ([(OURS, {"f:spec": {"f:selector": {}}})], ("spec", "selector", "app"), True),
        ([], ("spec", "replicas"), False),
    ],
)
def test_whose_a_field_is_is_read_as_the_server_writes_it(
    owned: list[tuple[str, object]], path: tuple[str, ...], holds: bool
) -> None:
    entries = [{"manager": name, "operation": "Update", "fieldsV1": fields} for name, fields in owned]
    assert is_sole({"metadata": {"managedFields": entries}}, OURS, path) is holds
