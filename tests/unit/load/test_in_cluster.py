"""What is made in a cluster for a load, and what is said of it, without a cluster."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stormdrill.cluster.api import Api
from stormdrill.errors import Refused
from stormdrill.load.cluster import Crew
from stormdrill.load.crew import workers_inside
from stormdrill.load.files import unpack
from stormdrill.load.in_cluster import FILES_LIMIT, InClusterLoad, Inside
from stormdrill.load.in_cluster_line import _lines
from stormdrill.load.in_cluster_pods import Owner, Place, Pod, _fate, _waits, job_name, job_of, needs
from stormdrill.load.messages import (
    Alive,
    File,
    Generator,
    Now,
    Records,
    Whole,
    decode_boot,
    decode_from_generator,
    encode,
)
from stormdrill.load.messages import Boot as BootMessage
from stormdrill.load.messages import Worker as WorkerMessage
from stormdrill.model.experiment import LoadUse
from stormdrill.model.profile import Piece, Profile, Stream, Trace
from stormdrill.targets.kubernetes.rbac import rules

PLACE = Place("stormdrill", "stormdrill:1", "20260101-120000-shop", 90.0)
PROFILE = Profile("evening", "u", "constant", (Piece(0, 1), Piece(10, 2)), (Stream("a", 1.0, {}, 1.0),))


def pod_spec(place: Place = PLACE) -> dict[str, Any]:
    job: Any = job_of("generator-0", place)
    spec: dict[str, Any] = job["spec"]["template"]["spec"]
    return spec


# --- the Job ---


def test_a_pod_is_nobody_and_is_given_nothing_that_it_does_not_need() -> None:
    spec = pod_spec()
    (container,) = spec["containers"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert not container["securityContext"]["allowPrivilegeEscalation"]
    assert [item["name"] for item in container["env"]] == ["HOME"]
    assert set(spec["volumes"][0]) == {"name", "emptyDir"}
    assert "tolerations" not in spec


def test_a_job_ends_by_itself_and_goes_with_its_owner_and_its_run() -> None:
    job: Any = job_of("generator-master", PLACE)
    assert job["spec"]["backoffLimit"] == 0
    assert 90 < job["spec"]["activeDeadlineSeconds"] < 600
    assert job["spec"]["ttlSecondsAfterFinished"] <= 60
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"
    assert job["metadata"]["labels"]["stormdrill"] == PLACE.run
    assert job["spec"]["template"]["metadata"]["labels"]["stormdrill"] == PLACE.run
    assert "ownerReferences" not in job["metadata"]
    owned: Any = job_of("generator-master", msgspec.structs.replace(PLACE, owner=Owner("ledger", "u1")))
    assert owned["metadata"]["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": "ledger", "uid": "u1"}
    ]


def test_each_harmed_node_is_avoided_by_a_requirement_of_its_own() -> None:
    spec = pod_spec(msgspec.structs.replace(PLACE, avoid=("n1", "n2")))
    (term,) = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term["matchFields"] == [
        {"key": "metadata.name", "operator": "NotIn", "values": [name]} for name in ("n1", "n2")
    ]


@pytest.mark.parametrize("run", ["a", "20261122T135058Z-Shop_2-29bb", "x" * 90])
@pytest.mark.parametrize("instance", ["generator-master", "generator-63"])
def test_a_jobs_name_is_one_that_its_pods_can_carry_as_a_label(run: str, instance: str) -> None:
    name = job_name(run, instance)
    assert len(name) <= 63
    assert name == name.lower()
    assert name.replace("-", "").isalnum()
    assert name.endswith(instance)


def test_what_it_needs_is_in_the_suites_namespace_alone() -> None:
    wanted = needs("stormdrill", "eu")
    assert {(need.namespace, need.cluster) for need in wanted} == {("stormdrill", "eu")}
    assert all(need.why for need in wanted)
    assert rules(wanted) == [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]},
        {"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["get", "create"]},
        {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["get", "create", "delete"]},
    ]


# --- what a pod says ---


def container(**state: object) -> dict[str, object]:
    return {"containerStatuses": [{"name": "load", "state": state}]}


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (
            container(waiting={"reason": "ImagePullBackOff", "message": "no such tag"}),
            ("ImagePullBackOff", "no such tag"),
        ),
        (container(terminated={"reason": "OOMKilled"}), ("OOMKilled", "")),
        (
            {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3"}]},
            ("Unschedulable", "0/3"),
        ),
        ({"reason": "Evicted", "message": "memory"}, ("Evicted", "memory")),
        ({}, ("", "")),
    ],
)
def test_what_a_pod_waits_for_is_told(status: dict[str, object], reason: tuple[str, str]) -> None:
    assert _waits(status) == reason


@pytest.mark.parametrize(
    ("found", "fate"),
    [
        ({"metadata": {"uid": "another"}}, "its pod p is gone"),
        ({"metadata": {"uid": "u", "deletionTimestamp": "x"}}, "its pod p on n1 was deleted or evicted"),
        (
            {"metadata": {"uid": "u"}, "status": {"phase": "Failed", "reason": "Evicted"}},
            "its pod p on n1 ended (Evicted)",
        ),
        (
            {"metadata": {"uid": "u"}, "status": container(terminated={"reason": "OOMKilled", "exitCode": 137})},
            "its pod p on n1 ended (OOMKilled, exit code 137)",
        ),
        ({"metadata": {"uid": "u"}, "status": {"phase": "Running"}}, ""),
    ],
)
def test_what_became_of_a_pod_is_told(found: dict[str, object], fate: str) -> None:
    assert _fate(Pod("p", "u", "10.0.0.1", "n1"), found) == fate


# --- the line ---


def test_messages_are_heard_whole_however_they_are_cut() -> None:
    said = encode(Now(1, 2.5)) + encode(Alive())
    for at in range(len(said) + 1):
        heard: list[object] = []
        begun = _lines(bytearray(), said[:at], heard.append)
        begun = _lines(begun, said[at:], heard.append)
        assert heard == [Now(1, 2.5), Alive()]
        assert not begun


def test_what_is_no_message_is_not_taken_for_one() -> None:
    with pytest.raises(msgspec.MsgspecError):
        _lines(bytearray(), b"Traceback (most recent call last)\n", print)


def test_a_boot_is_read_as_it_was_written_files_included() -> None:
    boot = BootMessage(
        "1.0", WorkerMessage("generator-0", "10.0.0.1", 5557, "-"), (File("a.py", bytes(range(256)), "s"),)
    )
    line = encode(boot)
    assert line.count(b"\n") == 1
    assert decode_boot(line) == boot


def test_a_file_that_was_changed_on_the_way_or_belongs_elsewhere_is_not_written(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"x").hexdigest()
    with pytest.raises(ValueError, match=r"a\.py arrived changed"):
        unpack([File("a.py", b"y", digest)], tmp_path)
    with pytest.raises(ValueError, match="outside"):
        unpack([File("../a.py", b"x", digest)], tmp_path)
    unpack([File("load/a.py", b"x", digest)], tmp_path)
    assert [path.name for path in tmp_path.rglob("*.py")] == ["a.py"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, None])
def test_the_holder_waits_ends_at_once_when_told_and_not_later_than_its_time(number: signal.Signals | None) -> None:
    longest = "60" if number else "0.05"
    argv = [sys.executable, "-c", HOLDER, longest]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        if number:
            process.send_signal(number)
        assert process.wait(10) == (0 if number else 1)


HOLDER = """
import signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})  # as it does itself, before it is told here
print("here", flush=True)
import stormdrill.load.in_cluster_holder as holder
sys.exit(holder.main(float(sys.argv[1])))
"""


# --- how many, and what is refused ---


def use(rate: float, **more: Any) -> LoadUse:
    return LoadUse("evening", rate, **more)


def test_as_many_workers_are_made_as_the_rate_takes_or_the_system_says() -> None:
    assert workers_inside(use(10.0), PROFILE) == 1
    assert workers_inside(use(10.0), PROFILE, 3) == 3
    assert workers_inside(use(3000.0), PROFILE, 1) == 4
    assert workers_inside(use(10.0, workers=2), PROFILE, 3) == 2
    assert workers_inside(LoadUse("", 0.0, locustfile="mine.py", users=10), None, 2) == 2


def test_too_few_workers_and_other_machines_are_refused() -> None:
    with pytest.raises(Refused, match="write workers: 4"):
        workers_inside(use(3000.0, workers=2), PROFILE)
    with pytest.raises(Refused, match="load hosts: alpha are other machines"):
        workers_inside(use(10.0, hosts=("alpha",)), PROFILE)


def load_of(tmp_path: Path, profile: Profile, locustfile: str = "x = 1\n") -> InClusterLoad:
    file = tmp_path / "mine.py"
    file.write_text(locustfile)
    config = Generator("", "run", "", str(file), profile, 10.0, 1, ("http://10.0.0.1",))

    class Nobody:
        server = "http://127.0.0.1:9"

    return InClusterLoad(
        tmp_path,
        config,
        Crew(1),
        inside=Inside(Api(Nobody()), PLACE),  # type: ignore[arg-type]  # nobody asks it
        tell=print,
        stop_run=print,
        announce=print,
    )


def test_files_that_are_too_large_to_be_brought_in_are_refused_with_the_limit(tmp_path: Path) -> None:
    (tmp_path / "big.times").write_bytes(b"0" * (FILES_LIMIT + 1))
    big = Trace("big.times", "", 1, 1.0)
    with pytest.raises(Refused, match=f"at most {FILES_LIMIT:,} are brought into a cluster"):
        load_of(tmp_path, msgspec.structs.replace(PROFILE, trace=big))
    gone = Trace("gone.times", "", 1, 1.0)
    with pytest.raises(Refused, match=r"gone\.times: can't be read"):
        load_of(tmp_path, msgspec.structs.replace(PROFILE, trace=gone))
    with pytest.raises(Refused, match="is not Python"):
        load_of(tmp_path, PROFILE, "def (\n")


def test_the_load_stands_in_no_object_as_a_secret(tmp_path: Path) -> None:
    load = load_of(tmp_path, PROFILE)
    text = json.dumps([job_of(name, PLACE) for name in ("generator-master", "generator-0")])
    assert load._token not in text
    assert "TOKEN" not in text


# --- standard output as a line ---

SPEAKER = """
import gevent
from stormdrill.load.locust.control import standard
from stormdrill.load.messages import Alive, Records, Whole

line = standard()
print("a locustfile that prints")
for number in range(200):
    line.send(Records("w", b"", bytes([number]) * 50_000))
line.send(Whole("w", 1, "x"))
line.send(Alive())
print("all is said")
line.listen(lambda message: print("heard", type(message).__name__), lambda: print("gone"))
line.wait_for_end_of_file()
while line._rest or line._first or line._then:
    gevent.sleep(0.01)
"""


def test_what_is_much_stays_in_order_and_what_shows_life_overtakes_it() -> None:
    argv = [sys.executable, "-c", SPEAKER]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        told = [process.stderr.readline(), process.stderr.readline()]  # until then nobody reads what it says
        process.stdin.write(encode(Alive()))
        process.stdin.close()
        heard = [decode_from_generator(line) for line in process.stdout.read().splitlines()]
        told += process.stderr.read().splitlines(keepends=True)
        assert b"".join(told).decode().splitlines() == [
            "a locustfile that prints",
            "all is said",
            "heard Alive",
            "gone",
        ]
        assert process.wait(20) == 0
    assert heard.count(Alive()) == 1
    assert heard.index(Alive()) < 200
    heard.remove(Alive())
    assert heard == [*(Records("w", b"", bytes([number]) * 50_000) for number in range(200)), Whole("w", 1, "x")]
