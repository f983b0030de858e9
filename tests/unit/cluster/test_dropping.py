"""An admission that drops what a change is known by: refused in the dry run, else taken back at once."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

import cluster_rig as rig
from fake_cluster import FakeCluster
from stormdrill.cluster import changing, naming, objects
from stormdrill.cluster.api import Answer, Api
from stormdrill.cluster.asking import Until
from stormdrill.cluster.changes import Change, NotApplied
from stormdrill.errors import Refused

DROPPED = ("annotations", "labels", "ownerReferences")


class Dropping(Api):
    """Stands for a mutating admission: what is ours never comes to the server. `dry`: in dry runs, too."""

    def __init__(self, cluster: FakeCluster, what: str, *, dry: bool) -> None:
        super().__init__(cluster.admin)
        self.what, self.dry = what, dry

    def call(self, method: str, path: str, body: Any = None, **options: Any) -> Answer:
        if (self.dry or "dryRun" not in (options.get("query") or {})) and method in ("PATCH", "POST"):
            body = self._without(copy.deepcopy(body))
        return super().call(method, path, body, **options)

    def _without(self, body: Any) -> Any:
        if isinstance(body, list):
            ours = "/metadata/annotations/stormdrill.dev~1"
            return body if self.what != "annotations" else [op for op in body if not op["path"].startswith(ours)]
        kept = body["metadata"].pop(self.what, {})
        if isinstance(kept, dict):
            body["metadata"][self.what] = {name: v for name, v in kept.items() if not name.startswith("stormdrill")}
        return body


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster(world=False) as made:
        rig.small_world(made)
        yield made


def changes(cluster: FakeCluster) -> dict[str, Change]:
    return {name: change for name, each in rig.plan(cluster, "r1").items() for change in each}


def test_a_patch_of_a_status_whose_marker_is_dropped_is_never_begun(cluster: FakeCluster) -> None:
    """The marker is a patch of its own, before it."""
    name = "gpu-pool-outage/eu-gpu-1"
    change = changes(cluster)[name]
    with pytest.raises(NotApplied, match="takes the marker off"):
        changing.apply(Dropping(cluster, "annotations", dry=False), change, "r1", name, lambda: None)
    assert (cluster.read(rig.GPU_NODE) or {})["status"]["capacity"]["nvidia.com/gpu"] == "4"


@pytest.mark.parametrize("what", DROPPED)
def test_a_creation_that_loses_what_it_is_known_by_is_refused_and_removed(cluster: FakeCluster, what: str) -> None:
    change = changes(cluster)["segmentation/eu"]
    api = Dropping(cluster, what, dry=True)
    collection = f"/api/v1/namespaces/{rig.PLATFORM}/configmaps"
    objects.create(Api(cluster.admin), collection, objects.anchor("r1", rig.PLATFORM), Until(5.0))
    if what != "ownerReferences":  # there is no anchor yet when a dry run is made
        with pytest.raises(Refused, match=f"doesn't keep .*{what[:-1]} {naming.LABEL}"):
            changing.dry_run(api, change, "r1", "segmentation/eu")
    with pytest.raises(NotApplied, match="doesn't keep"):
        changing.apply(api, change, "r1", "segmentation/eu", lambda: None)
    assert cluster.read(rig.POLICY) is None


def test_what_is_kept_is_applied(cluster: FakeCluster) -> None:
    for name, change in changes(cluster).items():
        if name in ("region-loss/eu-cpu-1", "gpu-pool-outage/eu-gpu-1"):
            changing.apply(Api(cluster.admin), change, "r1", name, lambda: None)
