"""What a stream to a pod takes: `get`, by which a websocket is asked for, and from Kubernetes 1.35 on `create`, too.
Whoever lacks one of them opens none, and is told so before anything is touched."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fake_cluster import FakeCluster
from stormdrill.cluster.api import Api
from stormdrill.cluster.exec import Exec, Refusal
from stormdrill.load.in_cluster_pods import needs as of_load
from stormdrill.model.permission import Need, to_stream
from stormdrill.model.undo import KubeEndExec
from stormdrill.targets.kubernetes.mechanism import needs_of_undo
from stormdrill.targets.kubernetes.preflight import not_allowed
from stormdrill.targets.kubernetes.rbac import manifests
from stormdrill.targets.kubernetes.reach import Reach
from stormdrill.targets.kubernetes.streams import forward

CONTAINER = {"name": "main", "image": "web:1"}
POD = {
    "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "shop"},
    "spec": {"containers": [CONTAINER]},
}  # fmt: skip


def execute(api: Api) -> None:
    assert Exec(api).run("shop", "web", "main", ["true"]).code == 0


def lead(api: Api) -> None:
    forward(api, "shop", "web", 8080, 5.0).close()


OPENS: dict[str, Callable[[Api], None]] = {"exec": execute, "portforward": lead}


def allowed(fake: FakeCluster, *needs: Need) -> Api:
    """As somebody who may do this and nothing else."""
    token = fake.account("stormdrill", "drill")
    if fake.read("/api/v1/namespaces/shop/pods/web") is None:
        fake.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}, POD])
        fake.settle()
    fake.apply(manifests(needs, name="drill", suite="stormdrill", account="drill", namespace=False))
    return Api(fake.access(token))


@pytest.mark.parametrize("what", OPENS)
@pytest.mark.parametrize("lacking", ["get", "create"])
def test_each_of_the_two_verbs_is_needed_and_the_one_that_lacks_is_named(
    lacking: str, what: str, fake: FakeCluster
) -> None:
    needs = to_stream(what, "shop")
    OPENS[what](allowed(fake, *needs))
    api = allowed(fake, *(need for need in needs if need.verb != lacking))
    with pytest.raises(Refusal, match="forbidden"):
        OPENS[what](api)
    (told,) = not_allowed(api, needs)
    assert f"may not {lacking} pods ({what}) in shop" in told.what


@pytest.mark.parametrize("what", OPENS)
def test_a_pod_may_be_named_in_both(what: str, fake: FakeCluster) -> None:
    OPENS[what](allowed(fake, *to_stream(what, "shop", "web")))
    with pytest.raises(Refusal, match="forbidden"):
        OPENS[what](allowed(fake, *to_stream(what, "shop", "another")))


@pytest.mark.parametrize("what", OPENS)
def test_a_server_of_before_asks_for_get_alone(what: str, fake: FakeCluster) -> None:
    fake.rights.streams_take_create = False
    OPENS[what](allowed(fake, Need("get", "", "pods", "shop", subresource=what)))


def test_whoever_opens_streams_asks_for_both() -> None:
    ending = KubeEndExec("", "shop", "web", "uid", "main", "tag")
    found = [*of_load("shop"), *Reach.needs("shop"), *needs_of_undo(ending)]
    verbs = {what: {need.verb for need in found if need.subresource == what} for what in OPENS}
    assert verbs == {what: {"get", "create"} for what in OPENS}
