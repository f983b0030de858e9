"""What is not allowed is told before anything is touched: all of it, by name, and what would help."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from fake_cluster import FakeCluster
from stormdrill.cluster.api import Api, Lost
from stormdrill.model.permission import Need
from stormdrill.targets.kubernetes import preflight
from stormdrill.targets.kubernetes.preflight import MANY, MAY_ASK, Asker, not_allowed
from stormdrill.targets.kubernetes.rbac import manifests

ACCOUNT = Asker("stormdrill/stormdrill")
NEEDS = (
    Need("get", "", "nodes", name="eu-cpu-1", why="to look at the node"),
    Need("patch", "", "nodes", name="eu-cpu-1", why="to keep new pods off the node"),
    Need("list", "", "pods", "platform", why="to see who is on it"),
    Need("create", "", "pods", "platform", subresource="eviction", why="to empty it"),
    Need("get", "apps", "deployments", "platform", "edge"),
    Need("create", "", "configmaps", "stormdrill", why="for the ledger"),
    Need("delete", "", "configmaps", "stormdrill", why="for the ledger"),
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster(world=False) as fake:
        fake.world()
        yield fake


def roles(needs: tuple[Need, ...]) -> list[Any]:
    return manifests(needs, name="drill", suite="stormdrill", account="stormdrill", namespace=False)


def without(made: list[Any], role: int, rule: int) -> list[Any]:
    found = [{**item} for item in made]
    left = [one for number, one in enumerate(found[role]["rules"]) if number != rule]
    found[role] = {**found[role], "rules": left}
    return found


def test_with_the_printed_rules_nothing_is_missing(cluster: FakeCluster) -> None:
    api = Api(cluster.access(cluster.account("stormdrill", "stormdrill")))
    cluster.apply(roles(NEEDS))
    assert not_allowed(api, NEEDS) == []
    assert not_allowed(Api(cluster.admin), NEEDS, ACCOUNT) == [], "and whoever may ask finds it out for the account"


def test_without_any_one_rule_that_rule_is_named(cluster: FakeCluster) -> None:
    api = Api(cluster.access(cluster.account("stormdrill", "stormdrill")))
    made = roles(NEEDS)
    places = [(number, rule) for number, item in enumerate(made) for rule in range(len(item.get("rules", ())))]
    assert len(places) > 4
    for role, rule in places:
        cluster.apply(without(made, role, rule))
        gone = made[role]["rules"][rule]
        told = not_allowed(api, NEEDS)
        assert told
        for problem in told:
            assert gone["resources"][0].partition("/")[0] in problem.what
            assert any(f"may not {verb} " in problem.what for verb in gone["verbs"])
            assert "--rbac" in problem.fix
        assert {item.what for item in not_allowed(Api(cluster.admin), NEEDS, ACCOUNT)} == {
            item.what.replace("this user", "ServiceAccount stormdrill/stormdrill") for item in told
        }
    cluster.apply(made)


def test_a_problem_says_what_it_is_needed_for(cluster: FakeCluster) -> None:
    api = Api(cluster.access(cluster.account("stormdrill", "nobody")))
    told = [item.what for item in not_allowed(api, NEEDS)]
    assert len(told) == len(NEEDS)
    wanted = "this user may not patch nodes/eu-cpu-1 (cluster-wide): needed to keep new pods off the node"
    assert wanted in told


def test_many_names_cost_one_question_where_any_is_allowed(cluster: FakeCluster) -> None:
    needs = tuple(Need("patch", "", "nodes", name=f"n{number}") for number in range(5 * MANY))
    asked = len(cluster.requests)
    assert not_allowed(Api(cluster.admin), needs) == []
    assert len(cluster.requests) - asked == 1
    api = Api(cluster.access(cluster.account("stormdrill", "nobody")))
    assert len(not_allowed(api, needs)) == len(needs)


def test_what_others_may_do_is_not_for_everybody_to_ask(cluster: FakeCluster) -> None:
    api = Api(cluster.access(cluster.account("stormdrill", "nobody")))
    assert not_allowed(api, [MAY_ASK])
    assert not_allowed(Api(cluster.admin), [MAY_ASK]) == []
    with pytest.raises(Lost, match="can't be asked"):
        not_allowed(api, NEEDS, ACCOUNT)


def test_a_server_that_does_not_answer_is_no_permission(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "BUSY_S", 0.1)
    with cluster.outage(), pytest.raises(Lost):
        not_allowed(Api(cluster.admin), NEEDS[:1])
    with FakeCluster(world=False) as sick:
        sick.trouble(("POST", "accessreviews"), "500", times=20)
        with pytest.raises(Lost, match="can't be asked"):
            not_allowed(Api(sick.admin), NEEDS[:1])


@pytest.mark.parametrize("what", ["429", "500", "503"])
def test_a_server_that_is_busy_for_a_moment_is_asked_again(cluster: FakeCluster, what: str) -> None:
    cluster.trouble(("POST", "accessreviews"), what, times=2)
    assert not_allowed(Api(cluster.admin), NEEDS) == []
