"""The process target's looks, at servers that misbehave: bounded, and never ready without a whole answer."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from small_system import server, system

from stormdrill.keeper import procfs
from stormdrill.keeper.family import signal_name
from stormdrill.model.event import Spawned
from stormdrill.targets.process.halting import life_of
from stormdrill.targets.process.target import ProcessTarget

pytestmark = pytest.mark.real
PORT = "import http.server, sys, time\nport = int(sys.argv[1])\n"
DRIPS = PORT + (
    "import socket\n"
    "listener = socket.create_server(('127.0.0.1', port))\n"
    "while True:\n"
    "    one, _ = listener.accept()\n"
    "    one.recv(65536)\n"
    "    try:\n"
    "        one.sendall(b'HTTP/1.1 200 OK\\r\\nX-Long: ')\n"
    "        while True:\n"
    "            one.sendall(b'x')\n"
    "            time.sleep(0.05)\n"
    "    except OSError:\n"
    "        one.close()\n"
)
FAILS = PORT + (
    "class Handler(http.server.BaseHTTPRequestHandler):\n"
    "    def do_GET(self):\n"
    "        self.send_error(503)\n"
    "    def log_message(self, *args):\n"
    "        pass\n"
    "http.server.HTTPServer(('127.0.0.1', port), Handler).serve_forever()\n"
)


class Children:
    """Starts what the target asks for, as the keeper would; ends all of it."""

    def __init__(self) -> None:
        self.made: list[subprocess.Popen[bytes]] = []

    def spawn(self, instance: str, *, argv: Sequence[str], env: Mapping[str, str], cwd: str, **_: object) -> Spawned:
        process = subprocess.Popen(argv, env={**os.environ, **env}, cwd=cwd, start_new_session=True)
        self.made.append(process)
        found = procfs.identity_of(process.pid)
        assert found is not None
        return Spawned(pid=found.pid, start_ticks=found.start_ticks)

    def end(self) -> None:
        for process in self.made:
            process.kill()
            process.wait(10)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., ProcessTarget]]:
    children = Children()

    def start(**codes: str) -> ProcessTarget:
        instances = [server(name, "eu", (sys.executable, "-S", "-c", code, "$port")) for name, code in codes.items()]
        target = ProcessTarget(system(*instances, server("good", "us")), tmp_path)
        target.start(children)  # type: ignore[arg-type]
        return target

    yield start
    children.end()


def until(condition: Callable[[], object]) -> None:
    end_s = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < end_s, "it did not come about"
        time.sleep(0.01)


def listens(target: ProcessTarget, name: str) -> bool:
    address = next(item.address for item in target.inventory() if item.name == name)
    host, _, port = address.partition(":")
    with suppress(OSError), socket.create_connection((host, int(port)), 1):
        return True
    return False


def bounded(work: Callable[[], object]) -> object:
    """Its result. A call that never ends fails the test instead of hanging it."""
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(work()), daemon=True)
    thread.start()
    thread.join(10)
    assert found, "it did not come back"
    return found[0]


def test_a_server_that_drips_is_not_ready_and_holds_nobody_up(started: Callable[..., ProcessTarget]) -> None:
    target = started(drips=DRIPS)
    until(lambda: listens(target, "drips"))
    until(lambda: bounded(target.ready) == {"drips": False, "good": True})
    assert bounded(lambda: target.answers("drips")) is False


def test_a_frozen_server_accepts_connections_and_is_not_ready(started: Callable[..., ProcessTarget]) -> None:
    target = started()
    until(lambda: bounded(target.ready) == {"good": True})
    (good,) = target.inventory()
    os.kill(good.pid, signal.SIGSTOP)
    until(lambda: life_of(good) == "frozen")
    assert listens(target, "good")
    assert bounded(target.ready) == {"good": False}
    assert not target.answers("good")
    os.kill(good.pid, signal.SIGCONT)
    until(lambda: bounded(target.ready) == {"good": True})


def test_an_error_of_the_server_is_not_ready(started: Callable[..., ProcessTarget]) -> None:
    target = started(fails=FAILS)
    until(lambda: bounded(target.ready) == {"fails": False, "good": True} and listens(target, "fails"))
    assert not target.answers("fails")


def test_many_silent_instances_are_looked_at_within_one_limit(started: Callable[..., ProcessTarget]) -> None:
    """More than the target has threads for: those whose turn never came are not ready either."""
    target = started(drips=DRIPS)
    until(lambda: bounded(target.ready) == {"drips": False, "good": True})
    never = threading.Event()
    checks = {f"i{n}": lambda: never.wait(20) for n in range(40)}
    try:
        assert not any(bounded(lambda: target._at_once(checks)).values())  # type: ignore[attr-defined]
    finally:
        never.set()


def test_a_child_ended_by_a_realtime_signal_has_a_name_for_it() -> None:
    assert [signal_name(9), signal_name(35), signal_name(63)] == ["SIGKILL", "SIG35", "SIG63"]
