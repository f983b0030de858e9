"""The controllers' one thread. Each write is told to all of them at once, in the order of the writes; what they have
to look at again waits in a line and is worked off one by one. Nothing here polls: what is due later lies in a heap."""

from __future__ import annotations

import heapq
import threading
import time
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from fake_cluster.matching import Obj


@dataclass(frozen=True, slots=True)
class Change:
    resource: str
    """Plural, "pods"."""
    before: Obj | None
    after: Obj | None
    version: int = 0

    @property
    def now(self) -> Obj:
        """What it is, or what it was when it is gone."""
        return self.after if self.after is not None else self.before or {}

    @property
    def namespace(self) -> str:
        return str(self.now["metadata"].get("namespace", ""))

    @property
    def name(self) -> str:
        return str(self.now["metadata"]["name"])


Key = tuple[str, str]
"""(namespace, name) of what a controller looks at."""


class Controller(Protocol):
    def concerns(self, change: Change) -> Iterable[Key]:
        """What must be looked at again after a write. Quick: it is asked under the store's lock."""
        ...

    def act(self, namespace: str, name: str) -> float | None:
        """Look, and bring the world one step nearer. Seconds after which to look again, None: not by itself."""
        ...


class Loop:
    def __init__(self) -> None:
        self.controllers: list[Controller] = []
        self.problems: list[str] = []
        """What a controller raised: a bug of this fixture, its `__exit__` tells."""
        self._lock = threading.Condition()
        self._line: dict[tuple[int, Key], None] = {}
        self._later: list[tuple[float, int, Key]] = []
        self._busy = False
        self._ended = False
        self._paused = False
        self._thread = threading.Thread(target=self._run, name="fake-cluster-controllers", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        with self._lock:
            self._ended = True
            self._lock.notify_all()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(10)

    def pause(self, on: bool) -> None:
        """The controllers see what happens, but act only later (the controller manager is down)."""
        with self._lock:
            self._paused = on
            self._lock.notify_all()

    def note(self, change: Change) -> None:
        """After each write, by whoever wrote."""
        keys = [(at, key) for at, one in enumerate(self.controllers) for key in one.concerns(change)]
        if keys:
            with self._lock:
                self._line.update(dict.fromkeys(keys))
                self._lock.notify_all()

    def poke(self, controller: Controller, key: Key, after_s: float = 0.0) -> None:
        """Have a controller look again."""
        at = self.controllers.index(controller)
        with self._lock:
            if after_s > 0:
                heapq.heappush(self._later, (time.monotonic() + after_s, at, key))
            else:
                self._line[(at, key)] = None
            self._lock.notify_all()

    def settle(self, limit_s: float = 20.0) -> None:
        """Wait until nothing is left to do now. What is due at a time (a toleration's seconds) isn't waited for."""
        until = time.monotonic() + limit_s
        with self._lock:
            while self._line or self._busy:
                left = until - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"the fake cluster does not come to rest: {list(self._line)[:5]}")
                self._lock.wait(min(left, 0.2))

    def _next(self) -> tuple[int, Key] | None:
        with self._lock:
            self._busy = False
            while True:
                if self._ended:
                    return None
                now = time.monotonic()
                while self._later and self._later[0][0] <= now:
                    _, at, key = heapq.heappop(self._later)
                    self._line[(at, key)] = None
                if self._line and not self._paused:
                    first = next(iter(self._line))
                    del self._line[first]
                    self._busy = True
                    return first
                self._lock.notify_all()
                self._lock.wait(self._later[0][0] - now if self._later and not self._paused else None)

    def _run(self) -> None:
        while (task := self._next()) is not None:
            at, key = task
            try:
                again_s = self.controllers[at].act(*key)
            except Exception:
                self.problems.append(traceback.format_exc())
                continue
            if again_s is not None:
                self.poke(self.controllers[at], key, after_s=max(again_s, 0.001))
