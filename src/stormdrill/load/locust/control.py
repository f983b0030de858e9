"""The generator's end of the control socket."""

from __future__ import annotations

import socket
from collections.abc import Callable

import gevent
from gevent.event import Event

from stormdrill.load.messages import Begin, End, FromGenerator, decode_from_runner, encode


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

    def listen(
        self, *, begin: Callable[[Begin], None], end: Callable[[float, float], None], gone: Callable[[], None]
    ) -> None:
        """Hand over messages as they come, in a greenlet of its own."""
        gevent.spawn(self._listen, begin, end, gone)

    def wait_for_end_of_file(self) -> None:
        self._closed.wait()

    def _listen(
        self, begin: Callable[[Begin], None], end: Callable[[float, float], None], gone: Callable[[], None]
    ) -> None:
        try:
            with self._socket.makefile("rb") as lines:
                for line in lines:
                    message = decode_from_runner(line)
                    if isinstance(message, Begin):
                        begin(message)
                    elif isinstance(message, End):
                        end(message.last_intended_mono_ms / 1e3, message.timeout_s)
        except OSError:
            pass
        self._closed.set()
        gone()
