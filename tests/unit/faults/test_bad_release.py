"""bad-release: whose template is changed, and how, as data; declared releases; what other targets say."""

from __future__ import annotations

import pytest
from msgspec import NODEFAULT
from msgspec.structs import fields, replace

from fault_world import SYSTEM, planned, world_of
from stormdrill.errors import Refused
from stormdrill.faults.builtin import BUILTIN
from stormdrill.model.experiment import FaultUse
from stormdrill.model.mechanism import Rollout
from stormdrill.model.plan import Injection
from stormdrill.model.system import KubernetesRelease, KubernetesSpec
from stormdrill.ports import Workload, World

LEAKY = KubernetesRelease("leaky", "cpu", image="shop/cpu:leaky", env={"LEAK": "4"})
ON_A_CLUSTER = replace(SYSTEM, target="kubernetes", kubernetes=KubernetesSpec(namespace="shop", releases=(LEAKY,)))


def workload(*instances: str) -> Workload:
    return Workload(f"deployments/{instances[0]}", "shop", instances, len(instances), ("app", "sidecar"), {})


CLUSTER = World(
    ON_A_CLUSTER,
    world_of(ON_A_CLUSTER).instances,
    workloads=(
        workload("gateway-eu"),
        workload("gateway-us"),
        workload("cpu-eu", "cpu-us"),
        workload("gpu-eu"),
    ),
)


def use(word: str = "bad-release", **parameters: str) -> FaultUse:
    known = fields(BUILTIN[word].parameters)
    defaults = {item.encode_name: item.default for item in known if item.default is not NODEFAULT}
    return FaultUse(word, {**defaults, **parameters})  # type: ignore[dict-item]


def hit(world: World = CLUSTER, word: str = "bad-release", **parameters: str) -> tuple[Injection, ...]:
    return BUILTIN[word].plan(use(word, **parameters), 0, world, 30.0)


def how(found: tuple[Injection, ...]) -> list[Rollout]:
    return [item.how for item in found if isinstance(item.how, Rollout)]


def test_each_workload_of_those_who_are_chosen_gets_it_once_with_all_of_its_pods() -> None:
    found = hit(mode="image", service="cpu")
    (one,) = how(found)
    assert (one.workload, one.namespace, one.container) == ("deployments/cpu-eu", "shop", "app")
    assert one.reaches == ("cpu-eu", "cpu-us")
    assert [(item.id, item.instance, item.undo) for item in found] == [
        ("bad-release/cpu-eu", "cpu-eu", "put the template back")
    ]
    assert {one.workload for one in how(hit(mode="image", service="gateway"))} == {
        "deployments/gateway-eu",
        "deployments/gateway-us",
    }


@pytest.mark.parametrize("mode", ["image", "crash", "unready"])
def test_what_never_works_is_said_to_be_so_and_is_ours_by_name(mode: str) -> None:
    (one,) = how(hit(mode=mode, instance="gateway-eu"))
    assert one.broken
    assert [one.image, bool(one.command), one.unready].count("") == (mode != "image")
    if mode == "image":
        assert one.image == "stormdrill.invalid/bad:$run", "no registry has the name, and it says whose it is"


def test_a_declared_release_goes_where_its_service_runs() -> None:
    (one,) = how(hit(mode="release", release="leaky"))
    assert (one.image, one.env, one.broken) == ("shop/cpu:leaky", {"LEAK": "4"}, False)
    assert one.reaches == ("cpu-eu", "cpu-us")


def test_a_leak_is_rolled_out_like_any_release_where_the_cluster_declares_it() -> None:
    assert how(hit(word="memory-leak", mode="release", release="leaky")) == how(hit(mode="release", release="leaky"))


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"mode": "image"}, "names nobody; write instance, service"),
        ({"mode": "image", "service": "gateway", "release": "leaky"}, "leave one out"),
        ({"mode": "release"}, r"no release is named \(nothing\); declared here: leaky"),
        ({"mode": "release", "release": "leaky", "service": "gateway"}, "choose instances of cpu"),
        ({"mode": "crash", "instance": "feed"}, "feed are of no Deployment"),
    ],
)
def test_what_can_not_be_meant_is_refused(parameters: dict[str, str], said: str) -> None:
    with pytest.raises(Refused, match=said):
        hit(**parameters)


@pytest.mark.parametrize("parameters", [{"mode": "crash", "service": "cpu"}, {"mode": "release", "release": "leaky"}])
def test_other_targets_refuse_it_and_say_where_it_is_done(parameters: dict[str, str]) -> None:
    """Which is no matter of the file: that is valid, and names what the cluster's section declares."""
    assert hit(world_of(), **parameters)
    with pytest.raises(Refused, match=r"nothing here has a template .*; use --target kubernetes"):
        planned(use(**parameters))
