"""Programs beside a system take what they were told to, no more, and end by themselves."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import stormdrill
from stormdrill.store.identity import GONE_STATES, stat
from stormdrill.targets.docker.pressing import FIRST_TO_DIE, IN_SH
from stormdrill.targets.kubernetes.mechanisms.within import REACH_IN_SH, TAGGED_IN_SH, WHILE_STDIN
from stormdrill.targets.process.pressing import resident_mb
from waiting import eventually

START = (sys.executable, "-m", "stormdrill.beside")


@pytest.fixture
def started() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    made: list[subprocess.Popen[bytes]] = []

    def start(*words: str) -> subprocess.Popen[bytes]:
        made.append(subprocess.Popen((*START, *words), stderr=subprocess.PIPE))
        return made[-1]

    yield start
    for one in made:
        one.kill()
        one.communicate(timeout=10)


def lives(pid: int) -> bool:
    found = stat(pid)
    return found is not None and found.state not in GONE_STATES


def test_a_leak_fills_up_to_its_ceiling_keeps_it_and_ends_at_its_deadline(
    started: Callable[..., subprocess.Popen[bytes]],
) -> None:
    leak = started("leak", "--mb-per-s", "80", "--ceiling-mb", "48", "--deadline-s", "1.5")
    seen = []
    while leak.poll() is None:
        seen.append(resident_mb(leak.pid))
        time.sleep(0.01)
    assert leak.returncode == 0
    assert max(seen) <= 48.0, "never above, its interpreter included"
    assert max(seen) >= 44.0
    held = [value for value in seen if value >= 44.0]
    assert len(held) > 10, "what was taken is kept"


def test_a_leak_below_what_an_interpreter_holds_takes_nothing(started: Callable[..., subprocess.Popen[bytes]]) -> None:
    leak = started("leak", "--mb-per-s", "80", "--ceiling-mb", "4", "--deadline-s", "5")
    assert leak.wait(10) == 2
    assert leak.stderr is not None
    assert b"higher ceiling" in leak.stderr.read()


@pytest.mark.parametrize(("words", "score"), [((), FIRST_TO_DIE), (("--spared",), None)])
def test_a_leak_is_the_first_to_be_killed_where_memory_ends_unless_it_is_spared(
    started: Callable[..., subprocess.Popen[bytes]], words: tuple[str, ...], score: str | None
) -> None:
    leak = started("leak", "--mb-per-s", "80", "--ceiling-mb", "48", "--deadline-s", "15", *words)
    eventually(lambda: resident_mb(leak.pid) > 24)
    mine = Path("/proc/self/oom_score_adj").read_text().strip()
    assert Path(f"/proc/{leak.pid}/oom_score_adj").read_text().strip() == (score or mine)


def test_a_shell_that_takes_memory_keeps_within_the_ceiling_itself_included() -> None:
    words = (str(200 * 1024), "48", "3", FIRST_TO_DIE, "tag")
    shell = subprocess.Popen(("sh", "-c", IN_SH, "sh", *words))
    most_kb, scores = 0, set()
    while shell.poll() is None:
        with suppress(OSError, StopIteration):  # it ended meanwhile
            lines = Path(f"/proc/{shell.pid}/status").read_text().splitlines()
            most_kb = int(next(line.split()[1] for line in lines if line.startswith("VmHWM:")))
            scores.add(Path(f"/proc/{shell.pid}/oom_score_adj").read_text().strip())
        time.sleep(0.01)
    assert shell.returncode == 0
    assert 44 * 1024 <= most_kb <= 48 * 1024
    assert FIRST_TO_DIE in scores


def at_work(program: str, pid: int) -> bool:
    """Its own code runs, so that it knows whose child it is."""
    if program == "leak":
        return resident_mb(pid) > 24
    if program == "burn":
        return bool(Path(f"/proc/{pid}/task/{pid}/children").read_text())
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            if "eventpoll" in str(link.readlink()):
                return True
    return False


@pytest.mark.parametrize(
    "words",
    [
        ("leak", "--mb-per-s", "100", "--ceiling-mb", "64"),
        ("burn", "--cores", "2"),
        ("flood", "--entries", "http://127.0.0.1:9", "--rate", "5"),
        ("flood", "--entries", "http://127.0.0.1:9", "--rate", "0.01"),
    ],
    ids=["leak", "burn", "flood", "seldom"],
)
def test_none_of_them_outlives_whoever_started_it(words: tuple[str, ...]) -> None:
    """Started without the keeper, whose death would end them by signal: they look for themselves."""
    code = "import subprocess, sys; print(subprocess.Popen(sys.argv[1:]).pid, flush=True); sys.stdin.read()"
    parent = subprocess.Popen(
        (sys.executable, "-c", code, *START, *words, "--deadline-s", "60"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    eventually(lambda: at_work(words[0], pid))
    try:
        parent.send_signal(signal.SIGKILL)
        parent.communicate(timeout=10)
        eventually(lambda: not lives(pid))
    finally:
        if lives(pid):
            os.kill(pid, signal.SIGKILL)


class Entry(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen: list[dict[str, object]] = []

    def do_POST(self) -> None:
        Entry.seen.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(429 if len(Entry.seen) % 2 else 200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        pass


def test_a_flood_keeps_its_own_ids_and_tells_what_it_was_answered(
    started: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    Entry.seen = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Entry)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    status = tmp_path / "status.json"
    body = '{"id": "$id", "kind": "$kind", "tier": $tier}'
    words = ("--rate", "100", "--kind", "batch", "--tier", "3", "--body", body, "--status", str(status))
    try:
        flood = started(
            "flood",
            "--entries",
            f"http://127.0.0.1:{server.server_port}",
            "--path",
            "/jobs",
            *words,
            "--deadline-s",
            "1",
        )
        assert flood.wait(15) == 0
    finally:
        server.shutdown()
        server.server_close()
    told = json.loads(status.read_text())
    ids = [item["id"] for item in Entry.seen]
    assert len(set(ids)) == len(ids) > 50
    assert all(str(name).startswith(f"flood-{flood.pid}-") for name in ids), "no job of the run is named so"
    assert {(item["kind"], item["tier"]) for item in Entry.seen} == {("batch", 3)}
    assert told["answered"] > 50
    assert 0 < told["refused"] < told["answered"]


def test_a_flood_never_leaves_this_machine(started: Callable[..., subprocess.Popen[bytes]]) -> None:
    flood = started("flood", "--entries", "http://127.0.0.1:9,http://192.0.2.1:80", "--rate", "5", "--deadline-s", "1")
    assert flood.wait(10) == 2
    assert flood.stderr is not None
    assert b"192.0.2.1:80 is not on loopback" in flood.stderr.read()


TEXTS = Path(stormdrill.__file__).parent / "beside"


def said(program: str, *words: str, env: dict[str, str] | None = None) -> str:
    """By its text alone, as in a container that knows nothing of stormdrill."""
    argv = (sys.executable, "-I", "-c", (TEXTS / f"{program}.py").read_text(), *words)
    return subprocess.run(argv, capture_output=True, text=True, timeout=20, check=True, env=env).stdout


def test_a_leak_that_was_told_so_ends_when_nobody_can_write_to_it_any_more() -> None:
    words = ("--mb-per-s", "80", "--ceiling-mb", "48", "--deadline-s", "60", "--while-stdin", "--tag", "t")
    argv = (sys.executable, "-c", (TEXTS / "leak.py").read_text(), *words)
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as leak:
        assert leak.stdin is not None
        leak.stdin.write(b"here")
        leak.stdin.flush()
        eventually(lambda: resident_mb(leak.pid) > 40)
        assert leak.poll() is None
        leak.stdin.close()
        assert leak.wait(timeout=10) == 0


def test_a_shell_that_leaks_ends_when_nobody_can_write_to_it_any_more() -> None:
    argv = ("sh", "-c", WHILE_STDIN + IN_SH, "sh", "40000", "24", "60", FIRST_TO_DIE, "tag-of-it")
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as leak:
        assert leak.stdin is not None
        eventually(lambda: resident_mb(leak.pid) > 10)
        leak.stdin.close()
        assert leak.wait(timeout=10) != 0


def test_a_connection_that_is_tried_is_told_as_what_became_of_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        assert said("reach", "--host", "127.0.0.1", "--port", port) == "open"
        told = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": port}
        assert said("reach", env=told) == "open"
    assert said("reach", "--host", "127.0.0.1", "--port", port) == "refused"
    assert said("reach", env={}) == "unnamed"


@pytest.mark.parametrize("tool", ["nc", "wget", "bash"])
def test_a_shell_tries_a_connection_with_what_is_there(tool: str, tmp_path: Path) -> None:
    for name in (tool, "timeout"):
        if found := shutil.which(name):
            (tmp_path / name).symlink_to(found)
    if not (tmp_path / tool).exists():
        pytest.skip(f"no {tool} here")
    shell = shutil.which("sh")
    assert shell is not None

    def tried(port: str) -> str:
        argv = (shell, "-c", REACH_IN_SH, "sh", "127.0.0.1", port, "1")
        ran = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=True, env={"PATH": str(tmp_path)})
        return ran.stdout.strip()

    with listening() as port:
        assert tried(str(port)) == "open"
    assert tried(str(port)) in ("refused", "silent")
    (tmp_path / tool).unlink()
    nobody = subprocess.run((shell, "-c", REACH_IN_SH, "sh", "", "", "1"), env={"PATH": str(tmp_path)}, check=False)
    assert nobody.returncode == 127


def test_a_shell_counts_what_bears_a_tag(started: Callable[..., subprocess.Popen[bytes]]) -> None:
    def counted(tag: str) -> dict[str, float]:
        argv = ("sh", "-c", TAGGED_IN_SH, "sh", tag)
        found: dict[str, float] = json.loads(subprocess.run(argv, capture_output=True, timeout=20, check=True).stdout)
        return found

    started("burn", "--cores", "1", "--deadline-s", "30", "--tag", "sh.bears.this")
    eventually(lambda: counted("sh.bears.this")["mb"] > 1)
    assert (counted("sh.bears.this")["count"], counted("nobody.bears.that")["count"]) == (1, 0)


@contextmanager
def listening() -> Iterator[int]:
    """Somebody who speaks HTTP."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_what_bears_a_tag_is_counted_by_the_kernel_and_the_counter_itself_is_not(
    started: Callable[..., subprocess.Popen[bytes]],
) -> None:
    assert json.loads(said("tagged", "nobody.bears.this"))["count"] == 0
    started("burn", "--cores", "2", "--deadline-s", "30", "--tag", "burn.bears.this")
    eventually(lambda: json.loads(said("tagged", "burn.bears.this"))["cpu_s"] > 0.2)
    seen = json.loads(said("tagged", "burn.bears.this"))
    assert (seen["count"], seen["mb"] > 1) == (2, True)


@pytest.mark.parametrize("ended_by", ["a signal", "its deadline"])
def test_what_a_system_is_told_is_taken_back(started: Callable[..., subprocess.Popen[bytes]], ended_by: str) -> None:
    heard: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            heard.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(500 if len(heard) == 1 else 204)  # the first one has to be repeated
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    words = ("--method", "PUT", "--path", "/lag", "--body", "old", "--undo-method", "PUT", "--undo-path", "/lag")
    at = f"127.0.0.1:{server.server_address[1]}"
    deadline_s = "60" if ended_by == "a signal" else "1"
    told = started("tell", "--at", at, *words, "--undo-body", "new", "--deadline-s", deadline_s)
    eventually(lambda: heard == ["old", "old"])
    if ended_by == "a signal":
        told.send_signal(signal.SIGTERM)
    assert told.wait(timeout=20) == 0
    assert heard == ["old", "old", "new"]
    server.shutdown()
    server.server_close()


def test_a_flood_goes_beyond_loopback_only_to_an_address_that_is_named_twice() -> None:
    words = ("flood", "--entries", "http://192.0.2.1:80", "--rate", "1", "--deadline-s", "0.1")
    assert subprocess.run((*START, *words), capture_output=True, timeout=20, check=False).returncode == 2
    named = (*words, "--beyond", "192.0.2.1", "--rate", "0.001", "--deadline-s", "0.05")
    assert subprocess.run((*START, *named), capture_output=True, timeout=20, check=False).returncode == 0
