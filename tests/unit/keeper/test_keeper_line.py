"""The keeper's line with `sleep` as the system: spawn, arm, freeze, revert; and whoever goes, everything is undone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from keeping import IGNORES_TERM, WITH_GRANDCHILDREN, KeptRun, kept_run, thaw
from stormdrill.errors import KeeperGone, Refused, SystemNotReady
from stormdrill.keeper import procfs
from stormdrill.keeper.client import KeeperClient
from stormdrill.model.event import (
    AbortRequested,
    Armed,
    InjectStarted,
    KeeperStarted,
    ProcessExited,
    ProcessSpawned,
    Reverted,
    RevertStarted,
    RevertVerified,
    RunEnded,
    TornDown,
    Warned,
)
from stormdrill.model.undo import Call, Command, Spawn
from stormdrill.store import holds, journal
from stormdrill.store.verify import verify
from waiting import eventually


@pytest.fixture
def run(tmp_path: Path) -> Iterator[KeptRun]:
    with kept_run(tmp_path / "runs") as kept:
        yield kept
    assert (kept.dir / "logs" / "keeper.log").read_text() == ""


def test_spawn_arm_freeze_revert_and_close_leave_a_whole_record(run: KeptRun) -> None:
    who = run.spawn("one")
    injection = run.freeze("one", who)
    assert run.keeper.revert(injection, "planned") == "done"
    assert procfs.state(who.pid) != "T"
    assert run.keeper.teardown() == []
    head = run.keeper.close("completed", "")
    assert not who.lives
    assert not run.keeper.identity.lives
    assert verify(run.dir, head) == []
    assert holds.open_runs() == []
    assert run.words() == [
        "run-started",
        "keeper-started",
        "process-spawned",
        "armed",
        "revert-started",
        "reverted",
        "process-exited",
        "torn-down",
        "run-ended",
    ]


def test_the_undo_is_on_the_disk_before_arm_returns(run: KeptRun) -> None:
    who = run.spawn("one")
    run.arm("freeze/one", thaw("one", who), expires_in_s=30.0)
    (armed,) = run.events(Armed)
    assert armed.undo == [
        {
            "kind": "signal",
            "instance": "one",
            "pid": who.pid,
            "start_ticks": who.start_ticks,
            "boot_id": who.boot_id,
            "signal": "SIGCONT",
        }
    ]
    assert armed.expires_mono_ms > time.monotonic() * 1000


def test_reverting_twice_does_nothing_the_second_time(run: KeptRun) -> None:
    who = run.spawn("one")
    injection = run.freeze("one", who)
    assert [run.keeper.revert(injection, "planned") for _ in range(3)] == ["done"] * 3
    assert len(run.events(RevertStarted)) == 1


def test_what_was_never_armed_cannot_be_reverted_and_nothing_is_armed_twice(run: KeptRun) -> None:
    with pytest.raises(ValueError, match="never armed"):
        run.keeper.revert("nothing", "planned")
    who = run.spawn("one")
    run.arm("freeze/one", thaw("one", who))
    with pytest.raises(ValueError, match="armed already"):
        run.arm("freeze/one", thaw("one", who))
    run.keeper.revert("freeze/one", "planned")
    run.arm("freeze/one", thaw("one", who))  # again, after its revert


def test_a_disarmed_change_stays_and_is_not_reverted_at_the_end(run: KeptRun, tmp_path: Path) -> None:
    mark = tmp_path / "undone"
    run.arm("drain", Command(("touch", str(mark))), fault="runbook")
    run.keeper.disarm("drain")
    run.keeper.close("completed", "")
    assert not mark.exists()
    assert [event.outcome for event in run.events(Reverted)] == ["superseded"]


def test_at_its_expiry_the_keeper_reverts_on_its_own_and_says_so(run: KeptRun) -> None:
    who = run.spawn("one")
    run.freeze("one", who, expires_in_s=0.3)
    assert run.await_push("reverted") == {
        "injection": "freeze/one",
        "cause": "expired",
        "outcome": "done",
        "detail": f"SIGCONT to one (pid {who.pid})",
    }
    assert not procfs.frozen(who.pid, who.start_ticks)
    assert [(event.cause, event.by) for event in run.events(RevertStarted)] == [("expired", "keeper")]
    assert [event.gone for event in run.events(RevertVerified)] == [True]
    assert run.keeper.revert("freeze/one", "planned") == "done"


def test_a_command_that_hangs_delays_no_other_revert(run: KeptRun) -> None:
    who = run.spawn("one")
    run.arm("slow", Command(("sleep", "30"), timeout_s=2.0), fault="late", expires_in_s=0.05)
    run.freeze("one", who, expires_in_s=0.3)
    eventually(lambda: any(event.injection == "slow" for event in run.events(RevertStarted)))
    assert run.await_push("reverted")["injection"] == "freeze/one"
    assert run.keeper.record(Warned("and it still answers"))


def test_a_command_is_ended_at_its_limit_and_counts_as_failed(run: KeptRun) -> None:
    run.arm("slow", Command(("sleep", "1007"), timeout_s=0.2), fault="late")
    assert run.keeper.revert("slow", "planned") == "failed"
    assert not [pid for pid in procfs.marked(run.dir.name)]


def test_an_undo_that_failed_is_tried_again_by_the_tear_down(run: KeptRun, tmp_path: Path) -> None:
    switch = tmp_path / "reachable"
    run.arm("late", Command(("test", "-e", str(switch))), fault="late")
    assert run.keeper.revert("late", "planned") == "failed"
    switch.touch()
    assert run.keeper.teardown() == []
    assert [event.outcome for event in run.events(Reverted)] == ["failed", "done"]


def test_what_cannot_be_reverted_makes_the_run_dirty_and_keeps_the_system_held(run: KeptRun) -> None:
    run.arm("late", Command(("false",)), fault="late")
    left = run.keeper.teardown()
    assert left
    assert left[0].startswith("late could not be shown to be reverted")
    run.keeper.close("completed", "")
    assert [event.status for event in run.events(RunEnded)] == ["dirty"]
    with pytest.raises(Refused, match="left dirty"):
        holds.acquire("sleepers", "process", "next", run.dir)


def a_look(injection: str, *, gone: bool) -> RevertVerified:
    return RevertVerified(injection, gone, "GET /version", "as said", 1.0)


@pytest.mark.parametrize("again", [False, True], ids=["before the second revert", "after it"])
def test_what_was_seen_to_be_there_is_reverted_again_and_an_answer_alone_is_not_believed(
    run: KeptRun, again: bool
) -> None:
    """The runner dies between the look and whatever would have shown that the undo helped after all."""
    run.arm("late", Command(("true",)), fault="late")
    run.keeper.revert("late", "planned")
    run.keeper.record(a_look("late", gone=False))
    if again:
        assert run.keeper.revert("late", "again") == "done", "somebody looks after it"
    run.keeper._drop()
    run.keeper_ended()
    assert [event.outcome for event in run.events(Reverted)] == ["done", *(["done"] if again else []), "failed"]
    assert [event.status for event in run.events(RunEnded)] == ["dirty"]
    (hold,) = holds.open_runs()
    assert hold.left[0].startswith("late could not be shown to be reverted")


def test_what_was_seen_to_be_gone_after_all_is_not_reverted_any_more(run: KeptRun) -> None:
    run.arm("late", Command(("true",)), fault="late")
    run.keeper.revert("late", "planned")
    run.keeper.record(a_look("late", gone=False))
    run.keeper.revert("late", "again")
    run.keeper.record(a_look("late", gone=True))
    assert run.keeper.teardown() == []
    assert [event.outcome for event in run.events(Reverted)] == ["done", "done"]


def test_what_was_seen_to_be_there_is_believed_where_the_process_tells_or_the_system_ends(run: KeptRun) -> None:
    who = run.spawn("one", address="127.0.0.1:9")
    run.arm("drain/one", Call("POST", "http://127.0.0.1:9/undrain", timeout_s=0.2))
    run.keeper.revert("drain/one", "planned")
    run.keeper.revert(run.freeze("one", who), "planned")
    for name in ("drain/one", "freeze/one"):
        run.keeper.record(a_look(name, gone=False))
    assert run.keeper.teardown() == []
    run.keeper.close("completed", "")
    assert [event.status for event in run.events(RunEnded)] == ["completed"]


# --- processes -------------------------------------------------------------------------------------------


def test_a_process_leads_its_session_inherits_nothing_and_logs_to_the_run(run: KeptRun) -> None:
    look = "import os; print(sorted(int(n) for n in os.listdir('/proc/self/fd'))); print(os.environ['COLOUR'])"
    sleeping = run.spawn("sleeping")
    found = procfs.stat(sleeping.pid)
    assert found is not None
    assert found.session == sleeping.pid
    run.spawn("looking", [sys.executable, "-S", "-u", "-c", look], env={"COLOUR": "red"})
    log = run.dir / "logs" / "looking.log"
    eventually(lambda: "red" in log.read_text())
    assert log.read_text().startswith("[0, 1, 2, 3]")  # 3 is the listing itself


def test_a_command_that_cannot_be_started_is_told_and_the_keeper_lives(run: KeptRun) -> None:
    with pytest.raises(SystemNotReady, match=r"one: cannot start /no/such/program: .*No such file"):
        run.spawn("one", ["/no/such/program"])
    assert run.spawn("one").lives


def test_a_process_that_ends_by_itself_is_journalled_as_unexpected_and_pushed(run: KeptRun) -> None:
    who = run.spawn("one", ["sh", "-c", "exit 3"])
    assert run.await_push("process-exited") == {
        "instance": "one",
        "pid": who.pid,
        "code": 3,
        "signal": None,
        "expected": False,
    }
    assert [event.code for event in run.events(ProcessExited)] == [3]


def test_the_end_of_a_process_that_an_injection_crashes_is_expected_and_it_is_started_again(run: KeptRun) -> None:
    who = run.spawn("one", env={"A": "b"})
    run.arm("crash/one", Spawn("one"), fault="crash")
    run.keeper.record(InjectStarted("crash/one"))
    procfs.send(who, signal.SIGKILL)
    assert run.await_push("process-exited")["expected"] is True
    assert run.keeper.revert("crash/one", "planned") == "done"
    first, again = run.events(ProcessSpawned)
    assert (again.argv, again.env, again.instance) == (first.argv, first.env, first.instance)
    assert again.pid != first.pid
    assert procfs.lives(again.pid, again.start_ticks)


def test_what_lives_is_not_started_a_second_time(run: KeptRun) -> None:
    run.spawn("one")
    run.arm("crash/one", Spawn("one"), fault="crash")
    assert run.keeper.revert("crash/one", "planned") == "superseded"
    with pytest.raises(ValueError, match="running already"):
        run.spawn("one")


def test_stop_ends_what_ignores_sigterm_and_all_that_descends_from_it(run: KeptRun) -> None:
    stubborn = run.spawn("stubborn", IGNORES_TERM)
    eventually(lambda: "up" in (run.dir / "logs" / "stubborn.log").read_text())
    family = run.spawn("family", WITH_GRANDCHILDREN)
    eventually(lambda: len(procfs.marked(run.dir.name, "family")) == 4)
    other = run.spawn("other")
    run.keeper.stop("stubborn", 0.1)
    run.keeper.stop("family", 5.0)
    assert not stubborn.lives
    assert not family.lives
    assert procfs.marked(run.dir.name, "family") == []
    assert other.lives


def test_the_tear_down_ends_frozen_and_orphaned_processes_too(run: KeptRun) -> None:
    who = run.spawn("one", WITH_GRANDCHILDREN)
    eventually(lambda: len(procfs.marked(run.dir.name, "one")) == 4)
    for victim in procfs.marked(run.dir.name, "one"):
        procfs.send(victim, signal.SIGSTOP)
    procfs.send(who, signal.SIGKILL)  # its children are orphans now
    run.spawn("two", IGNORES_TERM)
    assert run.keeper.teardown() == []
    assert procfs.marked(run.dir.name) == []


def test_at_the_tear_down_nothing_is_started_or_called_that_is_ended_with_the_run(run: KeptRun) -> None:
    who = run.spawn("one", address="127.0.0.1:9")
    run.arm("crash/one", Spawn("one"), fault="crash")
    run.arm("drain/one", Call("POST", "http://127.0.0.1:9/undrain"), fault="runbook")
    procfs.send(who, signal.SIGKILL)
    assert run.keeper.teardown() == []
    assert [event.outcome for event in run.events(Reverted)] == ["superseded", "superseded"]
    assert len(run.events(ProcessSpawned)) == 1


def test_faults_are_reverted_before_what_a_runbook_changed_each_in_reverse_order(run: KeptRun) -> None:
    who = run.spawn("one")
    run.arm("late-1", Command(("true",)), fault="late")
    run.arm("freeze/one", thaw("one", who), fault="freeze")
    run.arm("late-2", Command(("true",)), fault="late")
    run.arm("action-1", Command(("true",)), fault="runbook")
    run.arm("action-2", Command(("true",)), fault="runbook")
    run.keeper.teardown()
    order = [event.injection for event in run.events(RevertStarted)]
    assert order == ["freeze/one", "late-2", "late-1", "action-2", "action-1"]


# --- who goes --------------------------------------------------------------------------------------------


def test_an_abort_signal_is_pushed_to_the_runner_who_may_end_the_run_itself(run: KeptRun) -> None:
    procfs.send(run.keeper.identity, signal.SIGTERM)
    assert run.await_push("abort")["by"] == "signal"
    run.keeper.close("aborted", "asked to")
    assert [event.status for event in run.events(RunEnded)] == ["aborted"]


def test_a_second_abort_signal_does_not_wait_for_the_runner(run: KeptRun) -> None:
    who = run.spawn("one")
    run.freeze("one", who)
    procfs.send(run.keeper.identity, signal.SIGHUP)
    run.await_push("abort")
    procfs.send(run.keeper.identity, signal.SIGHUP)
    run.await_push("keeper-gone")
    assert not who.lives
    assert run.words()[-2:] == ["torn-down", "run-ended"]
    with pytest.raises(KeeperGone):
        run.keeper.record(Warned("too late"))
    assert holds.open_runs() == []


def test_a_runner_that_closes_while_the_keeper_ends_the_run_finds_it_gone(run: KeptRun) -> None:
    run.spawn("one", IGNORES_TERM)
    procfs.send(run.keeper.identity, signal.SIGUSR1)
    eventually(lambda: run.events(AbortRequested))
    with pytest.raises(KeeperGone):
        run.keeper.close("completed", "")
    assert [(event.status, event.reason) for event in run.events(RunEnded)] == [
        ("aborted", "stopped by stormdrill abort; the runner did not react")
    ]


def test_a_keeper_that_is_killed_is_told_to_the_runner_and_its_children_die(run: KeptRun) -> None:
    who = run.spawn("one", IGNORES_TERM)
    procfs.send(who, signal.SIGSTOP)
    procfs.send(run.keeper.identity, signal.SIGKILL)
    run.await_push("keeper-gone")
    eventually(lambda: not who.lives)
    with pytest.raises(KeeperGone):
        run.keeper.record(Warned("too late"))


def test_a_keeper_that_is_frozen_is_gone_after_the_limit(run: KeptRun, monkeypatch: pytest.MonkeyPatch) -> None:
    procfs.send(run.keeper.identity, signal.SIGSTOP)
    with pytest.raises(KeeperGone, match="did not answer"):
        run.keeper._ask("teardown", {}, 0.2)


def test_secrets_are_removed_from_the_journal_and_undos_still_know_them(run: KeptRun, tmp_path: Path) -> None:
    run.keeper.secret("token", "s3cret-value")
    run.arm("late", Command(("touch", str(tmp_path / "s3cret-value"))), fault="late")
    run.spawn("one", ["sleep", "1000"], env={"TOKEN": "s3cret-value"})
    assert run.keeper.revert("late", "planned") == "done"
    assert (tmp_path / "s3cret-value").exists()
    assert b"s3cret-value" not in (run.dir / journal.NAME).read_bytes()
    with pytest.raises(ValueError, match="shorter"):
        run.keeper.secret("short", "abc")


def test_many_threads_may_speak_to_the_keeper_at_once(run: KeptRun) -> None:
    import concurrent.futures

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda number: run.keeper.record(Warned(str(number))), range(400)))
    assert len(set(numbers)) == 400
    by_number = {recorded.seq: recorded.event for recorded in journal.read(run.dir / journal.NAME)}
    assert all(by_number[seq] == Warned(str(index)) for index, seq in enumerate(numbers))


def test_the_callback_for_pushes_may_ask_the_keeper(tmp_path: Path) -> None:
    with kept_run(tmp_path / "runs") as kept:
        recorded: list[int] = []
        kept.keeper.on_push = lambda kind, data: recorded.append(kept.keeper.record(Warned(kind)))
        kept.spawn("one", ["true"])
        eventually(lambda: recorded)


def test_a_keeper_on_a_directory_that_has_a_journal_is_refused(run: KeptRun) -> None:
    with pytest.raises(Refused, match="exists"):
        KeeperClient.start(run.dir, run=run.dir.name, system="sleepers", target="process")


# --- a journal that takes no more ------------------------------------------------------------------------


def test_when_the_journal_takes_no_more_everything_is_reverted_first_and_the_run_is_ended(run: KeptRun) -> None:
    import resource

    who = run.spawn("one")
    run.freeze("one", who)
    size = (run.dir / journal.NAME).stat().st_size
    resource.prlimit(run.keeper.identity.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    with pytest.raises(journal.JournalUnwritable):
        run.keeper.record(Warned("no room"))
    run.await_push("journal-failed")
    eventually(lambda: not procfs.frozen(who.pid, who.start_ticks))
    assert run.await_push("reverted")["cause"] == "abort"
    with pytest.raises(journal.JournalUnwritable, match="not armed"):
        run.arm("late", Command(("true",)))
    resource.prlimit(run.keeper.identity.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert run.keeper.teardown() == []
    run.keeper.close("aborted", "the disk is full")
    assert run.words()[-1] == "run-ended"


# --- what it is made of ----------------------------------------------------------------------------------


def test_the_keeper_imports_the_standard_library_and_nothing_else(tmp_path: Path) -> None:
    script = (
        "import stormdrill.keeper.__main__, stormdrill.keeper.takeover, stormdrill.keeper.client, http.client, sys;"
        "print('\\n'.join(sys.modules))"
    )
    bare = subprocess.run(
        [sys.executable, "-c", "import sys; print('\\n'.join(sys.modules))"], capture_output=True, text=True, check=True
    )
    loaded = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True)
    new = set(loaded.stdout.split()) - set(bare.stdout.split())
    foreign = {name for name in new if name.split(".")[0] not in sys.stdlib_module_names | {"stormdrill"}}
    assert not foreign
    rooms = {".".join(name.split(".")[1:2]) for name in new if name.startswith("stormdrill.")}
    assert rooms == {"keeper", "store", "model", "redact", "errors"}
    assert "stormdrill.store.records" not in new


def test_a_module_in_the_working_directory_does_not_take_the_place_of_the_standard_librarys(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('shadowed')")
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        with kept_run(tmp_path / "runs") as kept:
            assert [event.pid for event in kept.events(KeeperStarted)] == [kept.keeper.identity.pid]
    finally:
        os.chdir(before)


def test_the_runner_that_closes_its_end_is_gone_and_everything_is_undone(tmp_path: Path) -> None:
    with kept_run(tmp_path / "runs") as kept:
        who = kept.spawn("one", IGNORES_TERM)
        kept.freeze("one", who)
        kept.keeper._drop()
        kept.keeper_ended()
        assert not who.lives
        assert [event.by for event in kept.events(AbortRequested)] == ["runner-gone"]
        assert [event.cause for event in kept.events(RevertStarted)] == ["runner-gone"]
        assert [event.left for event in kept.events(TornDown)] == [[]]
        assert [event.status for event in kept.events(RunEnded)] == ["aborted"]
        assert verify(kept.dir) == []
        assert holds.open_runs() == []
