"""Whole runs of what is done to Services, namespaces and pods, with the printed rules alone; and whoever dies."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster_shop import Shop, outcome, shop, web

from stormdrill.model.event import EffectObserved, Injected, KeeperStarted, Reading, RevertStarted, RevertVerified

LIMIT_S = 180.0
SLOW_S = 5.0
"""What a pod takes until it runs on real nodes."""
LATE = "late-dependency: {name: web, delay: 30ms}"
pytestmark = [pytest.mark.real, pytest.mark.timeout(LIMIT_S)]


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Shop]:
    with shop(tmp_path) as found, callers(found):
        found.as_user("admin")
        yield found


@contextlib.contextmanager
def callers(found: Shop) -> Iterator[None]:
    """Who calls the Services by their addresses, as `front` would."""
    over = threading.Event()
    addresses = [one["spec"]["clusterIP"] for one in found.cluster.objects("services", "shop")]

    def call() -> None:
        while not over.wait(0.05):
            for address in addresses:
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(f"http://{address}:8080/", timeout=1.0).read()

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    yield
    over.set()
    thread.join(5)


def allow(at: Shop, use: str, **phases: str) -> None:
    """What `plan --rbac` prints for it, and nothing else."""
    at.lay_out(use, **phases)
    printed = at.repository.command("plan", "experiments/shop.yaml", "--target", "kubernetes", "--rbac")
    assert printed.returncode == 0, printed.stderr
    at.cluster.apply([one for one in yaml.safe_load_all(printed.stdout) if one])
    at.as_user(at.cluster.account("stormdrill", "stormdrill"))


def drilled(at: Shop, use: str) -> dict[str, Any]:
    allow(at, use)
    done = at.repository.command("run", "experiments/shop.yaml", "--target", "kubernetes", "--json", limit_s=120)
    return {**outcome(done.stdout), "code": done.returncode, "progress": done.stderr}


def harmed(at: Shop) -> list[str]:
    """What is left in the system's namespace of anything that a word of these makes or changes."""
    found = at.causes()
    for one in at.cluster.objects("services", "shop"):
        selector = one["spec"].get("selector", {})
        meta = one["metadata"]
        found += [f"service {meta['name']}: {selector}"] if "stormdrill" in selector else []
        found += [f"service {meta['name']}"] if "stormdrill" in meta.get("labels", {}) else []
        found += [f"service {meta['name']}: {key}" for key in meta.get("annotations", {}) if "stormdrill" in key]
    for kind in ("pods", "resourcequotas", "networkpolicies"):
        for one in at.cluster.objects(kind, "shop"):
            found += [f"{kind} {one['metadata']['name']}"] if "stormdrill" in one["metadata"].get("labels", {}) else []
    return found


@pytest.mark.parametrize(
    "use",
    [
        LATE,
        "late-dependency: {name: web, stall: true}",
        "quota-exhaustion: {resource: pods, service: web}",
        "noisy-neighbour: {mode: cpu, cores: 1}",
        'noisy-neighbour: {rate: 40/s, request: "GET /"}',
    ],
)
def test_it_bites_is_gone_and_leaves_nothing(use: str, at: Shop) -> None:
    told = drilled(at, use)
    assert told.get("verdict") == "PASS", told["progress"]
    assert {item.bit for item in at.of(EffectObserved)} == {True}
    assert {item.gone for item in at.of(RevertVerified)} == {True}
    assert harmed(at) == []
    assert at.left_behind() == []


def test_a_fault_that_is_shorter_than_its_proxy_takes_to_start_bites_for_its_whole_time(at: Shop) -> None:
    allow(at, "late-dependency: {name: web, delay: 30ms, for: 3s}", fault="3s")
    at.cluster.behaviour.kubelet.starts_s = SLOW_S
    done = at.repository.command("run", "experiments/shop.yaml", "--target", "kubernetes", "--json", limit_s=120)
    assert outcome(done.stdout).get("verdict") == "PASS", done.stderr
    began = {one.event.injection: one.mono_ms for one in at.events() if isinstance(one.event, Injected)}
    ended = {one.event.injection: one.mono_ms for one in at.events() if isinstance(one.event, RevertStarted)}
    assert {item.outcome for item in at.of(Injected)} == {"done"}
    assert {item.injection for item in at.of(EffectObserved) if item.bit} == set(began)
    assert all(ended[name] >= began[name] + 3000.0 for name in began)
    assert harmed(at) == []
    assert at.left_behind() == []


def test_memory_is_taken_in_a_container_that_has_a_limit_and_in_no_other(at: Shop) -> None:
    use = "memory-leak: {mode: pressure, region: eu, slope: 40MB/s, ceiling: 48MB}"
    at.lay_out(use)
    refused = at.repository.command("run", "experiments/shop.yaml", "--target", "kubernetes")
    assert refused.returncode == 2, refused.stdout
    assert "has no memory limit" in " ".join(refused.stderr.split())
    limited = web("eu")
    limited["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"] = {"memory": "1Ti"}
    at.cluster.apply(limited)
    at.eventually(lambda: at.ready("eu") and [pod for pod in at.pods("eu") if _limits(pod)] == at.pods("eu"))
    told = drilled(at, use)
    assert told.get("verdict") == "PASS", told["progress"]
    assert harmed(at) == []


def _limits(pod: dict[str, Any]) -> object:
    return pod["spec"]["containers"][0]["resources"].get("limits")


def test_what_policy_should_have_kept_out_and_did_not_is_a_fail(at: Shop) -> None:
    told = drilled(at, 'segmentation: {from: front, to: "web-eu:8080"}')
    assert (told["code"], told.get("verdict")) == (1, "FAIL"), told["progress"]
    assert "which is forbidden" in told["progress"]
    assert 0.0 in {item.value for item in at.of(Reading) if item.metric == "segmentation_blocked"}
    assert harmed(at) == []


def test_a_cluster_that_enforces_no_policy_is_never_said_to_have_cut_a_region_off(at: Shop) -> None:
    told = drilled(at, "region-loss: {region: eu, mode: isolate}")
    assert (told["code"], told.get("verdict")) == (3, "INCONCLUSIVE"), told["progress"]
    assert at.of(EffectObserved) == []
    assert {item.gone for item in at.of(RevertVerified)} == {True}
    assert harmed(at) == []
    assert at.left_behind() == []


def test_everything_on_the_runners_machine_is_killed_and_callers_are_led_to_the_old_pods_again(at: Shop) -> None:
    allow(at, LATE, fault="60s")
    process = at.repository.start("run", "experiments/shop.yaml", "--target", "kubernetes", "--json")
    at.eventually(lambda: at.of(EffectObserved) or process.poll() is not None, what="it never bit")
    assert process.poll() is None, process.communicate()[1]
    assert harmed(at)
    keeper = at.of(KeeperStarted)[0].pid
    os.kill(process.pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(keeper, signal.SIGKILL)
    process.communicate()
    at.eventually(lambda: harmed(at) == [], what="the watchdog left something")
    recovered = at.repository.command("recover", at.run_dir.name)
    assert recovered.returncode == 0, recovered.stderr + recovered.stdout
    assert at.left_behind() == []
