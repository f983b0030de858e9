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
from stormdrill.model.system import ImagePolicy
from stormdrill.targets.kubernetes.mechanism import Object, at
from stormdrill.targets.kubernetes.mechanisms import swap
from stormdrill.targets.kubernetes.mechanisms.swap import Swapping, listening, unfit

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


class Slow:
    """A clock that goes on with each look at a proxy that nobody has started yet; its kubelet says of it what it waits
    for, until it has it. From then on time stands still."""

    def __init__(self, kube: Kube, pulled_s: float, waits_for: str = swap.PULLS) -> None:
        assert kube.fake is not None
        assert kube.fake.behaviour is not None
        self._fake, self._loop = kube.fake, kube.fake.behaviour.loop
        self._pulled_s, self._waits_for = pulled_s, waits_for
        self.now_s = 0.0
        self._loop.pause(True)

    def __call__(self) -> float:
        if self.now_s < self._pulled_s:
            self.now_s += 5.0
            for pod in self._fake.objects("pods"):
                name, namespace = str(at(pod, "metadata", "name")), str(at(pod, "metadata", "namespace"))
                if name.startswith("web-proxy"):
                    self._fake.registry.change("pods", namespace, name, self._tell)
        else:
            self._loop.pause(False)
        return self.now_s

    def _tell(self, pod: Object) -> None:
        waiting = {"state": {"waiting": {"reason": self._waits_for}}, "name": "stormdrill"}
        pod["status"] = {"phase": "Pending", "containerStatuses": [waiting]}


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swap, "LOOK_EVERY_S", 0.01)


@pytest.mark.usefixtures("soon")
def test_the_time_in_which_its_image_is_pulled_is_not_the_proxys(kube: Kube, rig: Rig) -> None:
    one = delayed(called(kube))
    slow = Slow(kube, swap.READY_S + swap.PULL_S - 10.0)
    rig.mechanisms["delay"] = Swapping(rig, ImagePolicy(kube.image), slow)
    rig.harm(one)
    rig.seen(one, lambda effect: effect.bit)


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize(
    ("waits_for", "least_s", "most_s"),
    [
        ("ContainerCreating", swap.PULL_S, Swapping.inject_timeout_s),
        ("ImagePullBackOff", swap.READY_S, swap.PULL_S),
        ("CrashLoopBackOff", swap.READY_S, swap.PULL_S),
    ],
)
def test_it_has_an_end_of_its_own_and_nothing_else_is_waited_for_so_long(
    kube: Kube, rig: Rig, waits_for: str, least_s: float, most_s: float
) -> None:
    one = delayed(called(kube))
    slow = Slow(kube, 1000.0, waits_for)
    rig.mechanisms["delay"] = Swapping(rig, ImagePolicy(kube.image), slow)
    with pytest.raises(Unreachable, match=f"not ready in time: {waits_for}"):
        rig.harm(one)
    assert least_s <= slow.now_s <= most_s
    kube.fake.behaviour.loop.pause(False)  # it is the fake one


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
