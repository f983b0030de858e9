"""Where the tests themselves may stand on somebody's cluster, and that nothing of theirs stays there."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

import kube_ground
from fake_cluster import scenes
from kube_ground import NODE_LABEL, RESOURCE, SESSION_LABEL, stranger
from kube_rig import IMAGE, REAL, VARIABLE, Kube, a_cluster
from stormdrill.cluster import naming
from stormdrill.targets.kubernetes.mechanism import Object, at, texts
from stormdrill.targets.kubernetes.mechanisms.nodes import TAINT

pytestmark = pytest.mark.skipif(REAL, reason="it is about the tests")
DRILL = {NODE_LABEL: "allowed"}
GIVEN = {"node": "real"}


def node(name: str, kubelet: int = 10250, spec: Object | None = None, **labels: str) -> Object:
    made = scenes.node(name, "r1", **labels)
    made["status"]["daemonEndpoints"] = {"kubeletEndpoint": {"Port": kubelet}}
    return {**made, "spec": spec or {}}


SIMULATED = [node("fake-1", 0, type="fake"), node("fake-2", 0, type="fake", **DRILL)]
SHUT: Object = {"taints": [{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}]}


@pytest.mark.parametrize(
    ("real", "besides", "names"),
    [
        ([node("n1", **GIVEN), node("n2", **GIVEN)], {}, {"n1", "n2"}),
        ([node("n1", **GIVEN, **DRILL), node("n2", **GIVEN)], {}, {"n1"}),
        ([node("n1"), node("n2")], {}, {"n1"}),  # nothing that they share and the simulated ones have not
        ([node("n1", zone="a"), node("n2", zone="b")], {"zone": "b"}, {"n2"}),
        ([node("n1", **DRILL), node("n2", **GIVEN)], GIVEN, {"n2"}),
        ([node("n1", spec=SHUT), node("n2", spec={"unschedulable": True}), node("n3", **GIVEN)], {}, {"n3"}),
        ([node("n1", spec=SHUT)], {}, set()),
    ],
)
def test_pods_stand_where_it_was_allowed_else_on_nodes_with_a_kubelet(
    real: list[Object], besides: Mapping[str, str], names: set[str]
) -> None:
    every = [*SIMULATED, *real]
    place = kube_ground.standing(every, besides)
    fitting = {at(one, "metadata", "name") for one in every if place.items() <= kube_ground.labels_of(one).items()}
    assert (fitting if place else set()) == names


def pod(owner: str = "", namespace: str = "theirs", phase: str = "Running", **spec: object) -> Object:
    owners = [{"kind": owner}] if owner else []
    meta = {"name": "one", "namespace": namespace, "ownerReferences": owners}
    return {"metadata": meta, "spec": spec, "status": {"phase": phase}}


@pytest.mark.parametrize(
    ("there", "why"),
    [
        (pod("ReplicaSet"), "somebody else's"),
        (pod(), "somebody else's"),
        (pod("ReplicaSet", namespace="stormdrill-test-1"), ""),
        (pod("Node"), ""),
        (pod("Job", phase="Succeeded"), ""),
        (pod("DaemonSet", tolerations=[{"operator": "Exists"}]), ""),
        (pod("DaemonSet", tolerations=[{"operator": "Exists", "effect": "NoSchedule"}]), "doesn't tolerate NoExecute"),
        (pod("DaemonSet"), "doesn't tolerate NoExecute"),
    ],
)
def test_a_node_is_taken_only_where_nobody_elses_pod_would_go(there: Object, why: str) -> None:
    assert why in stranger(there)
    assert bool(why) == bool(stranger(there))


def test_a_node_with_a_daemonset_that_would_go_is_skipped_with_the_reason(kube: Kube) -> None:
    assert kube.fake is not None
    container = {"name": "main", "image": "agent:1"}
    template = {"metadata": {"labels": {"app": "agent"}}, "spec": {"containers": [container]}}
    spec = {"selector": {"matchLabels": {"app": "agent"}}, "template": template}
    kube.nodes()
    meta = {"name": "agent", "namespace": "default"}
    kube.fake.apply({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": meta, "spec": spec})
    kube.until(lambda: len(kube.unasked("pods", "default")) >= 4, "its pods never came")
    with pytest.raises(pytest.skip.Exception, match=r"test-1: default/agent-.* doesn't tolerate NoExecute"):
        kube.nodes()


def test_what_a_killed_session_left_is_removed_and_nobody_elses(kube: Kube) -> None:
    assert kube.fake is not None
    run, other = "test-0a1b2c3d", "drill-1"
    left = {name: naming.marker(name, "fault/one") for name in (run, other)}
    notes = {left[name]: json.dumps({"run": name, "injection": "fault/one"}) for name in left}
    taints = [{"key": TAINT, "value": run, "effect": "NoExecute"}, {"key": "theirs", "effect": "NoSchedule"}]
    taken = node("n1", spec={"taints": taints, "unschedulable": True}, **DRILL)
    taken["metadata"]["annotations"] = notes  # type: ignore[index]  # of scenes.node
    taken["status"]["capacity"][RESOURCE] = "4"  # type: ignore[index]
    kube.fake.apply(taken)
    for name, session in (("stormdrill-test-old", "killed"), ("stormdrill-test-now", kube_ground.SESSION)):
        kube.fake.apply(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {SESSION_LABEL: session}}}
        )
    told: list[str] = []
    kube_ground.clear(kube.api, told.append)
    assert told == ["removing stormdrill-test-old, which a session of tests left"]
    assert kube.read("/api/v1/namespaces/stormdrill-test-old") is None
    assert kube.read("/api/v1/namespaces/stormdrill-test-now") is not None
    found = kube.read("/api/v1/nodes/n1")
    assert list(texts(at(found, "metadata", "annotations"))) == [left[other]]
    assert [taint["key"] for taint in found["spec"]["taints"] if "stormdrill" in taint["key"]] == []  # type: ignore[index]
    assert at(found, "spec", "taints", "0", "key") == "theirs"
    assert not at(found, "spec", "unschedulable")
    assert RESOURCE not in kube_ground.texts_of(at(found, "status", "capacity"))


def test_every_clean_up_is_tried_and_the_namespaces_are_gone(kube: Kube) -> None:
    namespace, tried = kube.namespace(), list[str]()

    def fails() -> None:
        raise OSError("no answer")

    kube.deployment(namespace)
    with a_cluster() as other:
        kube.cleaning += [lambda: tried.append("first"), fails, lambda: tried.append("last")]
        own = other.namespace()
        with pytest.raises(AssertionError, match="no answer"):
            kube.close(waits=True)
        assert tried == ["last", "first"]
        assert other.read(f"/api/v1/namespaces/{own}") is not None
    kube.cleaning.clear()
    assert kube.read(f"/api/v1/namespaces/{namespace}") is None


def test_an_image_is_tried_before_anything_rests_on_it(kube: Kube) -> None:
    assert kube.fake is not None
    kube.fake.run_pods[kube.image] = []
    assert kube_ground.probed(kube) == ("", True)


def test_an_image_without_stormdrill_is_named_with_what_it_lacks(kube: Kube, monkeypatch: pytest.MonkeyPatch) -> None:
    assert kube.fake is not None
    kube.fake.run_pods[kube.image] = []
    monkeypatch.setattr(kube_ground, "PROBE", ("python3", "-c", "import stormdrill.nosuch"))
    lacks, starts = kube_ground.probed(kube)
    assert starts
    assert "is none of `make image`" in lacks


@pytest.mark.parametrize(("given", "missing"), [({}, VARIABLE), ({VARIABLE: __file__}, IMAGE)])
def test_make_test_cluster_says_what_is_to_be_set(repository: Path, given: dict[str, str], missing: str) -> None:
    environment = {key: value for key, value in os.environ.items() if key not in (VARIABLE, IMAGE)}
    command = ["make", "-o", ".venv/.installed-dev", "test-cluster"]
    done = subprocess.run(
        command, cwd=repository, env={**environment, **given}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert missing in done.stderr
    assert "pytest" not in done.stdout
