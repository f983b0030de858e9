"""How the kubernetes section of a system file is read: what it shares, what it says, what it refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from stormdrill.errors import Problem, Refused
from stormdrill.model.system import ImagePolicy, KubernetesRelease, KubernetesSpec, Ready
from stormdrill.spec.schema import schema
from stormdrill.spec.system import read_system

HEAD = """name: app
entry: web
parameters: {regions: [eu, us]}
labels: [region, role, node]
"""
PROCESS = """process:
  services:
    web: {command: [./web], instances: 2, labels: {role: front, node: $region-front}, each: regions, ready: GET /ok, devices: [gpu0]}
    store: {command: [./store], port: 7000}
"""  # noqa: E501
OWN = """kubernetes:
  namespace: shop
  services: {web: {select: {app: front}, port: 8080, ready: GET /healthz}}
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "app.yaml"
    path.write_text(text)
    return path


def refused(tmp_path: Path, text: str, target: str = "kubernetes") -> tuple[Problem, ...]:
    with pytest.raises(Refused) as caught:
        read_system(written(tmp_path, text), target=target)
    return caught.value.problems


def test_the_shipped_platform_is_found_in_a_cluster_by_five_lines() -> None:
    system = read_system(Path("experiments/systems/platform.yaml"), target="kubernetes")
    known = {one.name: one for one in system.instances}
    assert list(known) == ["edge", "gateway-eu", "gateway-us", "cpu-eu", "cpu-us", "gpu-eu", "gpu-us", "feed"]
    assert known["gpu-us"].select == {"app": "gpu", "region": "us"}
    assert known["gpu-us"].labels == {"region": "us", "pool": "gpu", "role": "worker"}
    assert {one.port for one in system.instances} == {8080}


def test_a_service_takes_from_the_processes_what_it_does_not_say_but_not_their_machine(tmp_path: Path) -> None:
    text = f"{HEAD}{PROCESS}kubernetes:\n  namespace: shop\n  port: 80\n  services: {{web: {{port: 8080}}}}\n"
    (eu, us) = read_system(written(tmp_path, text), target="kubernetes").instances
    assert (eu.name, us.name) == ("web-eu", "web-us")  # how many pods each has, the cluster knows
    assert (eu.labels, eu.ready, eu.port) == ({"region": "eu", "role": "front"}, Ready("GET", "/ok"), 8080)
    assert (eu.select, eu.devices, eu.command) == ({"app": "web", "region": "eu"}, ("gpu0",), ())


def test_without_services_of_its_own_it_has_the_processes(tmp_path: Path) -> None:
    text = f"{HEAD}{PROCESS}kubernetes: {{namespace: shop, port: 80}}\n"
    system = read_system(written(tmp_path, text), target="kubernetes")
    assert [one.name for one in system.instances] == ["web-eu", "web-us", "store"]
    assert system.instances[2].select == {"app": "store"}


def test_everything_that_it_can_say_arrives(tmp_path: Path) -> None:
    text = f"""{HEAD}kubernetes:
  namespace: shop
  contexts: {{eu: one, us: two}}
  suite: drill
  account: driller
  image: {{name: "registry.example/it:1", pull: Never, pull_secret: registry-key}}
  lease: 20s
  node_labels: {{node: kubernetes.io/hostname}}
  stands_for: {{freeze: crash}}
  empties: evict
  gpu: {{resource: example.com/gpu, plugin: kube-system/plugin}}
  load: {{workers: 4}}
  ready_timeout: 90s
  services: {{web: {{select: {{app: front, app.kubernetes.io/part: $region}}, each: regions, port: 1, ready: GET /}}}}
  releases: {{bad: {{of: web, image: "it:2", env: {{A: 1}}, command: [x]}}}}
"""
    system = read_system(written(tmp_path, text), target="kubernetes")
    assert system.kubernetes == KubernetesSpec(
        namespace="shop",
        contexts={"eu": "one", "us": "two"},
        suite="drill",
        account="driller",
        image=ImagePolicy("registry.example/it:1", "Never", "registry-key"),
        lease_s=20.0,
        node_labels={"node": "kubernetes.io/hostname"},
        stands_for={"freeze": "crash"},
        empties="evict",
        gpu_resource="example.com/gpu",
        gpu_plugin="kube-system/plugin",
        releases=(KubernetesRelease("bad", "web", "it:2", {"A": "1"}, ("x",)),),
        load_workers=4,
    )
    assert system.ready_timeout_s == 90.0
    assert system.instances[1].select == {"app": "front", "app.kubernetes.io/part": "us"}


def test_one_context_is_that_of_the_only_cluster(tmp_path: Path) -> None:
    system = read_system(written(tmp_path, f"{HEAD}{OWN}  contexts: here\n"), target="kubernetes")
    assert system.kubernetes is not None
    assert system.kubernetes.contexts == {"": "here"}


def test_other_targets_know_nothing_of_it(tmp_path: Path) -> None:
    plain = read_system(written(tmp_path, f"{HEAD}{PROCESS}"))
    both = read_system(written(tmp_path, f"{HEAD}{PROCESS}kubernetes: {{namespace: shop, port: 1}}\n"))
    assert plain == both


def test_all_that_is_wrong_is_told_at_once_with_its_place_and_what_to_write(tmp_path: Path) -> None:
    text = f"""{HEAD}kubernetes:
  namespace: kube-system
  suite: kube-public
  lease: 1s
  empties: burn
  node_labels: {{zone: topology.kubernetes.io/zone}}
  stands_for: {{freeze: nap}}
  services:
    web: {{select: {{app: front}}, ready: GET /}}
  releases: {{bad: {{of: wbe, image: x}}, web: {{}}}}
"""
    found = {(one.line, one.column): (one.what, one.fix) for one in refused(tmp_path, text)}
    assert found == {
        (6, 14): ("kube-system is the cluster's own: no drill may touch it", "name a namespace of yours"),
        (7, 10): ("kube-public is the cluster's own: no drill may touch it", "name a namespace of yours"),
        (8, 10): ("1s is too small", "write at least 4s"),
        (9, 12): ("unknown value burn for empties", "known: delete, evict, taint"),
        (10, 17): ("unknown label zone", "known: node, region, role, or add it to labels"),
        (11, 24): ("unknown value nap for freeze", "known: crash"),
        (13, 10): ("nothing says on which port web listens", "add port: 8080, here or for all services"),
        (14, 24): ("unknown service wbe", "write web"),
        (14, 45): ("the release web changes nothing", "add image, env or command"),
    }


@pytest.mark.parametrize(
    ("section", "what"),
    [
        ("kubernetes: {namespace: shop, suite: shop}\n", "shop is the suite's own namespace"),
        ("kubernetes: {namespace: shop}\n", "kubernetes has no services"),
        ("kubernetes: {services: {web: {port: 1, ready: GET /}}}\n", "lacks namespace"),
        (f"{OWN}  contexts: {{}}\n", ""),
        (OWN.replace("shop", "Shop"), "Shop is no"),
        (OWN.replace("8080", "99999"), "99999"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path: Path, section: str, what: str) -> None:
    if not what:
        assert read_system(written(tmp_path, HEAD + section), target="kubernetes").kubernetes is not None
        return
    assert any(what in str(problem) for problem in refused(tmp_path, HEAD + section))


def test_contexts_by_region_need_that_label(tmp_path: Path) -> None:
    head = HEAD.replace("region, ", "")
    (problem,) = refused(tmp_path, f"{head}{OWN}  contexts: {{eu: one}}\n")
    assert problem.fix == "add region to labels, or name one context"


def test_editors_are_told_of_every_key() -> None:
    told = schema("system")["$defs"]
    assert {"namespace", "contexts", "services", "lease"} <= told["KubernetesFile"]["properties"].keys()
    assert "anyOf" in told["KubernetesFile"]["properties"]["contexts"]


def test_validating_for_a_cluster_imports_no_client_and_nothing_that_asks_one() -> None:
    program = (
        "import sys; from stormdrill import api; "
        "api.validate('experiments/region-loss.yaml', target='kubernetes'); "
        "print([name for name in sys.modules if name.startswith(('kubernetes', 'urllib3', 'http.client', 'ssl', "
        "'stormdrill.cluster', 'stormdrill.targets.kubernetes'))])"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert said.stdout.strip() == "[]"
