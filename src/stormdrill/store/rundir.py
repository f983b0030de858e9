"""Where runs leave their record: `runs/<UTC stamp>-<experiment>-<4 hex>/`."""

from __future__ import annotations

import os
import re
import secrets
from datetime import UTC, datetime
from pathlib import Path

from stormdrill.errors import Refused
from stormdrill.store.journal import NAME, RESERVE_BYTES

LEAST_FREE_BYTES = 16 * RESERVE_BYTES
LONGEST_WORD = 40
"""Of the experiment's name in the run's id: as a label of what a run leaves in a cluster it may have 63 characters."""
RUN_ID = re.compile(r"\d{8}T\d{6}Z-[a-z0-9][a-z0-9-]*-[0-9a-f]{4}")


def create(runs: Path, experiment: str) -> Path:
    """Make the directory of a new run, its `load` and `logs` inside; its name is the run's id.

    Raises Refused when it cannot be written or the disk is nearly full, before anything else is touched.
    """
    word = re.sub(r"[^a-z0-9]+", "-", experiment.lower())[:LONGEST_WORD].strip("-") or "run"
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    run_dir = runs / f"{stamp}-{word}-{secrets.token_hex(2)}"
    try:
        run_dir.mkdir(mode=0o700, parents=True)  # what systems log and answer is nobody else's
        (run_dir / "load").mkdir()
        (run_dir / "logs").mkdir()
        probe = run_dir / ".writable"
        with probe.open("wb") as file:
            file.write(b"\0" * 4096)
            file.flush()
            os.fsync(file.fileno())
        probe.unlink()
        disk = os.statvfs(run_dir)
    except OSError as error:
        raise Refused(
            f"{run_dir} cannot be written: {error.strerror}; name a directory that you can write with --runs"
        ) from error
    if disk.f_bavail * disk.f_frsize < LEAST_FREE_BYTES:
        raise Refused(
            f"{run_dir}: less than {LEAST_FREE_BYTES // 1_000_000} MB are free; free some space or name another "
            "directory with --runs"
        )
    return run_dir.resolve()


def find(run: str, runs: Path) -> Path:
    """The directory of a run given by its id, by the start of its id, or by its directory. Raises Refused."""
    if not run:
        raise Refused("no run is named; see stormdrill runs")
    given = Path(run)
    for candidate in (given, runs / run):
        if (candidate / NAME).is_file():
            return candidate.resolve()
    if given.is_dir():
        raise Refused(f"{run} is not a run: it has no {NAME}")
    matches = [path for path in all_runs(runs) if path.name.startswith(run)]
    if len(matches) == 1:
        return matches[0].resolve()
    if matches:
        raise Refused(f"{run} could be any of {', '.join(path.name for path in matches[:5])}; write more of it")
    raise Refused(f"no run {run!r} in {runs}; see stormdrill runs, or name the directory with --runs")


def all_runs(runs: Path) -> list[Path]:
    """Every run's directory, oldest first; empty when there is no such directory."""
    if not runs.is_dir():
        return []
    return sorted(path for path in runs.iterdir() if RUN_ID.fullmatch(path.name) and path.is_dir())
