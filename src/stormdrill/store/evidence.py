"""Reads a run directory into what a verdict rests on. Reads only; means nothing (`core.judge` does)."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np

from stormdrill.core.evidence import Evidence, Kind, RecordFile
from stormdrill.core.rows import Gathered, Rows
from stormdrill.errors import Problem, Refused
from stormdrill.model.event import RecordClosed, Recorded
from stormdrill.model.plan import Plan
from stormdrill.ports import LedgerRow
from stormdrill.store import journal
from stormdrill.store.records import DTYPE, RECORD, read_header

PLAN = "plan.json"
LEDGER = "load/jobs.ndjson"
BLOCK = 1 << 15
"""Rows that are read together: 1 MB."""


def load(run_dir: Path) -> Evidence:
    """The whole record of a run.

    Raises Refused without a readable plan and JournalBroken when the journal's chain doesn't hold: a verdict computed
    from them would prove nothing. Record files that can't be read are told of in `problems`; the judge then finds
    them missing.
    """
    problems: list[str] = []
    plan = _plan(run_dir / PLAN)
    events = tuple(journal.read(run_dir / journal.NAME))
    digests = {
        recorded.event.file: recorded.event.sha256 for recorded in events if isinstance(recorded.event, RecordClosed)
    }
    paths = sorted((run_dir / "load").glob("*.records"))
    records = read_record_files(run_dir, paths, problems.append, digests)
    return Evidence(plan, events, records, _ledger(run_dir / LEDGER, problems, digests.get(LEDGER)), tuple(problems))


def so_far(run_dir: Path, plan: Plan, events: Sequence[Recorded]) -> Evidence:
    """What there is while the run goes on: the records as far as they are written, no ledger yet."""
    problems: list[str] = []
    paths = sorted((run_dir / "load").glob("*.records"))
    return Evidence(plan, tuple(events), read_record_files(run_dir, paths, problems.append, {}), None, tuple(problems))


def read_record_files(
    run_dir: Path, paths: Sequence[Path], tell: Callable[[str], object], digests: dict[str, str]
) -> tuple[RecordFile, ...]:
    """`digests`: the SHA-256 that the journal has of each file, by its path relative to the run directory."""
    found = []
    for path in paths:
        name = path.relative_to(run_dir).as_posix()
        try:
            header, start = read_header(path)
            kinds = tuple(Kind(dict(item["labels"]), float(item["deadline_ms"])) for item in header["labels"])
            rows, torn, intact = _read(path, start, digests.get(name))
            found.append(
                RecordFile(
                    name,
                    header["boot_id"],
                    header["epoch_mono_ns"],
                    kinds,
                    rows,
                    torn,
                    intact,
                    regions=tuple(header["regions"]),
                    closed_loop=header["loop"] == "closed",
                    clock_error_ms=float(header["clock_error_ms"]),
                )
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            tell(f"{name} cannot be read: {error}")
    return tuple(found)


def plan_of(run_dir: Path) -> Plan:
    """What a run was meant to do. Raises Refused when it can't be read."""
    return _plan(run_dir / PLAN)


def _plan(path: Path) -> Plan:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Plan)
    except OSError as error:
        fix = "name a run's directory, or its id"
        raise Refused([Problem(str(path), 0, 0, f"cannot be read ({error.strerror})", fix)]) from error
    except msgspec.DecodeError as error:
        fix = "judge it with the version of stormdrill that wrote it"
        raise Refused([Problem(str(path), 0, 0, f"is not a plan of this version: {error}", fix)]) from error


def _ledger(path: Path, problems: list[str], digest: str | None) -> tuple[LedgerRow, ...] | None:
    """None when there is none, or none to be believed: then nobody knows what was lost."""
    try:
        data = path.read_bytes()
        rows = tuple(msgspec.json.Decoder(LedgerRow).decode_lines(data))
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        problems.append(f"{LEDGER} cannot be read: {error}")
        return None
    if digest is not None and hashlib.sha256(data).hexdigest() != digest:
        problems.append(f"{LEDGER} was changed after it was written")
        return None
    return rows


def _read(path: Path, start: int, digest: str | None) -> tuple[Rows, bool, bool]:
    """The attempts, whether half a one is left at the end, and whether the file is the one that was journalled.

    In one pass, a block at a time: reading, the SHA-256 and the columns share the processor's cache. What was written
    since the size was taken is left for the next reader.
    """
    size = path.stat().st_size
    count, left = divmod(size - start, RECORD.size)
    sha = hashlib.sha256()
    found = Gathered(count)
    block = bytearray(min(BLOCK, count) * RECORD.size)
    with path.open("rb", buffering=0) as file:
        sha.update(file.read(start))
        while found.filled < count:
            part = memoryview(block)[: (count - found.filled) * RECORD.size]
            _fill(file, part)
            if digest is not None:
                sha.update(part)
            found.add(np.frombuffer(part, dtype=np.dtype(DTYPE)))
        if digest is not None:
            sha.update(file.read())
    return found.rows(), bool(left), digest is None or sha.hexdigest() == digest


def _fill(file: io.FileIO, place: memoryview) -> None:
    while len(place):
        got = file.readinto(place)
        if not got:
            raise ValueError("it became shorter while it was read")
        place = place[got:]
