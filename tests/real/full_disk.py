"""A run on a disk that another fills up: freeze, fill, and see that it is reverted first and recorded to its end.

`python tests/real/full_disk.py DIR`, where DIR is on a small file system of its own. Prints what happened as JSON.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

from killing import SYSTEM, spawn, started_event, thaw

from stormdrill.keeper import procfs
from stormdrill.keeper.client import KeeperClient
from stormdrill.model.event import Warned
from stormdrill.store import holds, journal, rundir
from stormdrill.store.journal import JournalUnwritable
from stormdrill.store.verify import verify


def fill(path: Path) -> None:
    """Until not one more byte fits."""
    with path.open("wb", buffering=0) as file:
        for size in (65_536, 512, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue


def record_until_refused(keeper: KeeperClient) -> str:
    for number in range(10_000):
        try:
            keeper.record(Warned(f"{number} {'y' * 200}"))
            keeper.record(started_event("again"))
        except JournalUnwritable as error:
            return str(error)
    return ""


def main(disk: Path) -> None:
    run_dir = rundir.create(disk / "runs", "full")
    hold = holds.acquire("sleeper", "process", run_dir.name, run_dir)
    keeper = KeeperClient.start(run_dir, run=run_dir.name, system="sleeper", target="process", hold=hold)
    keeper.record(started_event(run_dir.name))
    who = spawn(keeper, "plain", SYSTEM["plain"])
    keeper.arm(
        "freeze/plain",
        fault="freeze",
        instance="plain",
        mechanism="freeze",
        undo=[thaw("plain", who)],
        expires_in_s=60.0,
    )
    procfs.send(who, signal.SIGSTOP)
    fill(disk / "strangers-file")
    refusal = record_until_refused(keeper)
    outcome = keeper.revert("freeze/plain", "abort")  # done already, or waits for the one under way
    frozen = procfs.frozen(who.pid, who.start_ticks)
    left = keeper.teardown()
    head = keeper.close("aborted", "the disk is full")
    said = {
        "refusal": refusal,
        "outcome": outcome,
        "frozen": frozen,
        "alive": who.lives,
        "left": left,
        "problems": [str(problem) for problem in verify(run_dir, head)],
        "words": [recorded.event.type for recorded in journal.read(run_dir / journal.NAME)][-8:],
        "open": len(holds.open_runs()),
    }
    sys.stdout.write(json.dumps(said))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
