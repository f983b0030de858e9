"""Whoever is killed or frozen, nothing stays injected; what both deaths leave is listed, refused, and mended."""

from __future__ import annotations

import ctypes
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import killing
import pytest

from keeping import IGNORES_TERM, WITH_GRANDCHILDREN, kept_run
from stormdrill.errors import Refused
from stormdrill.keeper import procfs
from stormdrill.keeper.actions import abort, list_runs, recover
from stormdrill.keeper.takeover import take_over
from stormdrill.model.event import AbortRequested, JournalTakenOver, RevertStarted, RevertVerified, RunEnded
from stormdrill.model.undo import Command, Spawn
from stormdrill.store import holds, journal
from stormdrill.store.verify import verify
from waiting import eventually

pytestmark = pytest.mark.real
_RNG = random.Random(20261121)
SAMPLE = [(who, killing.random_moment(_RNG)) for who in ("runner", "keeper", "both") * 6]


@pytest.mark.parametrize(("victims", "moment"), SAMPLE, ids=lambda value: value if isinstance(value, str) else "")
def test_a_kill_at_a_random_moment_leaves_nothing_alive_and_a_readable_journal(
    victims: str, moment: killing.Moment
) -> None:
    kill = killing.kill_once(victims, moment, limit_s=10.0)
    assert kill.faults == ()
    assert kill.alive or moment.lines < 6, "the kill found nothing to end: it proved nothing"


@dataclass
class Waiting:
    """A runner that has frozen one process and waits for its fate."""

    process: subprocess.Popen[str]
    runner: procfs.Identity
    keeper: procfs.Identity
    victim: procfs.Identity
    dir: Path

    @property
    def runs(self) -> Path:
        return self.dir.parent

    def frozen(self) -> bool:
        return procfs.frozen(self.victim.pid, self.victim.start_ticks)

    def freeze(self, who: procfs.Identity) -> None:
        procfs.send(who, signal.SIGSTOP)
        eventually(lambda: procfs.frozen(who.pid, who.start_ticks))

    def words(self) -> list[str]:
        return [recorded.event.type for recorded in journal.salvage(self.dir / journal.NAME).events]


@pytest.fixture
def waiting(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Waiting]:
    expires_in_s = getattr(request, "param", 60.0)
    process = subprocess.Popen(
        [sys.executable, "-P", killing.__file__, "--freeze-and-wait", str(tmp_path / "runs"), str(expires_in_s)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    said = json.loads(process.stdout.readline())
    runner = procfs.identity_of(process.pid)
    assert runner is not None
    found = Waiting(
        process, runner, procfs.Identity(*said["keeper"]), procfs.Identity(*said["victim"]), Path(said["dir"])
    )
    yield found
    procfs.kill_until_gone([found.runner, found.keeper, found.victim], 5.0)
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize("waiting", [0.4], indirect=True)
def test_an_undo_is_carried_out_at_its_expiry_while_the_runner_is_frozen(waiting: Waiting) -> None:
    procfs.send(waiting.runner, signal.SIGSTOP)
    eventually(lambda: not waiting.frozen())
    assert waiting.victim.lives
    assert procfs.frozen(waiting.runner.pid, waiting.runner.start_ticks)
    eventually(lambda: waiting.words()[-3:] == ["revert-started", "reverted", "revert-verified"])


def test_both_killed_is_listed_and_refused_until_recover_mends_it(waiting: Waiting) -> None:
    procfs.kill_until_gone([waiting.keeper, waiting.runner], 5.0)
    waiting.process.wait()
    (line,) = list_runs(waiting.runs)
    assert (line.run, line.state, line.system) == (waiting.dir.name, "killed", "sleeper")
    with pytest.raises(Refused, match=f"stormdrill recover {waiting.dir.name}"):
        holds.acquire("sleeper", "process", "next", waiting.dir)
    (result,) = recover()
    assert (result.status, result.left, result.already_ended) == ("aborted", (), False)
    assert [name for name, _, _ in result.reverted] == ["freeze/plain"]
    assert not waiting.victim.lives
    assert verify(waiting.dir, result.head) == []
    assert [line.state for line in list_runs(waiting.runs)] == ["aborted"]
    assert recover() == []
    holds.acquire("sleeper", "process", "next", waiting.dir)


def test_a_torn_line_does_not_hinder_recover(waiting: Waiting) -> None:
    procfs.kill_until_gone([waiting.keeper, waiting.runner], 5.0)
    with (waiting.dir / journal.NAME).open("ab") as file:
        file.write(b'{"seq":99,"at":"20')
    (result,) = recover(waiting.dir.name)
    assert (result.status, result.cut_bytes) == ("aborted", 18)
    events = [recorded.event for recorded in journal.read(waiting.dir / journal.NAME)]
    assert [event.cut_text for event in events if isinstance(event, JournalTakenOver)] == ['{"seq":99,"at":"20']
    assert verify(waiting.dir) == []


def test_recover_refuses_a_run_that_is_alive_and_leaves_it_alone(waiting: Waiting) -> None:
    with pytest.raises(Refused, match="is alive"):
        recover(waiting.dir.name)
    assert recover() == []
    assert waiting.frozen()


def test_abort_asks_the_runner_and_the_run_is_over_when_it_returns(waiting: Waiting) -> None:
    done = abort(waiting.dir.name, waiting.runs)
    assert (done.status, done.by) == ("aborted", "runner")
    waiting.process.wait()
    assert not waiting.victim.lives
    with pytest.raises(Refused, match="not going on"):
        abort(waiting.dir.name, waiting.runs)


def test_abort_of_a_runner_that_does_not_react_is_done_by_the_keeper(waiting: Waiting) -> None:
    waiting.freeze(waiting.runner)
    done = abort(str(waiting.dir), waiting.runs, react_limit_s=2.0)
    assert (done.status, done.by) == ("aborted", "keeper")
    assert not waiting.victim.lives
    assert verify(waiting.dir) == []


def test_abort_when_neither_reacts_recovers(waiting: Waiting) -> None:
    waiting.freeze(waiting.runner)
    waiting.freeze(waiting.keeper)
    done = abort(str(waiting.dir), waiting.runs, react_limit_s=0.1)
    assert (done.status, done.by) == ("aborted", "recover")
    eventually(lambda: not waiting.runner.lives)
    assert not waiting.victim.lives


def test_a_run_whose_record_is_gone_is_ended_and_stays_dirty_until_a_person_vouches_for_it(waiting: Waiting) -> None:
    """Nobody can tell any more what else was in force, beyond the processes that the run had started."""
    shutil.rmtree(waiting.dir)
    procfs.kill_until_gone([waiting.keeper, waiting.runner], 5.0)
    for _ in range(2):
        (result,) = recover()
        assert result.status == "dirty"
        assert "the record is gone" in result.left[0]
    assert not waiting.victim.lives
    with pytest.raises(Refused, match=r"left dirty.*the record is gone"):
        holds.acquire("sleeper", "process", "next", waiting.dir)
    (vouched,) = recover(accept_left=True)
    assert (vouched.status, vouched.left) == ("aborted", ())
    assert holds.open_runs() == []


# --- taking over -----------------------------------------------------------------------------------------


def test_the_runner_takes_over_from_a_keeper_that_is_frozen(tmp_path: Path) -> None:
    with kept_run(tmp_path / "runs") as run:
        who = run.spawn("one", IGNORES_TERM)
        run.spawn("two", WITH_GRANDCHILDREN)
        eventually(lambda: len(procfs.marked(run.dir.name, "two")) == 4)
        run.freeze("one", who)
        run.arm("crash/two", Spawn("two"), fault="crash")
        procfs.send(run.keeper.identity, signal.SIGSTOP)
        result = take_over(run.dir, "runner")
        assert (result.status, result.left) == ("aborted", ())
        assert procfs.marked(run.dir.name) == []
        assert not run.keeper.identity.lives
        assert {event.cause for event in run.events(RevertStarted)} == {"keeper-gone"}
        assert [event.by for event in run.events(AbortRequested)] == ["keeper"]
        assert verify(run.dir, result.head) == []
        assert holds.open_runs() == []


def test_a_keeper_that_died_before_its_first_line_leaves_nothing_to_take_over(tmp_path: Path) -> None:
    with kept_run(tmp_path / "runs") as run:
        procfs.kill_until_gone([run.keeper.identity], 5.0)
        (run.dir / journal.NAME).write_bytes(b"")
        result = take_over(run.dir, "runner")
        assert (result.status, result.left, result.head) == ("aborted", (), "")
        assert holds.open_runs() == []


def test_a_second_takeover_finds_nothing_to_do_and_writes_nothing(tmp_path: Path) -> None:
    with kept_run(tmp_path / "runs") as run:
        run.spawn("one")
        procfs.kill_until_gone([run.keeper.identity], 5.0)
        first = take_over(run.dir, "runner")
        again = take_over(run.dir, "recover")
        assert (again.already_ended, again.status, again.head) == (True, "aborted", first.head)


def test_what_cannot_be_reverted_stays_dirty_until_it_can_or_a_person_vouches_for_it(tmp_path: Path) -> None:
    with kept_run(tmp_path / "runs") as run:
        switch = tmp_path / "reachable"
        run.arm("late-1", Command(("test", "-e", str(switch))), fault="late")
        run.arm("late-2", Command(("false",)), fault="late")
        procfs.kill_until_gone([run.keeper.identity], 5.0)
        assert take_over(run.dir, "runner").status == "dirty"
        (line,) = list_runs(tmp_path / "runs")
        assert (line.state, len(line.left)) == ("dirty", 2)
        switch.touch()
        (second,) = recover(run.dir.name)
        assert [(name, outcome) for name, outcome, _ in second.reverted] == [("late-2", "failed"), ("late-1", "done")]
        with pytest.raises(Refused, match=r"left dirty.*late-2"):
            holds.acquire("sleepers", "process", "next", run.dir)
        (third,) = recover(run.dir.name, accept_left=True)
        assert [(outcome, "vouches" in detail) for _, outcome, detail in third.reverted] == [("superseded", True)]
        assert third.status == "aborted"
        assert holds.open_runs() == []
        assert [event.status for event in run.events(RunEnded)] == ["dirty", "dirty", "aborted"]
        assert verify(run.dir, third.head) == []


@pytest.mark.parametrize("runner", [False, True], ids=["both are killed", "the run ends dirty"])
def test_an_undo_that_answers_done_and_does_not_help_stays_dirty_until_a_person_vouches_for_it(
    tmp_path: Path, runner: bool
) -> None:
    with kept_run(tmp_path / "runs") as run:
        run.arm("late", Command(("true",)), fault="late")
        for _ in range(2):
            run.keeper.revert("late", "again")
            run.keeper.record(RevertVerified("late", False, "GET /version", "version is leaky", 1.0))
        if runner:
            assert run.keeper.teardown()
            run.keeper.close("dirty", "late could not be shown to be reverted")
        procfs.kill_until_gone([run.keeper.identity], 5.0)
        second = take_over(run.dir, "recover")
        assert (second.status, [outcome for _, outcome, _ in second.reverted]) == ("dirty", ["failed"])
        with pytest.raises(Refused, match=r"left dirty.*late could not be shown to be reverted"):
            holds.acquire("sleepers", "process", "next", run.dir)
        (third,) = recover(run.dir.name, accept_left=True)
        assert [(outcome, "vouches" in detail) for _, outcome, detail in third.reverted] == [("superseded", True)]
        assert (third.status, holds.open_runs()) == ("aborted", [])


def test_what_was_seen_to_be_gone_at_last_is_not_reverted_by_who_takes_over(tmp_path: Path) -> None:
    with kept_run(tmp_path / "runs") as run:
        run.arm("late", Command(("true",)), fault="late")
        for gone in (False, True):
            run.keeper.revert("late", "again")
            run.keeper.record(RevertVerified("late", gone, "GET /version", "", 1.0))
        procfs.kill_until_gone([run.keeper.identity], 5.0)
        result = take_over(run.dir, "runner")
        assert (result.status, result.reverted) == ("aborted", ())


def test_a_stranger_that_has_the_pid_of_a_process_of_the_run_is_left_alone(tmp_path: Path) -> None:
    with kept_run(tmp_path / "runs") as run, subprocess.Popen(["sleep", "1008"]) as stranger:
        time.sleep(0.03)  # start times count in hundredths of a second
        run.spawn("one")
        procfs.kill_until_gone([run.keeper.identity], 5.0)
        journal_path = run.dir / journal.NAME
        (spawned,) = [item for item in journal_path.read_bytes().splitlines() if b"process-spawned" in item]
        pid = json.loads(spawned)["pid"]
        forged = spawned.replace(b'"pid":%d' % pid, b'"pid":%d' % stranger.pid)
        journal_path.write_bytes(journal_path.read_bytes().replace(spawned, forged))
        assert take_over(run.dir, "recover").left == ()
        assert stranger.poll() is None
        stranger.kill()


# --- without root ----------------------------------------------------------------------------------------


def drop_every_capability() -> None:
    """What root may do beyond an ordinary user is gone after the next exec; a no-op for an ordinary user."""
    libc = ctypes.CDLL(None)
    for capability in range(64):
        libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


def test_none_of_it_needs_more_than_an_ordinary_user_may_do(tmp_path: Path) -> None:
    powers = subprocess.run(
        ["grep", "CapEff", "/proc/self/status"],
        preexec_fn=drop_every_capability,
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(powers.stdout.split()[1], 16) == 0
    ended = subprocess.run(
        [sys.executable, "-P", killing.__file__, "4", "2", "5"],
        preexec_fn=drop_every_capability,
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path), "GONE_LIMIT_S": "10"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["kills"] == 6
