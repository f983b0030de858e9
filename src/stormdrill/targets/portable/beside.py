"""Programs of ours beside the system, as children of the keeper: they end with the undo, with it, or by themselves."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from stormdrill.model.mechanism import Beside
from stormdrill.model.plan import Injection
from stormdrill.model.undo import EndChild, Undo
from stormdrill.ports import Effect, Keeper
from stormdrill.store.identity import GONE_STATES, Stat, stat

ROLE = "beside"
GRACE_S = 10.0
"""It ends by itself this long after the planned end: after the keeper would have ended it."""
BURNT_S = 0.2
"""More than an interpreter takes to start."""
TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")


def name_of(injection: Injection) -> str:
    """No instance of a system is named with a dot."""
    return f"beside.{injection.id.replace('/', '.')}"


class Standing:
    """Starts one program an injection, and knows whether it lives."""

    def __init__(self, keeper: Callable[[], Keeper], run_dir: Path) -> None:
        self._keeper = keeper
        self._run_dir = run_dir
        self._children: dict[str, tuple[int, int]] = {}

    def start(self, injection: Injection, program: str, words: tuple[str, ...]) -> None:
        name = name_of(injection)
        deadline_s = injection.for_s + GRACE_S
        spawned = self._keeper().spawn(
            name,
            service=name,
            role=ROLE,
            argv=(sys.executable, "-m", "stormdrill.beside", program, *words, "--deadline-s", f"{deadline_s:g}"),
            env={},
            cwd=str(self._run_dir),
            address="",
            labels={},
        )
        self._children[injection.id] = (spawned.pid, spawned.start_ticks)

    def seen(self, injection: Injection) -> Stat | None:
        """None when it has not been started, or is gone."""
        pid, start_ticks = self._children.get(injection.id, (0, 0))
        found = stat(pid) if pid else None
        lives = found is not None and found.start_ticks == start_ticks and found.state not in GONE_STATES
        return found if lives else None


class Besides:
    """`burn` and `flood`. Witnesses: the kernel's account of CPU time; what the entry answered to the flood."""

    permission = "start programs of stormdrill's own beside the system"

    def __init__(self, standing: Standing, run_dir: Path, entries: Callable[[], tuple[str, ...]]) -> None:
        self._standing = standing
        self._run_dir = run_dir
        self._entries = entries

    def refusal(self, injection: Injection) -> str:
        return ""

    def undo(self, injection: Injection) -> tuple[Undo, ...]:
        return (EndChild(instance=name_of(injection)),)

    def apply(self, injection: Injection) -> None:
        assert isinstance(injection.how, Beside)
        entries = ",".join(self._entries())
        words = tuple(word.replace("$entry", entries) for word in injection.how.arguments)
        if injection.how.program == "flood":
            words += ("--status", str(self._status(injection)))
        self._standing.start(injection, injection.how.program, words)

    def observe(self, injection: Injection) -> Effect:
        assert isinstance(injection.how, Beside)
        seen = self._standing.seen(injection)
        if seen is None:
            return Effect(False, True, "process state", f"no {injection.how.program} runs")
        if injection.how.program == "burn":
            burnt_s = seen.cpu_ticks * TICK_S
            return Effect(burnt_s >= BURNT_S, False, "the kernel's account", f"burnt {burnt_s:.2f} s of CPU time")
        told = self._told(injection)
        answered = told.get("answered", 0)
        return Effect(answered > 0, False, "answers to the flood", f"{answered} of {told.get('sent', 0)} were answered")

    def _status(self, injection: Injection) -> Path:
        return self._run_dir / "work" / f"{name_of(injection)}.json"

    def _told(self, injection: Injection) -> dict[str, int]:
        try:
            told: dict[str, int] = json.loads(self._status(injection).read_text())
        except (OSError, ValueError):
            return {}
        return told
