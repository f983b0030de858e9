"""Who answers its ready check: asked side by side, in rounds that end within a second whatever the checks take.

Through the API server a check opens two connections with TLS before the pod's own. One that takes longer than a round
goes on, and is heard in the next.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

ROUND_LIMIT_S = 0.95
STALE_S = 3.0
"""What was heard longer ago, while nobody waited for it, says nothing of now."""
AT_ONCE = 16


class Answering:
    def __init__(self, check: Callable[[str], bool], now: Callable[[], float] = time.monotonic) -> None:
        """`check`: of one instance, with a limit of its own."""
        self._check, self._now = check, now
        self._pool = ThreadPoolExecutor(max_workers=AT_ONCE, thread_name_prefix="ready")
        self._asked: dict[str, Future[tuple[bool, float]]] = {}
        """What is under way, or was heard after its round."""
        self._lock = threading.Lock()

    def round(self, names: Sequence[str], limit_s: float = ROUND_LIMIT_S) -> dict[str, bool]:
        """Whoever has not answered when the limit is over does not, as far as this round knows."""
        asked = {name: self._look(name) for name in names}
        wait(asked.values(), timeout=limit_s)
        return {name: self._heard(name, future) for name, future in asked.items()}

    def first(self, names: Sequence[str], limit_s: float) -> str:
        """The first of those that answer in a round; else whoever is the first to. Empty when nobody does in time."""
        until_s = self._now() + limit_s
        answered = self.round(names)
        while True:
            if found := next((name for name in names if answered.get(name)), ""):
                return found
            left = [future for name in names if (future := self._under_way(name))]
            if not left or self._now() >= until_s:
                return ""
            wait(left, timeout=until_s - self._now(), return_when=FIRST_COMPLETED)
            answered = {name: self._heard(name, future) for name in names if (future := self._under_way(name))}

    def _look(self, name: str) -> Future[tuple[bool, float]]:
        with self._lock:
            future = self._asked.get(name)
            if future is None or (future.done() and self._now() - future.result()[1] > STALE_S):
                future = self._asked[name] = self._pool.submit(lambda: (self._check(name), self._now()))
            return future

    def _under_way(self, name: str) -> Future[tuple[bool, float]] | None:
        with self._lock:
            return self._asked.get(name)

    def _heard(self, name: str, future: Future[tuple[bool, float]]) -> bool:
        if not future.done():
            return False
        with self._lock:
            if self._asked.get(name) is future:
                del self._asked[name]
        return future.result()[0]
