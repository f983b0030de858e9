"""Where callers connect: it can stop listening and begin again, and the port stays its own meanwhile."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

BACKLOG = 512
AT_ONCE = 64
"""Accepted before others have their turn."""
AGAIN_S = 0.1


class Listener:
    """Hands over each accepted socket. Raises OSError when the port is taken."""

    def __init__(self, host: str, port: int, accept: Callable[[socket.socket], object]) -> None:
        self._loop = asyncio.get_running_loop()
        self._accept = accept
        self._wanted = self.listening = False
        self._again: asyncio.TimerHandle | None = None
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, _, _, address = found[0]
        self._socket = socket.socket(family, kind)
        try:
            self._socket.setblocking(False)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind(address)
            self._socket.listen(BACKLOG)
        except OSError:
            self._socket.close()
            raise
        self.port: int = self._socket.getsockname()[1]
        self._wanted = self.listening = True
        self._loop.add_reader(self._socket, self._ready)

    @property
    def late(self) -> bool:
        """It ought to listen, and can't yet."""
        return self._wanted and not self.listening

    def serve(self, wanted: bool) -> None:
        """Listen, or refuse who connects."""
        self._wanted = wanted
        if wanted and not self.listening:
            self._begin()
        elif not wanted and self.listening:
            self.listening = False
            self._stop_waiting()
            # On Linux this ends the listening alone: a port that was asked for by number stays bound.
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._wanted = self.listening = False
        self._stop_waiting()
        self._socket.close()

    def _stop_waiting(self) -> None:
        self._loop.remove_reader(self._socket)
        if self._again is not None:
            self._again.cancel()
            self._again = None

    def _begin(self) -> None:
        self._again = None
        if not self._wanted:
            return
        try:
            self._socket.listen(BACKLOG)
        except OSError:
            self._again = self._loop.call_later(AGAIN_S, self._begin)
            return
        self.listening = True
        self._loop.add_reader(self._socket, self._ready)

    def _ready(self) -> None:
        for _ in range(AT_ONCE):
            try:
                accepted, _ = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                # Out of descriptors: those who wait are served when some are free, and the loop isn't kept busy.
                self._loop.remove_reader(self._socket)
                self._again = self._loop.call_later(AGAIN_S, self._begin)
                return
            self._accept(accepted)
