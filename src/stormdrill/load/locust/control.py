"""A generator's end of the control socket."""

from __future__ import annotations

import socket
from collections.abc import Callable

import gevent
import msgspec
from gevent.event import Event

from stormdrill.load.messages import FromGenerator, FromRunner, decode_from_runner, encode


class Control:
    """Connected from the start; raises OSError when nobody listens."""

    def __init__(self, name: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect("\0" + name)
        self._closed = Event()

    def send(self, message: FromGenerator) -> None:
        """A runner that is gone is noticed by the listening side, which ends this process."""
        try:
            self._socket.sendall(encode(message))
        except OSError:
            self._closed.set()

    def listen(self, heard: Callable[[FromRunner], None], gone: Callable[[], None]) -> None:
        """Hand over messages as they come, in a greenlet of its own; `gone` once, at the end of file."""
        gevent.spawn(self._listen, heard, gone)

    def wait_for_end_of_file(self) -> None:
        self._closed.wait()

    def _listen(self, heard: Callable[[FromRunner], None], gone: Callable[[], None]) -> None:
        try:
            with self._socket.makefile("rb") as lines:
                for line in lines:
                    heard(decode_from_runner(line))
        except (OSError, msgspec.MsgspecError):
            pass
        self._closed.set()
        gone()
