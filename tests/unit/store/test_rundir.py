"""A run directory is made, or refused before anything is touched; a run is found by id, part of it, or directory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stormdrill.errors import Refused
from stormdrill.store import rundir
from stormdrill.store.journal import NAME, JournalWriter


def test_a_run_is_named_by_its_moment_and_its_experiment(tmp_path: Path) -> None:
    run_dir = rundir.create(tmp_path / "deep" / "runs", "Region loss!")
    assert rundir.RUN_ID.fullmatch(run_dir.name)
    assert "-region-loss-" in run_dir.name
    assert {path.name for path in run_dir.iterdir()} == {"load", "logs"}
    assert run_dir.is_absolute()


def test_a_place_that_is_not_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(Refused, match="--runs"):
        rundir.create(tmp_path / "runs", "x")


def test_a_full_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs(tmp_path)
    full = os.statvfs_result((*real[:3], 1, 1, *real[5:]))
    monkeypatch.setattr(os, "statvfs", lambda _path: full)
    with pytest.raises(Refused, match="MB are free"):
        rundir.create(tmp_path, "x")


def test_a_run_is_found_by_id_by_the_start_of_it_and_by_its_directory(tmp_path: Path) -> None:
    run_dir = rundir.create(tmp_path, "x")
    JournalWriter.create(run_dir / NAME).close()
    for given in (run_dir.name, run_dir.name[:18], str(run_dir)):
        assert rundir.find(given, tmp_path) == run_dir


def test_an_unknown_or_ambiguous_run_is_refused(tmp_path: Path) -> None:
    for _ in range(2):
        JournalWriter.create(rundir.create(tmp_path, "x") / NAME).close()
    with pytest.raises(Refused, match="any of"):
        rundir.find("2", tmp_path)
    with pytest.raises(Refused, match="stormdrill runs"):
        rundir.find("nope", tmp_path)
    with pytest.raises(Refused, match="stormdrill runs"):
        rundir.find("", tmp_path / "nowhere")
    with pytest.raises(Refused, match="is not a run"):
        rundir.find(str(tmp_path), tmp_path)
