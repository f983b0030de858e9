"""Every word of the undo vocabulary means the same to the keeper that holds it and to the successor that finds it.

The same suite runs against both executors: the living keeper (`revert`), and `take_over` after both were killed.
"""

from __future__ import annotations

import http.server
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import pytest

from keeping import EXECUTORS, WITH_GRANDCHILDREN, Execute, KeptRun, by_the_keeper, by_the_successor, thaw
from stormdrill.keeper import procfs
from stormdrill.keeper.undo import perform
from stormdrill.model.event import Reverted
from stormdrill.model.undo import (
    WORDS,
    Call,
    Clear,
    Command,
    EndChild,
    EndExec,
    EndTree,
    Engine,
    Exec,
    InCluster,
    Restore,
    Signal,
    Spawn,
    Undo,
    undo_from_json,
    undo_to_json,
)
from waiting import eventually


@pytest.fixture
def stranger() -> Iterator[procfs.Identity]:
    """A process that is no child of the keeper's: what an undo may name after the keeper is gone."""
    process = subprocess.Popen(["sh", "-c", "sleep 1001 & sleep 1002"], start_new_session=True)
    who = procfs.identity_of(process.pid)
    assert who is not None
    eventually(lambda: len(procfs.descendants([process.pid])) == 2)
    below = [procfs.identity_of(item.pid) for item in procfs.descendants([process.pid])]
    yield who
    procfs.kill_until_gone([who, *(item for item in below if item)], 5.0)
    process.wait()


@dataclass
class Admin:
    """An admin endpoint outside of the run's own system."""

    answer: int = 200
    seen: list[tuple[str, str, bytes]] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def admin() -> Iterator[Admin]:
    state = Admin()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            state.seen.append((self.command, self.path, body))
            self.send_response(state.answer)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}/drain?region=eu"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


def test_this_suite_runs_every_word() -> None:
    here = {"signal", "spawn", "end-tree", "call", "command"}
    beside = {"end-child", "restore-file", "clear-proxy", "engine-call", "end-exec", "engine-exec"}
    assert set(WORDS) - here - beside == {word.kind for word in get_args(InCluster)}, "test_cluster_undo runs these"
    assert here | beside < set(WORDS), "test_undo_on_engines and test_undo_on_containers run those beside"


def test_every_word_stands_on_its_page(repository: Path) -> None:
    page = (repository / "docs" / "reference" / "undo.md").read_text(encoding="utf-8")
    assert [word for word in WORDS if f"| `{word}` |" not in page] == []


@pytest.mark.parametrize(
    "undo",
    [
        Signal("i", 1, 2, "b", "SIGCONT"),
        Spawn("i"),
        EndTree("i", 1, 2, "b"),
        Call("POST", "http://h/p", '{"a": 1}', 2.5),
        Command(("a", "b c"), 3.0),
        EndChild("i"),
        Restore("/a", "text ü", 0o600),
        Clear("127.0.0.1:1", "t", 1.0, "unix:///e", "c"),
        Engine("unix:///e", "POST", "/containers/c/unpause", "{}", (204,), (404,), True, 2.0),
        EndExec("unix:///e", "c", "x", "t", 2.0),
        Exec("unix:///e", "c", ("a", "b"), (1,), True, 2.0),
    ],
)
def test_every_word_comes_back_from_the_journal_as_it_was(undo: Undo) -> None:
    assert undo_from_json(undo_to_json(undo)) == undo


@EXECUTORS
def test_signal_thaws_exactly_the_process_that_was_frozen(
    run: KeptRun, stranger: procfs.Identity, execute: Execute
) -> None:
    run.arm("freeze/x", thaw("x", stranger))
    procfs.send(stranger, signal.SIGSTOP)
    eventually(lambda: procfs.frozen(stranger.pid, stranger.start_ticks))
    assert execute(run, "freeze/x") == "done"
    assert not procfs.frozen(stranger.pid, stranger.start_ticks)


@EXECUTORS
@pytest.mark.parametrize("changed", ["start_ticks", "boot_id"])
def test_signal_touches_no_process_that_merely_has_the_pid(
    run: KeptRun, stranger: procfs.Identity, execute: Execute, changed: str
) -> None:
    other = stranger._replace(start_ticks=1) if changed == "start_ticks" else stranger._replace(boot_id="another")
    run.arm("freeze/x", thaw("x", other))
    procfs.send(stranger, signal.SIGSTOP)
    eventually(lambda: procfs.frozen(stranger.pid, stranger.start_ticks))
    assert execute(run, "freeze/x") == "superseded"
    assert procfs.frozen(stranger.pid, stranger.start_ticks)


@EXECUTORS
def test_end_tree_ends_a_process_and_its_descendants_once(
    run: KeptRun, stranger: procfs.Identity, execute: Execute
) -> None:
    below = [procfs.identity_of(item.pid) for item in procfs.descendants([stranger.pid])]
    run.arm("leak/x", EndTree("x", *stranger), fault="leak")
    assert execute(run, "leak/x") == "done"
    assert not stranger.lives
    assert not [who for who in below if who and who.lives]
    assert perform(EndTree("x", *stranger)).word == "superseded"


@EXECUTORS
def test_call_sends_the_request_with_its_body(run: KeptRun, admin: Admin, execute: Execute) -> None:
    run.arm("drain", Call("POST", admin.url, '{"drained": false}'), fault="runbook")
    assert execute(run, "drain") == "done"
    assert admin.seen == [("POST", "/drain?region=eu", b'{"drained": false}')]


@EXECUTORS
@pytest.mark.parametrize("status", [302, 404, 503])
def test_call_is_done_by_2xx_only(run: KeptRun, admin: Admin, execute: Execute, status: int) -> None:
    admin.answer = status
    run.arm("drain", Call("POST", admin.url), fault="runbook")
    assert execute(run, "drain") == "failed"


@EXECUTORS
def test_call_that_is_never_answered_fails_at_its_limit(run: KeptRun, execute: Execute) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        run.arm("drain", Call("POST", url, timeout_s=0.2), fault="runbook")
        assert execute(run, "drain") == "failed"


def test_call_that_is_answered_byte_by_byte_fails_at_its_limit_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        stop = threading.Event()

        def drip() -> None:
            connection, _ = server.accept()
            with connection:
                while not stop.wait(0.05):
                    try:
                        connection.sendall(b"H")
                    except OSError:
                        return

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.getsockname()[1]}/"
            assert perform(Call("GET", url, timeout_s=0.3)).word == "failed"
        finally:
            stop.set()
            thread.join()


@EXECUTORS
@pytest.mark.parametrize("url", ["ftp://h/", "nonsense", "http://127.0.0.1:1/"])
def test_call_to_what_cannot_be_reached_fails_and_says_so(run: KeptRun, execute: Execute, url: str) -> None:
    run.arm("drain", Call("POST", url, timeout_s=1.0), fault="runbook")
    assert execute(run, "drain") == "failed"
    assert all(event.detail for event in run.events(Reverted))


@EXECUTORS
def test_command_runs_its_arguments_as_they_are_and_no_shell(run: KeptRun, tmp_path: Path, execute: Execute) -> None:
    target = tmp_path / "a b; $HOME"
    run.arm("fix", Command(("touch", str(target))), fault="runbook")
    assert execute(run, "fix") == "done"
    assert target.exists()


@EXECUTORS
@pytest.mark.parametrize("argv", [("false",), ("/no/such/program",)])
def test_command_is_done_by_exit_0_only(run: KeptRun, execute: Execute, argv: tuple[str, ...]) -> None:
    run.arm("fix", Command(argv), fault="runbook")
    assert execute(run, "fix") == "failed"


@EXECUTORS
def test_command_is_ended_at_its_limit(run: KeptRun, tmp_path: Path, execute: Execute) -> None:
    told = tmp_path / "pid"
    run.arm("fix", Command(("sh", "-c", f"echo $$ > {told}; sleep 1009"), timeout_s=0.5), fault="runbook")
    assert execute(run, "fix") == "failed"
    assert not procfs.identity_of(int(told.read_text()))


@EXECUTORS
def test_what_a_command_puts_back_into_service_outlives_the_run(run: KeptRun, tmp_path: Path, execute: Execute) -> None:
    """A server that keeps the command's output open, in a session of its own, and its child."""
    told = tmp_path / "pid"
    start = f"setsid sh -c 'echo $$ > {told}; sleep 1010; :' & until test -s {told}; do sleep 0.01; done; echo up"
    run.arm("stop", Command(("sh", "-c", start)), fault="runbook")
    assert execute(run, "stop") == "done"
    assert run.events(Reverted)[-1].detail.endswith("exit 0; up")
    server = procfs.identity_of(int(told.read_text()))
    assert server is not None
    eventually(lambda: procfs.below(server))
    family = [server, *procfs.below(server)]
    try:
        if run.keeper.identity.lives:
            orphan = run.spawn("one", WITH_GRANDCHILDREN)
            assert run.keeper.teardown() == []
            assert not orphan.lives
            run.keeper.close("completed", "")
        assert all(who.lives for who in family)
        assert procfs.marked(run.dir.name) == []
    finally:
        procfs.kill_until_gone(family, 5.0)


def test_a_command_ends_with_the_keeper_that_ran_it(run: KeptRun, tmp_path: Path) -> None:
    told = tmp_path / "pid"
    run.arm("fix", Command(("sh", "-c", f"echo $$ > {told}; exec sleep 1012")), fault="runbook", expires_in_s=0.1)
    eventually(lambda: told.exists() and told.read_text())
    program = procfs.identity_of(int(told.read_text()))
    assert program is not None
    run.keeper.on_push = None
    procfs.kill_until_gone([run.keeper.identity], 5.0)
    eventually(lambda: not program.lives)


def test_what_a_command_that_failed_has_left_running_is_ended_with_the_run(run: KeptRun, tmp_path: Path) -> None:
    told = tmp_path / "pid"
    start = f"setsid sh -c 'echo $$ > {told}; sleep 1013' & until test -s {told}; do sleep 0.01; done; exit 1"
    run.arm("stop", Command(("sh", "-c", start)), fault="runbook")
    assert by_the_keeper(run, "stop") == "failed"
    left = procfs.identity_of(int(told.read_text()))
    assert left is not None
    run.keeper.teardown()
    assert not left.lives


@EXECUTORS
def test_an_undo_that_fails_does_not_stop_the_one_after_it(run: KeptRun, tmp_path: Path, execute: Execute) -> None:
    run.arm("fix", Command(("false",)), Command(("touch", str(tmp_path / "second"))), fault="runbook")
    assert execute(run, "fix") == "failed"
    assert (tmp_path / "second").exists()


def test_spawn_starts_it_again_while_the_run_goes_on_and_not_when_it_is_ended(run: KeptRun) -> None:
    who = run.spawn("one")
    run.arm("crash/one", Spawn("one"), fault="crash")
    procfs.send(who, signal.SIGKILL)
    assert by_the_keeper(run, "crash/one") == "done"
    run.arm("crash/one", Spawn("one"), fault="crash")
    assert by_the_successor(run, "crash/one") == "superseded"
    assert procfs.marked(run.dir.name) == []
