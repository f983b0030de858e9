"""The rules that are printed allow exactly what was needed: nothing is missing, and nothing can be left out."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from stormdrill.model.permission import Need
from stormdrill.targets.kubernetes.rbac import NAMELESS, kind_of, manifests, normal, role_name, rules, said

NEEDS = st.lists(
    st.builds(
        Need,
        verb=st.sampled_from(["get", "list", "watch", "create", "patch", "update", "delete", "deletecollection"]),
        group=st.sampled_from(["", "apps"]),
        resource=st.sampled_from(["pods", "nodes", "deployments"]),
        namespace=st.sampled_from(["", "shop", "stormdrill"]),
        name=st.sampled_from(["", "a", "b"]),
        subresource=st.sampled_from(["", "status", "eviction"]),
    ),
    max_size=12,
)


def allowed(made: Iterable[dict[str, Any]], need: Need) -> bool:
    """As an authorizer of RBAC decides."""
    return any(
        need.verb in rule["verbs"]
        and need.group in rule["apiGroups"]
        and kind_of(need) in rule["resources"]
        and ("resourceNames" not in rule or (need.name and need.name in rule["resourceNames"]))
        for rule in made
    )


def works(made: dict[str, list[Any]], needs: Iterable[Need]) -> bool:
    return all(allowed([*made.get("", []), *made.get(need.namespace, [])], normal(need)) for need in needs)


def roles(made: Iterable[Any]) -> dict[str, list[Any]]:
    return {
        item["metadata"].get("namespace", ""): item["rules"] for item in made if item["kind"] in ("Role", "ClusterRole")
    }


@given(NEEDS)
def test_they_allow_what_is_needed_and_nothing_else(needs: list[Need]) -> None:
    made = roles(manifests(needs, name="x", suite="stormdrill", account="stormdrill"))
    wanted = {normal(need) for need in needs}
    everywhere = made.pop("", [])
    free = {(n.namespace, n.group, kind_of(n), n.verb) for n in wanted if not n.name}
    for verb, group, resource, namespace, name, sub in itertools.product(
        ["get", "list", "create", "patch", "delete"],
        ["", "apps"],
        ["pods", "nodes"],
        ["", "shop"],
        ["", "a", "b"],
        ["", "status"],
    ):
        need = Need(verb, group, resource, namespace, name, sub)
        meant = any(
            normal(replace(need, namespace=where)) in wanted or (where, group, kind_of(need), verb) in free
            for where in ("", namespace)
        )
        assert allowed([*everywhere, *made.get(namespace, [])], normal(need)) is meant, need


@given(NEEDS)
def test_without_any_one_rule_something_is_missing(needs: list[Need]) -> None:
    made = roles(manifests(needs, name="x", suite="stormdrill", account="stormdrill"))
    assert works(made, needs)
    for namespace, found in made.items():
        for left_out in range(len(found)):
            rest = [rule for number, rule in enumerate(found) if number != left_out]
            assert not works({**made, namespace: rest}, needs)


@given(NEEDS)
def test_verbs_without_a_name_in_their_request_are_never_limited_to_one(needs: list[Need]) -> None:
    for rule in rules(needs):
        if "resourceNames" in rule and set(rule["verbs"]) & NAMELESS:  # type: ignore[arg-type]  # verbs
            assert set(rule["verbs"]) & NAMELESS == {"create"}  # type: ignore[arg-type]  # verbs
            assert "/" in rule["resources"][0]  # type: ignore[index]  # a subresource is asked of a named object


def test_what_is_printed_is_an_account_with_its_roles_and_their_bindings() -> None:
    needs = [Need("patch", "", "nodes", name="n1"), Need("patch", "apps", "deployments", "shop", "web")]
    made: list[Any] = manifests(needs, name="Node loss!", suite="stormdrill", account="drill")
    assert [item["kind"] for item in made] == [
        "Namespace",
        "ServiceAccount",
        "ClusterRole",
        "ClusterRoleBinding",
        "Role",
        "RoleBinding",
    ]
    assert {item["metadata"]["name"] for item in made[2:]} == {"node-loss"}
    assert {item["subjects"][0]["name"] for item in made if "subjects" in item} == {"drill"}
    assert made[-1]["metadata"]["namespace"] == "shop"
    labelled = [item["metadata"].get("labels", {}).get("stormdrill.dev/experiment") for item in made]
    assert labelled == [None, None, *["node-loss"] * 4], "what others use too bears no label of one experiment"


def test_a_need_is_told_as_people_say_it() -> None:
    assert said(Need("patch", "", "nodes", name="n1")) == "patch nodes/n1 (cluster-wide)"
    assert said(Need("create", "", "pods", "shop", subresource="eviction")) == "create pods (eviction) in shop"
    assert said(Need("get", "apps", "deployments", "shop", "web")) == "get deployments.apps/web in shop"
    assert role_name("§§") == "stormdrill"
