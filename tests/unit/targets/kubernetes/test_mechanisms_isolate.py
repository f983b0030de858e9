"""Who is cut off, by whose word it is believed, and what is tried of what policy forbids.

The fake cluster keeps policies and enforces none, as many a real one does; where a test needs one that does, the tries
are answered by whether the policy is there.
"""

from __future__ import annotations

import pytest

from kube_rig import SLEEPS, Kube, Rig, injection
from kube_scenes import PORT, runs, served
from stormdrill.errors import Unreachable
from stormdrill.model.mechanism import Isolate, Segment
from stormdrill.model.plan import Injection
from stormdrill.targets.kubernetes.mechanism import Object, at
from stormdrill.targets.kubernetes.mechanisms import isolate
from stormdrill.targets.kubernetes.mechanisms.policies import allowing_more, closed_to, confining, matches
from stormdrill.targets.kubernetes.mechanisms.within import Blind

WEB = {"app": "web"}


def policies(namespace: str) -> str:
    return f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies"


def policy(name: str, namespace: str = "", **spec: object) -> Object:
    whole = {"podSelector": {"matchLabels": WEB}, **spec}
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": whole}


def peer(**labels: str) -> Object:
    return {"podSelector": {"matchLabels": labels}}


def cut(kube: Kube) -> Injection:
    namespace, _ = served(kube)
    runs(kube, namespace, "feed", ("sleep", "600"))
    return injection("isolate", Isolate(namespace, WEB))


def worker(kube: Kube, namespace: str, name: str, **labels: str) -> str:
    """A Deployment whose one pod has these labels. Its path."""
    labels = {"app": "web", **labels}
    template = {"metadata": {"labels": labels}, "spec": kube.pod(SLEEPS)}
    whole = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    metadata = {"name": name, "namespace": namespace}
    path = kube.make({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": whole})
    kube.until(lambda: kube.ready(path) == 1, f"{path} never had a pod ready")
    return path


# Who is meant


def test_pods_of_others_with_all_of_its_labels_are_named_and_keep_it_off(kube: Kube, rig: Rig) -> None:
    namespace = kube.namespace()
    worker(kube, namespace, "web")
    one = injection("isolate", Isolate(namespace, WEB, workload="deployments/web"))
    word = rig.mechanisms["isolate"]
    assert "batch" not in word.refusal(one)
    worker(kube, namespace, "batch", track="batch")
    said = word.refusal(one)
    assert "batch-" in said
    assert "are no pods of deployments/web, and have all of its labels as well; give them labels" in said
    assert "web-" not in said.partition("are no pods")[0].replace("batch-", "")


def test_a_stranger_that_came_since_the_plan_is_not_cut_off_either(kube: Kube, rig: Rig) -> None:
    namespace = kube.namespace()
    worker(kube, namespace, "web")
    one = injection("isolate", Isolate(namespace, WEB, workload="deployments/web"))
    assert rig.mechanisms["isolate"].undo(one)
    metadata = {"name": "alone", "namespace": namespace, "labels": WEB}
    kube.make({"kind": "Pod", "metadata": metadata, "spec": kube.pod(SLEEPS)})
    with pytest.raises(Unreachable, match=r"alone are no pods of deployments/web.*nothing was changed"):
        rig.mechanisms["isolate"].undo(one)


# What policies say


@pytest.mark.parametrize(
    ("selector", "said"),
    [
        ({}, True),
        ({"matchLabels": {"app": "web"}}, True),
        ({"matchLabels": {"app": "feed"}}, False),
        ({"matchExpressions": [{"key": "app", "operator": "In", "values": ["web", "feed"]}]}, True),
        ({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}, False),
        ({"matchExpressions": [{"key": "tier", "operator": "Exists"}]}, False),
        ({"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}, True),
    ],
)
def test_a_selector_selects_as_the_cluster_does(selector: Object, said: bool) -> None:
    assert matches(selector, WEB) is said


@pytest.mark.parametrize(
    ("spec", "more"),
    [
        ({"ingress": []}, False),
        ({"ingress": [{}]}, True),
        ({"ingress": [{"from": [peer(app="gpu")]}]}, True),
        ({"ingress": [{"from": [peer(app="cpu")]}]}, False),
        ({"ingress": [{"from": [peer(app="cpu", region="eu")]}]}, False),
        ({"ingress": [{"from": [{"namespaceSelector": {}}]}]}, True),
        ({"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]}, True),
        ({"policyTypes": ["Egress"], "egress": [{"ports": [{"port": 53, "protocol": "UDP"}]}]}, False),
        ({"policyTypes": ["Egress"], "egress": [{"ports": [{"port": 53}, {"port": 443}]}]}, True),
        ({"podSelector": {"matchLabels": {"app": "feed"}}, "ingress": [{}]}, False),
    ],
)
def test_a_policy_allows_more_unless_it_can_be_shown_not_to(spec: Object, more: bool) -> None:
    assert allowing_more([policy("one", **spec)], [WEB], [{"app": "cpu"}]) == (["one"] if more else [])


def test_one_policy_that_lets_a_peer_in_is_enough() -> None:
    closed, open_ = policy("closed", ingress=[{"from": [peer(app="cpu")]}]), policy("open", ingress=[{}])
    assert closed_to([closed], [WEB], {"app": "x"}) == ["closed"]
    assert closed_to([closed, open_], [WEB], {"app": "x"}) == []
    assert closed_to([closed], [WEB], {"app": "cpu"}) == []
    assert confining([closed, open_], WEB) == []
    assert confining([closed], WEB) == ["closed"]


# Cut off


def test_pods_are_cut_off_from_all_but_each_other_and_may_look_names_up(kube: Kube, rig: Rig) -> None:
    namespace, _ = served(kube)
    one = injection("isolate", Isolate(namespace, WEB, ({"app": "web"}, {"app": "cpu"})))
    rig.harm(one)
    (made,) = kube.all(policies(namespace))
    spec = made["spec"]
    assert at(spec, "podSelector", "matchLabels") == WEB
    assert at(spec, "ingress") == [{"from": [peer(app="web"), peer(app="cpu")]}]
    assert at(spec, "egress", "0") == {"to": [peer(app="web"), peer(app="cpu")]}
    assert at(spec, "egress", "1", "ports", "0", "port") == 53
    rig.revert(one)
    rig.seen(one, lambda effect: effect.gone)
    assert kube.all(policies(namespace)) == []


def test_a_cluster_that_enforces_nothing_is_not_said_to_have_cut_anybody_off(kube: Kube, rig: Rig) -> None:
    one = cut(kube)
    rig.harm(one)
    seen = rig.seen(one, lambda effect: "open" in effect.detail)
    assert not seen.bit
    assert not seen.gone


def test_what_was_open_before_and_is_not_now_has_bitten_and_is_gone_when_it_is_open_again(
    kube: Kube, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = cut(kube)
    assert isinstance(one.how, Isolate)
    path = policies(one.how.namespace)
    late: list[str] = []
    monkeypatch.setattr(isolate, "reached", lambda *_: "silent" if kube.all(path) or late else "open")
    rig.harm(one)
    assert rig.seen(one, lambda effect: effect.bit).witness == "a connection from inside"
    late.append("it is enforced a moment longer than it is there")
    rig.revert(one)
    assert not rig.seen(one, lambda effect: "no policy of ours is left" in effect.detail).gone
    late.clear()
    rig.seen(one, lambda effect: effect.gone)


def test_pods_that_nobody_can_look_into_are_not_said_to_be_cut_off(
    kube: Kube, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def blind(*_: object) -> str:
        raise Blind("in web-1 there is no program that could look")

    monkeypatch.setattr(isolate, "reached", blind)
    one = cut(kube)
    rig.harm(one)
    seen = rig.mechanisms["isolate"].observe(one)
    assert (seen.bit, seen.gone, seen.witness) == (False, False, "nobody")
    assert "no program that could look" in seen.detail
    rig.revert(one)
    rig.seen(one, lambda effect: effect.gone)


def test_a_policy_that_allows_them_more_is_named_and_refused(kube: Kube, rig: Rig) -> None:
    one = cut(kube)
    assert isinstance(one.how, Isolate)
    kube.make(policy("to-users", one.how.namespace, ingress=[{}]))
    refused = rig.mechanisms["isolate"].refusal(one)
    assert "NetworkPolicy to-users allows them more" in refused


def test_labels_that_nobody_has_are_refused(kube: Kube, rig: Rig) -> None:
    one = injection("isolate", Isolate(kube.namespace(), {"app": "nobody"}))
    assert "choose some that are there" in rig.mechanisms["isolate"].refusal(one)


# What is tried


def tried(kube: Kube, to: str, allowed: str = "") -> Injection:
    namespace, _ = served(kube)
    runs(kube, namespace, "caller", ("sleep", "600"))
    address = at(kube.all(f"/api/v1/namespaces/{namespace}/pods", labelSelector="app=web")[0], "status", "podIP")
    return injection("segment", Segment(namespace, {"app": "caller"}, to.replace("POD", str(address)), allowed))


def test_what_gets_through_is_read_as_0_and_has_not_bitten(kube: Kube, rig: Rig) -> None:
    one = tried(kube, "web:80")
    rig.harm(one)
    seen = rig.seen(one, lambda effect: bool(effect.readings))
    assert (seen.bit, seen.gone) == (False, True)
    assert [(metric, value) for metric, _, value in seen.readings] == [("segmentation_blocked", 0.0)]
    assert "NOT blocked" in seen.detail


def test_what_is_blocked_has_bitten_when_something_else_was_reached(kube: Kube, rig: Rig) -> None:
    """A port that the pod doesn't listen on refuses as a policy may."""
    one = tried(kube, "POD:9", "web:80")
    rig.harm(one)
    seen = rig.seen(one, lambda effect: effect.bit)
    assert [value for _, _, value in seen.readings] == [1.0]


def test_a_try_shows_nothing_where_nothing_at_all_can_be_reached(kube: Kube, rig: Rig) -> None:
    one = tried(kube, "POD:9", f"192.0.2.1:{PORT}")
    rig.harm(one)
    seen = rig.seen(one, lambda effect: "can't be told" in effect.detail)
    assert (seen.bit, seen.readings) == (False, ())


@pytest.mark.parametrize(
    ("to", "said"), [("nowhere", "write HOST:PORT"), ("192.0.2.9:80", "nobody knows whether anything listens")]
)
def test_a_place_that_shows_nothing_is_refused(kube: Kube, rig: Rig, to: str, said: str) -> None:
    assert said in rig.mechanisms["segment"].refusal(tried(kube, to))
