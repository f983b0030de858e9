"""The words that undo what was done to containers, proxies and files, on real things: the real keeper and its
successor, real proxies, real files, and an engine that has a bad day."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest

from fake_engine import Box, FakeEngine, fake_engine
from keeping import EXECUTORS, Execute, KeptRun, by_the_keeper, by_the_successor, pid_exists
from stormdrill.errors import SystemNotReady
from stormdrill.keeper import procfs
from stormdrill.keeper.exchange import exchange_now
from stormdrill.keeper.takeover import take_over
from stormdrill.keeper.undo import perform
from stormdrill.model.event import (
    ContainerStarted,
    Injected,
    InjectStarted,
    ResourcesClaimed,
    Reverted,
    RevertVerified,
    RunEnded,
    Warned,
)
from stormdrill.model.mechanism import Toxic
from stormdrill.model.plan import Injection
from stormdrill.model.undo import Clear, Command, EndChild, EndExec, Engine, Exec, Restore
from stormdrill.targets.portable.proxied import Toxics
from waiting import eventually


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[FakeEngine]:
    with fake_engine(tmp_path) as fake:
        yield fake


@contextmanager
def a_proxy() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A real fault proxy with one hop; its control address, and its process."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = json.dumps({"control": 0, "routes": [{"name": "a>b", "listen": port, "to": "127.0.0.1:1"}]})
    (argv, env) = ([sys.executable, "-m", "stormdrill.proxy"], {"STORMDRILL_PROXY": config, "PATH": ""})
    process = subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().split()[-1], process
    finally:
        process.kill()
        process.communicate()


def slow(address: str, tag: str) -> None:
    body = json.dumps({"routes": ["a>b"], "kind": "delay", "delay_ms": 50, "expires_in_s": 60})
    heard = exchange_now(address, "PUT", f"/toxics/{quote(tag, safe='')}", body)
    assert heard.status == 200, heard


def toxics(address: str) -> list[str]:
    return [item["tag"] for item in json.loads(exchange_now(address, "GET", "/toxics").body)]


def claimed(run: KeptRun, engine: FakeEngine, *names: str, network: str = "net") -> None:
    run.keeper.record(ResourcesClaimed(engine.url, list(names), [network], []))


def started(run: KeptRun, engine: FakeEngine, name: str, network: str = "net") -> str:
    """Made and started by the run, as a target would."""
    box = engine.add(name, network, stormdrill=run.dir.name)
    run.keeper.record(ContainerStarted(name, name, "system", box.id, name, 0, "image", "", {}, True))
    return box.id


# --- files ---


@EXECUTORS
def test_a_file_comes_back_as_it_was_with_its_mode(run: KeptRun, tmp_path: Path, execute: Execute) -> None:
    path = tmp_path / "devices"
    path.write_text("gone")
    path.chmod(0o600)
    run.arm("device/x", Restore(str(path), "0 ok\n1 ok ü\n", 0o640), fault="gpu-pool-outage")
    assert execute(run, "device/x") == "done"
    assert path.read_text() == "0 ok\n1 ok ü\n"
    assert path.stat().st_mode & 0o777 == 0o640
    assert [item.name for item in tmp_path.iterdir() if "restored" in item.name] == []
    assert perform(Restore(str(path), "0 ok\n1 ok ü\n", 0o640)).word == "superseded"
    assert perform(Restore(str(tmp_path / "no" / "such"), "x")).word == "failed"


@pytest.mark.parametrize(("ours", "now"), [("slow", "cold"), ("slow", None), ("", "ok again")])
def test_what_somebody_else_made_of_the_file_meanwhile_stays(tmp_path: Path, ours: str, now: str | None) -> None:
    path = tmp_path / "gpu0"
    if now is not None:
        path.write_text(now)
    outcome = perform(Restore(str(path), "ok\n", 0o644, ours))
    assert (outcome.word, "somebody else" in outcome.detail) == ("superseded", True)
    assert (path.read_text() if path.exists() else None) == now


@pytest.mark.parametrize(("ours", "now"), [("slow", "slow"), ("slow", "slow\n"), ("", None)])
def test_what_the_fault_made_of_the_file_is_taken_back(tmp_path: Path, ours: str, now: str | None) -> None:
    path = tmp_path / "gpu0"
    if now is not None:
        path.write_text(now)
    assert perform(Restore(str(path), "ok\n", 0o644, ours)).word == "done"
    assert path.read_text() == "ok\n"


def test_a_file_is_never_restored_through_a_link(tmp_path: Path) -> None:
    """The folder may be a container's, and whoever restores may be root."""
    precious, folder = tmp_path / "precious", tmp_path / "devices"
    precious.write_text("precious")
    folder.mkdir()
    path = folder / "gpu0"
    path.symlink_to(precious)
    assert perform(Restore(str(path), "ok", 0o644, "slow")).word == "superseded"
    assert perform(Restore(str(path), "ok", 0o644)).word == "done", "the link itself is replaced"
    assert (path.is_symlink(), path.read_text()) == (False, "ok")
    path.unlink()
    folder.rmdir()
    (tmp_path / "elsewhere").mkdir()
    folder.symlink_to(tmp_path / "elsewhere")
    assert perform(Restore(str(path), "ok", 0o644, "")).word == "failed"
    assert (list((tmp_path / "elsewhere").iterdir()), precious.read_text()) == ([], "precious")


# --- children ---


def test_what_stands_beside_is_ended_with_all_below_it_and_never_started_afterwards(run: KeptRun) -> None:
    run.arm("leak/x", EndChild("beside-x"), fault="memory-leak")
    who = run.spawn("beside-x", ["sh", "-c", "sleep 1001 & setsid sleep 1002 & wait"])
    eventually(lambda: len(procfs.marked(run.dir.name, "beside-x")) == 3)
    assert by_the_keeper(run, "leak/x") == "done"
    assert not pid_exists(who.pid)
    assert procfs.marked(run.dir.name, "beside-x") == []
    with pytest.raises(SystemNotReady, match="reverted already"):
        run.spawn("beside-x")
    run.arm("leak/y", EndChild("beside-y"), fault="memory-leak")
    assert by_the_keeper(run, "leak/y") == "superseded"


# --- proxies ---


@EXECUTORS
def test_a_proxy_is_cleared_of_one_tag_alone(run: KeptRun, execute: Execute) -> None:
    with a_proxy() as (address, _):
        slow(address, "late/a b")
        slow(address, "other")
        run.arm("late/a b", Clear(address, "late/a b"), fault="late-dependency")
        assert execute(run, "late/a b") == "done"
        assert toxics(address) == ["other"]
        assert "the fault proxy" in {event.witness for event in run.events(RevertVerified)} or execute is by_the_keeper


@EXECUTORS
def test_a_proxy_that_is_gone_shapes_nothing_and_one_that_hangs_is_not_cleared(run: KeptRun, execute: Execute) -> None:
    with a_proxy() as (address, process):
        process.kill()
        process.wait()
        run.arm("late/a", Clear(address, "late/a"), fault="late-dependency")
        run.arm("late/b", Clear("127.0.0.1:1", "late/b", 0.2), fault="late-dependency")
        assert execute(run, "late/a") == "superseded"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hanging = f"127.0.0.1:{silent.getsockname()[1]}"
        assert perform(Clear(hanging, "late/c", 0.2)).word == "failed"


def test_a_proxy_in_a_container_is_gone_when_its_engine_says_so(engine: FakeEngine) -> None:
    """A published port closes with the engine too, while the proxy and what it does to its hops go on."""
    box = engine.add("proxy")
    undo = Clear("127.0.0.1:1", "late/a", 0.3, engine.url, box.id)
    toxics = Toxics(lambda: undo.address, frozenset, lambda: (engine.url, undo.container))
    delay = Injection("late/a", "late", 0, "a", "delay", "prompt", 0.0, 5.0, how=Toxic(("a>b",), "delay"))
    assert toxics.undo(delay) == (replace(undo, timeout_s=3.0),)

    def seen() -> tuple[str, bool]:
        return perform(undo).word, toxics.observe(delay).gone

    assert seen() == ("failed", False)
    engine.stop()
    assert seen() == ("failed", False), "an engine that says nothing says nothing of a proxy"
    engine.path.unlink()
    engine.listen()
    box.running = False
    assert seen() == ("superseded", True)
    engine.boxes.clear()
    assert seen() == ("superseded", True)


def test_several_proxies_are_cleared_at_the_same_time(run: KeptRun) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, a_proxy() as (address, _):
        hanging = f"127.0.0.1:{silent.getsockname()[1]}"
        slow(address, "cut")
        run.arm("cut", Clear(hanging, "cut", 3.0), Clear(address, "cut"), fault="region-loss", expires_in_s=0.0)
        eventually(lambda: toxics(address) == [], 2.0)
        assert not run.events(Reverted)


# --- engines ---


def pause(engine: FakeEngine, run: KeptRun, **more: object) -> Engine:
    box = engine.add("web")
    box.paused = True
    return Engine(engine.url, "POST", f"/containers/{box.id}/unpause", **more)  # type: ignore[arg-type]


@EXECUTORS
@pytest.mark.parametrize("troubles", [[], ["500", "500"], ["cut", "500"], ["late"], ["lost"], ["garbage"]])
def test_an_engine_that_has_a_bad_day_unpauses_all_the_same(
    run: KeptRun, engine: FakeEngine, execute: Execute, troubles: list[str]
) -> None:
    undo = pause(engine, run, timeout_s=0.4)
    engine.troubles = [("unpause", trouble) for trouble in troubles]
    run.arm("freeze/web", undo)
    assert execute(run, "freeze/web") == "done"
    assert not any(box.paused for box in engine.boxes.values())
    assert [event.gone for event in run.events(RevertVerified)] in ([True], []), "the engine was asked what it sees"


@EXECUTORS
def test_an_engine_that_restarts_in_the_middle_is_waited_for(
    run: KeptRun, engine: FakeEngine, execute: Execute
) -> None:
    undo = pause(engine, run, timeout_s=5.0)
    run.arm("freeze/web", undo)
    engine.stop()
    engine.path.unlink()
    back = threading.Timer(0.3, engine.listen)
    back.start()
    assert execute(run, "freeze/web") == "done"
    back.join()


def test_what_somebody_else_put_right_is_superseded_and_what_cannot_be_is_failed(engine: FakeEngine) -> None:
    def call(path: str, **more: object) -> str:
        return perform(Engine(engine.url, "POST", path, timeout_s=0.2, **more)).word  # type: ignore[arg-type]

    box, engine.networks = engine.add("web", "net"), {"net": {}}
    assert call(f"/containers/{box.id}/unpause") == "superseded"
    assert call(f"/containers/{box.id}/start") == "superseded"
    assert call("/networks/net/connect", body=json.dumps({"Container": box.id})) == "superseded"
    assert call("/containers/removed-by-hand/unpause") == "superseded"
    assert call(f"/containers/{box.id}/update", body='{"CpuQuota": -1}') == "done"
    assert call("/no/such/thing", moot=()) == "failed"
    box.networks.clear()
    assert call("/networks/net/connect", body=json.dumps({"Container": box.id})) == "done"
    assert box.networks == {"net"}
    assert call("/networks/removed-by-hand/connect", body=json.dumps({"Container": box.id})) == "superseded"
    engine.stop()
    assert call(f"/containers/{box.id}/unpause") == "failed"


def test_a_container_whose_network_is_anothers_is_started_once_that_one_runs(engine: FakeEngine) -> None:
    app, sidecar = engine.add("app"), engine.add("sidecar")
    app.running = sidecar.running = False
    sidecar.joins = app.id
    undo = Engine(engine.url, "POST", f"/containers/{sidecar.id}/start", timeout_s=0.2)
    outcome = perform(undo)
    assert (outcome.word, sidecar.running) == ("failed", False)
    assert "cannot join network of a non running container" in outcome.detail
    engine.asked.clear()

    def starts_the_app(number: int) -> None:
        app.running = number == -2 or app.running  # after the first call was refused and looked at

    engine.on_request = starts_the_app
    assert (perform(replace(undo, timeout_s=5.0)).word, sidecar.running) == ("done", True)


def test_who_shares_a_network_runs_again_with_whom_it_belongs_to_though_the_runner_died(
    run: KeptRun, engine: FakeEngine
) -> None:
    """Both are started at once, and the one that can't run yet is asked for first."""
    run.keeper.record(ResourcesClaimed(engine.url, [], [], []))
    app, sidecar = engine.add("app"), engine.add("sidecar")
    sidecar.joins = app.id
    for box in (app, sidecar):
        box.running = False
        run.arm(f"crash/{box.name}", Engine(engine.url, "POST", f"/containers/{box.id}/start"), fault="region-loss")
    run.keeper._drop()
    run.keeper_ended()
    assert next(path for path in engine.asked if path.endswith("/start")).split("/")[2] == sidecar.id
    assert (app.running, sidecar.running) == (True, True)
    assert [event.status for event in run.events(RunEnded)] == ["aborted"]


def test_a_container_whose_address_somebody_has_taken_is_not_called_connected(engine: FakeEngine) -> None:
    box, engine.networks = engine.add("web"), {"net": {}}
    endpoint = {"IPAMConfig": {"IPv4Address": "10.0.0.9"}}
    body = json.dumps({"Container": box.id, "EndpointConfig": endpoint})
    undo = Engine(engine.url, "POST", "/networks/net/connect", body, moot=(304, 403, 404, 409), timeout_s=0.2)
    engine.taken = {"10.0.0.9"}
    outcome = perform(undo)
    assert (outcome.word, "Address already in use" in outcome.detail) == ("failed", True)
    engine.taken.clear()
    assert (perform(undo).word, box.networks) == ("done", {"net"})
    assert perform(undo).word == "superseded"


def test_a_program_in_a_helper_is_judged_by_its_exit_code(engine: FakeEngine) -> None:
    box = engine.add("helper")
    engine.exit_codes = {"iptables": 0, "gone": 1, "bad": 2}

    def ran(program: str, container: str = box.id) -> str:
        return perform(Exec(engine.url, container, (program, "-F", "STORMDRILL"), moot=(1,), timeout_s=0.4)).word

    assert [ran("iptables"), ran("gone"), ran("bad"), ran("iptables", "no-such-helper")] == [
        "done",
        "superseded",
        "failed",
        "failed",
    ]
    engine.troubles = [("/exec", "500"), ("/start", "lost")]
    assert ran("iptables") == "done"
    before = len(engine.execs)
    engine.troubles = [("/start", "500"), ("/start", "500")]
    assert ran("iptables") == "done"
    assert len(engine.execs) == before + 1, "what was made is started again, not made again"
    assert perform(EndExec(engine.url, "gone", "exec0", "tag", 0.3)).word == "superseded"


# --- the end of a run ---


def test_the_harm_is_lifted_before_the_containers_are_removed_and_slow_calls_do_not_wait_for_each_other(
    run: KeptRun, engine: FakeEngine
) -> None:
    claimed(run, engine, "a", "b", "c")
    engine.networks = {"net": {"stormdrill": run.dir.name}, "yours": {"stormdrill": "another"}, "bridge": {}}
    undo = []
    for name in "abc":
        number = started(run, engine, name)
        engine.boxes[number].paused = True
        undo.append(Engine(engine.url, "POST", f"/containers/{number}/unpause", with_the_run=True))
        run.arm(f"freeze/{name}", undo[-1])
    other = engine.add("d", stormdrill="another")
    engine.troubles = [(undo[0].path, "late")]
    run.keeper._drop()  # the runner is gone
    run.keeper_ended()
    words = [path for path in engine.asked if "unpause" in path or "DELETE" in path]
    assert all("unpause" in word for word in words[:3]), words
    assert {event.outcome for event in run.events(Reverted)} == {"done"}
    assert list(engine.boxes.values()) == [other]
    assert set(engine.networks) == {"yours", "bridge"}
    assert [event.status for event in run.events(RunEnded)] == ["aborted"]
    took = max(event.took_ms for event in run.events(Reverted))
    assert took < 2 * 600, "three late answers would take longer one after another"


def test_what_bears_a_claimed_name_without_our_label_is_left_and_said(run: KeptRun, engine: FakeEngine) -> None:
    claimed(run, engine, "web", network="shared")
    mine = engine.add("web")
    engine.networks = {"shared": {}}
    assert run.keeper.teardown() == []
    assert list(engine.boxes.values()) == [mine]
    assert len([event for event in run.events(Warned) if "it was left" in event.text]) == 2
    assert not [path for path in engine.asked if path.startswith(("DELETE", "POST"))]


@pytest.mark.parametrize("given_up", [False, True], ids=["died", "gave it up"])
def test_what_an_engine_was_still_making_when_the_runner_ended_is_found(
    run: KeptRun, engine: FakeEngine, given_up: bool
) -> None:
    claimed(run, engine, "web")
    looked: list[int] = []

    def appears(number: int) -> None:
        looked.append(number)
        if number == 5:
            engine.add("web", stormdrill=run.dir.name)

    engine.on_request = appears
    if given_up:
        assert run.keeper.teardown() == []
    else:
        run.keeper._drop()
        run.keeper_ended()
    assert engine.boxes == {}
    assert len(looked) > 5


def about_to_pause(run: KeptRun, engine: FakeEngine) -> Box:
    """A container whose pause was asked for, and not acted upon yet."""
    undo = pause(engine, run)
    (box,) = engine.boxes.values()
    box.paused = False
    run.arm("freeze/web", undo)
    run.keeper.record(InjectStarted("freeze/web"))
    return box


@pytest.mark.parametrize("successor", [False, True], ids=["the keeper", "the successor"])
def test_a_call_on_which_an_engine_acts_after_the_revert_is_taken_back_too(
    run: KeptRun, engine: FakeEngine, successor: bool
) -> None:
    """The runner died while it paused a container that goes on after the run: the pause comes after the unpause."""
    box = about_to_pause(run, engine)

    def pauses_late(number: int) -> None:
        if number < 0 and any(box.id in path and path.endswith("/json") for path in engine.asked):
            box.paused = True
            engine.on_request = lambda _: None

    engine.on_request = pauses_late
    if successor:
        by_the_successor(run, "freeze/web")
    else:
        run.keeper._drop()
        run.keeper_ended()
    assert not box.paused
    assert [event.status for event in run.events(RunEnded)] == ["aborted"]


@pytest.mark.parametrize("outcome", ["doubtful", "failed"])
def test_a_call_without_success_on_which_an_engine_acts_after_the_revert_is_taken_back_by_the_tear_down(
    run: KeptRun, engine: FakeEngine, outcome: str
) -> None:
    """The runner lives, and had given the call up."""
    box = about_to_pause(run, engine)
    run.keeper.record(Injected("freeze/web", outcome, "no answer", 4000.0))
    assert run.keeper.revert("freeze/web", "doubtful") in ("done", "superseded")
    box.paused = True
    assert run.keeper.teardown() == []
    assert not box.paused


@pytest.mark.parametrize("outcome", ["", "doubtful", "failed", "done"])
def test_what_was_reverted_while_its_call_was_under_way_is_reverted_again_by_who_takes_over(
    run: KeptRun, engine: FakeEngine, outcome: str
) -> None:
    """Both were killed before the call came through; one that was answered with success is believed to be over."""
    undo = pause(engine, run)
    (box,) = engine.boxes.values()
    run.arm("freeze/web", undo)
    run.keeper.record(InjectStarted("freeze/web"))
    if outcome:
        run.keeper.record(Injected("freeze/web", outcome, "", 4000.0))
    assert run.keeper.revert("freeze/web", "abort") == "done"
    run.keeper.record(RevertVerified("freeze/web", True, "the engine", "", 1.0))
    box.paused = True
    run.keeper.on_push = None
    procfs.kill_until_gone([run.keeper.identity], 5.0)
    result = take_over(run.dir, "recover")
    assert result.status == "aborted"
    assert box.paused == (outcome == "done")


@pytest.mark.parametrize("successor", [False, True], ids=["the keeper", "the successor"])
def test_what_came_through_after_its_revert_is_open_again(run: KeptRun, engine: FakeEngine, successor: bool) -> None:
    undo = pause(engine, run)
    (box,) = engine.boxes.values()
    run.arm("freeze/web", undo)
    run.keeper.record(InjectStarted("freeze/web"))
    assert by_the_keeper(run, "freeze/web") == "done"
    box.paused = True
    run.keeper.record(Injected("freeze/web", "done", "", 9000.0))
    if successor:
        assert by_the_successor(run, "freeze/web") == "done"
    else:
        run.keeper._drop()
        run.keeper_ended()
    assert not box.paused


def test_an_undo_that_fails_at_its_expiry_is_tried_again_though_no_runner_asks(run: KeptRun, tmp_path: Path) -> None:
    """The runner hangs; the folder comes back later."""
    folder = tmp_path / "away"
    run.arm("device/x", Restore(str(folder / "gpu0"), "ok"), fault="gpu-pool-outage", expires_in_s=0.0)
    eventually(lambda: [event.outcome for event in run.events(Reverted)] == ["failed"])
    folder.mkdir()
    eventually(lambda: (folder / "gpu0").exists(), 12.0)
    eventually(lambda: [event.outcome for event in run.events(Reverted)] == ["failed", "done"])


def test_a_network_with_a_stranger_on_it_is_removed_and_the_stranger_is_not(run: KeptRun, engine: FakeEngine) -> None:
    claimed(run, engine)
    engine.networks = {"net": {"stormdrill": run.dir.name}}
    stranger = engine.add("stranger", "net")
    assert run.keeper.teardown() == []
    assert engine.networks == {}
    assert list(engine.boxes.values()) == [stranger]


def test_an_engine_that_stays_away_leaves_the_run_dirty_until_it_is_back(
    run: KeptRun, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stormdrill.keeper import claims

    monkeypatch.setattr(claims, "LIMIT_S", 1.0)  # here: in the successor, which is this process
    claimed(run, engine, "web")
    started(run, engine, "web")
    engine.stop()
    run.keeper.on_push = None
    procfs.kill_until_gone([run.keeper.identity], 5.0)
    result = take_over(run.dir, "recover")
    assert result.status == "dirty"
    assert f"stormdrill recover {run.dir.name}" in result.left[0]
    engine.path.unlink(missing_ok=True)
    engine.listen()
    mended = take_over(run.dir, "recover")
    assert (mended.status, mended.removed, engine.boxes) == ("aborted", ("web",), {})


def test_a_command_that_hangs_does_not_keep_an_engine_from_unpausing(run: KeptRun, engine: FakeEngine) -> None:
    undo = pause(engine, run)
    run.arm("beside/x", Command(("sleep", "1003"), timeout_s=3.0), fault="noise")
    run.arm("freeze/web", undo)
    began_s = time.monotonic()
    run.keeper._drop()
    eventually(lambda: not any(box.paused for box in engine.boxes.values()), 2.0)
    assert time.monotonic() - began_s < 2.5
    procfs.kill_until_gone([run.keeper.identity, *procfs.marked(run.dir.name)], 5.0)
