"""The keeper's single thread: sockets and signals wake it, and what takes time is written as steps that wait.

A step generator yields a `Wait` and is resumed with True when its condition holds, False when its time is up, so that
no wait blocks another: a call undo that hangs doesn't delay the thaw that expires meanwhile.
"""

from __future__ import annotations

import contextlib
import select
import selectors
import signal
import socket
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")
TICK_S = 0.004
"""How often conditions are looked at while something waits."""
_LOOK_S = 0.001
LONGEST_SLEEP_S = 0.5
"""Bounds how late a deadline is noticed that passed while the machine was suspended."""


class Wait(NamedTuple):
    ready: Callable[[], bool]
    timeout_s: float
    fds: tuple[tuple[int, int], ...] = ()
    """Descriptors and the poll events that wake the loop at once, where there are any; `ready` decides all the same."""


Steps = Generator[Wait, bool, T]


@dataclass(slots=True, eq=False)
class _Task:
    steps: Generator[Wait, bool, Any]
    done: Callable[[Any, Exception | None], None]
    wait: Wait
    until: float


class Loop:
    """Runs steps; calls readers when their socket is readable."""

    def __init__(self) -> None:
        self.stopped = False
        self.failure: Exception | None = None
        """Raised by `run` when it stops: what must not end quietly."""
        self._selector = selectors.DefaultSelector()
        self._tasks: list[_Task] = []
        self._wake, wake_end = socket.socketpair()
        self._wake.setblocking(False)
        wake_end.setblocking(False)
        self._wake_end = wake_end  # kept alive: signals write to it
        signal.set_wakeup_fd(wake_end.fileno(), warn_on_full_buffer=False)
        self.on_readable(self._wake, self._drain)

    def on_readable(self, sock: socket.socket, reader: Callable[[], None]) -> None:
        self._selector.register(sock, selectors.EVENT_READ, reader)

    def want_write(self, sock: socket.socket, wanted: bool) -> None:
        with contextlib.suppress(KeyError):
            key = self._selector.get_key(sock)
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if wanted else 0)
            if key.events != events:
                self._selector.modify(sock, events, key.data)

    def forget(self, sock: socket.socket) -> None:
        with contextlib.suppress(KeyError):
            self._selector.unregister(sock)

    def start(self, steps: Steps[T], done: Callable[[T | None, Exception | None], None]) -> None:
        """Run the steps as far as they go now; `done` gets their result, or the exception that ended them."""
        task = _Task(steps, done, Wait(lambda: True, 0.0), 0.0)
        if self._advance(task, None):
            self._tasks.append(task)

    def run(self, tick: Callable[[], float]) -> None:
        """Until `stopped`. `tick` is called at every turn and says in how many seconds it is due again."""
        while not self.stopped:
            sleep_s = min(tick(), LONGEST_SLEEP_S, TICK_S if self._tasks else LONGEST_SLEEP_S)
            for key, _ in self._selector.select(max(0.0, sleep_s)):
                key.data()
            for task in list(self._tasks):
                ready = task.wait.ready()
                if ready or time.monotonic() >= task.until:
                    self._unwatch(task.wait)
                    if not self._advance(task, ready):
                        self._tasks.remove(task)
        if self.failure is not None:
            raise self.failure

    def _advance(self, task: _Task, ready: bool | None) -> bool:
        try:
            task.wait = task.steps.send(ready)  # type: ignore[arg-type]  # a fresh generator takes None
        except StopIteration as stop:
            task.done(stop.value, None)
            return False
        except Exception as error:
            task.done(None, error)
            return False
        task.until = time.monotonic() + task.wait.timeout_s
        for fd, wanted in task.wait.fds:
            events = selectors.EVENT_WRITE if wanted == select.POLLOUT else selectors.EVENT_READ
            self._selector.register(fd, events, lambda: None)
        return True

    def _unwatch(self, wait: Wait) -> None:
        for fd, _ in wait.fds:
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(fd)

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._wake.recv(4096):
                pass


def run_now(steps: Steps[T]) -> T:
    """Run steps to their end, blocking: for whoever has no loop."""
    resume: bool | None = None
    while True:
        try:
            wait = steps.send(resume)  # type: ignore[arg-type]  # a fresh generator takes None
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        resume = _wait(wait)


def _wait(wait: Wait) -> bool:
    until = time.monotonic() + wait.timeout_s
    poll = select.poll()
    for fd, wanted in wait.fds:
        poll.register(fd, wanted)
    while not (ready := wait.ready()) and (left_s := until - time.monotonic()) > 0:
        poll.poll(min(left_s, _LOOK_S) * 1000)
    return ready


def together(many: Sequence[Steps[T]]) -> Steps[list[T]]:
    """All of them at once; their results in the order given. One that raises doesn't hinder the others: the first
    error is raised when all have ended."""
    results: dict[int, T] = {}
    errors: list[Exception] = []
    waits: dict[int, tuple[Wait, float]] = {}

    def advance(index: int, ready: bool | None) -> None:
        waits.pop(index, None)
        try:
            wait = many[index].send(ready)  # type: ignore[arg-type]  # a fresh generator takes None
        except StopIteration as stop:
            results[index] = stop.value
        except Exception as error:
            errors.append(error)
        else:
            waits[index] = (wait, time.monotonic() + wait.timeout_s)

    for index in range(len(many)):
        advance(index, None)
    while waits:
        due_s = min(until for _, until in waits.values()) - time.monotonic()
        fds = tuple(fd for wait, _ in waits.values() for fd in wait.fds)
        yield Wait(lambda: any(wait.ready() for wait, _ in waits.values()), max(0.0, due_s), fds)
        for index, (wait, until) in list(waits.items()):
            if (ready := wait.ready()) or time.monotonic() >= until:
                advance(index, ready)
    if errors:
        raise errors[0]
    return [results[index] for index in range(len(many))]
