"""Freeze and crash on local processes, by signals to exactly the processes that are meant."""

from __future__ import annotations

import signal
from collections.abc import Callable

from stormdrill.errors import Unreachable
from stormdrill.keeper import procfs
from stormdrill.model.plan import Injection
from stormdrill.model.undo import Signal, Spawn, Undo
from stormdrill.ports import Effect, Instance, Life
from stormdrill.store.identity import GONE_STATES, Identity, boot_id, stat

PERMISSION = "signal this user's own processes"


def life_of(known: Instance) -> Life:
    if not known.pid:
        return "unknown"
    found = stat(known.pid)
    if found is None or found.start_ticks != known.start_ticks or found.state in GONE_STATES:
        return "gone"
    return "frozen" if found.state == "T" else "running"


def family_of(known: Instance) -> list[Identity]:
    """The instance's process first, so that it can't start others anew, then all below it."""
    root = Identity(known.pid, known.start_ticks, boot_id())
    return [root, *procfs.below(root)]


class Freezing:
    """SIGSTOP, undone by SIGCONT: connections are still accepted, nothing is answered."""

    permission = PERMISSION

    def __init__(self, known: Callable[[str], Instance]) -> None:
        self._known = known
        self._armed: dict[str, list[Identity]] = {}

    def refusal(self, injection: Injection) -> str:
        return ""

    def undo(self, injection: Injection) -> tuple[Undo, ...]:
        known = self._known(injection.instance)
        if life_of(known) == "frozen":
            raise Unreachable(f"{injection.instance} is frozen already, by somebody else: thaw it first")
        # what somebody else has stopped is not ours to let go on
        family = [one for one in family_of(known) if not procfs.frozen(one.pid, one.start_ticks)]
        self._armed[injection.id] = family
        return tuple(Signal(instance=injection.instance, signal="SIGCONT", **one._asdict()) for one in family)

    def apply(self, injection: Injection) -> None:
        """Stop exactly the processes whose undo has been written down."""
        for one in self._armed[injection.id]:
            procfs.send(one, signal.SIGSTOP)

    def observe(self, injection: Injection) -> Effect:
        life = life_of(self._known(injection.instance))
        living = [one for one in self._armed.get(injection.id, []) if one.lives]
        frozen = sum(procfs.frozen(one.pid, one.start_ticks) for one in living)
        # a frozen process that somebody killed is no longer frozen: the cause is gone, though nothing is restored
        gone = life in ("running", "gone") and not frozen
        said = f"{injection.instance} is {life}" + (f", {frozen} of {len(living)} frozen" if len(living) > 1 else "")
        return Effect(life == "frozen" and frozen == len(living), gone, "process state", said)


class Crashing:
    """SIGKILL to all of an instance, undone by starting it again as it was started."""

    permission = PERMISSION

    def __init__(self, known: Callable[[str], Instance], answers: Callable[[str], bool]) -> None:
        self._known = known
        self._answers = answers

    def refusal(self, injection: Injection) -> str:
        return ""

    def undo(self, injection: Injection) -> tuple[Undo, ...]:
        return (Spawn(instance=injection.instance),)

    def apply(self, injection: Injection) -> None:
        for one in family_of(self._known(injection.instance)):
            procfs.send(one, signal.SIGKILL)

    def observe(self, injection: Injection) -> Effect:
        life = life_of(self._known(injection.instance))
        if life != "running":
            return Effect(life == "gone", False, "process state", f"{injection.instance} is {life}")
        # a process that was started again and dies, or never answers, is as lost as before
        answers = self._answers(injection.instance)
        said = "answers" if answers else "runs, and does not answer"
        return Effect(False, answers, "its ready check", f"{injection.instance} {said}")
