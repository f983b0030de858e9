"""The journal: one line a fact, appended by one writer, each line carrying the hash of the line before.

A line is `{"seq", "at", "mono_ms", "type", "prev", **fields}`; `prev` is the SHA-256 of the whole previous line
without its newline, 64 zeros for the first; `seq` counts from 1. The chain shows any change to any line but the
last; for the last one compare with the head that was printed at the end. Standard library only.

Writing: every line goes to the kernel at once (a SIGKILL of the writer loses nothing that was acknowledged), durable
events are fsynced one by one, the others in groups. Room for the end of the story is allocated ahead of the file's
end, where no other writer of a full disk can take it: from the moment that room can no longer be renewed, only
events of `RESERVED` are accepted.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from stormdrill.errors import JournalBroken, Problem, Refused, StormdrillError
from stormdrill.model.event import EVENTS, Event, JournalTakenOver, Recorded, event_from_json, event_to_json
from stormdrill.redact import Redactor

NAME = "journal.ndjson"
FIRST = "0" * 64
RESERVE_BYTES = 256 * 1024
GROUP_S = 0.1
"""Events that aren't durable are committed together after at most this long."""
RESERVED = frozenset(
    {
        "abort-requested",
        "effect-observed",
        "guard-tripped",
        "journal-taken-over",
        "load-ended",
        "phase-entered",
        "process-exited",
        "record-closed",
        "restored",
        "revert-started",
        "revert-verified",
        "reverted",
        "run-ended",
        "torn-down",
        "warning",
    }
)
"""What is still written on a full disk: how it ended and what was reverted."""
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_KEEP_SIZE = 1


class JournalUnwritable(StormdrillError):
    """The event could not be written (disk full, limit, input/output error). Nothing of it is in the journal."""

    exit_code = 4


# --- writing ---------------------------------------------------------------------------------------------


class JournalWriter:
    """The single writer of one journal; holds an exclusive lock on it while it is open."""

    def __init__(self, path: Path, fd: int, redactor: Redactor, reserve_bytes: int) -> None:
        self.path = path
        self.redactor = redactor
        self.head = FIRST
        self.seq = 0
        self.full = False
        """True from the moment that the reserve can no longer be renewed."""
        self._fd = fd
        self._size = 0
        self._reserve_bytes = reserve_bytes
        self._reserved_to = 0
        self._unsynced_since: float | None = None

    @classmethod
    def create(
        cls, path: Path, redactor: Redactor | None = None, *, reserve_bytes: int = RESERVE_BYTES
    ) -> JournalWriter:
        """Start a new journal. Raises Refused when it exists, cannot be written or the disk has no room."""
        try:
            fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Refused(
                f"{path} cannot be created: {error.strerror}; name a directory that you can write with --runs"
            ) from error
        writer = cls(path, fd, redactor or Redactor(), reserve_bytes)
        writer._lock(0.0)
        writer._renew_reserve()
        if writer.full:
            os.close(fd)
            path.unlink()
            raise Refused(f"{path}: the disk is full; free some space or name another directory with --runs")
        _sync_directory(path.parent)
        return writer

    @classmethod
    def resume(
        cls, path: Path, by: str, redactor: Redactor | None = None, *, wait_s: float = 0.0
    ) -> tuple[JournalWriter, Salvage]:
        """Take a dead writer's journal over: cut a torn last line, write `journal-taken-over`.

        A broken chain doesn't hinder it (what is armed must be reverted); `verify` goes on telling of the break.
        Raises Refused while another process writes it.
        """
        try:
            fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        except OSError as error:
            raise Refused(f"{path} cannot be taken over: {error.strerror}") from error
        writer = cls(path, fd, redactor or Redactor(), RESERVE_BYTES)
        try:
            writer._lock(wait_s)
        except Refused:
            os.close(fd)
            raise
        salvage = salvage_bytes(path.read_bytes(), str(path))
        if salvage.torn:
            os.ftruncate(fd, salvage.size)
        writer._size, writer.seq, writer.head = salvage.size, salvage.seq, salvage.head
        cut = salvage.torn[:4096].decode("utf-8", "replace").replace("\x00", "�")
        taken = JournalTakenOver(by=by, pid=os.getpid(), cut_bytes=len(salvage.torn), cut_text=cut)
        try:
            writer._renew_reserve()
            writer.write(taken)
        except JournalUnwritable:
            writer.full = True
        return writer, salvage

    def write(self, event: Event, mono_ms: float | None = None, at: str = "") -> int:
        """Append one event; durable ones are fsynced on return. Returns its number. `at`: UTC, where another clock than
        this machine's told it."""
        return self.append(event.type, event_to_json(event), mono_ms, at)

    def append(self, word: str, fields: Mapping[str, object], mono_ms: float | None = None, at: str = "") -> int:
        """Append an event given as its word and fields. Raises JournalUnwritable, leaving no part of it behind."""
        if self.full and word not in RESERVED:
            raise JournalUnwritable(f"{self.path}: the disk is full; {word} was not recorded, only what reverts is")
        line = self._line(word, fields, mono_ms, at)
        self._put(line)
        self.head = hashlib.sha256(line[:-1]).hexdigest()
        self.seq += 1
        if EVENTS[word].durable:
            self.sync()
        elif self._unsynced_since is None:
            self._unsynced_since = time.monotonic()
        if not self.full:
            self._renew_reserve()
        return self.seq

    @property
    def sync_in_s(self) -> float | None:
        """Seconds until `sync` is due; None when everything is on the disk."""
        if self._unsynced_since is None:
            return None
        return max(0.0, self._unsynced_since + GROUP_S - time.monotonic())

    def sync(self) -> None:
        """Bring everything written to the disk. Raises JournalUnwritable."""
        self._unsynced_since = None
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            raise JournalUnwritable(f"{self.path} cannot be brought to the disk: {error.strerror}") from error

    def close(self) -> None:
        """Give back the reserve and the lock."""
        if self._fd < 0:
            return
        fd, self._fd = self._fd, -1
        try:
            os.ftruncate(fd, self._size)
            os.fsync(fd)
        finally:
            os.close(fd)

    def _line(self, word: str, fields: Mapping[str, object], mono_ms: float | None, told: str) -> bytes:
        now_ms = time.monotonic() * 1000
        observed_ms = now_ms if mono_ms is None else mono_ms
        here = datetime.fromtimestamp(time.time() - (now_ms - observed_ms) / 1000, UTC)
        at = datetime.fromisoformat(told).astimezone(UTC) if told else here
        line: dict[str, object] = {
            "seq": self.seq + 1,
            "at": at.isoformat(timespec="milliseconds"),
            "mono_ms": round(observed_ms, 3),
            "type": word,
            "prev": self.head,
        }
        line.update((name, self.redactor.json(value)) for name, value in fields.items())
        return encode(line)

    def _put(self, line: bytes) -> None:
        try:
            written = os.write(self._fd, line)
            if written < len(line):
                raise OSError(errno.ENOSPC, "written in part")
        except OSError as error:
            self.full = self.full or error.errno in _FULL
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._size)
            raise JournalUnwritable(f"{self.path}: {error.strerror}") from error
        self._size += len(line)

    def _renew_reserve(self) -> None:
        """Keep at least the reserve allocated beyond the end of the file."""
        if self._size + self._reserve_bytes <= self._reserved_to:
            return
        try:
            _allocate(self._fd, self._size, 2 * self._reserve_bytes)
            self._reserved_to = self._size + 2 * self._reserve_bytes
        except OSError as error:
            self.full = error.errno in _FULL
            if not self.full:  # a file system that cannot: go on without a reserve
                self._reserved_to = 1 << 62

    def _lock(self, wait_s: float) -> None:
        until = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError as error:
                if time.monotonic() >= until:
                    raise Refused(f"{self.path} is being written by another process; wait for it to end") from error
            time.sleep(0.01)


def encode(line: Mapping[str, object]) -> bytes:
    """One line of JSON with its newline. Raises ValueError for what JSON cannot say (NaN, infinity)."""
    try:
        return (json.dumps(line, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n").encode()
    except UnicodeEncodeError:  # undecodable bytes in an argument or a path
        return (json.dumps(line, allow_nan=False, separators=(",", ":")) + "\n").encode()


def _allocate(fd: int, offset: int, length: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    if libc.fallocate(fd, _KEEP_SIZE, offset, length):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


# --- reading ---------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Salvage:
    """Everything that can be read of a journal, broken or not."""

    events: list[Recorded] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    torn: bytes = b""
    """What follows the last newline: a line that its writer didn't live to finish."""
    size: int = 0
    """Bytes of whole lines."""
    seq: int = 0
    head: str = FIRST


def salvage_bytes(data: bytes, where: str = NAME) -> Salvage:
    """Read what can be read; every line that breaks the chain or isn't an event is a Problem."""
    found = Salvage()
    lines = data.split(b"\n")
    found.torn = lines.pop()
    found.size = len(data) - len(found.torn)
    for number, line in enumerate(lines, start=1):
        recorded: Recorded | None = None
        try:
            recorded = _parse(line, found.head, found.seq + 1)
        except _Bad as bad:
            found.problems.append(Problem(where, number, 1, str(bad)))
            recorded = bad.recorded
        found.head = hashlib.sha256(line).hexdigest()
        found.seq = recorded.seq if recorded else found.seq + 1
        if recorded:
            found.events.append(recorded)
    return found


def read(path: Path) -> list[Recorded]:
    """All events. A torn last line is left out (`salvage` tells of it). Raises JournalBroken with the line."""
    return salvage(path, strict=True).events


def salvage(path: Path, *, strict: bool = False) -> Salvage:
    """As much as can be read, with its problems; `strict` raises JournalBroken at the first."""
    try:
        found = salvage_bytes(path.read_bytes(), str(path))
    except OSError as error:
        raise JournalBroken(f"{path} cannot be read: {error.strerror}") from error
    if strict and found.problems:
        raise JournalBroken(str(found.problems[0]))
    return found


def head(path: Path) -> str:
    """The hash of the last whole line; 64 zeros for an empty journal. Reads the end of the file only."""
    line = last_line(path)
    return hashlib.sha256(line).hexdigest() if line else FIRST


def last_line(path: Path) -> bytes:
    """The last whole line without its newline; empty when there is none."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        block, data = 4096, b""
        while True:
            start = max(0, end - block)
            file.seek(start)
            data = file.read(end - start)
            whole = data[: data.rfind(b"\n") + 1]
            cut = whole.rfind(b"\n", 0, len(whole) - 1)
            if cut >= 0 or start == 0:
                return whole[cut + 1 : -1]
            block *= 4


class Follower:
    """Reads a journal while it is being written: each `poll` gives the events that are new."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._seq = 0
        self._head = FIRST

    def poll(self) -> Iterator[Recorded]:
        """New whole lines since the last poll; none while there is no file yet.

        Raises JournalBroken, also when a journal that was read before is gone.
        """
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            if self._offset:
                raise JournalBroken(f"{self._path} was removed while it was read") from None
            return
        for line in data.split(b"\n")[:-1]:
            try:
                recorded = _parse(line, self._head, self._seq + 1)
            except _Bad as bad:
                raise JournalBroken(f"{self._path}:{self._seq + 1}:1: {bad}") from bad
            self._head, self._seq = hashlib.sha256(line).hexdigest(), recorded.seq
            self._offset += len(line) + 1
            yield recorded


class _Bad(Exception):
    def __init__(self, what: str, recorded: Recorded | None = None) -> None:
        super().__init__(what)
        self.recorded = recorded


def _parse(line: bytes, prev: str, seq: int) -> Recorded:
    try:
        values = json.loads(line)
        number, at, mono_ms, word, linked = (values.pop(name) for name in ("seq", "at", "mono_ms", "type", "prev"))
        if type(number) is not int or not isinstance(at, str) or not isinstance(mono_ms, int | float):
            raise ValueError("the envelope's values are of the wrong type")
        recorded = Recorded(number, at, float(mono_ms), event_from_json(word, values))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _Bad(f"not an event of this journal: {error}") from error
    if linked != prev:
        raise _Bad("the line before was changed, removed or reordered: its hash isn't the one written here", recorded)
    if number != seq:
        raise _Bad(f"number {number} where {seq} was expected", recorded)
    return recorded
