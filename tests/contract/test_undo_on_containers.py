"""The same words on a real engine and real containers; nothing that they made may be left on it."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest

from base_image import base_image
from keeping import EXECUTORS, Execute, KeptRun, by_the_keeper
from stormdrill.keeper import procfs, undo_engine
from stormdrill.keeper.engine import ask
from stormdrill.keeper.undo import perform
from stormdrill.model.event import ContainerStarted, ResourcesClaimed, RevertVerified, RunEnded, TornDown
from stormdrill.model.undo import EndExec, Engine, Exec
from waiting import eventually

pytestmark = pytest.mark.docker
LAB = f"stormdrill-undo-{os.getpid()}"


def told(engine: str, method: str, path: str, body: object = None, *fine: int) -> Any:
    heard = ask(engine, method, path, json.dumps(body) if body is not None else "", 30.0)
    assert heard.status in (fine or (200, 201, 204)), (method, path, heard)
    return json.loads(heard.body) if heard.body else {}


@dataclass(frozen=True)
class Box:
    engine: str
    id: str
    name: str

    @property
    def state(self) -> Any:
        return told(self.engine, "GET", f"/containers/{self.id}/json")

    def call(self, verb: str, body: object = None) -> Any:
        return told(self.engine, "POST", f"/containers/{self.id}/{verb}", body)

    def undo(self, verb: str, **more: Any) -> Engine:
        return Engine(self.engine, "POST", f"/containers/{self.id}/{verb}", **more)

    def runs(self, *argv: str) -> str:
        """Started by exec; its id."""
        number = str(self.call("exec", {"Cmd": list(argv)})["Id"])
        told(self.engine, "POST", f"/exec/{number}/start", {"Detach": True})
        return number


def make(engine: str, name: str, label: str, network: str = "none") -> Box:
    made = told(
        engine,
        "POST",
        f"/containers/create?name={name}",
        {
            "Image": base_image(),
            "Cmd": ["sleep", "1000"],
            "Labels": {"stormdrill": label},
            "HostConfig": {"NetworkMode": network},
            **({} if network == "none" else {"NetworkingConfig": {"EndpointsConfig": {network: {"Aliases": ["web"]}}}}),
        },
    )
    told(engine, "POST", f"/containers/{made['Id']}/start")
    return Box(engine, made["Id"], name)


def make_network(engine: str, name: str, label: str) -> str:
    body = {"Name": name, "Internal": True, "Labels": {"stormdrill": label}}
    return str(told(engine, "POST", "/networks/create", body)["Id"])


def ours(engine: str, label: str) -> list[str]:
    wanted = quote(json.dumps({"label": [f"stormdrill={label}"]}), safe="")
    found = told(engine, "GET", f"/containers/json?all=1&filters={wanted}")
    return [one["Id"] for one in found + told(engine, "GET", f"/networks?filters={wanted}")]


@pytest.fixture(scope="module")
def box(engine: str) -> Iterator[Box]:
    """One container on a network of its own, for all tests of words."""
    network = make_network(engine, LAB, LAB)
    made = make(engine, LAB, LAB, LAB)
    yield made
    told(engine, "DELETE", f"/containers/{made.id}?force=1&v=1")
    told(engine, "DELETE", f"/networks/{network}")


@EXECUTORS
def test_a_paused_container_runs_again_and_the_engine_says_so(run: KeptRun, box: Box, execute: Execute) -> None:
    run.arm("freeze/web", box.undo("unpause"))
    box.call("pause")
    assert execute(run, "freeze/web") == "done"
    assert not box.state["State"]["Paused"]
    assert perform(box.undo("unpause")).word == "superseded"


@EXECUTORS
def test_a_container_is_on_its_network_again_under_its_alias(run: KeptRun, box: Box, execute: Execute) -> None:
    body = json.dumps({"Container": box.id, "EndpointConfig": {"Aliases": ["web"]}})
    undo = Engine(box.engine, "POST", f"/networks/{LAB}/connect", body)
    run.arm("cut/web", undo, fault="region-loss")
    told(box.engine, "POST", f"/networks/{LAB}/disconnect", {"Container": box.id, "Force": True})
    assert execute(run, "cut/web") == "done"
    assert "web" in box.state["NetworkSettings"]["Networks"][LAB]["Aliases"]
    assert perform(undo).word == "superseded"


def test_a_container_whose_death_the_engine_has_not_noticed_is_started_again(box: Box) -> None:
    before = box.state["State"]
    os.kill(before["Pid"], signal.SIGKILL)
    assert perform(box.undo("start")).word == "done"
    after = box.state["State"]
    assert after["Running"]
    assert after["StartedAt"] != before["StartedAt"]
    assert perform(box.undo("start")).word == "superseded"


def test_a_limit_is_lifted_and_seen_to_be(run: KeptRun, box: Box) -> None:
    run.arm("cpu/web", box.undo("update", body='{"CpuQuota": -1}'), fault="cpu-starvation")
    box.call("update", {"CpuQuota": 20000, "CpuPeriod": 100000})
    assert by_the_keeper(run, "cpu/web") == "done"
    assert box.state["HostConfig"]["CpuQuota"] in (-1, 0)


@pytest.mark.parametrize("seen_from_here", [True, False])
def test_what_was_started_in_a_container_is_ended_by_its_tag_and_nothing_else_is(
    box: Box, seen_from_here: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`False`: the way for an engine whose processes this machine's /proc doesn't show."""
    if not seen_from_here:
        monkeypatch.setattr(undo_engine, "_is_in", lambda _pid, _container: False)
    other = box.runs("sleep", "1001")
    number = box.runs("sh", "-c", "sleep 1002 & sleep 1003 & wait", "leak/web 1")
    undo = EndExec(box.engine, box.id, number, "leak/web 1")
    assert perform(undo).word == "done"
    assert not told(box.engine, "GET", f"/exec/{number}/json")["Running"]
    assert told(box.engine, "GET", f"/exec/{other}/json")["Running"]
    assert "sleep 1003" not in str(told(box.engine, "GET", f"/containers/{box.id}/top")), "nor what it started"
    assert perform(undo).word == "superseded"
    assert perform(EndExec(box.engine, box.id, other, "sleep")).word == "done"
    assert box.state["State"]["Running"], "its first process bears that argument too, and is the instance itself"


@EXECUTORS
def test_a_program_in_a_helper_is_run_and_judged_by_its_exit_code(run: KeptRun, box: Box, execute: Execute) -> None:
    def rule(*argv: str) -> Exec:
        return Exec(box.engine, box.id, argv, moot=(3,))

    run.arm("partition/a", rule("touch", "/srv/$HOME; lifted"), fault="partition")
    run.arm("partition/b", rule("sh", "-c", "exit 3"), fault="partition")
    assert execute(run, "partition/a") == "done"
    assert perform(rule("test", "-e", "/srv/$HOME; lifted")).word == "done"
    assert perform(rule("sh", "-c", "exit 3")).word == "superseded"
    assert perform(rule("false")).word == "failed"
    assert perform(Exec(box.engine, box.id, ("sleep", "1009"), timeout_s=0.3)).word == "failed"
    assert "sleep 1009" not in str(told(box.engine, "GET", f"/containers/{box.id}/top"))


# --- the end of a run ---


@dataclass
class Drill:
    """A run with a network, a paused container, one that is cut off, and one that was never told of."""

    run: KeptRun
    engine: str
    paused: Box
    cut: Box


@pytest.fixture
def drill(run: KeptRun, engine: str) -> Iterator[Drill]:
    label = run.dir.name
    names = [f"{label}-{name}" for name in ("a", "b", "untold")]
    run.keeper.record(ResourcesClaimed(engine, names, [label], []))
    network = make_network(engine, label, label)
    boxes = [make(engine, name, label, label) for name in names]
    for one in boxes[:2]:
        run.keeper.record(ContainerStarted(one.name, "web", "system", one.id, one.name, 0, "i", "", {}, True))
    body = json.dumps({"Container": boxes[1].id})
    run.arm("freeze/a", boxes[0].undo("unpause", with_the_run=True))
    run.arm("cut/b", Engine(engine, "POST", f"/networks/{network}/connect", body, with_the_run=True), fault="cut")
    boxes[0].call("pause")
    told(engine, "POST", f"/networks/{network}/disconnect", {"Container": boxes[1].id})
    yield Drill(run, engine, *boxes[:2])
    for one in boxes:
        told(engine, "DELETE", f"/containers/{one.id}?force=1&v=1", None, 204, 404, 409)
    told(engine, "DELETE", f"/networks/{network}", None, 204, 404)


def test_when_the_runner_dies_the_harm_is_lifted_first_and_then_everything_is_removed(drill: Drill) -> None:
    drill.run.keeper._drop()
    drill.run.keeper_ended()
    assert ours(drill.engine, drill.run.dir.name) == []
    assert [event.status for event in drill.run.events(RunEnded)] == ["aborted"]
    assert [event.witness for event in drill.run.events(RevertVerified)] == ["the engine", "the engine"]
    assert drill.run.events(TornDown)[-1].ended == 4
    assert drill.run.words().index("torn-down") > drill.run.words().index("reverted")


def test_when_both_died_and_a_container_was_removed_by_hand_recovery_removes_the_rest(drill: Drill) -> None:
    from stormdrill.keeper.takeover import take_over

    told(drill.engine, "DELETE", f"/containers/{drill.paused.id}?force=1")
    drill.run.keeper.on_push = None
    procfs.send(drill.run.keeper.identity, signal.SIGKILL)
    eventually(lambda: not drill.run.keeper.identity.lives)
    began_s = time.monotonic()
    result = take_over(drill.run.dir, "recover")
    assert time.monotonic() - began_s < 20
    assert (result.status, len(result.removed)) == ("aborted", 3)
    assert dict((name, outcome) for name, outcome, _ in result.reverted) == {"freeze/a": "superseded", "cut/b": "done"}
    assert ours(drill.engine, drill.run.dir.name) == []
    assert take_over(drill.run.dir, "recover").already_ended
