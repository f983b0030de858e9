"""`verify`: a changed file, a changed line, a run that never ended are told; an untouched run is whole."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from keeping import run_started
from stormdrill.model.event import RecordClosed, RunEnded, Warned
from stormdrill.store.journal import NAME, JournalWriter, head
from stormdrill.store.verify import verify


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run that ended, with an input and a record file."""
    run_dir = tmp_path / "run"
    (run_dir / "load").mkdir(parents=True)
    (run_dir / "experiment.yaml").write_text("title: t\n")
    (run_dir / "load" / "worker-0.records").write_bytes(b"header\n" + bytes(240))
    writer = JournalWriter.create(run_dir / NAME)
    writer.write(run_started("r", {"experiment.yaml": digest(run_dir / "experiment.yaml")}))
    writer.write(Warned("w"))
    records = run_dir / "load" / "worker-0.records"
    writer.write(RecordClosed("load/worker-0.records", digest(records), records.stat().st_size, True))
    writer.write(RunEnded("completed", ""))
    writer.close()
    return run_dir


def test_an_untouched_run_is_whole(run_dir: Path) -> None:
    assert verify(run_dir) == []
    assert verify(run_dir, head(run_dir / NAME)) == []
    assert verify(run_dir, head(run_dir / NAME)[:12].upper()) == []


@pytest.mark.parametrize("name", ["experiment.yaml", "load/worker-0.records"])
def test_a_changed_file_is_named(run_dir: Path, name: str) -> None:
    with (run_dir / name).open("ab") as file:
        file.write(b"\n")
    (problem,) = verify(run_dir)
    assert (problem.where, "was changed" in problem.what) == (name, True)


def test_a_missing_file_is_named(run_dir: Path) -> None:
    (run_dir / "experiment.yaml").unlink()
    (problem,) = verify(run_dir)
    assert problem.where == "experiment.yaml"


def test_a_record_file_that_the_journal_does_not_know_is_told(run_dir: Path) -> None:
    (run_dir / "load" / "worker-9.records").write_bytes(b"")
    (problem,) = verify(run_dir)
    assert problem.where == "load/worker-9.records"


def test_records_that_nobody_lived_to_close_are_incomplete_and_not_altered(tmp_path: Path) -> None:
    writer = JournalWriter.create(tmp_path / NAME)
    writer.write(RunEnded("aborted", "the runner is gone"))
    writer.close()
    (tmp_path / "load").mkdir()
    (tmp_path / "load" / "worker-0.records").write_bytes(b"")
    assert verify(tmp_path) == []


def test_the_head_may_be_given_as_the_end_of_a_run_shows_it(run_dir: Path) -> None:
    shown = head(run_dir / NAME)
    assert verify(run_dir, f"{shown[:4]}…{shown[-2:]}") == []
    assert verify(run_dir, f"{shown[:4]}…{'00' if shown[-2:] != '00' else '11'}") != []
    assert verify(run_dir, f"{shown[:3]}…{shown[-2:]}") != []


def test_lines_cut_from_the_end_are_told(run_dir: Path) -> None:
    lines = (run_dir / NAME).read_bytes().splitlines(keepends=True)
    (run_dir / NAME).write_bytes(b"".join(lines[:-1]))
    assert ["isn't ended" in problem.what for problem in verify(run_dir)] == [True]


def test_a_line_added_after_the_end_is_told(run_dir: Path) -> None:
    writer, _ = JournalWriter.resume(run_dir / NAME, "recover")
    writer.close()
    assert any("follow the end" in problem.what for problem in verify(run_dir))


def test_a_change_to_the_last_line_is_told_by_the_head_that_was_printed(run_dir: Path) -> None:
    printed = head(run_dir / NAME)
    (run_dir / NAME).write_bytes((run_dir / NAME).read_bytes().replace(b'"completed"', b'"complete!"'))
    assert verify(run_dir, printed)


def test_a_head_too_short_to_prove_anything_is_not_accepted(run_dir: Path) -> None:
    assert verify(run_dir, head(run_dir / NAME)[:3])


def test_a_journal_that_names_a_file_elsewhere_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    writer = JournalWriter.create(run_dir / NAME)
    writer.write(run_started("r", {"../secret": digest(tmp_path / "secret")}))
    writer.write(RunEnded("completed", ""))
    writer.close()
    (problem,) = verify(run_dir)
    assert "outside" in problem.what


def test_a_directory_without_a_journal_is_a_problem_and_no_traceback(tmp_path: Path) -> None:
    assert len(verify(tmp_path)) == 1
