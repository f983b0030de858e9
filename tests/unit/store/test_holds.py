"""One system, one run: who holds it is told, the dead who left something are refused, the dead who didn't are not."""

from __future__ import annotations

import concurrent.futures
import json
import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from stormdrill.errors import Refused
from stormdrill.model.event import RunEnded, Warned
from stormdrill.store import holds
from stormdrill.store.identity import Identity, boot_id, identity_of
from stormdrill.store.journal import NAME, JournalWriter


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    run_dir = tmp_path / "runs" / "one"
    run_dir.mkdir(parents=True)
    return run_dir


def dead() -> Identity:
    """A process that was, and is no more."""
    process = subprocess.Popen(["sleep", "1000"])
    who = identity_of(process.pid)
    process.kill()
    process.wait()
    assert who is not None
    return who


def left_by_the_dead(run_dir: Path, *events: Warned | RunEnded) -> holds.Hold:
    hold = holds.acquire("platform", "process", run_dir.name, run_dir)
    holds._store(replace(hold, runner=dead(), keeper=dead()))
    if events:
        writer = JournalWriter.create(run_dir / NAME)
        for event in events:
            writer.write(event)
        writer.close()
    return hold


def test_a_second_run_is_refused_and_told_who_holds_the_system(run_dir: Path) -> None:
    holds.acquire("platform", "process", "one", run_dir)
    with pytest.raises(Refused) as refusal:
        holds.acquire("platform", "process", "two", run_dir)
    assert refusal.value.exit_code == 2
    for word in ("run one", f"pid {os.getpid()}", "since 20", str(run_dir), "stormdrill abort one"):
        assert word in str(refusal.value)


def test_another_system_and_another_target_are_free(run_dir: Path) -> None:
    holds.acquire("platform", "process", "one", run_dir)
    holds.acquire("platform", "docker", "two", run_dir)
    holds.acquire("plat form", "process", "three", run_dir)
    holds.acquire("plat-form", "process", "four", run_dir)
    assert {hold.run for hold in holds.open_runs()} == {"one", "two", "three", "four"}


def test_a_released_system_is_free_again(run_dir: Path) -> None:
    hold = holds.acquire("platform", "process", "one", run_dir)
    holds.release(hold)
    assert holds.open_runs() == []
    holds.acquire("platform", "process", "two", run_dir)


def test_a_run_gives_back_only_its_own_hold(run_dir: Path) -> None:
    first = holds.acquire("platform", "process", "one", run_dir)
    holds.release(first)
    holds.acquire("platform", "process", "two", run_dir)
    holds.release(first)
    assert [hold.run for hold in holds.open_runs()] == ["two"]


def test_a_keeper_that_lives_holds_the_system_when_its_runner_is_dead(run_dir: Path) -> None:
    hold = holds.acquire("platform", "process", "one", run_dir)
    mine = hold.runner
    holds._store(replace(hold, runner=dead(), keeper=mine))
    with pytest.raises(Refused, match="is held by run one"):
        holds.acquire("platform", "process", "two", run_dir)


def test_when_both_are_dead_a_new_run_is_refused_until_recover(run_dir: Path) -> None:
    left_by_the_dead(run_dir, Warned("and then both were killed"))
    with pytest.raises(Refused, match="stormdrill recover one"):
        holds.acquire("platform", "process", "two", run_dir)


def test_a_run_that_ended_and_died_before_giving_the_system_back_refuses_nobody(run_dir: Path) -> None:
    left_by_the_dead(run_dir, RunEnded("completed", ""))
    assert holds.acquire("platform", "process", "two", run_dir).run == "two"


def test_a_runner_that_was_killed_before_it_had_a_keeper_had_started_nothing_and_refuses_nobody(run_dir: Path) -> None:
    hold = holds.acquire("platform", "process", "one", run_dir)
    holds._store(replace(hold, runner=dead()))
    assert holds.open_runs() == []
    assert holds.acquire("platform", "process", "two", run_dir).run == "two"


def test_a_run_that_ended_dirty_keeps_the_system_until_recover(run_dir: Path) -> None:
    hold = left_by_the_dead(run_dir, RunEnded("dirty", ""))
    holds.mark_dirty(hold, ["drain/edge could not be undone"])
    with pytest.raises(Refused, match=r"left dirty.*drain/edge could not be undone.*stormdrill recover one"):
        holds.acquire("platform", "process", "two", run_dir)


def test_processes_of_another_boot_are_dead_whatever_their_pid_is_now(run_dir: Path) -> None:
    hold = holds.acquire("platform", "process", "one", run_dir)
    assert hold.runner.lives
    assert not hold.runner._replace(boot_id="another").lives
    assert not hold.runner._replace(start_ticks=hold.runner.start_ticks + 1).lives
    assert hold.boot_id == boot_id()


def test_the_state_is_private_to_its_user(run_dir: Path, state_home: Path) -> None:
    holds.acquire("platform", "process", "one", run_dir)
    for directory in (state_home / "stormdrill", state_home / "stormdrill" / "holds"):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_a_hold_that_cannot_be_read_is_refused_with_its_path(run_dir: Path) -> None:
    hold = holds.acquire("platform", "process", "one", run_dir)
    hold.path.write_text("{")
    with pytest.raises(Refused, match=hold.path.name):
        holds.acquire("platform", "process", "two", run_dir)


def test_of_many_runs_at_once_exactly_one_gets_the_system(run_dir: Path) -> None:
    script = (
        "import os, sys, time; from pathlib import Path; from stormdrill.store import holds; sys.stdin.read();"
        "holds.acquire('platform', 'process', sys.argv[1], Path(sys.argv[2]));"
        "os.write(1, b'got it'); os.close(1); time.sleep(60)"
    )
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(number), str(run_dir)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        for number in range(5)
    ]
    for run in runs:
        assert run.stdin is not None
        run.stdin.close()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        said = list(pool.map(lambda run: run.stdout.read() if run.stdout else b"", runs))
    assert said.count(b"got it") == 1
    for run in runs:
        run.kill()
        run.wait()
    assert json.loads(next((holds.state_home() / "holds").glob("*.json")).read_text())["run"] in "01234"
