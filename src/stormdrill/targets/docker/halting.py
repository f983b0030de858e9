"""Freeze and crash of containers: pause and kill, by one call each."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from stormdrill.errors import Unreachable
from stormdrill.model.plan import Injection
from stormdrill.model.undo import Engine as EngineCall
from stormdrill.model.undo import Undo
from stormdrill.ports import Effect
from stormdrill.store.identity import identity_of
from stormdrill.targets.docker.engine import Engine
from stormdrill.targets.docker.fleet import Fleet

WATCH_S = 4.0
PERMISSION = "use the container engine's API"


class Freezing:
    """The cgroup freezer: connections are still accepted by the kernel, nothing is answered, exec is refused."""

    permission = PERMISSION

    def __init__(self, engine: Engine, fleet: Fleet) -> None:
        self._engine = engine
        self._fleet = fleet

    def refusal(self, injection: Injection) -> str:
        return ""

    def undo(self, injection: Injection) -> tuple[Undo, ...]:
        one = self._fleet.of(injection.instance)
        if self._engine.state(one.id).life == "frozen":
            raise Unreachable(f"{injection.instance} is paused already, by somebody else: unpause it first")
        path = f"/containers/{one.id}/unpause"
        return (EngineCall(engine=self._engine.where, method="POST", path=path, with_the_run=one.owned),)

    def apply(self, injection: Injection) -> None:
        one = self._fleet.of(injection.instance)
        self._fleet.expect(injection.instance, "pause", "unpause")
        self._engine.act("POST", f"/containers/{one.id}/pause")

    def observe(self, injection: Injection) -> Effect:
        state = self._engine.state(self._fleet.of(injection.instance).id)
        # a frozen container that somebody killed is no longer frozen: the cause is gone, though nothing is restored
        gone = state.life in ("running", "gone")
        return Effect(state.life == "frozen", gone, "container state", f"{injection.instance} is {state.status}")


class Crashing:
    """SIGKILL to all of a container's processes, undone by starting it again as it was made."""

    permission = PERMISSION

    def __init__(
        self, engine: Engine, fleet: Fleet, answers: Callable[[str], bool], ends_for_good: Callable[[str], str]
    ) -> None:
        self._engine = engine
        self._fleet = fleet
        self._answers = answers
        self._ends_for_good = ends_for_good
        self._died_ms: dict[str, float] = {}

    def refusal(self, injection: Injection) -> str:
        return self._ends_for_good(injection.instance)

    def undo(self, injection: Injection) -> tuple[Undo, ...]:
        one = self._fleet.of(injection.instance)
        path = f"/containers/{one.id}/start"
        return (EngineCall(engine=self._engine.where, method="POST", path=path, with_the_run=one.owned),)

    def apply(self, injection: Injection) -> None:
        one = self._fleet.of(injection.instance)
        self._fleet.expect(injection.instance, "kill", "die", "start", "network-connect")
        watch = threading.Thread(target=self._watch, args=(injection.id, one.pid), daemon=True)
        watch.start()
        self._engine.act("POST", f"/containers/{one.id}/kill")  # answers once the engine has cleaned up behind it
        watch.join(timeout=WATCH_S)

    def _watch(self, injection: str, pid: int) -> None:
        """When its process was seen to be gone, which is long before the engine says so."""
        who = identity_of(pid) if pid else None
        until_s = time.monotonic() + WATCH_S
        while who is not None and time.monotonic() < until_s:
            if not who.lives:
                self._died_ms[injection] = time.monotonic() * 1000
                return
            time.sleep(0.001)

    def observe(self, injection: Injection) -> Effect:
        state = self._engine.state(self._fleet.of(injection.instance).id)
        if state.life != "running":
            said, died_ms = f"{injection.instance} is {state.status}", self._died_ms.get(injection.id, 0.0)
            witness = "process and container state" if died_ms else "container state"
            return Effect(state.life == "gone", False, witness, said, died_ms)
        # one that was started again and dies, or never answers, is as lost as before
        answers = self._answers(injection.instance)
        said = "answers" if answers else "runs, and does not answer"
        return Effect(False, answers, "its ready check", f"{injection.instance} {said}")
