"""A run's load with several workers, and what a keeper, a conductor, people and liars would do with it."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgpack
import zmq

from stormdrill import __version__
from stormdrill.errors import Refused, SystemNotReady
from stormdrill.load import wire
from stormdrill.load.calibrate import OwnChildren
from stormdrill.load.cluster import ClusterLoad, Crew
from stormdrill.load.messages import Generator
from stormdrill.load.sealed import Seal
from stormdrill.model.event import LoadEnded, RecordClosed
from stormdrill.model.profile import Profile, Retry, Stream
from stormdrill.store.identity import boot_id
from stormdrill.store.records import read_records

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

    def make(  # noqa: PLR0913  (what a load is made of)
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
        retry: Retry | None = None,
    ) -> "Crewed":
        self.profile = Profile("p", "http_user", "poisson" if poisson else "constant", (), streams, retry=retry)
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

    def goes(self, name: str, within_s: float = 5.0) -> bool:
        """Whether the runner hears that a worker that was ready is so no more."""
        until_s = time.monotonic() + within_s
        while name in self.load._ready and time.monotonic() < until_s:
            time.sleep(0.01)
        return name not in self.load._ready

    def gone(self, within_s: float = 3.0) -> bool:
        """Whether every process of the load has ended."""
        until_s = time.monotonic() + within_s
        while time.monotonic() < until_s:
            if all(child.poll() is not None for child in self.children.children.values()):
                return True
            time.sleep(0.02)
        return False


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


def refusal(place: str, data: bytes) -> object:
    """What the master says to somebody whose first words are these."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as stranger:
        stranger.setsockopt(zmq.IDENTITY, os.urandom(8).hex().encode())
        stranger.connect(f"tcp://{place}")
        for kind, words in (("client_ready", "2.47.0"), (wire.KIND, data)):
            stranger.send(msgpack.dumps([kind, words, "whoever"]))
        while stranger.poll(10_000):
            kind, words, _ = msgpack.loads(stranger.recv())
            if kind == wire.REFUSED:
                return words
    raise AssertionError("nobody refused it")


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


def clock_ahead_s(command: tuple[str, ...]) -> float:
    """By how much the monotonic clock of a process so started is ahead of ours; 0 where the kernel can't."""
    read = [sys.executable, "-c", "import time; print(time.monotonic())"]
    done = subprocess.run([*command, *read], capture_output=True, text=True, check=False)
    return float(done.stdout) - time.monotonic() if done.returncode == 0 else 0.0
