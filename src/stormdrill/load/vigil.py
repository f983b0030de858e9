"""Who must be heard of again and again, and who hasn't been: what a frozen process can't tell by itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

SILENT_AFTER_S = 1.5
_TICK_S = 0.1
_TICKS_A_SIGN = 5


class Silences:
    """Pure: what is known at each look. What this process slept through is nobody's silence."""

    def __init__(self, limit_s: float, tick_s: float) -> None:
        self._limit_s = limit_s
        self._tick_s = tick_s
        self._heard_s: dict[str, float] = {}
        self._looked_s: float | None = None

    def heard(self, name: str, now_s: float) -> None:
        self._heard_s[name] = now_s

    def forget(self, name: str) -> None:
        self._heard_s.pop(name, None)

    def look(self, now_s: float) -> list[tuple[str, float]]:
        """Those that are silent, each told once, and for how long."""
        slept_s = 0.0 if self._looked_s is None else max(now_s - self._looked_s - 2 * self._tick_s, 0.0)
        self._looked_s = now_s
        for name in self._heard_s:
            self._heard_s[name] = min(self._heard_s[name] + slept_s, now_s)
        silent = [(name, now_s - at_s) for name, at_s in self._heard_s.items() if now_s - at_s > self._limit_s]
        for name, _ in silent:
            self.forget(name)
        return silent


class Vigil:
    """Looks ten times a second, in a thread of its own, until `stop`. `silent` is called there, once a name, and `live`
    twice a second: the others look whether this process is frozen."""

    def __init__(
        self, silent: Callable[[str, float], None], live: Callable[[], object], limit_s: float = SILENT_AFTER_S
    ) -> None:
        self._silences = Silences(limit_s, _TICK_S)
        self._lock = threading.Lock()
        self._silent, self._live = silent, live
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load-vigil", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()

    def heard(self, name: str) -> None:
        """From the first time on it must go on."""
        with self._lock:
            self._silences.heard(name, time.monotonic())

    def forget(self, name: str) -> None:
        with self._lock:
            self._silences.forget(name)

    def _run(self) -> None:
        ticks = 0
        while not self._stop.wait(_TICK_S):
            ticks += 1
            if ticks % _TICKS_A_SIGN == 0:
                self._live()
            with self._lock:
                silent = self._silences.look(time.monotonic())
            for name, for_s in silent:
                self._silent(name, for_s)
