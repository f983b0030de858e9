"""A Service that is led through a proxy: which can be, when it happens, and what a person changes meanwhile."""

from __future__ import annotations

import json
import urllib.request

import pytest
from msgspec.structs import replace

from kube_rig import Kube, Rig, injection
from kube_scenes import PORT, called, served
from stormdrill.errors import Unreachable
from stormdrill.model.mechanism import Toxic
from stormdrill.model.plan import Injection
from stormdrill.targets.kubernetes.mechanism import Object, at
from stormdrill.targets.kubernetes.mechanisms.swap import listening, unfit

GOOD: Object = {"type": "ClusterIP", "clusterIP": "10.0.0.1", "selector": {"app": "web"}, "ports": [{"port": 80}]}


def delayed(service: str) -> Injection:
    return injection("delay", Toxic(("caller-1>web-1",), "delay", delay_ms=20.0, service=service))


def asked(kube: Kube, service: str) -> Object:
    """As any caller of the Service is answered."""
    address = at(kube.read(path_of(service)), "spec", "clusterIP")
    with urllib.request.urlopen(f"http://{address}/", timeout=5) as answer:
        found: Object = json.load(answer)
        return found


def path_of(service: str) -> str:
    namespace, _, name = service.partition("/")
    return f"/api/v1/namespaces/{namespace}/services/{name}"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, ""),
        ({"type": "NodePort"}, ""),
        ({"type": "ExternalName", "clusterIP": None}, "outside the cluster"),
        ({"clusterIP": "None"}, "headless"),
        ({"selector": {}}, "no selector"),
        ({"selector": {"stormdrill": "run-1"}}, "leads to a fault proxy already"),
        ({"ports": [{"port": 80}, {"port": 53, "protocol": "UDP"}]}, "ports for UDP"),
        ({"sessionAffinity": "ClientIP"}, "sessionAffinity"),
        ({"externalTrafficPolicy": "Local"}, "externalTrafficPolicy: Local"),
        ({"internalTrafficPolicy": "Local"}, "internalTrafficPolicy: Local"),
    ],
)
def test_a_service_that_no_proxy_can_stand_for_is_refused_with_a_way_out(change: Object, said: str) -> None:
    found = unfit({"spec": {**GOOD, **change}})
    assert said in found
    assert bool(found) == bool(said)
    assert not found or ";" in found


def test_ports_are_listened_on_by_number_and_those_with_a_name_where_nobody_else_is() -> None:
    ports = [
        {"port": 80, "targetPort": "http"},
        {"port": 81, "targetPort": 20_000},
        {"port": 82},
        {"port": 83, "targetPort": 82},
    ]
    assert listening({"spec": {"ports": ports}}) == {"http": (20_001, True), 20_000: (20_000, False), 82: (82, False)}


def test_callers_are_served_through_the_proxy_and_after_it_as_before(kube: Kube, rig: Rig) -> None:
    service = called(kube)
    before = asked(kube, service)
    one = delayed(service)
    rig.harm(one)
    rig.seen(one, lambda effect: effect.bit)
    assert asked(kube, service) == before
    rig.revert(one)
    assert asked(kube, service) == before


def test_no_selector_is_swapped_while_the_proxy_is_not_there(kube: Kube, rig: Rig) -> None:
    service = called(kube)
    selector = at(kube.read(path_of(service)), "spec", "selector")
    image = kube.image
    kube.image = "stormdrill.invalid/none:1"  # which no registry has
    rig = Rig(kube)
    kube.image = image
    one = injection("stall", Toxic(("caller-1>web-1",), "stall", service=service))
    one = replace(one, inject_timeout_s=1.0)
    rig.arm(one)
    before = kube.snapshot()
    with pytest.raises(Unreachable, match=r"not ready in time: ImagePullBackOff"):
        rig.mechanisms["stall"].apply(one)
    assert at(kube.read(path_of(service)), "spec", "selector") == selector
    assert not rig.mechanisms["stall"].observe(one).bit
    rig.revert(one)
    rig.seen(one, lambda effect: effect.gone)
    kube.until(lambda: kube.snapshot() == before, "something is left")


def test_a_selector_that_a_person_sets_meanwhile_stays_theirs(kube: Kube, rig: Rig) -> None:
    service = called(kube)
    one = delayed(service)
    rig.harm(one)
    rig.seen(one, lambda effect: effect.bit)
    ours = at(kube.read(path_of(service)), "spec", "selector")
    assert isinstance(ours, dict)
    theirs = {**dict.fromkeys(ours), "app": "another"}
    kube.patch(path_of(service), {"spec": {"selector": theirs}})
    rig.revert(one)
    rig.seen(one, lambda effect: effect.gone)
    assert at(kube.read(path_of(service)), "spec", "selector") == {"app": "another"}


ONLY_CALLERS = {"from": [{"podSelector": {"matchLabels": {"app": "caller"}}}]}


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        (
            {"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [ONLY_CALLERS]},
            "keep a proxy's connections from",
        ),
        ({"podSelector": {}, "ingress": [{}], "policyTypes": ["Ingress", "Egress"]}, "would confine the proxy"),
    ],
)
def test_a_policy_that_would_keep_the_proxy_out_is_named(kube: Kube, rig: Rig, policy: Object, said: str) -> None:
    service = called(kube)
    metadata = {"name": "closed", "namespace": service.partition("/")[0]}
    kube.make({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": policy})
    refused = rig.mechanisms["delay"].refusal(delayed(service))
    assert "NetworkPolicy closed" in refused
    assert said in refused


def test_what_is_no_service_is_refused(kube: Kube, rig: Rig) -> None:
    namespace, _ = served(kube)
    assert "there is no Service" in rig.mechanisms["delay"].refusal(delayed(f"{namespace}/nobody"))
    assert "needs one" in rig.mechanisms["delay"].refusal(delayed(""))


def test_the_proxy_runs_as_nobody_and_asks_for_little(kube: Kube, rig: Rig) -> None:
    service = called(kube)
    rig.arm(delayed(service))
    _, made, _ = rig.mechanisms["delay"].changes(delayed(service))  # type: ignore[attr-defined]  # of `Changing`
    pod = json.loads(made.body)
    assert at(pod, "spec", "securityContext", "runAsNonRoot") is True
    assert at(pod, "spec", "automountServiceAccountToken") is False
    (container,) = pod["spec"]["containers"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["ports"] == [{"containerPort": PORT, "protocol": "TCP"}]
    assert json.loads(next(one["value"] for one in container["env"] if one["name"] == "STORMDRILL_PROXY"))["toxics"]
