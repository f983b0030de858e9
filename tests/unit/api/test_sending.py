"""Where a load is sent from, and what that takes: decided before anybody is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from stormdrill.api.sending import PORT_FORWARD, harmed, needs, sending, sent_in
from stormdrill.cluster.api import Answer
from stormdrill.errors import Refused
from stormdrill.load.in_cluster_pods import needs as needs_of_load
from stormdrill.model.experiment import LoadUse
from stormdrill.model.mechanism import Beside, Capacity, Nodes
from stormdrill.model.plan import Plan
from stormdrill.model.system import ImagePolicy, KubernetesSpec
from synthetic_run import Knobs, make_plan

SPEC = KubernetesSpec("shop", image=ImagePolicy("stormdrill:1", "Never"), load_workers=3)


def plan(spec: KubernetesSpec = SPEC, **load: Any) -> Plan:
    made = make_plan(Knobs())
    use = LoadUse("peak", 60.0, **load)
    return msgspec.structs.replace(
        made,
        target="kubernetes",
        system=msgspec.structs.replace(made.system, kubernetes=spec),
        experiment=msgspec.structs.replace(made.experiment, load=use),
    )


class Target:
    """A cluster with one ledger."""

    def __init__(self, *entries: str) -> None:
        self.entries = entries
        self.asked: list[str] = []

    def entered(self) -> tuple[str, ...]:
        return self.entries

    def api(self, cluster: str) -> Any:
        return self

    def unfit(self, cluster: str) -> tuple[str, ...]:
        return ("pretends",)

    def call(self, method: str, path: str) -> Answer:
        self.asked.append(f"{method} {path}")
        return Answer(200, {}, b'{"metadata": {"uid": "u1"}}')


def here() -> tuple[str, ...]:
    return ("http://127.0.0.1:1",)


def test_on_a_cluster_it_is_sent_from_pods_that_go_with_the_runs_ledger() -> None:
    target = Target("http://10.0.0.1:80")
    sent = sending(plan(), target, here, Path("runs/20260101T000000Z-shop-1"))
    assert (sent.entries, sent.through) == (("http://10.0.0.1:80",), "")
    assert sent.inside is not None
    place = sent.inside.place
    assert (place.namespace, place.image, place.pull) == ("stormdrill", "stormdrill:1", "Never")
    assert place.owner is not None
    assert (place.owner.name, place.owner.uid) == ("stormdrill-20260101t000000z-shop-1", "u1")
    assert place.run == "20260101T000000Z-shop-1"
    assert place.avoid == ("pretends",)
    assert sent.inside.least_workers == 3


def test_from_here_it_is_led_through_the_api_server_and_says_so() -> None:
    target = Target()
    sent = sending(plan(here=True), target, here, Path("run"))
    assert (sent.entries, sent.inside, sent.through) == (here(), None, PORT_FORWARD)
    assert target.asked == []


def test_on_this_machine_it_is_sent_from_this_machine() -> None:
    made = msgspec.structs.replace(plan(), target="process")
    assert sending(made, Target(), here, Path("run")) == (here(), None, "")


def test_a_system_without_a_service_to_enter_by_is_refused_with_what_to_make() -> None:
    with pytest.raises(Refused, match=r"no Service in namespace shop leads to .* make one that selects its pods"):
        sending(plan(), Target(), here, Path("run"))


def test_what_it_takes_is_asked_for_where_it_is_sent_and_nowhere_else() -> None:
    made = plan()
    taken = needs(made.system, made.experiment.load)("")
    assert set(needs_of_load("stormdrill")) <= set(taken)
    assert {(need.verb, need.resource, need.namespace) for need in set(taken) - set(needs_of_load("stormdrill"))} == {
        ("list", "services", "shop")
    }
    assert needs(made.system, LoadUse("peak", 60.0, here=True))("") == ()
    assert needs(made.system, None)("") == ()
    one = plan(msgspec.structs.replace(SPEC, contexts={"eu": "eu-admin"}))
    assert set(needs_of_load("stormdrill", "eu")) <= set(needs(one.system, one.experiment.load)("eu"))


def test_several_clusters_are_refused_by_name() -> None:
    two = plan(msgspec.structs.replace(SPEC, contexts={"eu": "a", "us": "b"}))
    with pytest.raises(Refused, match="inside of one only: eu, us"):
        sent_in(two.system)
    with pytest.raises(Refused, match="inside of one only: eu, us"):
        needs(two.system, two.experiment.load)
    assert needs(two.system, None)("eu") == ()


def test_nodes_that_a_fault_takes_are_avoided() -> None:
    made = plan()
    first = made.injections[0]
    burn = Beside("burn", (), cores=1, nodes=("n4",))
    hows = (Nodes(("n2", "n1"), "taint"), Nodes(("n3",), "taint", cluster="us"), burn, Capacity(("n5",), "x/gpu"))
    injections = tuple(msgspec.structs.replace(first, how=how) for how in hows)
    made = msgspec.structs.replace(made, injections=injections)
    assert harmed(made, "") == ("n1", "n2", "n4")
    assert harmed(made, "us") == ("n3",)
