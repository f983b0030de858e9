"""`combine` and `run --repeat`: what is said of several runs, and how they end."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from stormdrill import api
from stormdrill.api import repeats
from stormdrill.cli.main import _run
from stormdrill.errors import Refused
from stormdrill.model import event as ev
from stormdrill.store.evidence import plan_of
from synthetic_run import change_journal, make_run, read_events


def run(folder: Path, name: str, seed: int, **knobs: object) -> Path:
    directory = make_run(folder / name, seed=seed, **knobs)
    renamed = [
        (mono_ms, dataclasses.replace(event, run=name) if isinstance(event, ev.RunStarted) else event)
        for mono_ms, event in read_events(directory)
    ]
    change_journal(directory, renamed)
    return directory


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = _run(list(words))
    out = capsys.readouterr()
    return code, out.out, out.err


def test_runs_are_combined_by_their_ids(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (1, 2):
        run(tmp_path, f"run-{seed}", seed)
    run(tmp_path, "run-3", 3, hogs=True)
    code, out, _ = said(capsys, "combine", "run-1", "run-2", "run-3", "--runs", str(tmp_path))
    assert code == 0
    assert "PASS   7 objectives held over 2 runs; 1 run of 3 left out" in out
    assert "left out      run-3: not to be believed: other programs starved this machine" in out
    assert "2 of 2" in out
    code, out, _ = said(capsys, "combine", "run-1", "run-2", "--runs", str(tmp_path), "--json")
    assert json.loads(out)["verdict"] == "PASS"
    assert max(len(line) for line in out.splitlines()) > 100  # one object, one line


def test_a_failure_of_one_is_the_exit_code_of_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, "run-1", 1)
    run(tmp_path, "run-2", 2, lost=1)
    code, out, _ = said(capsys, "combine", "run-1", "run-2", "--runs", str(tmp_path))
    assert code == 1
    assert "1 job of" in out


def test_one_run_alone_and_one_that_goes_on_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, "run-1", 1)
    run(tmp_path, "run-2", 2, ended=False)
    code, _, err = said(capsys, "combine", "run-1", "--runs", str(tmp_path))
    assert (code, "stormdrill judge RUN" in err) == (2, True)
    code, _, err = said(capsys, "combine", "run-1", "run-2", "--runs", str(tmp_path))
    assert (code, "run-2 isn't ended" in err) == (2, True)


class Runs:
    """Whole runs, made without one: what `api.run` returns for each."""

    def __init__(self, folder: Path, codes: list[int]) -> None:
        self.folder, self.codes = folder, codes
        self.asked: list[tuple[int | None, str]] = []

    def __call__(self, seed: int | None, expected: str) -> api.RunResult:
        self.asked.append((seed, expected))
        code = self.codes[len(self.asked) - 1]
        if code == 2:
            raise Refused("the plan is another one now")
        name = f"run-{len(self.asked)}"
        directory = run(self.folder, name, len(self.asked), **({"lost": 1} if code == 1 else {}))
        verdict = api.judge(directory)
        return api.RunResult(name, directory, verdict.status, verdict, code, None, None, "")


def test_each_repeat_has_the_next_seed_and_the_first_ones_plan(tmp_path: Path) -> None:
    runs = Runs(tmp_path, [0, 0, 0])
    found = repeats.run(3, runs, seed=2**32 - 1)
    assert [seed for seed, _ in runs.asked] == [2**32 - 1, 0, 1]
    digest = plan_of(tmp_path / "run-1").digest
    assert [expected for _, expected in runs.asked] == ["", digest, digest]
    assert found.combined is not None
    assert (found.exit_code, found.combined.verdict, found.note) == (0, "PASS", "")


@pytest.mark.parametrize(
    ("codes", "ran", "exit_code"),
    [([0, 1, 0], 3, 1), ([0, 4, 0], 2, 4), ([0, 5, 0], 2, 5), ([0, 2, 0], 1, 3), ([5, 0, 0], 1, 5)],
)
def test_nothing_follows_a_run_that_did_not_end_by_its_verdict(
    tmp_path: Path, codes: list[int], ran: int, exit_code: int
) -> None:
    found = repeats.run(3, Runs(tmp_path, codes))
    assert (len(found.results), found.exit_code) == (ran, exit_code)
    assert bool(found.note) == (ran < 3)


def test_a_first_run_that_is_refused_refuses_all(tmp_path: Path) -> None:
    with pytest.raises(Refused):
        repeats.run(3, Runs(tmp_path, [2]))


def test_run_repeat_prints_one_object_of_all_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Runs(tmp_path, [0, 0])

    def instead(path: str, *, seed: int | None, expected: str, **rest: object) -> api.RunResult:
        return runs(seed, expected)

    monkeypatch.setattr(api, "run", instead)
    from stormdrill.cli.commands.run import run as command

    done = CliRunner().invoke(command, ["x.yaml", "--repeat", "2", "--seed", "7", "--json"], obj=SimpleNamespace())
    assert done.exit_code == 0
    told = json.loads(done.stdout.splitlines()[0])
    assert [one["run"] for one in told["runs"]] == ["run-1", "run-2"]
    assert told["combined"]["sentence"] == "7 objectives held over 2 runs"
