"""Several generators: the same load as one, from one epoch; whoever is lost is named at once, and nobody goes on."""

import contextlib
import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from stormdrill.errors import Refused, SystemNotReady
from stormdrill.load.arrivals import arrivals
from stormdrill.load.calibrate import OwnChildren, null_server
from stormdrill.load.cluster import MASTER, ClusterLoad, Crew
from stormdrill.load.messages import Generator
from stormdrill.model.event import LoadClockCompared, LoadEnded, LoadWorkerLost, RecordClosed
from stormdrill.model.profile import Profile, Stream
from stormdrill.store.identity import boot_id
from stormdrill.store.records import Outcome, read_records

pytestmark = pytest.mark.real
HTTP_USER = Path(__file__).parents[2] / "loadgen" / "http_user.py"
TOKEN = "a-token-of-the-test-of-many-workers"


class Crewed:
    """A run's load with several workers, and what the keeper and the conductor would do for it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.children = OwnChildren(directory)
        self.told: list[tuple[float, object]] = []
        self.stopped: list[tuple[float, str]] = []
        self.announced = threading.Event()
        self.command = ""
        self.load: ClusterLoad | None = None
        self.epoch_s = 0.0

    def make(
        self,
        *entries: str,
        rate: float = 120.0,
        workers: int = 3,
        hosts: tuple[str, ...] = (),
        listen: str = "",
        streams: tuple[Stream, ...] = (Stream("s", 1.0, {"tier": "1"}, 1.0),),
        limit_s: float = 20.0,
        poisson: bool = False,
    ) -> "Crewed":
        self.profile = Profile("p", "http_user", "poisson" if poisson else "constant", (), streams)
        config = Generator(
            control="",
            run="trial",
            records="",
            locustfile=str(HTTP_USER),
            profile=self.profile,
            rate_per_s=rate,
            seed=11,
            entries=entries,
            boot_id=boot_id(),
        )
        self.load = ClusterLoad(
            self.directory,
            config,
            Crew(workers, hosts, listen, TOKEN if hosts else ""),
            tell=lambda event: self.told.append((time.monotonic(), event)),
            stop_run=lambda why: self.stopped.append((time.monotonic(), why)),
            announce=self._announce,
            hosts_limit_s=limit_s,
        )
        return self

    def _announce(self, text: str) -> None:
        self.command = text
        self.announced.set()

    def start(self, *entries: str, **options: object) -> "Crewed":
        self.make(*entries, **options)
        self.load.prepare(self.children)
        for instance, child in self.children.children.items():
            threading.Thread(target=self._reap, args=(instance, child), daemon=True).start()
        return self.begin()

    def begin(self) -> "Crewed":
        self.epoch_s = time.monotonic() + self.load.lead_ms / 1e3
        self.started = self.load.begin(self.epoch_s * 1e3)
        return self

    def _reap(self, instance: str, child: subprocess.Popen[bytes]) -> None:
        """What the keeper sees and pushes."""
        child.wait()
        self.load.lost(instance, f"it ended ({child.returncode})")

    def until(self, at_s: float) -> "Crewed":
        time.sleep(max(self.epoch_s + at_s - time.monotonic(), 0))
        return self

    def end(self, at_s: float, timeout_s: float = 2.0) -> tuple[LoadEnded, list[RecordClosed]]:
        self.until(at_s)
        ended, *closed = self.load.end((self.epoch_s + at_s) * 1e3, timeout_s)
        assert isinstance(ended, LoadEnded)
        return ended, closed

    def pid(self, instance: str) -> int:
        return self.children.children[instance].pid

    def events(self, kind: type) -> list:
        return [event for _, event in self.told if isinstance(event, kind)]

    def wait_for(self, kind: type, within_s: float = 10.0) -> float:
        """When it was told, on the monotonic clock."""
        until_s = time.monotonic() + within_s
        while time.monotonic() < until_s:
            for at_s, event in list(self.told):
                if isinstance(event, kind):
                    return at_s
            time.sleep(0.01)
        raise AssertionError(f"nobody told of {kind.__name__}")

    def gone(self, within_s: float = 3.0) -> bool:
        """Whether every process of the load has ended."""
        until_s = time.monotonic() + within_s
        while time.monotonic() < until_s:
            if all(child.poll() is not None for child in self.children.children.values()):
                return True
            time.sleep(0.02)
        return False


@pytest.fixture
def crewed(tmp_path):
    made = Crewed(tmp_path)
    yield made
    made.children.close()


class Counting:
    """Answers every request at once, and knows how many there were."""

    ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.seen = 0
        self._listener = socket.create_server((host, 0), backlog=256)
        self.url = f"http://{host}:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> "Counting":
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def stands_still(self) -> bool:
        """Not a request for half a second."""
        before = self.seen
        time.sleep(0.5)
        return self.seen == before

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while connection.recv(65536):
                self.seen += 1
                connection.sendall(self.ANSWER)


def rows_of(crewed: Crewed) -> list:
    return [read_records(path)[1] for path in crewed.load.records()]


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
        "from test_load_distributed import Crewed\n"
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
