"""A generator's end of the control line: the runner's socket, or standard input and output in a pod."""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable, Iterator

import gevent
import msgspec
from gevent import select
from gevent.event import Event
from gevent.os import make_nonblocking, nb_read

from stormdrill.load.messages import (
    STANDARD,
    Ended,
    FromGenerator,
    FromRunner,
    Lost,
    Records,
    Whole,
    decode_from_runner,
    encode,
)

_CHUNK = 65_536
_IN_ORDER = (Records, Whole, Ended, Lost)
"""What may be much and has an order; anything else goes first, since its lateness would be taken for silence."""

Heard = Callable[[FromRunner], None]
Gone = Callable[[], None]


class Line:
    """Base of both. Messages come line by line, in a greenlet of its own."""

    def __init__(self) -> None:
        self._closed = Event()

    def send(self, message: FromGenerator) -> None:
        """A runner that is gone is noticed by the listening side, which ends this process."""
        raise NotImplementedError

    def listen(self, heard: Heard, gone: Gone) -> None:
        """Hand over messages as they come; `gone` once, at the end of file."""
        gevent.spawn(self._listen, heard, gone)

    def wait_for_end_of_file(self) -> None:
        self._closed.wait()

    def _lines(self) -> Iterator[bytes]:
        """May raise OSError, which is an end as well."""
        raise NotImplementedError

    def _listen(self, heard: Heard, gone: Gone) -> None:
        try:
            for line in self._lines():
                heard(decode_from_runner(line))
        except (OSError, msgspec.MsgspecError):
            pass
        self._closed.set()
        gone()


def connect(name: str) -> Line:
    """Raises OSError when nobody listens there."""
    return standard() if name == STANDARD else Control(name)


class Control(Line):
    """Connected from the start; raises OSError when nobody listens."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect("\0" + name)

    def send(self, message: FromGenerator) -> None:
        try:
            self._socket.sendall(encode(message))
        except OSError:
            self._closed.set()

    def _lines(self) -> Iterator[bytes]:
        with self._socket.makefile("rb") as lines:
            yield from lines


class StandardControl(Line):
    """Standard input and output, which are the runner's, at the other end of a stream through the API server.

    Whatever else prints goes to standard error.
    """

    def __init__(self) -> None:
        super().__init__()
        self._out = os.dup(1)
        os.dup2(2, 1)
        make_nonblocking(0)
        make_nonblocking(self._out)
        self._read = b""
        self._first: deque[bytes] = deque()
        self._then: deque[bytes] = deque()
        self._rest = b""
        """Of a message that is being written."""
        self._full = Event()
        gevent.spawn(self._write_on)

    def line(self) -> bytes:
        """The next one; empty at the end of file."""
        while b"\n" not in self._read:
            try:
                data = nb_read(0, _CHUNK)
            except OSError:
                data = b""
            if not data:
                return b""
            self._read += data
        line, _, self._read = self._read.partition(b"\n")
        return line

    def send(self, message: FromGenerator) -> None:
        (self._then if isinstance(message, _IN_ORDER) else self._first).append(encode(message))
        self._write()

    def _lines(self) -> Iterator[bytes]:
        while line := self.line():
            yield line

    def _write(self) -> None:
        """As much as goes at once; never switches to another greenlet, so that no message is torn by another one."""
        while self._rest or self._first or self._then:
            if not self._rest:
                self._rest = (self._first or self._then).popleft()
            try:
                self._rest = self._rest[os.write(self._out, self._rest[:_CHUNK]) :]
            except BlockingIOError:
                self._full.set()
                return
            except OSError:
                self._closed.set()
                self._rest = b""
                self._first.clear()
                self._then.clear()

    def _write_on(self) -> None:
        while True:
            self._full.wait()
            self._full.clear()
            select.select([], [self._out], [])
            self._write()


_standard: StandardControl | None = None


def standard() -> StandardControl:
    """There is one."""
    global _standard
    if _standard is None:
        _standard = StandardControl()
    return _standard
