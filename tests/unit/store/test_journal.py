"""The journal's laws: one writer, a chain of hashes, a torn end that is cut and told, room for the end of the story."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from stormdrill.errors import JournalBroken, Refused
from stormdrill.model.event import EVENTS, Armed, JournalTakenOver, Reading, Reverted, RunEnded, Warned
from stormdrill.redact import Redactor
from stormdrill.store import journal
from stormdrill.store.journal import FIRST, Follower, JournalUnwritable, JournalWriter, head, last_line, read, salvage


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / journal.NAME


def written(path: Path, *texts: str) -> JournalWriter:
    writer = JournalWriter.create(path)
    for text in texts:
        writer.write(Warned(text))
    return writer


def test_each_line_carries_the_hash_of_the_line_before(path: Path) -> None:
    written(path, "one", "two", "three").close()
    lines = path.read_bytes().splitlines()
    prev = FIRST
    for number, line in enumerate(lines, start=1):
        values = json.loads(line)
        assert list(values)[:5] == ["seq", "at", "mono_ms", "type", "prev"]
        assert (values["seq"], values["prev"]) == (number, prev)
        prev = hashlib.sha256(line).hexdigest()
    assert head(path) == prev


def test_what_was_written_is_read_back_with_its_envelope(path: Path) -> None:
    writer = written(path)
    writer.write(Reading("queue_depth", "eu", 3.5, {"tier": "1"}, "line\nbreak é \u2028"), mono_ms=12.3456)
    writer.close()
    (recorded,) = read(path)
    assert recorded.event == Reading("queue_depth", "eu", 3.5, {"tier": "1"}, "line\nbreak é \u2028")
    assert (recorded.seq, recorded.mono_ms) == (1, 12.346)
    assert recorded.at.endswith("+00:00")


def test_undecodable_bytes_in_an_argument_survive_the_journal(path: Path) -> None:
    text = os.fsdecode(b"caf\xe9")
    written(path, text).close()
    assert read(path)[0].event == Warned(text)


def test_what_json_cannot_say_is_refused_and_leaves_nothing_behind(path: Path) -> None:
    writer = written(path, "before")
    with pytest.raises(ValueError, match="JSON"):
        writer.write(Reading("queue_depth", "eu", float("nan")))
    writer.write(Warned("after"))
    writer.close()
    assert [recorded.event for recorded in read(path)] == [Warned("before"), Warned("after")]


def test_a_second_writer_is_refused_while_the_first_has_it_open(path: Path) -> None:
    writer = written(path, "mine")
    with pytest.raises(Refused, match="another process"):
        JournalWriter.resume(path, "recover")
    with pytest.raises(Refused):
        JournalWriter.create(path)
    writer.close()
    successor, _ = JournalWriter.resume(path, "recover")
    successor.close()


def test_a_torn_last_line_is_cut_by_the_successor_who_writes_what_was_cut(path: Path) -> None:
    written(path, "whole").close()
    torn = b'{"seq":2,"at":"2026-11-2'
    with path.open("ab") as file:
        file.write(torn)
    assert salvage(path).torn == torn
    assert [recorded.event for recorded in read(path)] == [Warned("whole")]
    successor, found = JournalWriter.resume(path, "recover")
    successor.write(RunEnded("aborted", ""))
    successor.close()
    assert found.torn == torn
    events = [recorded.event for recorded in read(path)]
    assert events[1] == JournalTakenOver("recover", os.getpid(), len(torn), torn.decode())
    assert events[2] == RunEnded("aborted", "")


def test_zeros_that_a_power_loss_left_at_the_end_are_cut_too(path: Path) -> None:
    written(path, "whole").close()
    with path.open("ab") as file:
        file.write(b"\0" * 9000)
    successor, _ = JournalWriter.resume(path, "recover")
    successor.close()
    taken = read(path)[1].event
    assert isinstance(taken, JournalTakenOver)
    assert taken.cut_bytes == 9000


def test_an_empty_journal_can_be_taken_over(path: Path) -> None:
    path.touch()
    successor, _ = JournalWriter.resume(path, "recover")
    successor.close()
    assert [recorded.event.type for recorded in read(path)] == ["journal-taken-over"]


def test_a_broken_chain_does_not_hinder_the_takeover_and_stays_visible(path: Path) -> None:
    written(path, "one", "two", "three").close()
    path.write_bytes(path.read_bytes().replace(b'"two"', b'"2wo"'))
    successor, found = JournalWriter.resume(path, "recover")
    successor.write(Warned("four"))
    successor.close()
    assert [recorded.event for recorded in found.events if isinstance(recorded.event, Warned)][-1] == Warned("three")
    assert [problem.line for problem in salvage(path).problems] == [3]


def test_reading_a_broken_journal_names_the_line(path: Path) -> None:
    written(path, "one", "two", "three").close()
    path.write_bytes(path.read_bytes().replace(b'"one"', b'"0ne"'))
    with pytest.raises(JournalBroken, match=r"journal\.ndjson:2:1: the line before was changed"):
        read(path)


def test_secrets_are_removed_by_value_before_a_line_is_hashed(path: Path) -> None:
    redactor = Redactor()
    redactor.register("hunter22")
    writer = JournalWriter.create(path, redactor)
    undo: dict[str, object] = {"kind": "call", "url": "http://u:hunter22@h/"}
    writer.write(Armed("a", "f", "i", "m", [undo], 1.0, "now"))
    writer.close()
    assert b"hunter22" not in path.read_bytes()
    assert b"[redacted]" in path.read_bytes()
    assert read(path)


def test_no_event_has_a_field_of_the_envelope() -> None:
    envelope = {"seq", "at", "mono_ms", "type", "prev"}
    assert not {word: clash for word, cls in EVENTS.items() if (clash := envelope & set(cls.__slots__))}


def test_a_jump_of_the_wall_clock_changes_at_but_neither_order_nor_durations(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = written(path, "before")
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 86_400)
    writer.write(Warned("a day earlier by the wall clock"))
    writer.close()
    before, after = read(path)
    assert after.at < before.at
    assert after.mono_ms >= before.mono_ms
    assert after.seq == before.seq + 1


def test_the_last_line_is_found_however_long_it_is(path: Path) -> None:
    writer = written(path, "short")
    for length in (10, 5_000, 100_000):
        writer.write(Warned("x" * length))
        writer.sync()
        assert json.loads(last_line(path))["text"] == "x" * length
        assert head(path) == writer.head
    writer.close()


def test_a_follower_sees_each_whole_line_once(path: Path) -> None:
    follower = Follower(path)
    assert not list(follower.poll())
    writer = written(path, "one", "two")
    assert [recorded.seq for recorded in follower.poll()] == [1, 2]
    assert not list(follower.poll())
    writer.write(Warned("three"))
    with path.open("ab") as file:
        file.write(b'{"seq":')
    assert [recorded.seq for recorded in follower.poll()] == [3]


def test_a_journal_that_is_taken_away_while_it_is_read_is_no_silence(path: Path) -> None:
    follower = Follower(path)
    writer = written(path, "one")
    assert [recorded.seq for recorded in follower.poll()] == [1]
    path.unlink()
    with pytest.raises(JournalBroken, match="was removed while it was read"):
        list(follower.poll())
    writer.close()


# --- a disk that fills up --------------------------------------------------------------------------------


@pytest.fixture
def disk_fills(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the file system allocates nothing any more."""

    def no_room(_fd: int, _offset: int, _length: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(journal, "_allocate", no_room)


def write_until_full(writer: JournalWriter) -> None:
    for _ in range(10_000):
        writer.write(Warned("y" * 200))
        if writer.full:
            return
    raise AssertionError("the disk never filled up")


@pytest.mark.usefixtures("disk_fills")
def test_a_run_is_refused_when_the_disk_has_no_room_for_its_end(path: Path) -> None:
    with pytest.raises(Refused, match="full"):
        JournalWriter.create(path)
    assert not path.exists()


def test_on_a_full_disk_reverts_are_still_written_and_nothing_else(path: Path, request: pytest.FixtureRequest) -> None:
    writer = JournalWriter.create(path, reserve_bytes=20_000)
    request.getfixturevalue("disk_fills")
    write_until_full(writer)
    with pytest.raises(JournalUnwritable, match="the disk is full"):
        writer.write(Armed("a", "f", "i", "m", [], 1.0, "now"))
    for number in range(50):
        writer.write(Reverted(f"a-{number}", "done", "thawed", 1.0))
    writer.write(RunEnded("aborted", "disk full"))
    writer.close()
    assert read(path)[-1].event == RunEnded("aborted", "disk full")


def test_the_reserve_lies_in_the_file_itself_where_nobody_else_can_take_it(path: Path) -> None:
    writer = JournalWriter.create(path)
    writer.write(Warned("short"))
    details = path.stat()
    assert details.st_size < 1_000
    assert details.st_blocks * 512 >= journal.RESERVE_BYTES
    writer.close()
    assert path.stat().st_blocks * 512 <= 8_192  # given back


def test_a_line_that_could_be_written_in_part_only_is_taken_back(path: Path) -> None:
    script = textwrap.dedent(
        """
        import resource, sys
        from pathlib import Path
        from stormdrill.model.event import Warned
        from stormdrill.store.journal import JournalUnwritable, JournalWriter
        writer = JournalWriter.create(Path(sys.argv[1]))
        writer.write(Warned("fits"))
        size = Path(sys.argv[1]).stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50, resource.RLIM_INFINITY))
        try:
            writer.write(Warned("z" * 500))
        except JournalUnwritable:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            writer.write(Warned("room again")) if not writer.full else None
            sys.exit(7)
        """
    )
    ended = subprocess.run([sys.executable, "-c", script, str(path)], check=False, timeout=30)
    assert ended.returncode == 7
    assert not salvage(path).torn
    assert read(path)[0].event == Warned("fits")


def test_a_writer_that_is_killed_loses_nothing_that_was_acknowledged(path: Path) -> None:
    script = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from stormdrill.model.event import Warned
        from stormdrill.store.journal import JournalWriter
        writer = JournalWriter.create(Path(sys.argv[1]))
        for number in range(1_000_000):
            writer.write(Warned(str(number)))
            print(number, flush=True)
        """
    )
    with subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        acknowledged = [next(process.stdout) for _ in range(200)]
        process.send_signal(signal.SIGKILL)
    texts = [recorded.event.text for recorded in read(path) if isinstance(recorded.event, Warned)]
    assert texts[:200] == [line.strip() for line in acknowledged]
