"""Several generators: the same load as one, from one epoch; whoever is lost is named at once, and nobody goes on."""

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from load_crew import (
    Counting,
    Crewed,
    rows_of,
)
from load_trial import answering

from stormdrill.errors import Refused
from stormdrill.load.arrivals import arrivals
from stormdrill.load.calibrate import null_server
from stormdrill.load.cluster import MASTER
from stormdrill.model.event import LoadWorkerLost
from stormdrill.model.profile import Retry, Stream
from stormdrill.store.records import read_records

pytestmark = pytest.mark.real


@pytest.fixture
def crewed(tmp_path):
    made = Crewed(tmp_path)
    yield made
    made.children.close()


def test_three_workers_send_together_what_one_would_and_each_its_own_third(crewed):
    streams = (Stream("a", 0.7, {"tier": "1"}, 1.0), Stream("b", 0.3, {"tier": "2"}, 2.5))
    with null_server() as server:
        crewed.start(server.url, streams=streams, poisson=True)
        ended, closed = crewed.end(2.0)
    planned = list(itertools.takewhile(lambda item: item.at_s <= 2.0, arrivals(crewed.profile, 120.0, 11)))
    found = rows_of(crewed)
    for worker, rows in enumerate(found):
        assert len(rows)
        assert set((rows["job"] % 3).tolist()) == {worker}
    rows = np.sort(np.concatenate(found), order="job")
    assert rows["job"].tolist() == [item.job for item in planned]
    assert rows["labels"].tolist() == [item.stream for item in planned]
    assert np.abs(rows["intended_us"] - np.array([item.at_s * 1e6 for item in planned])).max() <= 1
    epochs = {read_records(path)[0]["epoch_mono_ns"] for path in crewed.load.records()}
    assert epochs == {round(crewed.epoch_s * 1e9)} or len(epochs) == 1
    assert (ended.scheduled, ended.sent, ended.lost_workers) == (len(planned), len(planned), 0)
    assert [item.file for item in closed] == [f"load/worker-{number}.records" for number in range(3)]
    assert all(item.complete for item in closed)
    assert (crewed.started.workers, crewed.started.loop) == (3, "open")
    assert crewed.started.names == ["generator-0", "generator-1", "generator-2"]
    assert not crewed.told
    assert not crewed.stopped


def test_the_runner_sees_the_sum_of_all_workers_while_it_happens(crewed):
    with null_server() as server:
        crewed.start(server.url, rate=300.0).until(2.0)
        live = crewed.load.live()
        ended, _ = crewed.end(2.2)
    assert live.sent == pytest.approx(330, abs=90)
    assert live.scheduled == pytest.approx(live.sent, abs=3)
    assert crewed.load.generator_cpu_s > 0
    assert ended.lag_p99_ms > 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_that_is_killed_or_frozen_is_named_within_two_seconds_and_all_stop(crewed, number):
    with Counting() as server:
        crewed.start(server.url).until(1.0)
        at_s = time.monotonic()
        os.kill(crewed.pid("generator-1"), number)
        assert crewed.wait_for(LoadWorkerLost) - at_s < 2.0
        (lost,) = crewed.events(LoadWorkerLost)
        assert (lost.worker, lost.file) == ("generator-1", "load/worker-1.records")
        ended, closed = crewed.end(1.5)
        assert crewed.gone()
        assert server.stands_still()
    assert "generator-1 was lost" in crewed.stopped[0][1]
    assert len(crewed.events(LoadWorkerLost)) == 1
    assert ended.lost_workers == 1
    assert [item.complete for item in closed] == [True, False, True]
    stopped_us = max(int(rows["intended_us"].max()) for rows in rows_of(crewed))
    assert stopped_us / 1e6 < crewed.stopped[0][0] - crewed.epoch_s + 0.3


def test_once_a_worker_is_lost_nobody_tries_anything_again(crewed):
    busy = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
    streams = (Stream("s", 1.0, {}, 30.0),)
    with answering(busy) as (url, _):
        crewed.start(url, rate=30.0, streams=streams, retry=Retry(100, 0.1)).until(1.0)
        os.kill(crewed.pid("generator-1"), signal.SIGKILL)
        lost_s = crewed.wait_for(LoadWorkerLost) - crewed.epoch_s
        crewed.end(1.5, timeout_s=15.0)
    for rows in rows_of(crewed):
        assert rows["attempt"].max() > 0
        assert ((rows["intended_us"] + rows["sent_us"].astype(float)) / 1e6).max() < lost_s + 1.0


def test_a_killed_master_is_named_within_two_seconds_and_nobody_goes_on_loading(crewed):
    with Counting() as server:
        crewed.start(server.url).until(1.0)
        at_s = time.monotonic()
        os.kill(crewed.pid(MASTER), signal.SIGKILL)
        assert crewed.wait_for(LoadWorkerLost) - at_s < 2.0
        assert crewed.gone()
        assert server.stands_still()
        ended, closed = crewed.end(1.5)
    (lost,) = crewed.events(LoadWorkerLost)
    assert (lost.worker, lost.file) == (MASTER, "")
    assert ended.lost_workers == 3
    assert not any(item.complete for item in closed)
    assert all(len(rows) for rows in rows_of(crewed))


def test_workers_end_by_themselves_when_their_master_is_frozen(crewed):
    with null_server() as server:
        crewed.start(server.url).until(0.5)
        crewed.load._vigil.stop()  # the runner sees nothing, as if it were on the way out itself
        os.kill(crewed.pid(MASTER), signal.SIGSTOP)
        for name in ("generator-0", "generator-1", "generator-2"):
            assert crewed.children.children[name].wait(4.0) != 0


def test_all_end_when_the_runner_is_killed(tmp_path):
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "sys.path.insert(0, sys.argv[3])\n"
        "from load_crew import Crewed\n"
        "crewed = Crewed(Path(sys.argv[1])).start(sys.argv[2])\n"
        "print(*[child.pid for child in crewed.children.children.values()], flush=True)\n"
        "time.sleep(60)\n"
    )
    with Counting() as server:
        command = [sys.executable, "-c", script, str(tmp_path), server.url, str(Path(__file__).parent)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as runner:
            pids = [int(word) for word in runner.stdout.readline().split()]
            assert len(pids) == 4
            while not server.seen:
                time.sleep(0.05)
            runner.kill()
        until_s = time.monotonic() + 3.0
        while any(_lives(pid) for pid in pids) and time.monotonic() < until_s:
            time.sleep(0.02)
        assert not any(_lives(pid) for pid in pids)
        assert server.stands_still()


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def test_users_of_a_closed_loop_are_shared_out_over_the_workers(crewed, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "import os\n"
        "from locust import FastHttpUser, constant, task\n"
        "class Mine(FastHttpUser):\n"
        "    wait_time = constant(0.1)\n"
        "    def on_start(self):\n"
        f"        open({str(tmp_path)!r} + f'/user-{{os.getpid()}}-{{id(self)}}', 'w').close()\n"
        "    @task\n"
        "    def get(self):\n"
        "        self.client.get('/')\n"
    )
    with Counting() as server:
        crewed.start(server.url, workers=2, users=5, locustfile=file)
        ended, closed = crewed.end(2.0)
    assert crewed.started.loop == "closed"
    users = [path.name.split("-")[1] for path in tmp_path.glob("user-*")]
    assert sorted(users.count(pid) for pid in set(users)) == [2, 3]
    assert (ended.lost_workers, ended.users, ended.fewest_users) == (0, 5, 5)
    assert ended.sent == sum(len(rows) for rows in rows_of(crewed)) > 30
    assert {read_records(path)[0]["loop"] for path in crewed.load.records()} == {"closed"}
    assert all(item.complete for item in closed)


def test_a_locustfile_that_fails_in_a_worker_refuses_the_load_with_its_line(crewed, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("import nothing_of_that_name\n")
    with pytest.raises(Refused, match=r"generator-\d: .*mine\.py: line 1: ModuleNotFoundError"):
        crewed.start("http://127.0.0.1:9", locustfile=file)
    assert crewed.gone()


def test_nobody_loads_for_a_runner_that_is_frozen(crewed):
    with Counting() as server:
        crewed.start(server.url, rate=60.0, workers=2)
        crewed.load._vigil.stop()  # which says that the runner lives, as long as it does
        crewed.wait_for(LoadWorkerLost, within_s=15.0)
        assert crewed.gone()
        assert server.stands_still()
    (lost,) = crewed.events(LoadWorkerLost)
    assert lost.worker == "generator-master"
    assert "nothing was heard of the run for 5." in lost.detail
