"""Threads that look on while a run lasts: none of them ends in silence."""

from __future__ import annotations

import threading
from collections.abc import Callable

OnDefect = Callable[[BaseException], None]
"""Told what ended a watcher; called in the watcher's own thread, at most once a thread."""


def raise_in_thread(error: BaseException) -> None:
    raise error


def thread(name: str, work: Callable[[], None], on_defect: OnDefect) -> threading.Thread:
    """A daemon thread, not started yet, whose end by an exception is told to `on_defect`."""

    def supervised() -> None:
        try:
            work()
        except BaseException as error:
            on_defect(error)

    return threading.Thread(target=supervised, name=name, daemon=True)


class Supervised:
    """Base of what looks on in a thread of its own, from `start` to `stop`: `_run`, until `_stop` is set."""

    def __init__(self, name: str, on_defect: OnDefect, *, join_s: float = 2.0) -> None:
        """`join_s`: how long `stop` waits for the look under way."""
        self._stop = threading.Event()
        self._join_s = join_s
        self._thread = thread(name, self._run, on_defect)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=self._join_s)

    def _run(self) -> None:
        raise NotImplementedError
