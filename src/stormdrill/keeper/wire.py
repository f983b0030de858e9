"""Messages between runner and keeper: one JSON object a line over a socket pair, never blocking the keeper."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping

BACKLOG_BYTES = 4_000_000
"""A runner that reads nothing for so long is frozen: pushes to it are dropped, the journal has them all."""


def encode(message: Mapping[str, object]) -> bytes:
    """Raises ValueError for what JSON cannot say (NaN, infinity)."""
    return json.dumps(message, allow_nan=False, separators=(",", ":")).encode() + b"\n"


class Lines:
    """Cuts a stream of bytes into messages."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[dict[str, object]]:
        *whole, self._rest = (self._rest + data).split(b"\n")
        for line in whole:
            yield json.loads(line)


class Channel:
    """The keeper's end: non-blocking, with what could not be sent yet kept aside."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.open = True
        sock.setblocking(False)
        self._lines = Lines()
        self._unsent = bytearray()

    @property
    def wants_to_write(self) -> bool:
        return self.open and bool(self._unsent)

    def send(self, message: Mapping[str, object]) -> None:
        """Send now or as soon as there is room; dropped when the other end is gone or reads nothing."""
        if not self.open or len(self._unsent) > BACKLOG_BYTES:
            return
        self._unsent += encode(message)
        self.flush()

    def flush(self) -> None:
        while self._unsent and self.open:
            try:
                sent = self.sock.send(self._unsent)
            except BlockingIOError:
                return
            except OSError:
                self.open = False
                return
            del self._unsent[:sent]

    def receive(self) -> list[dict[str, object]] | None:
        """What has arrived; None at the end of the stream: the runner is gone."""
        try:
            data = self.sock.recv(1 << 20)
        except BlockingIOError:
            return []
        except OSError:
            return None
        return list(self._lines.feed(data)) if data else None
