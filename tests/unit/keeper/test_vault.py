"""The keeper hands secrets to processes in their environment, and writes them nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from keeping import KeptRun, kept_run
from stormdrill.errors import SystemNotReady
from stormdrill.keeper import procfs
from stormdrill.model.event import Armed, ProcessSpawned, Reverted
from stormdrill.model.undo import Command, Spawn
from stormdrill.store import journal
from waiting import eventually

VALUE = "kV7-qe4f/x9"


@pytest.fixture
def run(tmp_path: Path) -> Iterator[KeptRun]:
    with kept_run(tmp_path / "runs") as kept:
        yield kept
    assert (kept.dir / "logs" / "keeper.log").read_text() == ""


def environment(pid: int) -> dict[str, str]:
    text = Path(f"/proc/{pid}/environ").read_bytes().decode()
    return dict(entry.split("=", 1) for entry in text.split("\0") if "=" in entry)


def files_with(value: str, folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file() and value.encode() in path.read_bytes()]


def test_a_placeholder_in_the_environment_is_filled_in_when_spawning_and_when_starting_again(run: KeptRun) -> None:
    run.keeper.secret("token", VALUE)
    run.keeper.secret("user", "me-${secret:token}")
    env = {"TOKEN": "${secret:token}", "HEADER": "Bearer ${secret:token}!", "USER_": "${secret:user}", "PLAIN": "$x"}
    filled = {"TOKEN": VALUE, "HEADER": f"Bearer {VALUE}!", "USER_": "me-${secret:token}", "PLAIN": "$x"}
    who = run.spawn("one", env=env)
    assert filled.items() <= environment(who.pid).items()
    run.arm("crash/one", Spawn("one"), fault="crash")
    procfs.send(who, 9)
    eventually(lambda: not who.lives)
    assert run.keeper.revert("crash/one", "planned") == "done"
    again = run.events(ProcessSpawned)[-1]
    assert again.pid != who.pid
    assert filled.items() <= environment(again.pid).items()
    assert [event.env["TOKEN"] for event in run.events(ProcessSpawned)] == ["${secret:token}"] * 2
    run.keeper.close("completed", "")
    assert files_with(VALUE, run.dir) == []


def test_whatever_text_holds_the_value_is_masked_in_the_journal(run: KeptRun) -> None:
    run.keeper.secret("token", VALUE)
    script = f"echo said {VALUE} >&2; exit 3"
    run.arm("odd", Command(("sh", "-c", script)), fault="odd")
    assert run.keeper.revert("odd", "planned") == "failed"
    assert "[redacted]" in str(run.events(Armed)[0].undo)
    assert "said [redacted]" in run.events(Reverted)[0].detail
    assert files_with(VALUE, run.dir) == []


def test_a_secret_in_a_command_or_one_that_nobody_gave_starts_nothing(run: KeptRun) -> None:
    run.keeper.secret("token", VALUE)
    with pytest.raises(SystemNotReady, match="which ps shows"):
        run.spawn("one", ["sleep", "${secret:token}"])
    with pytest.raises(SystemNotReady, match="nobody gave the keeper the secret other"):
        run.spawn("one", env={"TOKEN": "${secret:other}"})
    assert run.events(ProcessSpawned) == []


def test_the_run_directory_and_its_journal_are_their_owner_s_alone(run: KeptRun) -> None:
    assert run.dir.stat().st_mode & 0o777 == 0o700
    assert (run.dir / journal.NAME).stat().st_mode & 0o777 == 0o600
