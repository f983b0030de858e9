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
