"""The keeper's family ends what descends from its own children, and nothing below a pid that is somebody else's now."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from stormdrill.keeper import procfs
from stormdrill.keeper.family import Child, Family, Spec
from stormdrill.keeper.loop import run_now
from stormdrill.store.identity import Stat
from waiting import eventually


@pytest.fixture
def stranger() -> Iterator[tuple[procfs.Identity, procfs.Identity]]:
    """A process that leads a session, and its child."""
    with subprocess.Popen(["sh", "-c", "sleep 1001 & wait"], start_new_session=True) as process:
        eventually(lambda: procfs.descendants([process.pid]))
        root, below = procfs.identity_of(process.pid), procfs.identity_of(procfs.descendants([process.pid])[0].pid)
        assert root is not None
        assert below is not None
        yield root, below
        procfs.kill_until_gone([root, below], 5.0)


def test_a_child_that_ended_has_nobody_below_it_whoever_has_its_pid_now(
    stranger: tuple[procfs.Identity, procfs.Identity], tmp_path: Path
) -> None:
    root, below = stranger
    family = Family("20200101T000000Z-nobody-0000", tmp_path)
    spec = Spec("web", "web", "system", ("true",), {}, "", "", {})
    ended = Child(spec, root._replace(start_ticks=root.start_ticks - 1), "", gone=True)
    assert run_now(family.end(ended, 0.1)) == []
    assert root.lives
    assert below.lives


def test_what_was_listed_below_a_process_that_ended_meanwhile_is_not_taken_for_its_own(
    stranger: tuple[procfs.Identity, procfs.Identity], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, below = stranger
    assert procfs.below(root) == [below]
    listed = procfs.snapshot

    def ends_meanwhile() -> dict[int, Stat]:
        seen = listed()
        procfs.kill_until_gone([root], 5.0)
        return seen

    monkeypatch.setattr(procfs, "snapshot", ends_meanwhile)
    assert procfs.below(root) == []
