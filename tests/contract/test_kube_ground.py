"""Where the tests themselves may stand on somebody's cluster, and that nothing of theirs stays there."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

import kube_ground
from fake_cluster import FakeCluster, scenes
from kube_ground import NODE_LABEL, RESOURCE, SESSION_LABEL, stranger
from kube_held import strictly
from kube_rig import IMAGE, REAL, VARIABLE, Kube, Rig, a_cluster, injection
from stormdrill.cluster import naming
from stormdrill.cluster.api import Api
from stormdrill.model.undo import KubeDelete
from stormdrill.targets.kubernetes.mechanism import Object, at, texts
from stormdrill.targets.kubernetes.mechanisms.nodes import CORDONED, TAINT

pytestmark = pytest.mark.skipif(REAL, reason="it is about the tests")
DRILL = {NODE_LABEL: "allowed"}
GIVEN = {"node": "real"}
WINDOWS = {"kubernetes.io/os": "windows"}


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
        ([node("n1", **WINDOWS), node("n2", **GIVEN)], {}, {"n2"}),
        ([node("n1", **WINDOWS)], {}, set()),
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


@pytest.mark.parametrize("empties", ["evict", "delete"])
def test_whoever_ends_pods_one_by_one_leaves_those_of_daemonsets(empties: str) -> None:
    assert stranger(pod("DaemonSet"), empties) == ""
    assert "somebody else's" in stranger(pod("ReplicaSet"), empties)


def agents(kube: Kube) -> None:
    """Pods of somebody's DaemonSet, which would go where a node is tainted."""
    assert kube.fake is not None
    container = {"name": "main", "image": "agent:1"}
    template = {"metadata": {"labels": {"app": "agent"}}, "spec": {"containers": [container]}}
    spec = {"selector": {"matchLabels": {"app": "agent"}}, "template": template}
    kube.nodes()
    meta = {"name": "agent", "namespace": "default"}
    kube.fake.apply({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": meta, "spec": spec})
    kube.until(lambda: len(kube.unasked("pods", "default")) >= 4, "its pods never came")


def test_a_node_with_a_daemonset_that_would_go_is_skipped_with_the_reason(kube: Kube) -> None:
    agents(kube)
    with pytest.raises(pytest.skip.Exception, match=r"test-1: default/agent-.* doesn't tolerate NoExecute"):
        kube.nodes()


def taken(kube: Kube, empties: str) -> list[str]:
    """None may be left out here."""
    try:
        return kube.nodes(empties=empties)
    except pytest.skip.Exception as skipped:
        raise AssertionError(str(skipped)) from None


@pytest.mark.parametrize("empties", ["evict", "delete", "nobody"])
def test_and_taken_where_it_would_not_go(kube: Kube, empties: str) -> None:
    agents(kube)
    assert taken(kube, empties) == ["test-1"]


def test_where_nobody_goes_a_node_is_taken_whoever_runs_there_and_however_it_stands(kube: Kube) -> None:
    (name,) = kube.nodes()
    kube.deployment("default", replicas=1, node=name)
    kube.patch(f"/api/v1/nodes/{name}", {"spec": {"unschedulable": True}})
    assert taken(kube, "nobody") == [name]


def test_a_node_that_was_given_back_is_waited_for(kube: Kube) -> None:
    assert kube.fake is not None
    assert kube.fake.behaviour is not None
    loop = kube.fake.behaviour.loop
    (name,) = kube.nodes()
    path = f"/api/v1/nodes/{name}"
    kube.patch(path, {"spec": {"unschedulable": True}})
    kube.until(lambda: at(kube.read(path), "spec", "taints", "0", "key") == CORDONED, "it was never tainted")
    loop.pause(True)
    kube.patch(path, {"spec": {"unschedulable": None}})
    assert kube_ground.opens(kube.read(path) or {})
    later = threading.Timer(0.3, loop.pause, (False,))
    later.start()
    assert taken(kube, "taint") == [name]
    later.join()


def test_one_that_somebody_keeps_shut_is_skipped_at_once(kube: Kube, monkeypatch: pytest.MonkeyPatch) -> None:
    (name,) = kube.nodes()
    kube.patch(f"/api/v1/nodes/{name}", {"spec": {"unschedulable": True}})
    monkeypatch.setattr(kube, "until", lambda holds, why: holds() or pytest.fail(why))
    with pytest.raises(pytest.skip.Exception, match=r"test-1: it takes no pods now"):
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


def role(namespace: str, name: str = "stormdrill-test-1") -> Object:
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]
    meta: Object = {"name": name, **({"namespace": namespace} if namespace else {})}
    kind = "Role" if namespace else "ClusterRole"
    return {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": meta, "rules": rules}


def roles(kube: Kube) -> set[tuple[str, str]]:
    """Of the tests, by namespace."""
    found = [*kube.all(f"{kube_ground.RBAC}/roles"), *kube.all(f"{kube_ground.RBAC}/clusterroles")]
    named = {(str(at(one, "metadata", "namespace") or ""), str(at(one, "metadata", "name"))) for one in found}
    return {one for one in named if one[1].startswith("stormdrill-test-")}


@pytest.fixture
def fake(kube: Kube) -> FakeCluster:
    assert kube.fake is not None
    return kube.fake


def test_no_rule_of_the_tests_stays_in_anybodys_namespace(kube: Kube, fake: FakeCluster) -> None:
    fake.apply(scenes.namespace("platform"))
    with contextlib.closing(Kube(Api(fake.admin), fake, kube.image)) as other:
        strictly(other, [role("platform"), role(other.namespace()), role("")])
        assert len(roles(kube)) == 3
    assert roles(kube) == set()


def test_nor_one_that_a_killed_session_left_there(kube: Kube, fake: FakeCluster) -> None:
    fake.apply(scenes.namespace("platform"))
    strictly(kube, [role("platform", "stormdrill-test-now")])
    for name, labels in (("killed", {SESSION_LABEL: "killed"}), ("theirs", {})):
        for made in (role("platform", f"stormdrill-test-{name}"), role("", f"stormdrill-test-{name}")):
            fake.apply({**made, "metadata": {**made["metadata"], "labels": labels}})  # type: ignore[dict-item]  # a map
    kube_ground.clear(kube.api)
    assert {name for _, name in roles(kube)} == {"stormdrill-test-now", "stormdrill-test-theirs"}


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


def test_the_tests_pods_stand_where_only_the_harmless_may(kube: Kube) -> None:
    namespace = kube.namespace()
    kube.deployment(namespace)
    bare: Object = {"metadata": {"name": "bare"}, "spec": {"containers": [{"name": "main", "image": kube.image}]}}
    answer = kube.api.call("POST", f"/api/v1/namespaces/{namespace}/pods", bare)
    assert answer.status == 403
    assert 'violates PodSecurity "restricted' in answer.said


def test_an_undo_that_takes_long_is_tried_again(kube: Kube) -> None:
    """As of a pod whose kubelet is slow to end it."""
    assert kube.fake is not None
    rig, namespace = Rig(kube), kube.namespace()
    meta = {"name": "slow", "namespace": namespace, "labels": {naming.LABEL: rig.run}, "finalizers": ["example/slow"]}
    path = kube.make({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta})
    one = injection("quota", None)
    rig.words[one.id] = (KubeDelete("", path, rig.run, 0.1),)
    free = threading.Timer(0.5, kube.patch, (path, {"metadata": {"finalizers": None}}))
    free.start()
    assert {undone.word for undone in rig.revert(one)} <= {"done", "superseded"}
    assert kube.read(path) is None
    free.join()


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
