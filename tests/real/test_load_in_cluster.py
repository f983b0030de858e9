"""A load from inside: the same arrivals, records that came home whole, and nobody who goes on when it is over."""

import contextlib
import hashlib
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from load_crew import Counting, clock_ahead_s, rows_of
from load_in_cluster import IMAGE, Inside, runner

from fake_cluster import FakeCluster
from fake_cluster.processes import marked
from stormdrill.errors import Refused, SystemNotReady
from stormdrill.load import in_cluster_line
from stormdrill.load.in_cluster_pods import Owner, needs
from stormdrill.model.event import LoadClockCompared, LoadWorkerLost
from stormdrill.model.profile import Profile, Stream, Trace
from stormdrill.store.records import read_records
from stormdrill.targets.kubernetes.rbac import rules
from waiting import eventually

pytestmark = pytest.mark.real


@pytest.fixture
def cluster():
    with FakeCluster(run_images=(IMAGE,)) as cluster:
        cluster.world()
        yield cluster


@pytest.fixture
def inside(tmp_path, cluster):
    inside = Inside(tmp_path, cluster)
    yield inside
    if inside.load is not None:
        inside.load._stop_all(0.1)


def replayed(trace):
    stream = Stream("s", 1.0, {"tier": "1"}, 1.0)
    return Profile("p", "http_user", "constant", (), (stream,), trace=trace)


def grant(cluster, wanted):
    """A Role of exactly these, to the account `loader`."""
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "rules": rules(wanted)}
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "loader"},
        "subjects": [{"kind": "ServiceAccount", "name": "loader", "namespace": "stormdrill"}],
    }
    meta = {"name": "loader", "namespace": "stormdrill"}
    cluster.apply([{**role, "metadata": dict(meta)}, {**binding, "metadata": dict(meta)}])


def worker_process(inside, instance):
    """Its pid on this machine, by its pod's mark."""
    uid = inside.load._pods.pod_of(instance).uid
    for pid in marked([uid]):
        with contextlib.suppress(OSError):
            if b"--boot" in (Path("/proc") / str(pid) / "cmdline").read_bytes():
                return pid
    raise AssertionError(f"{instance} has no process")


def test_two_workers_in_pods_send_what_was_asked_for_and_their_records_come_home(inside):
    with Counting() as server:
        inside.start(server.url, rate=200.0)
        ended, closed = inside.end(2.0)
        assert server.stands_still()
        assert server.seen == 400
    assert (ended.scheduled, ended.sent, ended.dropped, ended.lost_workers) == (400, 400, 0, 0)
    assert ended.detail == ""
    assert [(item.file, item.complete) for item in closed] == [
        ("load/worker-0.records", True),
        ("load/worker-1.records", True),
    ]
    assert sum(len(rows) for rows in rows_of(inside)) == 400
    times = np.sort(np.concatenate([rows["intended_us"] for rows in rows_of(inside)]))
    assert np.allclose(np.diff(times), 5000, atol=2)
    assert inside.stopped == []
    assert inside.left() == []
    compared = [(item.worker, item.when) for item in inside.events(LoadClockCompared)]
    assert sorted(compared) == [(f"generator-{n}", when) for n in (0, 1) for when in ("after", "before")]
    header, _ = read_records(inside.load.records()[0])
    assert header["epoch_mono_ns"] == pytest.approx(inside.epoch_s * 1e9, abs=1000)
    assert header["clock_error_ms"] > 0


def test_records_come_home_while_the_load_goes_on(inside):
    with Counting() as server:
        inside.start(server.url, rate=200.0).until(1.5)
        assert sum(len(rows) for rows in rows_of(inside)) > 100
        assert inside.load.live().sent == pytest.approx(200, abs=60)
        inside.end(1.6)


def test_a_profile_that_replays_a_recording_brings_it_along(inside, tmp_path):
    moments = [0.1 * number for number in range(20)]
    data = "".join(f"{moment:.3f}\n" for moment in moments).encode()
    (tmp_path / "trace.times").write_bytes(data)
    trace = Trace("trace.times", hashlib.sha256(data).hexdigest(), len(moments), moments[-1])
    with Counting() as server:
        inside.start(server.url, rate=trace.mean_per_s, profile=replayed(trace))
        ended, _ = inside.end(3.0)
        assert server.seen == ended.sent == 20


def test_the_token_stands_in_no_object_and_is_no_argument(inside, cluster):
    with Counting() as server:
        inside.start(server.url)
        token = inside.load._token
        assert len(token) > 20
        assert token not in json.dumps(cluster.snapshot())
        assert not any(token in f"{request.path} {request.query} {request.body}" for request in cluster.requests)
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                assert token.encode() not in (process / "cmdline").read_bytes()
                if process.name != str(os.getpid()):
                    assert token.encode() not in (process / "environ").read_bytes()
        inside.end(0.5)


CLOCK = """
import os, sys
ahead_s = 4000 + int(os.environ["FAKE_CLUSTER_POD"].replace("-", ""), 16) % 1000
os.execvp("unshare", ["unshare", "--time", "--monotonic", str(ahead_s), sys.executable, *sys.argv[1:]])
"""


def test_pods_whose_clocks_are_all_others_send_at_the_same_moments(inside, monkeypatch):
    if abs(clock_ahead_s(("unshare", "--time", "--monotonic", "5000")) - 5000) > 10:
        pytest.skip("this kernel has no time namespaces: pods with another clock could not be tried")
    argv = ("python3", "-c", CLOCK, *in_cluster_line.ARGV[1:])
    monkeypatch.setattr(in_cluster_line, "ARGV", argv)
    with Counting() as server:
        inside.start(server.url, rate=50.0)
        ended, closed = inside.end(1.5)
        assert 0 <= server.first_s - inside.epoch_s < 0.3
        assert server.seen == ended.sent == 75
        assert server.stands_still()
    assert all(item.complete for item in closed)
    compared = {(item.worker, item.when): item for item in inside.events(LoadClockCompared)}
    offsets = {worker: item.offset_ms for (worker, when), item in compared.items() if when == "before"}
    assert all(4_000_000 <= offset <= 5_000_100 for offset in offsets.values())
    assert len({round(offset) for offset in offsets.values()}) == 2
    for worker, offset_ms in offsets.items():
        again = compared[worker, "after"]
        assert abs(again.offset_ms - offset_ms) <= again.error_ms
        assert 0 < again.error_ms < 50
    header, _ = read_records(inside.load.records()[1])
    assert header["epoch_mono_ns"] == pytest.approx(inside.epoch_s * 1e9, abs=1000)


# --- who is lost -----------------------------------------------------------------------------------------------


def test_a_workers_pod_that_is_deleted_is_named_and_nobody_goes_on(inside, cluster):
    with Counting() as server:
        inside.start(server.url, rate=100.0).until(0.7)
        path = f"/api/v1/namespaces/stormdrill/pods/{inside.pod('generator-1')}"
        assert inside.api.call("DELETE", path, {"gracePeriodSeconds": 0}).good
        inside.wait_for(LoadWorkerLost)
        ended, closed = inside.end(1.0)
        assert server.stands_still()
    (lost,) = inside.events(LoadWorkerLost)
    assert lost.worker == "generator-1"
    assert lost.file == "load/worker-1.records"
    assert lost.detail
    assert "load worker generator-1 was lost" in inside.stopped[0][1]
    assert ended.lost_workers == 1
    assert [item.complete for item in closed] == [True, False]
    assert len(rows_of(inside)[1]) > 5  # what had arrived is kept
    assert inside.left() == []


def test_a_worker_that_is_killed_in_its_pod_is_named_with_its_exit_code(inside):
    with Counting() as server:
        inside.start(server.url, rate=100.0).until(0.5)
        os.kill(worker_process(inside, "generator-0"), signal.SIGKILL)
        inside.wait_for(LoadWorkerLost)
        ended, _ = inside.end(0.8)
        assert server.stands_still()
    (lost,) = inside.events(LoadWorkerLost)
    assert (lost.worker, lost.detail) == ("generator-0", "it ended with exit code 137")
    assert ended.lost_workers == 1


def test_a_master_whose_pod_is_gone_takes_all_with_it(inside):
    with Counting() as server:
        inside.start(server.url, rate=100.0).until(0.5)
        path = f"/api/v1/namespaces/stormdrill/pods/{inside.pod('generator-master')}"
        assert inside.api.call("DELETE", path, {"gracePeriodSeconds": 0}).good
        inside.wait_for(LoadWorkerLost)
        ended, _ = inside.end(0.8)
        assert server.stands_still()
    (lost,) = inside.events(LoadWorkerLost)
    assert (lost.worker, lost.file) == ("generator-master", "")
    assert ended.lost_workers == 2


def test_when_the_api_server_goes_nobody_goes_on_sending(inside, cluster):
    with Counting() as server:
        inside.start(server.url, rate=100.0).until(0.7)
        with cluster.outage():
            inside.wait_for(LoadWorkerLost)
            ended, _ = inside.end(1.0)
            assert server.stands_still()
    assert ended.lost_workers == 2
    assert "was lost: its connection through the API server broke" in inside.stopped[0][1]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_when_the_runner_goes_or_is_frozen_nobody_goes_on_sending(cluster, number):
    with Counting() as server, runner(cluster, server.url) as process:
        eventually(lambda: server.seen > 20)
        process.send_signal(number)
        eventually(server.stands_still, 15.0)
        assert not process.poll() or number == signal.SIGKILL


# --- what keeps it from beginning ------------------------------------------------------------------------------


def test_a_locustfile_that_fails_when_it_is_imported_is_refused_with_its_line(inside, tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text("import os\n\nraise RuntimeError('not today')\n")
    inside.make("http://127.0.0.1:9", locustfile=bad)
    with pytest.raises(Refused, match=r"bad\.py: line 3: RuntimeError: not today"):
        inside.load.prepare(inside.children)
    assert inside.left() == []


def test_an_image_of_another_version_is_told_with_both(inside, monkeypatch):
    monkeypatch.setattr(in_cluster_line, "__version__", "0.0.1")
    inside.make("http://127.0.0.1:9")
    with pytest.raises(SystemNotReady, match=r"the run is of 0\.0\.1; name an image of the same version"):
        inside.load.prepare(inside.children)
    assert inside.left() == []


def test_an_image_that_is_not_there_is_told_at_once(inside):
    inside.make("http://127.0.0.1:9", image="nowhere.invalid/x:1", pull="Never")
    with pytest.raises(SystemNotReady, match="ErrImageNeverPull"):
        inside.load.prepare(inside.children)
    assert inside.left() == []


@pytest.mark.parametrize("what", ["drop-after", "drop-before", "429", "500", "503", "401"])
def test_trouble_while_jobs_are_made_or_taken_away_makes_none_twice_and_leaves_none(inside, cluster, what):
    cluster.trouble(("POST", "/jobs$"), what, times=1)
    cluster.trouble(("DELETE", "/jobs/"), what, times=1)
    with Counting() as server:
        inside.start(server.url, rate=100.0)
        assert len(cluster.objects("jobs.batch", "stormdrill")) == 3
        ended, _ = inside.end(0.5)
        assert ended.sent == server.seen == 50
    assert inside.left() == []


def test_what_it_needs_is_enough_and_nothing_of_it_too_much(cluster, tmp_path):
    token = cluster.account("stormdrill", "loader")
    wanted = needs("stormdrill")
    grant(cluster, wanted)
    inside = Inside(tmp_path, cluster, cluster.access(token))
    with Counting() as server:
        inside.start(server.url, rate=100.0)
        ended, _ = inside.end(0.5)
        assert ended.sent == server.seen == 50
    assert inside.left() == []
    assert not [request for request in cluster.requests if request.status == 403]
    used = {one for request in cluster.requests if request.user.endswith(":loader") for one in request.took()}
    only_where_something_is_lost = {("get", "pods", ""), ("get", "jobs", "")}
    assert {(need.verb, need.resource, need.subresource) for need in wanted} - used <= only_where_something_is_lost


def test_its_pods_stay_off_nodes_that_are_harmed_and_go_with_the_ledger(inside, cluster):
    ledger = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ledger", "namespace": "stormdrill"}}
    cluster.apply(ledger)
    uid = cluster.read("/api/v1/namespaces/stormdrill/configmaps/ledger")["metadata"]["uid"]
    nodes = [node["metadata"]["name"] for node in cluster.objects("nodes")]
    kept = nodes[-1]
    inside.make("http://127.0.0.1:9", owner=Owner("ledger", uid), avoid=tuple(nodes[:-1]))
    inside.load.prepare(inside.children)
    assert {pod["spec"]["nodeName"] for pod in inside.pods()} == {kept}
    assert inside.api.call("DELETE", "/api/v1/namespaces/stormdrill/configmaps/ledger").good
    assert inside.left() == []
