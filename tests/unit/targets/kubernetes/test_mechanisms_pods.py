"""What runs in pods and beside them: bounded, within limits, and over whoever has gone."""

from __future__ import annotations

import json
import os
import urllib.request
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec.structs import replace

from fake_cluster import FakeCluster
from kube_rig import Kube, Rig, injection
from kube_scenes import FLOOD, served, told
from stormdrill.cluster.confined import away_from
from stormdrill.errors import Unreachable
from stormdrill.model.mechanism import Beside, Pressure
from stormdrill.model.plan import Injection
from stormdrill.model.undo import KubeDelete, KubeEndExec
from stormdrill.targets.kubernetes.drilling import Drilling
from stormdrill.targets.kubernetes.mechanism import Object, at
from stormdrill.targets.kubernetes.mechanisms import pressure
from stormdrill.targets.kubernetes.mechanisms.pressure import PressingPods

BURN = Beside("burn", ("--cores", "1"), cores=1)


def pressing(rig: Rig) -> PressingPods:
    found = rig.mechanisms["pressure"]
    assert isinstance(found, PressingPods)
    return found


def leaking(kube: Kube, **numbers: object) -> Injection:
    served(kube)
    how = Pressure(**{"mb_per_s": 40.0, "ceiling_mb": 48.0, **numbers})  # type: ignore[arg-type]
    return injection("pressure", how)


def limited(kube: Kube, memory: str) -> None:
    """As if its container had this limit."""
    assert kube.fake is not None
    kube.fake.registry.change(
        "pods", kube.namespaces[-1], the_pod(kube), lambda pod: resources(pod).update(limits={"memory": memory})
    )


def resources(pod: Object) -> dict[str, object]:
    found = at(pod, "spec", "containers", "0", "resources")
    assert isinstance(found, dict)
    if found["limits"]["memory"] is None:
        found["limits"] = {}
    return found


def the_pod(kube: Kube) -> str:
    pods = kube.all(f"/api/v1/namespaces/{kube.namespaces[-1]}/pods", labelSelector="app=web")
    return str(at(pods[0], "metadata", "name"))


# Memory


@pytest.mark.parametrize(
    ("memory", "numbers", "said"),
    [
        ("256Mi", {}, ""),
        ("", {}, "no memory limit"),
        ("256Mi", {"ceiling_mb": 8.0}, "no more than the allocator needs"),
        ("128Mi", {"ceiling_mb": 200.0}, "the kernel ends the whole container"),
        ("128Mi", {"ceiling_mb": 200.0, "victim": "app"}, ""),
    ],
)
def test_no_more_is_taken_than_leaves_a_container_alive_unless_it_is_meant(
    kube: Kube, rig: Rig, memory: str, numbers: dict[str, object], said: str
) -> None:
    one = leaking(kube, **numbers)
    limited(kube, memory)
    refused = rig.mechanisms["pressure"].refusal(one)
    assert said in refused
    assert bool(refused) == bool(said)


def test_the_ceiling_is_what_the_limit_leaves(kube: Kube, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    one = leaking(kube)
    room_mb = 40.0
    monkeypatch.setattr(PressingPods, "_room_mb", lambda *_: room_mb)
    rig.arm(one)
    argv = pressing(rig)._prepared[one.id].argv
    assert argv[argv.index("--ceiling-mb") + 1] == "40"
    room_mb = 20.0
    with pytest.raises(Unreachable, match="20 MB left below its limit"):
        rig.mechanisms["pressure"].undo(one)


def test_an_allocator_ends_when_its_stream_does_as_when_the_runner_is_gone(kube: Kube, rig: Rig) -> None:
    one = leaking(kube)
    rig.harm(one)
    rig.seen(one, lambda effect: effect.bit)
    pressing(rig)._close(one)
    rig.seen(one, lambda effect: effect.gone and not effect.bit)


@pytest.mark.parametrize(("reason", "bit"), [("OOMKilled", True), ("Error", False)])
def test_a_container_that_was_started_anew_has_nothing_left_of_it(kube: Kube, rig: Rig, reason: str, bit: bool) -> None:
    """That it bit is believed only of one that the kernel ended for want of memory."""
    kube.deployment(kube.namespace(), replicas=1)
    assert kube.fake is not None
    namespace, name = kube.namespaces[-1], the_pod(kube)
    limits = {"limits": {"memory": "1Ti"}}
    kube.fake.registry.change(
        "pods", namespace, name, lambda pod: pod["spec"]["containers"][0].update(resources=limits)
    )
    one = injection("pressure", Pressure(40.0, 48.0, victim="app"))
    rig.harm(one)
    rig.seen(one, lambda effect: effect.bit)

    def ended(pod: dict[str, Any]) -> None:
        last = {"terminated": {"reason": reason, "exitCode": 137}}
        pod["status"]["containerStatuses"][0].update(restartCount=1, lastState=last)

    kube.fake.registry.change("pods", namespace, name, ended)
    seen = rig.seen(one, lambda effect: f"started anew: {reason}" in effect.detail)
    assert (seen.bit, seen.gone) == (bit, True)
    pressing(rig)._close(one)


def test_a_pod_that_is_gone_took_its_allocator_with_it(kube: Kube, rig: Rig) -> None:
    one = leaking(kube)
    rig.harm(one)
    rig.seen(one, lambda effect: effect.bit)
    kube.do("DELETE", f"/api/v1/namespaces/{kube.namespaces[-1]}/pods/{the_pod(kube)}")
    rig.seen(one, lambda effect: effect.gone and "no more" in effect.detail)
    assert {undone.word for undone in rig.revert(one)} == {"superseded"}


def test_nothing_is_started_once_the_run_may_change_nothing(kube: Kube, rig: Rig) -> None:
    one = leaking(kube)
    rig.arm(one)
    rig.over = "the Lease was lost"
    with pytest.raises(Unreachable, match="the Lease was lost"):
        rig.mechanisms["pressure"].apply(one)
    assert rig.seen(one, lambda effect: effect.gone).detail == "no allocator runs"


def test_without_python_a_shell_takes_the_memory(kube: Kube, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    real = pressure.run

    def without(api: object, slot: object, argv: tuple[str, ...]) -> object:
        return None if argv[0] == "python3" else real(api, slot, argv)  # type: ignore[arg-type]  # handed on

    monkeypatch.setattr(pressure, "run", without)
    one = leaking(kube, ceiling_mb=36.0)
    rig.harm(one)
    assert pressing(rig)._prepared[one.id].argv[:2] == ("sh", "-c")
    rig.seen(one, lambda effect: effect.bit)
    rig.revert(one)
    rig.seen(one, lambda effect: effect.gone)


# Beside


def made(rig: Rig, one: Injection) -> Object:
    (change,) = rig.mechanisms["beside"].changes(one)  # type: ignore[attr-defined]  # of `Changing`
    found: Object = json.loads(change.body)
    return found


def test_the_scheduler_places_what_burns_on_the_node_of_whom_it_stands_beside(kube: Kube, rig: Rig) -> None:
    namespace, _ = served(kube)
    pod = made(rig, injection("beside", BURN))
    node = at(kube.read(f"/api/v1/namespaces/{namespace}/pods/{the_pod(kube)}"), "spec", "nodeName")
    required = at(pod, "spec", "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution")
    assert at(required, "nodeSelectorTerms", "0", "matchFields", "0", "values") == [node]
    assert at(pod, "spec", "nodeName") is None
    assert at(pod, "spec", "restartPolicy") == "Never"
    assert at(pod, "spec", "activeDeadlineSeconds") == 41
    assert at(pod, "spec", "containers", "0", "resources", "requests", "cpu") == "10m"


def test_what_floods_goes_wherever_there_is_room_and_to_the_entry_alone(kube: Kube, rig: Rig) -> None:
    served(kube)
    pod = made(rig, injection("beside", FLOOD))
    (entry,) = rig.entries()
    command = at(pod, "spec", "containers", "0", "command")
    assert isinstance(command, list)
    assert command[command.index("--entries") + 1] == entry
    assert entry == f"http://{command[command.index('--beyond') + 1]}:80"
    assert at(pod, "spec", "affinity") == away_from(())


def test_where_the_scheduler_finds_no_room_nothing_is_said_to_burn(kube: Kube, rig: Rig) -> None:
    namespace, _ = served(kube)
    node = str(at(kube.read(f"/api/v1/namespaces/{namespace}/pods/{the_pod(kube)}"), "spec", "nodeName"))
    kube.patch(f"/api/v1/nodes/{node}", {"spec": {"unschedulable": True}})
    one = injection("beside", BURN)
    rig.harm(one)
    seen = rig.seen(one, lambda effect: "Pending" in effect.detail)
    assert (seen.bit, seen.gone) == (False, False)
    rig.revert(one)
    rig.seen(one, lambda effect: effect.gone)


@pytest.mark.parametrize("word", ["pressure", "beside", "tell"])
def test_who_has_no_pod_now_is_refused(kube: Kube, rig: Rig, word: str) -> None:
    kube.namespace()
    how = {"pressure": Pressure(1.0, 48.0), "beside": BURN, "tell": None}[word]
    assert "has no pod now" in rig.mechanisms[word].refusal(injection(word, how))


# Told


def version(rig: Rig, one: Injection) -> str:
    return rig.seen(one, lambda effect: True).detail


def test_what_is_told_is_taken_back_by_its_own_pod_when_nobody_reverts_it(kube: Kube, rig: Rig) -> None:
    one = replace(injection("tell", told(kube)), for_s=-8.5)  # its pod's deadline: ten seconds later
    rig.harm(one)
    assert rig.mechanisms["tell"].observe(one).bit or rig.seen(one, lambda effect: effect.bit)
    rig.seen(one, lambda effect: not effect.bit and "stable" in effect.detail)
    rig.revert(one)
    rig.seen(one, lambda effect: effect.gone)


def test_one_that_is_ended_before_its_program_stands_has_asked_for_nothing(
    kube: Kube, fake: FakeCluster, rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first process of a namespace isn't ended by a signal that it doesn't catch yet: it would ask after that, and
    be killed before it takes anything back."""
    one = injection("tell", told(kube))
    found = rig.which("web-1")
    assert found is not None
    assert fake.behaviour is not None
    fake.behaviour.kubelet.first_ones = True
    (tmp_path / "sitecustomize.py").write_text("import time; time.sleep(1.0)\n")  # so slowly does Python begin
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    rig.harm(one)
    (word,) = rig.words[one.id]
    assert isinstance(word, KubeDelete)
    state = ("status", "containerStatuses", "0", "state", "running")
    kube.until(lambda: at(kube.read(word.path), *state), "its program never began")
    assert {undone.word for undone in rig.revert(one)} == {"done"}
    assert "stable" in urllib.request.urlopen(f"http://{found.ip}:8080/", timeout=5).read().decode()
    rig.seen(one, lambda effect: effect.gone)


def test_what_a_person_sets_meanwhile_stays_theirs(kube: Kube, rig: Rig) -> None:
    one = injection("tell", told(kube))
    rig.harm(one)
    rig.seen(one, lambda effect: effect.bit)
    found = rig.which("web-1")
    assert found is not None
    body = json.dumps({"version": "theirs"}).encode()
    urllib.request.urlopen(f"http://{found.ip}:8080/", data=body, timeout=5).close()
    rig.revert(one)
    assert "theirs" in rig.seen(one, lambda effect: effect.gone).detail or "no more" in version(rig, one)
    assert "theirs" in urllib.request.urlopen(f"http://{found.ip}:8080/", timeout=5).read().decode()


def test_what_is_so_already_is_not_told(kube: Kube, rig: Rig) -> None:
    one = injection("tell", told(kube))
    rig.harm(one)
    rig.seen(one, lambda effect: effect.bit)
    with pytest.raises(Unreachable, match="is leaky already"):
        rig.mechanisms["tell"].undo(replace(one, id="fault/two"))
    rig.revert(one)


def test_a_policy_that_would_keep_the_pod_that_tells_away_is_named(kube: Kube, rig: Rig) -> None:
    one = injection("tell", told(kube))
    metadata = {"name": "closed", "namespace": kube.namespaces[-1]}
    spec: Object = {"podSelector": {"matchLabels": {"app": "web"}}, "ingress": []}
    kube.make({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec})
    assert "NetworkPolicy closed would keep a pod of ours from web-1" in rig.mechanisms["tell"].refusal(one)


def test_a_request_that_nobody_took_back_is_not_said_to_be_gone(kube: Kube, rig: Rig) -> None:
    """Its pod was lost with its node: nothing ended it in order."""
    one = injection("tell", told(kube))
    rig.harm(one)
    rig.seen(one, lambda effect: effect.bit)
    (word,) = rig.words[one.id]
    kube.do("DELETE", f"{word.path}?gracePeriodSeconds=0")  # type: ignore[union-attr]  # a created pod's
    seen = rig.seen(one, lambda effect: not effect.bit)
    assert not seen.gone, seen


def test_what_ends_an_allocator_is_among_what_the_watchdog_must_be_allowed(kube: Kube, rig: Rig) -> None:
    """It is ended by exec, which no change of an object tells of."""
    found = leaking(kube)
    [word] = pressing(rig).words(found)
    assert isinstance(word, KubeEndExec)
    armed = rig.mechanisms["pressure"].undo(found)
    assert [(word.namespace, word.pod, word.tag) for word in armed] == [(word.namespace, word.pod, word.tag)]  # type: ignore[union-attr]
    drilling = Drilling(cast(Any, rig), {"pressure": pressing(rig)}, [found])
    of_undos = {(need.verb, need.resource, need.subresource, need.namespace) for need in drilling.of_undos("")}
    assert of_undos == {
        ("get", "pods", "", word.namespace),
        ("get", "pods", "exec", word.namespace),
        ("create", "pods", "exec", word.namespace),
    }
    assert drilling.of_undos("elsewhere") == []
