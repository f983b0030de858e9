"""A seeded part of the kill sweep, on processes and in containers; and that the sweep would see what is left."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import killing_look
import killing_runs
import killing_sweep
import pytest
from killing_cases import Case
from killing_scenarios import scenarios

from keeping import kept_run
from stormdrill.keeper import procfs
from stormdrill.keeper.undo import perform
from stormdrill.model.undo import Restore
from waiting import eventually

SEED = "7"


def swept(target: str, kills: int, tmp_path: Path) -> str:
    ended = subprocess.run(
        [
            *(sys.executable, killing_sweep.__file__, "--quick", "--target", target),
            *("--kills", str(kills), "--seed", SEED, "--limit-s", "90"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_whoever_is_killed_at_whatever_line_of_the_journal_nothing_is_left(tmp_path: Path) -> None:
    assert "SIGKILL of runner, then keeper at a boundary" in swept("process", 28, tmp_path)


@pytest.mark.docker
def test_whoever_is_killed_no_container_network_or_rule_is_left(engine: str, tmp_path: Path) -> None:
    swept("docker", 7, tmp_path)


@pytest.mark.docker
def test_whoever_is_killed_containers_of_somebody_else_are_as_they_were(engine: str, tmp_path: Path) -> None:
    swept("attach", 10, tmp_path)


def test_a_plan_of_kills_is_the_same_for_the_same_seed_and_meets_every_boundary() -> None:
    lines = dict.fromkeys(scenarios("process"), 30)
    cases = killing_sweep.plan("process", lines, 1200, 3)
    assert cases == killing_sweep.plan("process", lines, 1200, 3)
    assert [Case.of(str(case)) for case in cases] == cases
    met = {(case.scenario, case.lines) for case in cases if not case.after_ms and len(set(case.blows)) < 3}
    assert {(name, number) for name in lines for number in range(1, 31)} <= met


def test_the_sweep_sees_what_is_alive_what_is_held_and_what_was_taken_from_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = killing_runs.Place(tmp_path / "one", "process", "late-stall")
    place.root.mkdir()
    (place.root / killing_runs.LOG).touch()
    monkeypatch.setenv(killing_runs.MARK, "one")
    monkeypatch.setenv("XDG_STATE_HOME", str(place.root / "state"))
    with subprocess.Popen(["sleep", "1009"]) as marked, kept_run(place.runs) as run:
        eventually(lambda: any(who.pid == marked.pid for who in killing_look.alive(place)))
        (place.root / killing_runs.ACKNOWLEDGED).write_text("1 run-started\n2 keeper-started\n9 armed\n")
        procfs.kill_until_gone([run.keeper.identity], 5.0)
        found = "\n".join(killing_look.left_behind(place, b"another beginning"))
        marked.wait()
    assert f"still alive: pid {marked.pid}" in found
    assert f"{run.dir.name} is still held" in found
    assert "lines that were there before the kill are changed or gone" in found
    assert "acknowledged and not in the journal: 9 armed" in found
    assert "the run isn't ended" in found


def test_half_a_file_of_a_restore_that_was_killed_is_taken_away_by_the_next(tmp_path: Path) -> None:
    file = tmp_path / "gpu0"
    half = tmp_path / f".gpu0.{os.getpid() + 1}.restored"
    other = tmp_path / ".gpu1.77.restored"
    for path in (half, other):
        path.write_text("o")
    assert perform(Restore(str(file), "ok")).word == "done"
    assert (file.read_text(), half.exists(), other.exists()) == ("ok", False, True)
