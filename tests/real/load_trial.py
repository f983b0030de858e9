"""A generator on trial, and servers that answer as they are told."""

import contextlib
import itertools
import socket
import threading
import time
from collections import Counter
from pathlib import Path

from stormdrill.load.calibrate import OwnChildren
from stormdrill.load.launcher import LocustLoad
from stormdrill.model.event import LoadEnded, RecordClosed
from stormdrill.model.profile import Profile, Stream
from stormdrill.store.records import Flag, Outcome, read_records

HTTP_USER = Path(__file__).parents[2] / "loadgen" / "http_user.py"


@contextlib.contextmanager
def answering(*answers: bytes):
    """A server that gives one answer a request, in turn, and then closes; empty: closes without one. Counts them."""
    seen: list[bytes] = []
    turns = itertools.cycle(answers)

    def handle(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while request := connection.recv(65536):
                seen.append(request)
                answer = next(turns)
                if not answer:
                    return
                connection.sendall(answer)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=handle, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", seen
        listener.shutdown(socket.SHUT_RDWR)


def unused_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


class Trial:
    """One generator and the children that it needs."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.children = OwnChildren(directory)
        self.epoch_s = 0.0

    def start(self, *entries, **options):
        self.make_ready(*entries, **options)
        self.epoch_s = time.monotonic() + 0.1
        self.load.begin(self.epoch_s * 1e3)
        return self

    def make_ready(
        self,
        *entries,
        rate=100.0,
        deadline_s=1.0,
        arrivals="constant",
        streams=None,
        file=HTTP_USER,
        cap=2000,
        retry=None,
    ):
        streams = streams or (Stream("get", 1.0, {"tier": "1"}, deadline_s),)
        self.profile = Profile("trial", "user", arrivals, (), streams, retry=retry)
        self.load = LocustLoad(
            directory=self.directory,
            run="trial",
            profile=self.profile,
            rate_per_s=rate,
            seed=11,
            locustfile=file,
            entries=entries,
            max_in_flight=cap,
        )
        self.load.prepare(self.children)

    def until(self, into_s: float) -> None:
        time.sleep(max(self.epoch_s + into_s - time.monotonic(), 0))

    def end(self, into_s: float, timeout_s: float = 3.0, *, retries: bool = True):
        ended, closed = self.load.end((self.epoch_s + into_s) * 1e3, timeout_s, retries=retries)
        assert isinstance(ended, LoadEnded)
        assert isinstance(closed, RecordClosed)
        self.header, self.rows = read_records(self.directory / closed.file)
        return ended, closed

    def outcomes(self) -> dict[Outcome, int]:
        final = self.rows[(self.rows["flags"] & Flag.FINAL) != 0]
        return dict(Counter(Outcome(value) for value in final["outcome"].tolist()))


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "http.py"  # the name of a module of Python's own, on purpose
    path.write_text("from stormdrill.load.locust import Arrival, OpenLoopUser\n" + text)
    return path
