"""Ctrl-C, `stormdrill abort`, SIGTERM and a closed terminal all mean: stop, revert, say so. Once is enough."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Literal

REASONS: dict[signal.Signals, tuple[Literal["person", "signal"], str]] = {
    signal.SIGINT: ("person", "Ctrl-C"),
    signal.SIGTERM: ("signal", "SIGTERM"),
    signal.SIGHUP: ("signal", "the terminal was closed (SIGHUP)"),
    signal.SIGUSR1: ("person", "stormdrill abort"),
}


@contextlib.contextmanager
def stopping_on_signals(note_abort: Callable[[Literal["person", "signal"], str], None]) -> Iterator[None]:
    """While inside, each of these signals aborts the run; none of them can cut the revert short.

    `note_abort` is called in the middle of whatever the main thread does: it must take no lock.

    Outside the main thread, where Python allows no handlers, it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    seen = 0

    def handle(number: int, _: FrameType | None) -> None:
        nonlocal seen
        seen += 1
        note_abort(*REASONS[signal.Signals(number)])
        text = (
            "\nstopping: reverting everything, then ending\n" if seen == 1 else "\nstill reverting; it ends by itself\n"
        )
        with contextlib.suppress(OSError):  # the terminal may be what has gone
            os.write(2, text.encode())

    before = {number: signal.signal(number, handle) for number in REASONS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
