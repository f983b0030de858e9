"""The runner's end of the control socket: listens on an abstract address, takes exactly the process that was started.

Not a pipe, because the generator is the keeper's child and not the runner's.
"""

from __future__ import annotations

import os
import secrets
import socket
import struct
import threading
import time
from collections.abc import Callable

import msgspec

from stormdrill.load.messages import FromGenerator, FromRunner, decode_from_generator, encode

_CREDENTIALS = struct.Struct("3i")


class GeneratorLine:
    """One conversation with one generator. Messages arrive in a thread; `send` may be called from any."""

    def __init__(self) -> None:
        self.name = f"stormdrill-{secrets.token_hex(16)}"
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind("\0" + self.name)
        self._listener.listen(4)
        self._connection: socket.socket | None = None
        self._thread: threading.Thread | None = None

    def accept(self, pid: int, until_s: float, alive: Callable[[], bool]) -> bool:
        """Wait until process `pid` has connected; False when it isn't `alive` or it is `until_s` (monotonic).

        Anybody on this machine can reach an abstract address: others, by the kernel's word, are hung up on.
        """
        while (remaining_s := until_s - time.monotonic()) > 0 and alive():
            self._listener.settimeout(min(remaining_s, 0.1))
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            peer, user, _group = _CREDENTIALS.unpack(credentials)
            if (peer, user) == (pid, os.getuid()):
                self._connection = connection
                self._listener.close()
                return True
            connection.close()
        return False

    def listen(self, heard: Callable[[FromGenerator], None], gone: Callable[[], None]) -> None:
        """Call `heard` for every message and `gone` once, in a thread of its own."""
        self._thread = threading.Thread(target=self._listen, args=(heard, gone), name="generator-line", daemon=True)
        self._thread.start()

    def send(self, message: FromRunner) -> bool:
        """False when the generator is gone."""
        if self._connection is None:
            return False
        try:
            self._connection.sendall(encode(message))
        except OSError:
            return False
        return True

    def close(self) -> None:
        """The generator takes this as its end."""
        self._listener.close()
        if self._connection is not None:
            try:
                self._connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                self._connection.close()
                return
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(1.0)
        if self._connection is not None:
            self._connection.close()

    def _listen(self, heard: Callable[[FromGenerator], None], gone: Callable[[], None]) -> None:
        assert self._connection is not None
        try:
            with self._connection.makefile("rb") as lines:
                for line in lines:
                    heard(decode_from_generator(line))
        except (OSError, msgspec.MsgspecError):
            # Cut in the middle of a message: it died while it spoke, and that is all there is to know.
            pass
        gone()
