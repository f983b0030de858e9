"""How a run is told of where another state directory holds it: by the processes that its own record names."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from keeping import KeptRun, kept_run
from stormdrill.errors import Refused
from stormdrill.keeper import procfs
from stormdrill.keeper.actions import abort, list_runs
from stormdrill.store import journal


@pytest.fixture
def run(tmp_path: Path) -> Iterator[KeptRun]:
    with kept_run(tmp_path / "runs") as kept:
        yield kept


@pytest.fixture
def elsewhere(run: KeptRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The directory of runs, seen with a state directory that knows of none; the run's own is back for its end."""
    with monkeypatch.context() as there:
        there.setenv("XDG_STATE_HOME", str(tmp_path / "another-state"))
        yield run.dir.parent


def copy_of(run: KeptRun, to: Path, **changes: tuple[str, str]) -> Path:
    """Its record, as other processes would have written it."""
    text = (run.dir / journal.NAME).read_text()
    for old, new in changes.values():
        text = text.replace(old, new)
    place = to / run.dir.name
    place.mkdir(parents=True)
    (place / journal.NAME).write_text(text)
    return to


def test_a_run_that_goes_on_is_running_from_whatever_state_directory_one_looks(elsewhere: Path) -> None:
    (line,) = list_runs(elsewhere)
    assert (line.state, line.held) == ("running", False)


def test_it_cannot_be_stopped_from_there_and_the_refusal_says_why(run: KeptRun, elsewhere: Path) -> None:
    with pytest.raises(Refused, match="goes on, and it is held from another state directory"):
        abort(run.dir.name, elsewhere)


def test_it_was_killed_when_the_processes_that_its_record_names_are_gone(
    run: KeptRun, elsewhere: Path, tmp_path: Path
) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    mine, keeper = procfs.own_identity(), run.keeper.identity
    gone = {
        "runner": (f'"runner_pid":{mine.pid}', f'"runner_pid":{dead.pid}'),
        "keeper": (f'"pid":{keeper.pid}', f'"pid":{dead.pid}'),
    }
    (line,) = list_runs(copy_of(run, tmp_path / "copied", **gone))
    assert line.state == "killed"


def test_of_another_boots_processes_nothing_is_known(run: KeptRun, elsewhere: Path, tmp_path: Path) -> None:
    (line,) = list_runs(copy_of(run, tmp_path / "copied", boot=(procfs.boot_id(), "another")))
    assert line.state == "unknown"
