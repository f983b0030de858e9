"""A sweep finds everything of ours, touches nothing that a living run owns, and removes what is stale."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from base_image import base_image
from fake_engine import FakeEngine, fake_engine
from keeping import KeptRun, kept_run
from stormdrill.cli.commands.sweep import sweep as command
from stormdrill.errors import Refused
from stormdrill.keeper import procfs
from stormdrill.keeper.engine import ask
from stormdrill.keeper.sweep import sweep
from stormdrill.store import holds
from waiting import eventually

GONE = "20200101T000000Z-long-over-0000"
OURS = f"stormdrill-{GONE}"


@pytest.fixture
def run(tmp_path: Path) -> Iterator[KeptRun]:
    with kept_run(tmp_path / "runs") as kept:
        yield kept


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEngine]:
    with fake_engine(tmp_path) as standing_in:
        monkeypatch.setenv("DOCKER_HOST", standing_in.url)
        yield standing_in


def kill_both(run: KeptRun) -> None:
    """Runner and keeper; the runner here is the test, so that the hold is made to name a process that is gone."""
    run.keeper.on_push = None
    procfs.kill_until_gone([run.keeper.identity], 5.0)
    dead = subprocess.Popen(["true"])
    dead.wait()
    hold = holds.hold_of(run.dir.name)
    assert hold is not None
    holds._change(hold, replace(hold, runner=hold.runner._replace(pid=dead.pid, start_ticks=1)))


def test_nothing_of_a_living_run_is_touched_even_where_its_hold_is_not_seen(
    run: KeptRun, fake: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    who = run.spawn("web")
    run.freeze("web", who)
    fake.add(f"stormdrill-{run.dir.name}-web", stormdrill=run.dir.name)
    found = sweep(run.dir.name)
    assert {(thing.kind, thing.owner, thing.outcome) for thing in found.things} == {
        ("run", "living", ""),
        ("fault", "living", ""),
        ("process", "living", ""),
        ("container", "living", ""),
    }
    assert next(thing.expires for thing in found.things if thing.kind == "fault")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "of-somebody-else"))
    assert {thing.owner for thing in sweep(run.dir.name).things} == {"living"}
    assert who.lives
    assert len(fake.boxes) == 1


def test_a_killed_run_is_recovered_first_and_then_nothing_of_it_is_left(run: KeptRun, fake: FakeEngine) -> None:
    frozen = subprocess.Popen(["sleep", "1001"])
    who = procfs.identity_of(frozen.pid)
    assert who is not None
    run.freeze("stranger", who)
    box = fake.add(f"stormdrill-{run.dir.name}-web", stormdrill=run.dir.name)
    kill_both(run)
    listed = sweep(run.dir.name, dry_run=True)
    assert {thing.owner for thing in listed.things} == {"killed"}
    assert procfs.frozen(who.pid, who.start_ticks)
    assert box.id in fake.boxes
    swept = sweep(run.dir.name)
    assert {thing.outcome for thing in swept.things} == {"removed"}
    assert not procfs.frozen(who.pid, who.start_ticks), "it was reverted, not only forgotten"
    assert fake.boxes == {}
    assert holds.hold_of(run.dir.name) is None
    assert sweep(run.dir.name).things == ()
    procfs.send(who, signal.SIGKILL)
    frozen.wait()


def test_what_nobody_knows_of_any_more_is_removed_and_what_others_labelled_is_not(fake: FakeEngine) -> None:
    process = subprocess.Popen(["sleep", "1002"], env={**procfs.marks(GONE, "web"), "PATH": "/usr/bin:/bin"})
    eventually(lambda: procfs.marked(GONE))
    fake.add(f"{OURS}-web", OURS, **{"stormdrill": GONE, "stormdrill.expires": "2020-01-01T00:10:00+00:00"})
    fake.networks = {OURS: {"stormdrill": GONE}, "theirs": {}}
    theirs = [fake.add("theirs"), fake.add("opted-in", stormdrill="my-own-system")]
    theirs += [fake.add("from-a-committed-image", stormdrill=GONE), fake.add(f"{OURS}9", stormdrill=GONE)]
    answer = CliRunner().invoke(command, [GONE, "--json"])
    process.wait(10)
    told = json.loads(answer.stdout)
    assert (answer.exit_code, told["left"]) == (0, 0)
    assert sorted((thing["kind"], thing["outcome"]) for thing in told["things"]) == [
        ("container", "removed"),
        ("network", "removed"),
        ("process", "removed"),
    ]
    assert list(fake.boxes.values()) == theirs
    assert fake.networks == {"theirs": {}}


def test_what_a_shared_engine_has_of_a_run_that_may_go_on_elsewhere_is_left_until_it_expires_or_is_named(
    fake: FakeEngine,
) -> None:
    def expires(in_s: float) -> str:
        return (datetime.now(UTC) + timedelta(seconds=in_s)).isoformat(timespec="seconds")

    fake.add(f"{OURS}-web", OURS, **{"stormdrill": GONE, "stormdrill.expires": expires(3600)})
    fake.add(f"{OURS}-db", OURS, **{"stormdrill": GONE, "stormdrill.expires": expires(-1)})
    fake.networks = {OURS: {"stormdrill": GONE}}
    left = sweep(dry_run=True)  # of all runs, so that it must not touch those of others on this machine
    of_it = [thing for thing in left.things if thing.run == GONE]
    assert [(thing.kind, thing.owner, thing.stale) for thing in of_it] == [
        ("container", "unknown", False),
        ("container", "unknown", False),
        ("network", "unknown", False),
    ]
    assert any(note.endswith(f"if it is over: stormdrill sweep {GONE}") for note in left.notes)
    assert {(thing.owner, thing.outcome) for thing in sweep(GONE).things} == {("over", "removed")}
    assert (fake.boxes, fake.networks) == ({}, {})


def test_what_cannot_be_removed_is_said_with_exit_code_5(fake: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    from stormdrill.keeper import claims

    monkeypatch.setattr(claims, "LIMIT_S", 0.3)
    fake.add(f"{OURS}-stuck", stormdrill=GONE)
    fake.troubles = [("DELETE", "500")] * 50
    answer = CliRunner().invoke(command, [GONE])
    assert answer.exit_code == 5
    assert "docker" in answer.stdout
    assert f"rm -f -v {OURS}-stuck" in answer.stdout


def test_a_word_that_is_no_run_is_refused() -> None:
    with pytest.raises(Refused, match="no run's id"):
        sweep("web")


@pytest.mark.docker
def test_a_real_engine_is_swept_of_one_run_that_is_over(engine: str) -> None:
    run = f"20200101T000000Z-over-{os.getpid()}"
    labels = {"stormdrill": run}
    name = f"stormdrill-{run}"
    made = {"Image": base_image(), "Cmd": ["sleep", "1000"], "Labels": labels}
    assert ask(engine, "POST", "/networks/create", json.dumps({"Name": name, "Labels": labels})).status == 201
    made |= {"HostConfig": {"NetworkMode": name}}
    assert ask(engine, "POST", f"/containers/create?name={name}", json.dumps(made)).status == 201
    assert ask(engine, "POST", f"/containers/{name}/start").status == 204
    assert ask(engine, "POST", f"/containers/{name}/pause").status == 204
    swept = sweep(run)
    assert sorted((thing.kind, thing.owner, thing.outcome) for thing in swept.things) == [
        ("container", "over", "removed"),
        ("network", "over", "removed"),
    ]
    assert sweep(run).things == ()
