"""A plan names the clusters that it is for, without credentials, and is another one on another cluster."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from shop_cluster import system_of
from stormdrill.api.clusters import in_context, named
from stormdrill.cli import blueprint, outline
from stormdrill.core.digest import digest, facts
from stormdrill.errors import Refused
from stormdrill.model.plan import ClusterAt, Plan
from stormdrill.targets.kubernetes.clusters import LiveClusters
from stormdrill.targets.kubernetes.kubeconfig import access_for
from synthetic_run import Knobs, make_plan

KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: staging
contexts:
- {name: staging, context: {cluster: one, user: me}}
- {name: live, context: {cluster: two, user: me}}
clusters:
- {name: one, cluster: {server: "http://me:pa55word@127.0.0.1:7001/k8s"}}
- {name: two, cluster: {server: "http://127.0.0.1:7002"}}
users:
- {name: me, user: {token: hidden}}
"""


class Here:
    def __init__(self, clusters: LiveClusters) -> None:
        self.where = clusters.where


@pytest.fixture
def kubeconfig(tmp_path: Path) -> str:
    path = tmp_path / "kubeconfig"
    path.write_text(KUBECONFIG)
    return str(path)


def planned(tmp_path: Path, kubeconfig: str, context: str = "") -> Plan:
    system = in_context(system_of(tmp_path), "kubernetes", context)
    assert system.kubernetes is not None
    clusters = LiveClusters(
        system.kubernetes, run="r", system=system.name, connect=lambda name: access_for(name, kubeconfig)
    )
    made = msgspec.structs.replace(make_plan(Knobs()), system=system, target="kubernetes")
    return named(made, Here(clusters))  # type: ignore[arg-type]  # what it is asked for


def test_context_server_and_namespace_are_shown_and_no_password(tmp_path: Path, kubeconfig: str) -> None:
    made = planned(tmp_path, kubeconfig)
    assert made.clusters == (ClusterAt("", "staging", "http://127.0.0.1:7001/k8s", "shop"),)
    said = "cluster context staging, http://127.0.0.1:7001/k8s, namespace shop"
    assert any(said in line for line in blueprint.blueprint_lines(made, ["x.yaml"], 120))
    assert any(said in line for line in outline.plan_lines(made, 120))
    assert blueprint.blueprint_object(made)["clusters"] == [msgspec.to_builtins(made.clusters[0])]
    assert b"pa55word" not in msgspec.json.encode(made)


def test_another_cluster_is_another_plan(tmp_path: Path, kubeconfig: str) -> None:
    one, two = (planned(tmp_path, kubeconfig, context) for context in ("staging", "live"))
    assert two.clusters[0].server == "http://127.0.0.1:7002"
    assert digest(facts(one)) != digest(facts(two))


def test_the_current_context_is_kept_by_its_name_for_whoever_recovers_the_run(tmp_path: Path, kubeconfig: str) -> None:
    section = planned(tmp_path, kubeconfig).system.kubernetes
    assert section is not None
    assert section.contexts == {"": "staging"}


def test_a_context_is_the_commands_to_say_only_where_the_system_file_names_none(tmp_path: Path) -> None:
    system = system_of(tmp_path)
    mine = in_context(system, "kubernetes", "live")
    with pytest.raises(Refused, match="names its contexts itself"):
        in_context(mine, "kubernetes", "staging")
    with pytest.raises(Refused, match="target process has no cluster"):
        in_context(system, "process", "live")
    assert in_context(system, "process", "") is system
