"""A large cluster: what it takes to choose among its pods and print the plan, against the fake in another process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from bench.figure import Figure, as_installed, at_most, cpu_of, middle_of

ROOT = Path(__file__).parent.parent
COMMAND = str(Path(sys.executable).parent / "stormdrill")
REGIONS, SERVICES, NODES, PODS = 10, 10, 100, 10
"""Regions; services in each; nodes in each; pods on each node: 10,000 pods on 1,000 nodes, of which a region loses
1,000 on 100."""
SEEN = "metrics: {depth: {prometheus: depth, from: s0}}\nalerts: {Lost: {prometheus: alerts, from: s0}}\n"
LIMIT_S, LIMIT_MB = 3.0, 200.0
SYSTEM = """name: large
entry: s0
parameters: {{regions: [{regions}]}}
labels: [region, node]
kubernetes:
  namespace: large
  port: 8080
  node_labels: {{region: topology.kubernetes.io/region, node: kubernetes.io/hostname}}
  services:
{services}
"""
EXPERIMENT = """title: A region of a large system is lost
hypothesis: Nine of ten are left.
owner: bench
system: large
parameters: {region: r0}
load: observed
phases: {baseline: 10s, fault: 30s, recovery: 10s}
faults:
  - region-loss: {region: $region, mode: crash}
objectives:
  baseline: [depth < 5]
  whole run: [alert(Lost) within 10s]
"""
POLICY = "targets: [kubernetes]\nmax_instances: 10000\nmax_nodes: 1000\nmax_pods: 10000\n"
FAKE = """
import json, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from fake_cluster import FakeCluster
from bench.kubernetes import content
with FakeCluster(world=False) as cluster:
    cluster.apply(content())
    cluster.kubeconfig(Path({path!r}))
    print("ready", flush=True)
    for _ in sys.stdin:
        asked = list(cluster.requests)
        print(json.dumps([[one.method, one.path] for one in asked]), flush=True)
        cluster.requests.clear()
"""


def measure(quick: bool) -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        experiment, env = files(folder / "large")
        validating = (COMMAND, "validate", str(files(folder / "usual", 3, 8)[0]))
        cpu_of(validating)
        yield at_most("kubernetes_validate_cpu", middle_of(5 if quick else 25, lambda: cpu_of(validating)), "s", 0.10)
        program = FAKE.format(tests=str(ROOT / "tests"), path=env["KUBECONFIG"])
        fake = subprocess.Popen(
            [sys.executable, "-c", program], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            assert fake.stdin is not None
            assert fake.stdout is not None
            assert fake.stdout.readline() == "ready\n"
            took_s, size_mb, calls = [], [], []
            for _ in range(2 if quick else 5):
                seconds, megabytes = planned(experiment, folder, env)
                fake.stdin.write("asked\n")
                fake.stdin.flush()
                calls.append(len(json.loads(fake.stdout.readline())))
                took_s.append(seconds)
                size_mb.append(megabytes)
        finally:
            fake.kill()
            fake.wait()
        yield at_most("kubernetes_plan", median(took_s), "s", LIMIT_S)
        yield at_most("kubernetes_plan_memory", max(size_mb), "MB", LIMIT_MB)
        yield Figure("kubernetes_plan_calls", max(calls), "", "", None)


def files(folder: Path, regions: int = REGIONS, services: int = SERVICES) -> tuple[Path, dict[str, str]]:
    """An experiment with its system and policy, and the environment in which it is planned."""
    (folder / "experiments/systems").mkdir(parents=True)
    named = "\n".join(f"    s{number}: {{each: regions, ready: GET /}}" for number in range(services))
    values = ", ".join(f"r{number}" for number in range(regions))
    system = SYSTEM.format(regions=values, services=named) + SEEN
    (folder / "experiments/systems/large.yaml").write_text(system)
    experiment = folder / "experiments/large.yaml"
    experiment.write_text(EXPERIMENT)
    (folder / "policy.yaml").write_text(POLICY)
    env = as_installed() | {"KUBECONFIG": str(folder / "kubeconfig"), "STORMDRILL_POLICY": str(folder / "policy.yaml")}
    return experiment, env | {"XDG_STATE_HOME": str(folder / "state")}


def planned(experiment: Path, folder: Path, env: dict[str, str]) -> tuple[float, float]:
    """Seconds on the clock, and the most memory in MB, of one whole command that must succeed."""
    began_s = time.monotonic()
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(
            (COMMAND, "plan", str(experiment), "--target", "kubernetes"), env=env, cwd=folder, stdout=said
        )
        _, status, used = os.wait4(process.pid, 0)
    took_s = time.monotonic() - began_s
    process.returncode = os.waitstatus_to_exitcode(status)
    text = (folder / "said").read_text()
    if process.returncode or "1000 of 10000 instances" not in text:
        raise RuntimeError(f"the plan was refused, or isn't the one that is meant: {text[:500]}")
    return took_s, used.ru_maxrss / 1024


def content() -> list[dict[str, object]]:
    """The cluster's objects: as large as those of a real one are, in what planning reads."""
    from fake_cluster import scenes

    made: list[dict[str, object]] = [scenes.namespace("large"), scenes.namespace("stormdrill", drill=False)]
    for region in (f"r{number}" for number in range(REGIONS)):
        nodes = [f"{region}-{number}" for number in range(NODES)]
        made += [scenes.node(name, region) for name in nodes]
        for number in range(SERVICES):
            name = f"s{number}"
            made.append(scenes.deployment(name, region, NODES * PODS // SERVICES, "cpu", "large"))
            made += [pod(name, region, one, node) for one, node in enumerate(nodes)]
    return made


def pod(service: str, region: str, number: int, node: str) -> dict[str, object]:
    from fake_cluster import scenes

    template = scenes.deployment(service, region, 1, "cpu", "large")["spec"]["template"]
    owner = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "name": f"{service}-{region}-abc",
        "uid": f"{service}{region}",
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{service}-{region}-abc-{number}",
            "namespace": "large",
            "labels": {**template["metadata"]["labels"], "pod-template-hash": "abc"},
            "ownerReferences": [{**owner, "controller": True}],
        },
        "spec": {**template["spec"], "nodeName": node},
        "status": {"phase": "Running", "podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]},
    }
