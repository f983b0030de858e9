"""Several generators: the same load as one, from one epoch; whoever is lost is named at once, and nobody goes on."""

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgpack
import numpy as np
import pytest
import zmq

from stormdrill import __version__
from stormdrill.errors import Refused, SystemNotReady
from stormdrill.load import wire
from stormdrill.load.arrivals import arrivals
from stormdrill.load.calibrate import OwnChildren, null_server
from stormdrill.load.cluster import MASTER, ClusterLoad, Crew
from stormdrill.load.messages import Ended, Generator
from stormdrill.load.sealed import Seal
from stormdrill.model.event import LoadClockCompared, LoadEnded, LoadWorkerLost, RecordClosed
from stormdrill.model.profile import Profile, Stream
from stormdrill.store.identity import boot_id
from stormdrill.store.records import read_records

pytestmark = pytest.mark.real
HTTP_USER = Path(__file__).parents[2] / "loadgen" / "http_user.py"
TOKEN = "a-token-of-the-test-of-many-workers"  # noqa: S105


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
        locustfile: Path = HTTP_USER,
        users: int = 0,
    ) -> "Crewed":
        self.profile = Profile("p", "http_user", "poisson" if poisson else "constant", (), streams)
        config = Generator(
            control="",
            run="trial",
            records="",
            locustfile=str(locustfile),
            profile=None if users else self.profile,
            rate_per_s=rate,
            seed=11,
            entries=entries,
            boot_id=boot_id(),
            users=users,
            deadline_s=1.0 if users else 0.0,
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
        self.first_s = 0.0
        """When the first one came, on the monotonic clock."""
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
                self.first_s = self.first_s or time.monotonic()
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
    assert ended.lost_workers == 0
    assert ended.sent == sum(len(rows) for rows in rows_of(crewed)) > 30
    assert {read_records(path)[0]["loop"] for path in crewed.load.records()} == {"closed"}
    assert all(item.complete for item in closed)


def test_a_locustfile_that_fails_in_a_worker_refuses_the_load_with_its_line(crewed, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("import nothing_of_that_name\n")
    with pytest.raises(Refused, match=r"generator-\d: .*mine\.py: line 1: ModuleNotFoundError"):
        crewed.start("http://127.0.0.1:9", locustfile=file)
    assert crewed.gone()


# --- workers that a person starts -----------------------------------------------------------------------------------


@contextlib.contextmanager
def worker(name: str, master: str, *, token: str = TOKEN, before: tuple[str, ...] = (), wait: str = "20", **more: str):
    """`stormdrill load worker`, by its environment alone; its standard error is text."""
    variables = {
        "STORMDRILL_LOAD_MASTER": master,
        "STORMDRILL_LOAD_NAME": name,
        "STORMDRILL_LOAD_TOKEN": token,
        "STORMDRILL_LOAD_WAIT": wait,
        **more,
    }
    command = [*before, sys.executable, "-m", "stormdrill", "load", "worker"]
    with subprocess.Popen(command, env={**os.environ, **variables}, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def in_the_background(crewed: Crewed) -> threading.Thread:
    """Waits for its workers meanwhile; what it raises is kept in `crewed.refused`."""
    crewed.refused = None

    def prepare() -> None:
        try:
            crewed.load.prepare(crewed.children)
        except (Refused, SystemNotReady) as error:
            crewed.refused = error

    thread = threading.Thread(target=prepare, daemon=True)
    thread.start()
    return thread


def address(crewed: Crewed) -> str:
    assert crewed.announced.wait(20)
    return crewed.command.split("--master ")[1].split()[0]


def test_a_worker_that_a_person_starts_gets_everything_from_the_master_and_its_records_come_back(crewed):
    with Counting() as server:
        crewed.make(server.url, rate=60.0, workers=1, hosts=("alpha",))
        preparing = in_the_background(crewed)
        with worker("alpha", address(crewed)) as alpha:
            preparing.join(20)
            assert crewed.refused is None
            crewed.begin().until(1.0)
            assert len(read_records(crewed.load.records()[1])[1]) > 10  # while it goes on: guards judge by them
            ended, closed = crewed.end(2.0)
            assert alpha.wait(5) == 0
            assert "the load has ended" in alpha.stderr.read()
    assert f"STORMDRILL_LOAD_TOKEN={TOKEN} stormdrill load worker --master 127.0.0.1:" in crewed.command
    assert [len(rows) for rows in rows_of(crewed)] == [60, 60]
    assert (ended.scheduled, ended.sent, ended.lost_workers) == (120, 120, 0)
    assert all(item.complete for item in closed)
    before, after = crewed.events(LoadClockCompared)
    assert (before.worker, before.file, before.when, after.when) == (
        "alpha",
        "load/worker-1.records",
        "before",
        "after",
    )
    assert abs(before.offset_ms) <= before.error_ms + 0.01  # one machine, one clock
    assert after.error_ms >= before.error_ms - 1e-9 or after.round_trip_ms < before.round_trip_ms
    assert not crewed.stopped


def test_whoever_is_not_of_the_run_is_refused_with_a_sentence_and_the_run_says_who_is_missing(crewed):
    crewed.make("http://127.0.0.1:9", workers=0, hosts=("alpha", "beta"), limit_s=9.0)
    preparing = in_the_background(crewed)
    place = address(crewed)
    with (
        worker("alpha", place) as first,
        worker("gamma", place) as stranger,
        worker("beta", place, token="another-token-than-the-run-has") as liar,  # noqa: S106
    ):
        assert "alpha is in" in first.stderr.readline()
        with worker("alpha", place) as second:
            assert second.wait(20) == 2
            assert "a worker named 'alpha' is there already" in second.stderr.read()
        assert stranger.wait(20) == 2
        assert "the experiment names no host 'gamma'; it names alpha, beta" in stranger.stderr.read()
        assert liar.wait(20) == 2
        assert "the token is not that of this run" in liar.stderr.read()
        preparing.join(20)
    assert isinstance(crewed.refused, SystemNotReady)
    assert "load workers are missing: beta never became ready" in str(crewed.refused)
    assert crewed.gone()


def test_a_worker_that_finds_no_run_says_so_and_ends():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        place = f"127.0.0.1:{listener.getsockname()[1]}"
    with worker("alpha", place, wait="1") as alpha:
        assert alpha.wait(20) == 3
        assert f"nobody waits for load workers at {place}" in alpha.stderr.read()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_of_another_machine_that_dies_is_named_within_two_seconds(crewed, number):
    with Counting() as server:
        crewed.make(server.url, rate=60.0, workers=1, hosts=("alpha",))
        preparing = in_the_background(crewed)
        with worker("alpha", address(crewed)) as alpha:
            preparing.join(20)
            crewed.begin().until(1.0)
            at_s = time.monotonic()
            alpha.send_signal(number)
            assert crewed.wait_for(LoadWorkerLost) - at_s < 2.0
            assert "load worker alpha was lost" in crewed.stopped[0][1]
            ended, closed = crewed.end(1.2)
            assert server.stands_still()
    assert ended.lost_workers == 1
    assert [item.complete for item in closed] == [True, False]
    assert len(rows_of(crewed)[1]) > 10  # what had arrived is kept


def test_what_is_no_message_harms_nobody(crewed):
    """A port that is open is knocked at: neither bytes nor Locust's own words from strangers change anything."""
    with Counting() as server:
        crewed.make(server.url, rate=60.0, workers=1, hosts=("alpha",))
        preparing = in_the_background(crewed)
        place = address(crewed)
        host, port = place.split(":")
        with worker("alpha", place), zmq.Context() as context, context.socket(zmq.DEALER) as stranger:
            preparing.join(20)
            with socket.create_connection((host, int(port))) as raw:
                raw.sendall(b"GET / HTTP/1.1\r\n\r\n" * 50)
            stranger.connect(f"tcp://{place}")
            crewed.begin()
            garbage = [
                b"",
                b"\xc1\xff\x00",
                msgpack.dumps(1),
                msgpack.dumps(["stormdrill", b"x" * 100, "alpha"]),
                msgpack.dumps(["quit", None, "alpha"]),
                msgpack.dumps(["client_ready", {"a": []}, "alpha"]),
                msgpack.dumps(["heartbeat", 7, "alpha"]),
                msgpack.dumps(["stats", {}, "alpha"]),
            ]
            for item in garbage * 20:
                stranger.send(item)
            ended, _ = crewed.end(1.5)
            stranger.close(linger=0)
    assert (ended.sent, ended.lost_workers) == (90, 0)
    assert not crewed.stopped


class Liar:
    """Speaks as a worker that knows the token, and then says whatever it is told to."""

    def __init__(self, name: str, place: str) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.IDENTITY, f"liar-{name}".encode())
        self._socket.connect(f"tcp://{place}")
        self._seal = Seal(TOKEN, "worker")
        self.raw("client_ready", "2.47.0")
        nonce = b"0123456789abcdef"
        self.say(wire.Hello(name, nonce, __version__, "00000000-0000-4000-8000-000000000000"))
        welcome = self.hear(wire.Welcome)
        self._seal = Seal(TOKEN, "worker", nonce, welcome.nonce)
        self.hear(wire.Job)
        self.say(wire.Prepared(10))

    def __enter__(self) -> "Liar":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close(linger=0)
        self._context.term()

    def raw(self, kind: str, data: object) -> None:
        self._socket.send(msgpack.dumps([kind, data, "whoever"]))

    def say(self, message: wire.FromWorker) -> None:
        self.raw(wire.KIND, self._seal.close(wire.pack(message)))

    def hear(self, kind: type):
        """The next message of this kind; questions for the clock are answered meanwhile, and life is shown."""
        while self._socket.poll(10_000):
            word, data, _ = msgpack.loads(self._socket.recv())
            if word != wire.KIND:
                continue
            message = wire.unpack_from_master(self._seal.open(data))
            if isinstance(message, wire.Ping):
                self.say(wire.Pong(message.number, time.monotonic()))
            elif isinstance(message, kind):
                return message
            else:
                self.say(wire.Report())
        raise AssertionError(f"never heard {kind.__name__}")


LIES = {
    "noise": (lambda liar: liar.raw(wire.KIND, b"\x00" * 90), "it sent what can't be read: made with another token"),
    "nothing": (lambda liar: liar.raw(wire.KIND, None), "it sent what can't be read: no message of stormdrill's"),
    "another hello": (
        lambda liar: liar.say(wire.Hello("alpha", b"x", __version__, "")),
        "it said who it is a second time",
    ),
    "a failure": (lambda liar: liar.say(wire.Failed("out of memory")), "out of memory"),
    "records that are not there": (
        lambda liar: liar.say(wire.Done(Ended(9, 9, 9, 0, 0, 0, 0, "", 0.1), 1234, "0" * 64)),
        "none of its 1,234 bytes of records arrived",
    ),
    "changed records": (
        lambda liar: (
            liar.say(wire.Report(None, b"{}\n", b"x" * 32)),
            liar.say(wire.Done(Ended(1, 1, 1, 0, 0, 0, 0, "", 0.1), 35, "0" * 64)),
        ),
        "its records arrived changed",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_worker_that_tells_garbage_is_lost_by_name_and_the_others_stop(crewed, lie):
    tell, why = LIES[lie]
    with Counting() as server:
        crewed.make(server.url, rate=60.0, workers=1, hosts=("alpha",))
        preparing = in_the_background(crewed)
        with Liar("alpha", address(crewed)) as alpha:
            answering = threading.Thread(target=alpha.hear, args=(wire.Begin,), daemon=True)
            answering.start()
            preparing.join(20)
            assert crewed.refused is None
            crewed.begin()
            answering.join(10)
            tell(alpha)
            crewed.wait_for(LoadWorkerLost)
            ended, closed = crewed.end(0.5)
            assert server.stands_still()
    (lost,) = crewed.events(LoadWorkerLost)
    assert lost.worker == "alpha"
    assert why in lost.detail
    assert ended.lost_workers == 1
    assert closed[0].complete
    assert not any(item.complete for item in closed[1:])


# --- another machine: its own network, its own clock -----------------------------------------------------------------

AHEAD_S = 5000


class Elsewhere:
    """A network namespace with one link to this one: as far as addresses and clocks go, another machine."""

    def __init__(self) -> None:
        number = os.getpid() % 200
        self.name = f"sd-{os.getpid()}"
        self._link = f"sdl{os.getpid() % 100000}"
        self.here, self.there = f"10.231.{number}.1", f"10.231.{number}.2"

    def __enter__(self) -> "Elsewhere":
        peer = f"{self._link}p"
        for words in (
            f"netns add {self.name}",
            f"link add {self._link} type veth peer name {peer} netns {self.name}",
            f"addr add {self.here}/30 dev {self._link}",
            f"link set {self._link} up",
            f"-n {self.name} addr add {self.there}/30 dev {peer}",
            f"-n {self.name} link set {peer} up",
            f"-n {self.name} link set lo up",
        ):
            subprocess.run(["ip", *words.split()], check=True, capture_output=True)
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["ip", "link", "del", self._link], check=False, capture_output=True)
        subprocess.run(["ip", "netns", "del", self.name], check=False, capture_output=True)

    def command(self, ahead_s: int = 0) -> tuple[str, ...]:
        clock = ("unshare", "--time", "--monotonic", str(ahead_s)) if ahead_s else ()
        return ("ip", "netns", "exec", self.name, *clock)

    def unplug(self) -> None:
        subprocess.run(["ip", "link", "set", self._link, "down"], check=True)


@pytest.fixture
def elsewhere():
    try:
        with Elsewhere() as made:
            yield made
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no network namespace can be made here: {getattr(error, 'stderr', error)}")


def clock_ahead_s(command: tuple[str, ...]) -> float:
    """By how much the monotonic clock of a process so started is ahead of ours; 0 where the kernel can't."""
    read = [sys.executable, "-c", "import time; print(time.monotonic())"]
    done = subprocess.run([*command, *read], capture_output=True, text=True, check=False)
    return float(done.stdout) - time.monotonic() if done.returncode == 0 else 0.0


def test_a_worker_whose_clock_is_another_sends_at_the_same_moments(crewed, elsewhere):
    command = elsewhere.command(AHEAD_S)
    if abs(clock_ahead_s(command) - AHEAD_S) > 10:
        pytest.skip("this kernel has no time namespaces: a worker with another clock could not be tried")
    with Counting(elsewhere.here) as server:
        crewed.make(server.url, rate=50.0, workers=0, hosts=("alpha",), listen=f"{elsewhere.here}:0")
        preparing = in_the_background(crewed)
        with worker("alpha", address(crewed), before=command) as alpha:
            preparing.join(20)
            assert crewed.refused is None
            crewed.begin()
            ended, closed = crewed.end(1.5)
            assert alpha.wait(5) == 0
        assert 0 <= server.first_s - crewed.epoch_s < 0.3
    before, _after = crewed.events(LoadClockCompared)
    assert before.offset_ms == pytest.approx(AHEAD_S * 1000, abs=1000)
    assert 0 < before.error_ms < 50
    header, rows = read_records(crewed.load.records()[0])
    assert header["epoch_mono_ns"] == pytest.approx(crewed.epoch_s * 1e9, abs=1000)
    assert header["clock_error_ms"] == pytest.approx(before.error_ms, abs=1e-3)
    assert (ended.sent, ended.lost_workers, len(rows)) == (75, 0, 75)
    assert all(item.complete for item in closed)


def test_a_worker_that_is_cut_off_is_lost_and_ends_by_itself(crewed, elsewhere):
    with Counting(elsewhere.here) as server:
        crewed.make(server.url, rate=50.0, workers=1, hosts=("alpha",), listen=f"{elsewhere.here}:0")
        preparing = in_the_background(crewed)
        with worker("alpha", address(crewed), before=elsewhere.command()) as alpha:
            preparing.join(20)
            assert crewed.refused is None
            crewed.begin().until(1.0)
            at_s = time.monotonic()
            elsewhere.unplug()
            assert crewed.wait_for(LoadWorkerLost) - at_s < 2.1
            assert alpha.wait(5) == 3
            assert "nothing was heard of the master for" in alpha.stderr.read()
            ended, closed = crewed.end(1.2)
            assert server.stands_still()
    (lost,) = crewed.events(LoadWorkerLost)
    assert lost.worker == "alpha"
    assert (ended.lost_workers, [item.complete for item in closed]) == (1, [True, False])


def test_a_system_that_only_this_machine_reaches_is_refused_for_workers_of_others(crewed):
    with pytest.raises(Refused, match="can't be reached from another machine"):
        crewed.make("http://127.0.0.1:9", hosts=("alpha",), listen="10.231.0.1:5557")


def test_an_address_that_cannot_be_listened_at_is_refused_with_its_name(crewed):
    crewed.make("http://127.0.0.1:9", workers=2, listen="192.0.2.1:5557")
    with pytest.raises(Refused, match=r"workers can't be waited for at 192\.0\.2\.1:5557"):
        crewed.load.prepare(crewed.children)
    assert crewed.gone()
