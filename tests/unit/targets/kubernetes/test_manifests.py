"""The reference platform as manifests: what a cluster is given, whatever the regions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from stormdrill.api import manifests
from stormdrill.errors import Refused
from stormdrill.targets.kubernetes.manifests import Layout

KEPT = Path(__file__).parents[4] / "experiments/systems/kubernetes"
LAYOUT = Layout(image="stormdrill-platform:latest")
Doc = dict[str, Any]


def documents(text: str) -> list[Doc]:
    return list(yaml.safe_load_all(text))


def printed(layout: Layout = LAYOUT) -> list[Doc]:
    return documents(manifests.manifests(layout))


def of_kind(kind: str, layout: Layout = LAYOUT) -> dict[str, Doc]:
    return {one["metadata"]["name"]: one for one in printed(layout) if one["kind"] == kind}


def pod_of(deployment: Doc) -> Doc:
    pod: Doc = deployment["spec"]["template"]["spec"]
    return pod


def test_the_tree_that_is_kept_is_what_the_command_writes(tmp_path: Path) -> None:
    written = manifests.write_kustomize(LAYOUT, tmp_path)
    assert {path.relative_to(tmp_path): path.read_text() for path in written} == {
        path.relative_to(KEPT): path.read_text() for path in KEPT.rglob("*.yaml")
    }


def test_base_and_overlay_come_to_what_is_printed() -> None:
    base, overlay = KEPT / "base", KEPT / "overlays/two-regions"
    files = [base / "platform.yaml", base / "region.yaml", overlay / "us.yaml"]
    found = {_key(one): one for path in files for one in documents(path.read_text())}
    for patch in documents((overlay / "peers.yaml").read_text()):
        (told,) = patch["spec"]["template"]["spec"]["containers"]
        (container,) = pod_of(found[_key(patch)])["containers"]
        assert container["name"] == told["name"]
        container["env"] = [
            next((new for new in told["env"] if new["name"] == old["name"]), old) for old in container["env"]
        ]
    assert found == {_key(one): one for one in printed()}


def test_services_come_before_those_who_read_their_variables() -> None:
    kinds = [one["kind"] for one in printed()]
    assert kinds.index("Namespace") == 0
    assert max(n for n, kind in enumerate(kinds) if kind == "Service") < kinds.index("Deployment")


@pytest.mark.parametrize("regions", [("eu",), ("eu", "us"), ("r1", "r2", "r3")])
def test_everybody_is_told_of_every_gateway_but_itself_through_a_service_that_is_there(
    regions: tuple[str, ...],
) -> None:
    layout = Layout(image="i", regions=regions)
    services = of_kind("Service", layout)
    for name, one in of_kind("Deployment", layout).items():
        env = {item["name"]: item.get("value", "") for item in pod_of(one)["containers"][0]["env"]}
        peers = [part for value in (env.get("STORMDRILL_PEERS_GATEWAY", ""),) for part in value.split(",") if part]
        told = [part.partition("=")[0] for part in peers]
        expected = [] if name == "feed" else [f"gateway-{region}" for region in regions if f"gateway-{region}" != name]
        assert told == expected, name
        for part in peers:
            service, _, address = part.partition("=")
            variable = service.upper().replace("-", "_")
            assert address == f"$({variable}_SERVICE_HOST):$({variable}_SERVICE_PORT)"
            assert service in services


def test_each_service_selects_pods_of_exactly_one_deployment() -> None:
    for name, service in of_kind("Service").items():
        wanted = service["spec"]["selector"].items()
        hit = [
            key
            for key, one in of_kind("Deployment").items()
            if wanted <= one["spec"]["template"]["metadata"]["labels"].items()
        ]
        assert hit == [name]


def test_the_namespace_opts_in_and_everything_is_in_it() -> None:
    layout = Layout(image="i", namespace="drill-me")
    (space,) = of_kind("Namespace", layout).values()
    assert space["metadata"]["labels"]["stormdrill.dev/drill"] == "allowed"
    spaces = {one["metadata"].get("namespace") for one in printed(layout) if one["kind"] != "Namespace"}
    assert spaces == {"drill-me"}


def test_a_region_is_pinned_to_its_nodes_and_every_pod_to_those_that_are_allowed() -> None:
    layout = Layout(image="i", nodes={"node": "real"})
    for name, one in of_kind("Deployment", layout).items():
        chosen = pod_of(one)["nodeSelector"]
        assert chosen["node"] == "real"
        region = name.rpartition("-")[2] if "-" in name else None
        assert chosen.get("topology.kubernetes.io/region") == region


def test_where_a_cluster_has_one_region_another_label_of_its_nodes_says_it() -> None:
    layout = Layout(image="i", region_label="stormdrill.dev/region")
    assert "topology.kubernetes.io/region" not in manifests.manifests(layout)
    of = {name: pod_of(one)["nodeSelector"] for name, one in of_kind("Deployment", layout).items() if "-" in name}
    assert {where["stormdrill.dev/region"] for where in of.values()} == {"eu", "us"}


@pytest.mark.parametrize("storage", ["node", "claim", "none"])
def test_nobody_has_more_rights_than_it_needs(storage: str) -> None:
    layout = Layout(image="i", storage=storage)
    for name, one in of_kind("Deployment", layout).items():
        pod = pod_of(one)
        (container,) = pod["containers"]
        assert pod["automountServiceAccountToken"] is False
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        rooted = storage == "node" and name.startswith("gateway")
        assert pod["securityContext"].get("runAsNonRoot", False) is not rooted
        assert set(container["resources"]) == {"requests", "limits"}
    level = next(iter(of_kind("Namespace", layout).values()))["metadata"]["labels"][
        "pod-security.kubernetes.io/enforce"
    ]
    assert level == ("privileged" if storage == "node" else "restricted")


def test_every_deployment_that_can_be_evicted_has_a_budget_but_the_feed() -> None:
    budgets = [one["spec"]["selector"]["matchLabels"] for one in of_kind("PodDisruptionBudget").values()]
    for name, one in of_kind("Deployment").items():
        labels = one["spec"]["template"]["metadata"]["labels"]
        assert any(wanted.items() <= labels.items() for wanted in budgets) is (name != "feed")


def test_a_gateways_queue_outlives_its_pod_unless_it_is_said_otherwise() -> None:
    def kept(storage: str) -> set[str]:
        pod = pod_of(of_kind("Deployment", Layout(image="i", storage=storage))["gateway-eu"])
        return set(next(item for item in pod["volumes"] if item["name"] == "data")) - {"name"}

    assert (kept("node"), kept("claim"), kept("none")) == ({"hostPath"}, {"persistentVolumeClaim"}, {"emptyDir"})
    assert set(of_kind("PersistentVolumeClaim", Layout(image="i", storage="claim"))) == {"gateway-eu", "gateway-us"}


def test_a_gateway_with_a_node_of_its_own_runs_there_alone() -> None:
    layout = Layout(image="i", queue_nodes={"eu": "n7"})
    chosen = {name: pod_of(one).get("nodeSelector", {}) for name, one in of_kind("Deployment", layout).items()}
    assert {name for name, where in chosen.items() if where.get("kubernetes.io/hostname") == "n7"} == {"gateway-eu"}
    with pytest.raises(Refused, match="no region mars"):
        manifests.manifests(Layout(image="i", queue_nodes={"mars": "n7"}))


def test_what_would_make_no_name_or_a_forbidden_place_is_refused_all_at_once() -> None:
    with pytest.raises(Refused) as refused:
        manifests.manifests(Layout(image="i", regions=("eu", "eu", "A_"), region_label="a b", namespace="kube-system"))
    assert len(refused.value.problems) == 4


def test_a_file_that_says_something_else_is_not_written_over(tmp_path: Path) -> None:
    place = tmp_path / "base/platform.yaml"
    place.parent.mkdir()
    place.write_text("mine\n")
    with pytest.raises(Refused, match="says something else"):
        manifests.write_kustomize(LAYOUT, tmp_path)
    assert place.read_text() == "mine\n"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [place]


def _key(one: Doc) -> tuple[str, str]:
    return one["kind"], one["metadata"]["name"]


def test_workers_and_their_regions_gateway_wish_to_be_on_different_nodes_and_need_not_be() -> None:
    deployments = of_kind("Deployment")
    shunned = {}
    for name in ("gateway-eu", "cpu-eu", "gpu-eu"):
        (rules,) = pod_of(deployments[name])["affinity"]["podAntiAffinity"].items()
        assert rules[0] == "preferredDuringSchedulingIgnoredDuringExecution"
        (rule,) = rules[1]
        shunned[name] = rule["podAffinityTerm"]["labelSelector"]["matchLabels"]
    labels = {name: deployments[name]["spec"]["template"]["metadata"]["labels"] for name in shunned}
    for name, other in (("gateway-eu", "cpu-eu"), ("cpu-eu", "gateway-eu"), ("gpu-eu", "gateway-eu")):
        assert shunned[name].items() <= labels[other].items()
        assert not shunned[name].items() <= labels[name].items()
    assert "podAntiAffinity" not in (pod_of(deployments["edge"]).get("affinity") or {})
