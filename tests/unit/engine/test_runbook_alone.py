"""A runbook without an experiment: its record, its mitigations that stay, and going on after a crash."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from runbook_world import FRONT, Admin, Answers, Eyes, admin_server, block

from stormdrill.engine.runbook import Terms
from stormdrill.engine.runbook_alone import FILE, Means, look_live, missing_tools, resume_alone, run_alone
from stormdrill.errors import Refused
from stormdrill.model.event import Armed, Reverted, RunEnded, RunStarted
from stormdrill.ports import Held
from stormdrill.probes.call import Calls
from stormdrill.spec.runbook import read_runbook
from stormdrill.spec.runbook_parameters import resolve
from stormdrill.store import journal
from stormdrill.store.verify import verify

DRAIN = block(
    "action id=drain timeout=20s risk=medium idempotent undo=undrain",
    "POST {{ admin }}/regions/{{ region }}/drain",
    "verify: GET {{ admin }}/regions/{{ region }} .draining == true",
)
UNDRAIN = block("undo id=undrain", "POST {{ admin }}/regions/{{ region }}/admit")
LOOK = block("check id=look timeout=1s", "GET {{ admin }}/regions/{{ region }}", "expect: .healthy == false")


@pytest.fixture
def admin() -> Iterator[Admin]:
    with admin_server() as found:
        yield found


@pytest.fixture
def book(tmp_path: Path) -> Path:
    path = tmp_path / "book.md"
    path.write_text(FRONT.replace("for 1s", "for 50ms") + "\n\n".join((DRAIN, UNDRAIN, LOOK)) + "\n")
    return path


def means(admin: Admin, **given) -> Means:
    given.setdefault("sight", Eyes(Held(True, 99.5)))
    return Means(caller=Calls(), system={"admin": admin.url}, **given)


def events(run_dir: Path) -> list:
    return [recorded.event for recorded in journal.read(run_dir / journal.NAME)]


def cut(run_dir: Path, last: type) -> None:
    """As a crash leaves the record: nothing after the first event of that type, and half a line."""
    lines = (run_dir / journal.NAME).read_bytes().splitlines(keepends=True)
    found = next(index for index, line in enumerate(lines) if json.loads(line)["type"] == last.type)
    (run_dir / journal.NAME).write_bytes(b"".join(lines[: found + 1]) + lines[found + 1][:20])


def test_a_mitigation_stays_and_the_record_verifies(admin: Admin, book: Path, tmp_path: Path) -> None:
    done = run_alone(book, {}, means(admin), runs_dir=tmp_path / "runs")
    assert (done.outcome, done.standing) == ("done", ())
    assert admin.regions["eu"]["draining"]
    assert (done.dir / FILE).read_text() == book.read_text()
    assert verify(done.dir, done.head) == []
    found = events(done.dir)
    assert isinstance(found[0], RunStarted)
    assert [event.detail for event in found if isinstance(event, Reverted)] == [
        "meant to stay: a mitigation, done by hand"
    ]
    assert found[-1] == RunEnded("completed", "")


def test_a_wrong_parameter_is_refused_before_anything_is_written(admin: Admin, book: Path, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="'mars' is none of eu, us"):
        run_alone(book, {"region": "mars"}, means(admin), runs_dir=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
    assert admin.calls == []


def test_an_approval_for_a_step_that_needs_none_is_refused(admin: Admin, book: Path, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="drain: no step of book that needs an approval"):
        run_alone(book, {}, means(admin), runs_dir=tmp_path / "runs", terms=Terms(approved=frozenset({"drain"})))


@pytest.mark.parametrize(("answer", "draining"), [("undo", False), ("keep", True), (None, True)])
def test_after_a_failure_a_person_says_whether_the_mitigations_stay(
    admin: Admin, book: Path, tmp_path: Path, answer, draining: bool
) -> None:
    admin.regions["eu"]["healthy"] = True
    done = run_alone(book, {}, means(admin, person=Answers(undo=answer)), runs_dir=tmp_path / "runs")
    assert done.outcome == "failed"
    assert admin.regions["eu"]["draining"] is draining
    assert done.standing == (("runbook/drain",) if draining else ())
    assert verify(done.dir) == []


def test_a_failed_runbook_is_gone_on_with_at_the_failed_step(admin: Admin, book: Path, tmp_path: Path) -> None:
    admin.regions["eu"]["healthy"] = True
    first = run_alone(book, {}, means(admin), runs_dir=tmp_path / "runs")
    admin.regions["eu"]["healthy"] = False
    admin.calls.clear()
    second = resume_alone(first.dir, means(admin), document=book)
    assert second.outcome == "done"
    assert not [call for call in admin.calls if call.startswith("POST")]
    assert verify(second.dir, second.head) == []


def test_what_was_undone_is_not_gone_on_with(admin: Admin, book: Path, tmp_path: Path) -> None:
    admin.regions["eu"]["healthy"] = True
    first = run_alone(book, {}, means(admin, person=Answers(undo="undo")), runs_dir=tmp_path / "runs")
    with pytest.raises(Refused, match="drain was undone meanwhile"):
        resume_alone(first.dir, means(admin))


def test_after_a_crash_it_goes_on_and_the_torn_line_is_cut(admin: Admin, book: Path, tmp_path: Path) -> None:
    first = run_alone(book, {}, means(admin), runs_dir=tmp_path / "runs")
    cut(first.dir, Armed)
    second = resume_alone(first.dir, means(admin))
    assert (second.outcome, second.standing) == ("done", ())
    assert len([event for event in events(first.dir) if isinstance(event, Armed)]) == 1
    assert verify(second.dir, second.head) == []


def test_a_changed_document_is_not_gone_on_with(admin: Admin, book: Path, tmp_path: Path) -> None:
    first = run_alone(book, {}, means(admin), runs_dir=tmp_path / "runs")
    cut(first.dir, Armed)
    book.write_text(book.read_text() + "\nA new sentence.\n")
    with pytest.raises(Refused, match="has changed since"):
        resume_alone(first.dir, means(admin), document=book)
    (first.dir / FILE).write_text(book.read_text())
    with pytest.raises(Refused, match="is not what was started"):
        resume_alone(first.dir, means(admin))


def test_what_ended_well_is_not_gone_on_with(admin: Admin, book: Path, tmp_path: Path) -> None:
    first = run_alone(book, {}, means(admin), runs_dir=tmp_path / "runs")
    with pytest.raises(Refused, match="to its end"):
        resume_alone(first.dir, means(admin))


def test_a_directory_that_holds_no_runbook_is_refused(admin: Admin, tmp_path: Path) -> None:
    writer = journal.JournalWriter.create(tmp_path / journal.NAME)
    writer.close()
    with pytest.raises(Refused, match="no runbook that was started"):
        resume_alone(tmp_path, means(admin))


def test_looking_live_changes_nothing_and_says_what_each_check_sees(admin: Admin, book: Path) -> None:
    runbook = read_runbook(book)
    parameters = resolve(runbook, {}, system={"admin": admin.url})
    assert [(one.step, one.ok) for one in look_live(runbook, parameters, Calls())] == [("look", True)]
    assert not [call for call in admin.calls if call.startswith("POST")]
    gone = resolve(runbook, {}, system={"admin": "http://127.0.0.1:1"})
    assert look_live(runbook, gone, Calls())[0].detail == "127.0.0.1:1: connection refused"


def test_a_program_that_is_not_here_is_found_before_the_step_needs_it(book: Path) -> None:
    step = block("check id=pods timeout=5s", 'run: ["kubectl-of-nobody", "get", "pods"]', "expect: exit 0")
    book.write_text(FRONT + step + "\n")
    problems = missing_tools(read_runbook(book))
    assert [(one.line, one.what) for one in problems] == [(14, "the program kubectl-of-nobody is not on this machine")]
