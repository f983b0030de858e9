"""A namespace that enforces the level `restricted` takes no Pod that may do more: 403, with what it may."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fake_cluster import FakeCluster
from stormdrill.cluster.api import Api
from stormdrill.cluster.confined import CONFINED, hardened

Json = dict[str, Any]


@pytest.fixture
def api() -> Iterator[Api]:
    with FakeCluster(world=False) as cluster:
        for name, labels in (("strict", {"pod-security.kubernetes.io/enforce": "restricted"}), ("lax", {})):
            cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        made = Api(cluster.admin)
        yield made
        made.close()


def spec() -> Json:
    container = {"name": "c", "image": "c:1", "securityContext": dict(CONFINED)}
    volumes: list[Json] = [{"name": "scratch", "emptyDir": {}}]
    return {"securityContext": hardened(), "containers": [container], "volumes": volumes}


def own(pod: Json) -> Json:
    found: Json = pod["containers"][0]["securityContext"]
    return found


MORE: dict[str, tuple[Callable[[Json], object], str]] = {
    "the node's network": (lambda pod: pod.update(hostNetwork=True), "host namespaces"),
    "the node's files": (lambda pod: pod["volumes"].append({"name": "n", "hostPath": {"path": "/"}}), "volume types"),
    "a port of the node": (
        lambda pod: pod["containers"][0].update(ports=[{"containerPort": 1, "hostPort": 1}]),
        "hostPort",
    ),
    "everything": (lambda pod: own(pod).update(privileged=True), "privileged"),
    "more than its parent": (lambda pod: own(pod).pop("allowPrivilegeEscalation"), "allowPrivilegeEscalation"),
    "what root may": (lambda pod: own(pod).pop("capabilities"), "unrestricted capabilities"),
    "one thing that root may": (lambda pod: own(pod)["capabilities"].update(add=["NET_ADMIN"]), "unrestricted cap"),
    "whatever its image says": (lambda pod: pod["securityContext"].pop("runAsNonRoot"), "runAsNonRoot"),
    "what nobody else may": (lambda pod: own(pod).update(runAsUser=0), "runAsUser=0"),
    "any system call": (lambda pod: pod["securityContext"].pop("seccompProfile"), "seccompProfile"),
    "to turn the node's knobs": (
        lambda pod: pod["securityContext"].update(sysctls=[{"name": "kernel.msgmax", "value": "1"}]),
        "forbidden sysctls",
    ),
    "more before it begins": (lambda pod: pod.update(initContainers=[{"name": "i", "image": "i:1"}]), 'container "i"'),
}


def sent(api: Api, namespace: str, pod: Json) -> tuple[int, str]:
    answer = api.call("POST", f"/api/v1/namespaces/{namespace}/pods", {"metadata": {"name": "one"}, "spec": pod})
    return answer.status, answer.said


def test_who_may_do_nothing_special_is_taken(api: Api) -> None:
    assert sent(api, "strict", spec()) == (201, "201")


@pytest.mark.parametrize("what", MORE)
def test_who_may_do_more_is_refused_there_by_name_and_taken_elsewhere(api: Api, what: str) -> None:
    change, said = MORE[what]
    pod = spec()
    pod["containers"][0]["securityContext"]["capabilities"] = {"drop": ["ALL"]}
    change(pod)
    status, told = sent(api, "strict", pod)
    assert status == 403
    assert 'violates PodSecurity "restricted:latest"' in told
    assert said in told
    assert sent(api, "lax", pod)[0] == 201
