"""A person applies a manifest while a fault is in force, as `kubectl apply` and what builds on it do.

After the revert there is what that manifest would have made without any fault, or what was there before it; never
anything of ours.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import pytest

import cluster_rig as rig
from cluster_rig import GATEWAY, NODE, PLATFORM, SERVICE, SUITE, WORKER
from fake_cluster import FakeCluster
from fake_cluster.patching import MERGE_KEYS
from kube_rig import injection
from stormdrill.cluster import naming
from stormdrill.cluster.api import JSON_PATCH, MERGE_PATCH, Api
from stormdrill.cluster.changes import Undone
from stormdrill.cluster.changing import apply
from stormdrill.cluster.undoing import undo
from stormdrill.model.mechanism import Capacity, How, Nodes, Rollout, Scale, Toxic
from stormdrill.model.system import ImagePolicy
from stormdrill.model.undo import KubePatch
from stormdrill.targets.kubernetes.mechanism import Applies, Changing
from stormdrill.targets.kubernetes.mechanisms.capacity import Withdrawing
from stormdrill.targets.kubernetes.mechanisms.nodes import LosingNodes
from stormdrill.targets.kubernetes.mechanisms.rollout import RollingOut
from stormdrill.targets.kubernetes.mechanisms.scale import Scaling
from stormdrill.targets.kubernetes.mechanisms.swap import Swapping

RUN = "r1"
LAST = "kubectl.kubernetes.io/last-applied-configuration"
STRATEGIC = "application/strategic-merge-patch+json"
Manifest = dict[str, Any]
SCALED = Scale("deployments/worker-eu", PLATFORM, 3)
RELEASED = Rollout("deployments/gateway-eu", PLATFORM, "", "platform:bad", {"LEAK": "1"}, ("sleep", "9"), unready=True)
SLOW = Toxic(("a>b",), "delay", delay_ms=20.0, service=f"{PLATFORM}/gateway-eu")
PLUGIN = f"/apis/apps/v1/namespaces/{PLATFORM}/daemonsets/plugin"
WITHDRAWN = Capacity(("eu-gpu-1",), "nvidia.com/gpu", f"{PLATFORM}/plugin")
LOST = Nodes(("eu-cpu-1",), "taint")


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with a_world() as made:
        yield made


def a_world() -> FakeCluster:
    """Nothing acts in it but who is asked."""
    made = FakeCluster(world=False).__enter__()
    rig.small_world(made)
    address = {"type": "ClusterIP", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"]}
    made.registry.change("services", PLATFORM, "gateway-eu", lambda service: service["spec"].update(address))
    labels = {"app": "plugin"}
    pod = {"containers": [{"name": "main", "image": "plugin:1"}], "nodeSelector": {"pool": "gpu"}}
    spec = {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}}
    metadata = {"name": "plugin", "namespace": PLATFORM}
    made.apply({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": metadata, "spec": spec})
    return made


class Clusters:
    run, suite = RUN, SUITE

    def __init__(self, api: Api) -> None:
        self._api = api

    def api(self, cluster: str) -> Api:
        return self._api

    def hold(self, cluster: str) -> Applies:
        raise NotImplementedError


def harm(cluster: FakeCluster, how: How) -> KubePatch:
    """Only the change of what was there before: what stands beside it belongs to nobody else."""
    api = Api(cluster.admin)
    clusters = Clusters(api)
    word: Changing
    if isinstance(how, Toxic):
        word = Swapping(clusters, ImagePolicy("stormdrill:test"))
    else:
        word = {Scale: Scaling, Rollout: RollingOut, Nodes: LosingNodes, Capacity: Withdrawing}[type(how)](clusters)  # type: ignore[abstract]
    one = injection("word", how)
    change = word.changes(one)[-1]
    assert isinstance(change.undo, KubePatch)
    apply(api, change, RUN, one.id, lambda: None)
    return change.undo


def manifest_of(cluster: FakeCluster, path: str) -> Manifest:
    there = cluster.read(path) or {}
    metadata = {key: there["metadata"][key] for key in ("name", "namespace", "labels") if key in there["metadata"]}
    spec = {key: deepcopy(value) for key, value in there["spec"].items() if key not in ("clusterIP", "clusterIPs")}
    return {"apiVersion": there["apiVersion"], "kind": there["kind"], "metadata": metadata, "spec": spec}


def kubectl_apply(cluster: FakeCluster, path: str, manifest: Manifest) -> None:
    """On the client's side: what the file says and is otherwise there, and what it said last time and says no more."""
    live = cluster.read(path) or {}
    last = json.loads(live["metadata"].get("annotations", {}).get(LAST, "{}"))
    patch = _differs(live, manifest) | {}
    _removed(patch, last, manifest)
    patch.setdefault("metadata", {}).setdefault("annotations", {})[LAST] = json.dumps(manifest)
    answer = Api(cluster.admin).call("PATCH", path, patch, content_type=STRATEGIC)
    assert answer.good, answer.said


def _differs(live: Any, wanted: Manifest) -> Manifest:
    found: Manifest = {}
    for key, value in wanted.items():
        held = live.get(key) if isinstance(live, dict) else None
        if isinstance(value, dict):
            if below := _differs(held, value):
                found[key] = below
            elif held is None:
                found[key] = value
        elif isinstance(value, list) and (by := MERGE_KEYS.get(key)):
            of = {item[by]: item for item in held or []}
            changed = [{**_differs(of.get(item[by]), item), by: item[by]} for item in value]
            if kept := [item for item in changed if len(item) > 1 or item[by] not in of]:
                found[key] = kept
        elif held != value:
            found[key] = value
    return found


def _removed(patch: Manifest, last: Manifest, wanted: Manifest) -> None:
    """Of maps alone: no manifest here takes an item out of a list."""
    for key, value in last.items():
        if key not in wanted:
            patch[key] = None
        elif isinstance(value, dict):
            below = patch.get(key, {})
            _removed(below, value, wanted[key])
            if below:
                patch[key] = below


def same(_: Manifest) -> None:
    pass


def more_replicas(manifest: Manifest) -> None:
    manifest["spec"]["replicas"] = 5


def replicas_left_to_others(manifest: Manifest) -> None:
    del manifest["spec"]["replicas"]


def next_image(manifest: Manifest) -> None:
    manifest["spec"]["template"]["spec"]["containers"][0]["image"] = "platform:next"


def with_env(manifest: Manifest) -> None:
    manifest["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": "MODE", "value": "x"}]


def elsewhere(manifest: Manifest) -> None:
    manifest["spec"]["template"]["spec"]["nodeSelector"] = {"pool": "other"}


def anywhere(manifest: Manifest) -> None:
    del manifest["spec"]["template"]["spec"]["nodeSelector"]


def key_added(manifest: Manifest) -> None:
    manifest["spec"]["selector"]["track"] = "stable"


def key_dropped(manifest: Manifest) -> None:
    del manifest["spec"]["selector"]["region"]


def others_chosen(manifest: Manifest) -> None:
    manifest["spec"]["selector"] = {"tier": "front"}


def tainted(manifest: Manifest) -> None:
    manifest["spec"]["taints"] = [{"key": "team", "value": "a", "effect": "PreferNoSchedule"}]


@pytest.mark.parametrize(
    ("how", "path", "change"),
    [
        (SLOW, SERVICE, same),
        (SLOW, SERVICE, key_added),
        (SLOW, SERVICE, key_dropped),
        (SLOW, SERVICE, others_chosen),
        (SCALED, WORKER, same),
        (SCALED, WORKER, more_replicas),
        (SCALED, WORKER, replicas_left_to_others),
        (SCALED, WORKER, next_image),
        (RELEASED, GATEWAY, same),
        (RELEASED, GATEWAY, next_image),
        (RELEASED, GATEWAY, with_env),
        (WITHDRAWN, PLUGIN, same),
        (WITHDRAWN, PLUGIN, next_image),
        (WITHDRAWN, PLUGIN, elsewhere),
        (WITHDRAWN, PLUGIN, anywhere),
        (LOST, NODE, same),
        (LOST, NODE, tainted),
    ],
)
def test_nothing_of_ours_outlives_the_revert(
    how: How, path: str, change: Callable[[Manifest], None], cluster: FakeCluster
) -> None:
    with a_world() as calm:
        expected = []
        for world in (calm, cluster):
            before = manifest_of(world, path)
            kubectl_apply(world, path, before)
            word = harm(cluster, how) if world is cluster else None
            wanted = deepcopy(before)
            change(wanted)
            kubectl_apply(world, path, wanted)
            if word is not None:
                assert undo(Api(world.admin), word).word in ("done", "superseded")
            expected.append(lasting(world, path))
    assert expected[1] == expected[0]
    assert not [name for name in annotations(cluster, path) if name.startswith(naming.PREFIX)]


def lasting(cluster: FakeCluster, path: str) -> Manifest:
    spec: Manifest = deepcopy((cluster.read(path) or {})["spec"])
    for of_this_world in ("clusterIP", "clusterIPs"):
        spec.pop(of_this_world, None)
    return spec


def annotations(cluster: FakeCluster, path: str) -> dict[str, str]:
    found: dict[str, str] = (cluster.read(path) or {})["metadata"].get("annotations", {})
    return found


def told(cluster: FakeCluster, word: KubePatch) -> Undone:
    return undo(Api(cluster.admin), word)


def test_a_selector_that_was_replaced_whole_is_somebody_elses(cluster: FakeCluster) -> None:
    """As by `kubectl replace` or an apply on the server's side, to which a selector is one value."""
    word = harm(cluster, SLOW)
    chosen = {"op": "replace", "path": "/spec/selector", "value": {"region": "eu"}}
    assert Api(cluster.admin).call("PATCH", SERVICE, [chosen], content_type=JSON_PATCH).good
    assert told(cluster, word).word == "superseded"
    assert lasting(cluster, SERVICE)["selector"] == {"region": "eu"}


def test_a_selector_that_leads_to_a_proxy_of_ours_is_led_back_without_the_marker_too(cluster: FakeCluster) -> None:
    before = lasting(cluster, SERVICE)
    word = harm(cluster, SLOW)
    body = {"metadata": {"annotations": {word.marker: None}}}
    assert Api(cluster.admin).call("PATCH", SERVICE, body, content_type=MERGE_PATCH).good
    assert told(cluster, word).word == "done"
    assert lasting(cluster, SERVICE) == before


def test_a_label_with_an_empty_value_is_put_back_as_such(cluster: FakeCluster) -> None:
    body = {"spec": {"selector": {"marked": ""}}}
    assert Api(cluster.admin).call("PATCH", SERVICE, body, content_type=MERGE_PATCH).good
    before = lasting(cluster, SERVICE)
    assert "marked" in before["selector"]
    assert told(cluster, harm(cluster, SLOW)).word == "done"
    assert lasting(cluster, SERVICE) == before
