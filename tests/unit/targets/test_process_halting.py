"""Freezing local processes: exactly what was not stopped before, and nothing that a person stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from msgspec.structs import replace

from stormdrill.errors import Unreachable
from stormdrill.keeper import procfs
from stormdrill.keeper.undo import perform
from stormdrill.model.plan import Injection
from stormdrill.ports import Instance
from stormdrill.targets.process.halting import Crashing, Freezing

FREEZE = Injection("f/x", "f", 0, "x", "freeze", "thaw", 0.0, 5.0)
CRASH = Injection("c/x", "c", 0, "x", "crash", "spawn", 0.0, 5.0)


@contextmanager
def family() -> Iterator[tuple[Instance, int]]:
    """A process, and the pid of its child."""
    with subprocess.Popen(["sh", "-c", "sleep 60 & wait"], start_new_session=True) as parent:
        try:
            until(lambda: len(procfs.descendants([parent.pid])) == 1)
            who = procfs.identity_of(parent.pid)
            assert who is not None
            (child,) = procfs.descendants([parent.pid])
            yield Instance("x", "x", {}, "", who.pid, who.start_ticks), child.pid
        finally:
            os.killpg(parent.pid, signal.SIGKILL)


def until(holds: Callable[[], bool], limit_s: float = 5.0) -> None:
    end_s = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < end_s
        time.sleep(0.002)


def test_what_somebody_else_has_frozen_is_neither_hit_nor_thawed() -> None:
    with family() as (one, child):
        os.kill(child, signal.SIGSTOP)
        until(lambda: procfs.state(child) == "T")
        freezing = Freezing(lambda _: one)
        undo = freezing.undo(FREEZE)
        freezing.apply(FREEZE)
        until(lambda: freezing.observe(FREEZE).bit)
        assert [perform(item).word for item in undo] == ["done"]
        assert freezing.observe(FREEZE).gone
        assert procfs.state(child) == "T", "a person stopped that one"
        os.kill(one.pid, signal.SIGSTOP)
        until(lambda: procfs.state(one.pid) == "T")
        with pytest.raises(Unreachable, match="frozen already"):
            freezing.undo(FREEZE)


def test_a_family_is_frozen_when_all_of_it_is_and_thawed_when_none_of_it_is() -> None:
    """A wrapper that stands still while its server serves is no effect, and one that goes on alone no end of it."""
    with family() as (one, child):
        freezing = Freezing(lambda _: one)
        freezing.undo(FREEZE)
        os.kill(one.pid, signal.SIGSTOP)
        until(lambda: procfs.state(one.pid) == "T")
        assert not freezing.observe(FREEZE).bit
        freezing.apply(FREEZE)
        until(lambda: freezing.observe(FREEZE).bit)
        os.kill(one.pid, signal.SIGCONT)
        until(lambda: procfs.state(one.pid) != "T")
        assert not freezing.observe(FREEZE).gone
        os.kill(child, signal.SIGCONT)
        until(lambda: freezing.observe(FREEZE).gone)


def test_where_the_pid_of_an_instance_that_ended_was_given_away_nothing_of_its_new_owner_is_hit() -> None:
    with family() as (stranger, child):
        ended = replace(stranger, start_ticks=stranger.start_ticks - 1)
        freezing = Freezing(lambda _: ended)
        undo = freezing.undo(FREEZE)
        freezing.apply(FREEZE)
        Crashing(lambda _: ended, lambda _: False).apply(CRASH)
        assert {procfs.state(child), procfs.state(stranger.pid)} <= {"S", "R"}
        assert [perform(item).word for item in undo] == ["superseded"]
