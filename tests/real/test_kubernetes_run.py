"""A whole run on a cluster: found, held, harmed, reverted, judged; and whoever dies or is stopped, nothing is left."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from cluster_shop import NODES, PODS, STOP, SUITE, Shop, outcome, printed_rules, shop
from drill import PROFILE, Repository

from stormdrill import api
from stormdrill.api import targets
from stormdrill.cluster.api import Api
from stormdrill.errors import Refused
from stormdrill.keeper.far import Way
from stormdrill.model.event import (
    AbortRequested,
    CauseChanged,
    ClusterBack,
    ClusterHeld,
    ClusterLost,
    EffectObserved,
    Injected,
    KeeperStarted,
    Restored,
    Reverted,
    RevertVerified,
    RunEnded,
    Warned,
)
from stormdrill.spec.system import read_system
from stormdrill.targets.kubernetes import view
from stormdrill.targets.kubernetes.clusters import LiveClusters
from stormdrill.targets.kubernetes.leading import Leader

LIMIT_S = 180.0
COMES_BACK_S = 5.0
"""What a replacement takes on real nodes."""
pytestmark = [pytest.mark.real, pytest.mark.timeout(LIMIT_S)]


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Shop]:
    with shop(tmp_path) as found:
        found.as_user("admin")
        yield found


def allow(at: Shop) -> None:
    """What `plan --rbac` prints, applied."""
    at.cluster.apply(printed_rules(at))


def test_a_region_of_nodes_is_lost_and_comes_back_and_the_run_is_judged(at: Shop) -> None:
    at.lay_out(NODES)
    allow(at)
    before = at.cluster.objects("nodes")
    done = at.repository.command("run", "experiments/shop.yaml", "--target", "kubernetes", "--json", limit_s=120)
    told = outcome(done.stdout)
    assert told.get("verdict") == "PASS", f"{done.stderr}\n{done.stdout}"
    assert at.causes() == []
    assert at.left_behind() == []
    assert at.of(ClusterHeld)
    assert all(item.gone for item in at.of(RevertVerified))
    assert {node["metadata"]["name"] for node in before} == {n["metadata"]["name"] for n in at.cluster.objects("nodes")}


def begun(at: Shop) -> subprocess.Popen[str]:
    """A drill that has just bitten."""
    process = at.repository.start("run", "experiments/shop.yaml", "--target", "kubernetes", "--json")
    at.eventually(lambda: at.of(EffectObserved) or process.poll() is not None, what="it never bit")
    assert process.poll() is None, process.communicate()[1]
    return process


def kill_all_of(at: Shop, process: subprocess.Popen[str]) -> None:
    """Everything of the run that is on the runner's machine: its keeper first, then itself."""
    keeper = at.of(KeeperStarted)[0].pid
    os.kill(process.pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(keeper, signal.SIGKILL)
    process.communicate()


def test_everything_on_the_runners_machine_is_killed_and_the_cluster_mends_itself(at: Shop) -> None:
    at.lay_out(NODES, fault="60s")
    allow(at)
    process = begun(at)
    assert at.causes()
    kill_all_of(at, process)
    at.eventually(lambda: at.causes() == [])
    at.eventually(lambda: at.ready("eu"))
    recovered = at.repository.command("recover", at.run_dir.name)
    assert recovered.returncode == 0, recovered.stderr + recovered.stdout
    assert at.of(RunEnded)[-1].status == "aborted"
    assert "by the watchdog" in at.of(Reverted)[-1].detail
    assert at.left_behind() == []


def test_the_runner_alone_is_killed_and_its_run_is_dirty_until_somebody_has_looked(at: Shop) -> None:
    at.lay_out(NODES, fault="60s")
    allow(at)
    process = begun(at)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    at.eventually(lambda: at.of(RunEnded))
    assert at.of(RunEnded)[-1].status == "dirty"
    assert "left to the watchdog" in at.of(Reverted)[-1].detail
    again = at.repository.command("run", "experiments/shop.yaml", "--target", "kubernetes", "--json")
    assert again.returncode == 2
    assert f"stormdrill recover {at.run_dir.name}" in again.stderr + again.stdout, again.stderr + again.stdout
    with at.cluster.outage():
        unreached = at.repository.command("recover", at.run_dir.name)
        assert unreached.returncode == 5, unreached.stdout
    recovered = at.repository.command("recover", at.run_dir.name)
    assert recovered.returncode == 0, recovered.stderr + recovered.stdout
    assert at.causes() == []
    assert at.of(RunEnded)[-1].status == "aborted"


def test_the_keeper_alone_is_killed_and_the_runner_reverts_and_ends_the_run(at: Shop) -> None:
    at.lay_out(NODES, fault="60s")
    allow(at)
    process = begun(at)
    os.kill(at.of(KeeperStarted)[0].pid, signal.SIGKILL)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 4, err
    assert outcome(out)["status"] == "aborted"
    assert at.causes() == []
    assert at.left_behind() == []


def test_a_person_stops_it_from_anywhere_by_an_annotation(at: Shop) -> None:
    at.lay_out(NODES, fault="60s")
    allow(at)
    process = begun(at)
    (held,) = at.of(ClusterHeld)
    ledger = at.cluster.read(f"/api/v1/namespaces/{held.suite}/configmaps/{held.ledger}")
    assert ledger is not None
    ledger["metadata"].setdefault("annotations", {})[STOP] = "a customer calls"
    at.cluster.behaviour.kubelet.starts_s = COMES_BACK_S
    at.cluster.apply(ledger)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 4, err
    assert outcome(out)["status"] == "aborted"
    (abort,) = at.of(AbortRequested)
    assert (abort.by, abort.reason) == ("person", "stopped by a person: a customer calls")
    assert [one.ok for one in at.of(Restored)] == [True], "it did not wait for what was on its way back"
    assert at.causes() == []
    assert at.left_behind() == []


def test_an_outage_shorter_than_the_lease_is_in_the_record_and_the_run_goes_on(at: Shop) -> None:
    at.lay_out(NODES, lease="12s", fault="8s")
    allow(at)
    process = begun(at)
    with at.cluster.outage():
        at.eventually(lambda: at.of(ClusterLost))
    out, err = process.communicate(timeout=90)
    assert at.of(ClusterLost), err
    assert at.of(ClusterBack), err
    assert at.of(AbortRequested) == []
    assert outcome(out)["status"] == "completed", err
    assert at.causes() == []
    assert at.left_behind() == []


def test_an_outage_longer_than_the_lease_ends_the_run_and_says_so(at: Shop) -> None:
    at.lay_out(NODES, lease="4s", fault="60s")
    allow(at)
    process = begun(at)
    with at.cluster.outage():
        at.eventually(lambda: at.of(AbortRequested))
    out, err = process.communicate(timeout=90)
    assert process.returncode == 4, err
    (abort,) = at.of(AbortRequested)
    assert abort.by == "cluster"
    assert "Lease" in abort.reason
    assert "the cluster no longer was the run's" in outcome(out).get("verdict", "") + err
    at.eventually(lambda: at.causes() == [])
    assert at.of(RunEnded)[-1].status == "aborted"


def refusal(at: Shop, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a run would be refused for before anything is touched; empty when it would begin."""
    monkeypatch.setenv("KUBECONFIG", at.repository.environment["KUBECONFIG"])
    try:
        made = api.plan(at.root / "experiments" / "shop.yaml", "kubernetes")
        run_dir = at.root / "20260101T000000Z-shop-0000"
        load = made.experiment.load
        targets.make("kubernetes", made.system, run_dir, injections=made.injections, load=load).preflight()
    except Refused as refused:
        return str(refused)
    return ""


USES = {
    "nodes": NODES,
    "pods": PODS,
    "isolate": "region-loss: {region: eu, mode: isolate}",
    "release": "bad-release: {service: web, region: eu, mode: image}",
    "late": "late-dependency: {name: web, delay: 200ms}",
    "quota": "quota-exhaustion: {service: web, region: eu}",
    "evict": NODES,
    "delete": NODES,
}


@pytest.mark.parametrize("word", [*USES, "load"])
def test_without_any_one_of_the_printed_rules_a_run_is_refused_by_that_rules_name(
    at: Shop, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if word == "load":
        with_load(at)
    else:
        at.lay_out(USES[word], empties=word if word in ("evict", "delete") else "taint")
    made = printed_rules(at)
    at.cluster.apply(made)
    at.as_user(at.cluster.account("stormdrill", "stormdrill"))
    before = at.cluster.snapshot()
    assert refusal(at, monkeypatch) == "", "with all of them it would begin"
    places = [(number, rule) for number, item in enumerate(made) for rule in range(len(item.get("rules", ())))]
    assert len(places) > 8
    for number, rule in places:
        gone = made[number]["rules"][rule]
        rest = [one for place, one in enumerate(made[number]["rules"]) if place != rule]
        at.cluster.apply({**made[number], "rules": rest})
        said = refusal(at, monkeypatch)
        assert any(verb in said for verb in gone["verbs"]), (gone, said)
        assert gone["resources"][0].partition("/")[0] in said, (gone, said)
        assert "--rbac" in said, (gone, said)
        at.cluster.apply(made[number])
    assert at.cluster.snapshot() == before, "nothing was touched"


@pytest.mark.parametrize("word", ["pods", "evict", "isolate", "release", "late", "quota"])
def test_with_the_printed_rules_alone_the_run_works(at: Shop, word: str) -> None:
    at.lay_out(USES[word], empties=word if word == "evict" else "taint")
    at.cluster.apply(printed_rules(at))
    at.as_user(at.cluster.account("stormdrill", "stormdrill"))
    asked = len(at.cluster.requests)
    done = at.repository.command("run", "experiments/shop.yaml", "--target", "kubernetes", "--json", limit_s=120)
    assert outcome(done.stdout).get("status") == "completed", f"{done.stderr}\n{done.stdout}"
    refused = {(one.method, one.path) for one in at.cluster.requests[asked:] if one.status == 403}
    exceeded = {("POST", "/api/v1/namespaces/shop/pods")}  # what the fault does: its quota takes no more pods
    assert refused == (exceeded if word == "quota" else set())
    assert {item.outcome for item in at.of(Injected)} == {"done"}
    assert at.of(CauseChanged) == [], "nobody laid hands on it"
    assert all(item.gone for item in at.of(RevertVerified))
    assert at.causes() == []
    assert at.left_behind() == []


def with_load(at: Shop) -> None:
    """Sent from pods of the cluster, by a user who gets a page."""
    at.lay_out(PODS, load="{profile: one, rate: 40/s}")
    (at.root / "loadgen").mkdir()
    (at.root / "loadgen" / "one.yaml").write_text(PROFILE)
    place = at.root / "experiments" / "shop.yaml"
    place.write_text(place.read_text().replace("success{region=us}", "success"))


def test_with_a_load_the_rights_are_those_of_its_pods_too(at: Shop) -> None:
    with_load(at)
    at.cluster.apply(printed_rules(at))
    token = at.cluster.account("stormdrill", "stormdrill")
    at.as_user(token)
    asked = len(at.cluster.requests)
    done = at.repository.command("run", "experiments/shop.yaml", "--target", "kubernetes", "--json", limit_s=150)
    told = outcome(done.stdout)
    assert told.get("status") == "completed", f"{done.stderr}\n{done.stdout}"
    assert told["load"]["sent"] > 0
    assert [(one.method, one.path) for one in at.cluster.requests[asked:] if one.status == 403] == []
    assert at.causes() == []
    assert at.left_behind() == []
    holding = [path for path in at.run_dir.rglob("*") if path.is_file() and token.encode() in path.read_bytes()]
    assert holding == [], "credentials stand in no record"


def things(done: subprocess.CompletedProcess[str]) -> set[tuple[str, str]]:
    return {(one["kind"], one["owner"]) for one in json.loads(done.stdout)["things"] if one["kind"] in CLUSTERED}


CLUSTERED = ("ledger", "lease", "fault")


def test_a_sweep_leaves_a_living_run_alone_and_mends_one_that_nobody_on_this_machine_knows(at: Shop) -> None:
    at.lay_out(NODES, fault="60s")
    allow(at)
    process = begun(at)
    living = at.repository.command("sweep", "--target", "kubernetes", "--json")
    assert things(living) == {("ledger", "living"), ("lease", "living"), ("fault", "living")}
    assert at.causes()
    kill_all_of(at, process)
    at.repository.environment["XDG_STATE_HOME"] = str(at.root / "another-machine")
    swept = at.repository.command("sweep", "--target", "kubernetes", "--json")
    assert swept.returncode == 0, swept.stdout + swept.stderr
    assert at.causes() == []
    assert at.left_behind() == []
    again = at.repository.command("sweep", "--target", "kubernetes", "--json")
    assert things(again) == set()
    (told,) = [note for note in json.loads(again.stdout)["notes"] if note.startswith("mended: ")]
    assert told.startswith(f"mended: run {at.run_dir.name} (")
    assert "its ledger was removed by sweep on " in told


def test_doctor_says_what_a_cluster_offers_and_who_holds_it(at: Shop) -> None:
    seen = {
        one["part"]: one
        for one in json.loads(at.repository.command("doctor", "--target", "kubernetes", "--json").stdout)
    }
    assert seen["API server"]["state"] == "ok"
    assert seen["account"]["state"] == "missing"
    assert "--rbac" in seen["account"]["cost"]
    assert seen["opted in"]["seen"] == "shop"
    assert seen["runs"]["seen"] == "none is open"


def test_a_runner_that_was_frozen_too_long_finds_everything_reverted_and_ends(at: Shop) -> None:
    at.lay_out(NODES, lease="4s", fault="60s")
    allow(at)
    process = begun(at)
    os.kill(process.pid, signal.SIGSTOP)
    try:
        at.eventually(lambda: at.causes() == [])
    finally:
        os.kill(process.pid, signal.SIGCONT)
    out, err = process.communicate(timeout=90)
    assert process.returncode == 4, err
    assert outcome(out)["status"] == "aborted"
    (abort,) = at.of(AbortRequested)
    assert abort.by == "cluster"
    assert at.of(Reverted)[-1].outcome in ("done", "superseded")
    assert at.causes() == []


def test_what_a_person_changed_meanwhile_stays_and_the_record_says_so(at: Shop) -> None:
    at.lay_out(PODS, fault="4s")
    allow(at)
    process = begun(at)
    path = "/apis/apps/v1/namespaces/shop/deployments/web-eu"
    scaled = at.cluster.read(path)
    assert scaled is not None
    assert scaled["spec"]["replicas"] == 0
    scaled["spec"]["replicas"] = 2
    at.cluster.apply(scaled)
    _, err = process.communicate(timeout=90)
    after = at.cluster.read(path)
    assert after is not None
    assert after["spec"]["replicas"] == 2, "nobody's change is overwritten"
    told = at.of(Reverted)[-1]
    assert told.outcome == "superseded", err
    assert "neither what the fault left nor what was before" in told.detail
    assert at.left_behind() == []
    assert "stormdrill" not in str(after["metadata"].get("annotations", {}))


def test_a_second_run_from_elsewhere_is_refused_and_told_who_holds_it(at: Shop) -> None:
    at.lay_out(PODS, fault="60s")
    allow(at)
    process = begun(at)
    first = at.run_dir.name
    elsewhere = Repository(at.root, "shop", {**at.repository.environment, "XDG_STATE_HOME": str(at.root / "other")})
    refused = elsewhere.command(
        "run", "experiments/shop.yaml", "--target", "kubernetes", "--json", "--runs", "others", limit_s=90
    )
    assert refused.returncode == 2, refused.stderr
    assert first in refused.stdout
    assert at.of(AbortRequested) == []
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 4
    assert at.causes() == []
    assert at.left_behind() == []


def test_a_scheduled_run_works_in_the_cluster_under_the_printed_account(at: Shop) -> None:
    at.lay_out(PODS)
    asked = ("plan", "experiments/shop.yaml", "--rbac", "--schedule", "0 3 * * 1")
    printed = at.repository.command(*asked)
    assert printed.returncode == 0, printed.stderr
    made = list(yaml.safe_load_all(printed.stdout))
    at.cluster.apply(made)
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "drill-now", "namespace": "stormdrill"},
        "spec": made[-1]["spec"]["jobTemplate"]["spec"],
    }
    at.cluster.apply(job)

    def over() -> bool:
        now = at.cluster.read("/apis/batch/v1/namespaces/stormdrill/jobs/drill-now")
        status = (now or {}).get("status", {})
        return bool(status.get("succeeded") or status.get("failed"))

    at.eventually(over, limit_s=120)
    (pod,) = [one for one in at.cluster.objects("pods", "stormdrill") if "drill-now" in one["metadata"]["name"]]
    ended = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    log = f"/api/v1/namespaces/stormdrill/pods/{pod['metadata']['name']}/log"
    said = Api(at.cluster.admin).call("GET", log).body.decode()
    assert ended["exitCode"] == 0, said
    assert '"verdict": "PASS"' in said
    assert at.causes() == []
    assert at.left_behind() == [f"configmap {made[-2]['metadata']['name']}"], "the files that it is made of"


def test_who_stops_a_run_does_not_wait_for_a_watchdog_that_does_not_begin(at: Shop) -> None:
    at.lay_out(PODS)
    allow(at)
    at.cluster.run_pods.pop(SUITE)  # its pod is said to run, and says nothing
    process = at.repository.start("run", "experiments/shop.yaml", "--target", "kubernetes", "--json")
    at.eventually(lambda: at.cluster.objects("jobs", "stormdrill") or process.poll() is not None)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=50)
    assert process.returncode == 4, err
    assert outcome(out)["status"] == "aborted"
    assert at.causes() == []
    assert at.left_behind() == []


def test_two_runs_that_begin_at_once_have_one_winner(at: Shop) -> None:
    at.lay_out(PODS, baseline="6s")
    allow(at)
    elsewhere = Repository(at.root, "shop", {**at.repository.environment, "XDG_STATE_HOME": str(at.root / "other")})
    asked = ("run", "experiments/shop.yaml", "--target", "kubernetes", "--json")
    both = [at.repository.start(*asked), elsewhere.start(*asked, "--runs", "others")]
    told = [process.communicate(timeout=120) for process in both]
    codes = sorted(process.returncode for process in both)
    assert codes in ([0, 2], [2, 3]), told
    ((said, err),) = [one for process, one in zip(both, told, strict=True) if process.returncode == 2]
    assert "the system is held in this cluster by" in " ".join(err.split())
    problems = outcome(said)["problems"]
    assert any("the system is held in this cluster by" in one["what"] for one in problems), problems
    assert at.causes() == []
    assert at.left_behind() == []


def test_a_namespace_that_somebody_deletes_ends_the_run_with_that_reason(at: Shop) -> None:
    at.lay_out(NODES, fault="60s")
    allow(at)
    process = begun(at)
    assert Api(at.cluster.admin).call("DELETE", "/api/v1/namespaces/shop").good
    out, _ = process.communicate(timeout=90)
    assert process.returncode == 4
    told = outcome(out)
    assert (told["status"], told["verdict"]) == ("aborted", "INVALID"), "what was measured no longer was the system"
    asked = at.of(AbortRequested)[0]
    assert asked.by == "deleted"
    assert asked.reason.startswith("the namespace shop ")
    assert "deleted by somebody" in asked.reason
    assert at.causes() == []


def test_a_watchdog_that_somebody_removed_is_there_again_when_everything_else_dies(at: Shop) -> None:
    at.lay_out(NODES, fault="60s")
    allow(at)
    process = begun(at)
    assert at.cluster.registry.end("jobs", "stormdrill", at.of(ClusterHeld)[0].watchdog)
    at.eventually(lambda: any("the watchdog is there again" in item.text for item in at.of(Warned)))
    assert process.poll() is None
    kill_all_of(at, process)
    at.eventually(lambda: at.causes() == [])
    assert at.repository.command("recover", at.run_dir.name).returncode == 0


def test_an_instance_is_led_to_anew_and_to_its_next_pod_where_the_one_that_was_known_is_gone(at: Shop) -> None:
    """For whoever undoes a runbook's call after the runner has died."""
    at.lay_out(NODES)
    at.eventually(lambda: at.ready("eu"))
    system = read_system(at.root / "experiments/systems/shop.yaml", target="kubernetes")
    assert system.kubernetes is not None
    clusters = LiveClusters(system.kubernetes, run="r", system="shop", connect=lambda _: at.cluster.admin)
    (pod,) = at.pods("eu")
    name = next(
        slot.instance.name
        for slot in view.read(system, clusters, clusters.names).slots.all()
        if slot.pod.metadata.uid == pod["metadata"]["uid"]
    )
    way = Way(name, "", "shop", pod["metadata"]["name"], pod["metadata"]["uid"], 8080)
    leader = Leader(clusters, system)
    try:
        for _ in ("the same pod", "the next one"):
            with urllib.request.urlopen(f"http://{leader.lead(way)}/", timeout=10) as answer:
                assert answer.read() == b"ok"
            at.cluster.registry.end("pods", "shop", pod["metadata"]["name"])
            at.eventually(lambda: at.pods("eu") and at.pods("eu")[0]["metadata"]["uid"] != way.uid)
    finally:
        leader.close()
